"""Verification: ask the targets whether they have what they should, after a run or on its own.

    roots    the tag names the root: one small request an image; and what refers to the image, where that is
             asked for, is listed and there
    blobs    and all content below it exists: manifests are read and parsed, blobs are asked for
    content  and every blob is read back whole and hashed: once a registry where several repositories have the
             same blob, for there it is one file

The target's answers are believed; the source only says which root it should be, and where platforms were
chosen, which images have to be below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from blobflow.content import SinkAt, SourceAt, Verifier
from blobflow.engine.blob_readers import can_be_read
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import AttachedReferrer, build_desired_image
from blobflow.engine.policy import VerifyLevel
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.sources.reader import read_graph
from blobflow.engine.targets.referrer_verification import TargetReferrers
from blobflow.errors import BlobflowError, DigestMismatch, NotFound, error_side, own_copy
from blobflow.events import PhaseCount
from blobflow.oci import Descriptor, Digest, Manifest, Reference
from blobflow.oci.platform_choice import certain


class Verification:
    """One verification; `read_at_once` bounds the blobs that are read back at the same time. `count`: how far
    it is."""

    def __init__(
        self,
        source_at: SourceAt,
        sink_at: SinkAt,
        runner: BoundedRunner,
        *,
        read_at_once: int,
        manifest_budget: ManifestBudget | None = None,
        count: PhaseCount | None = None,
    ) -> None:
        self._source_at = source_at
        self._sink_at = sink_at
        self._runner = runner
        self._count = count
        self._manifest_budget = manifest_budget or ManifestBudget()
        self._reads = asyncio.Semaphore(read_at_once)
        self._referrers = TargetReferrers(sink_at, source_at)
        self._read_back: dict[tuple[str, Digest], asyncio.Task[None]] = {}

    async def check(
        self,
        roots: Mapping[Pair, Descriptor],
        level: VerifyLevel,
        images: Mapping[Pair, frozenset[Digest]] = {},
        attached: Mapping[Pair, Sequence[AttachedReferrer]] = {},
    ) -> dict[Pair, BlobflowError]:
        """Check every pair's target against its root. Returns what is wrong, by pair; the others are right.

        `images`: the image manifests that have to be there, where that is known: of an index of which the
        source had a part, that part. Else those are required that an index lists for the chosen platforms;
        those whose platform no index names are checked if they are there. `attached`: what has to be found at
        the target as what refers to the image.
        """
        wrong: dict[Pair, BlobflowError] = {}

        async def check(pair: Pair) -> None:
            try:
                with error_side("target"):
                    await self._check(pair, roots[pair], level, images.get(pair, frozenset()))
                    await self._check_referrers(pair, attached.get(pair, ()), level)
            except BlobflowError as error:
                wrong[pair] = error

        await self._runner.for_each(check, sorted(roots), count=self._count)
        return wrong

    async def _check(
        self, pair: Pair, root: Descriptor, level: VerifyLevel, images: frozenset[Digest]
    ) -> None:
        target = pair.target
        found = await self._named(target, root)
        if found.digest != root.digest:
            raise DigestMismatch(str(target), expected=root.digest, actual=found.digest)
        if level == "roots":
            return
        pinned = Reference(target.host, target.repository, digest=root.digest)
        # What is there of a sparse index is what was chosen; of one that was pruned, all that it lists.
        read = await read_graph(
            {pinned: root},
            self._source_at,
            self._runner,
            choices={pinned: [pair.choice]},
            manifest_budget=self._manifest_budget,
            sparse=True,
        )
        for error in read.failures.values():
            error.side = "target"
            raise error
        below = read.graph.closure(root.digest)
        wanted = images or frozenset[Digest]().union(*(certain(each, pair.choice) for each in below))
        for digest in sorted(wanted - read.graph.manifests.keys()):
            raise NotFound(f"{site_of(target)} has no manifest {digest}, which was chosen of {root.digest}")
        for manifest in build_desired_image(read.graph, root, pair.choice, prune=False).manifests:
            for blob in manifest.blobs:
                await self._check_blob(pair, manifest, blob, level)

    async def _check_referrers(
        self, pair: Pair, attached: Sequence[AttachedReferrer], level: VerifyLevel
    ) -> None:
        site = site_of(pair.target)
        for each in attached:
            await self._referrers.check(site, each)
            for manifest in each.manifests if level != "roots" else ():
                await self._source_at(site).read(manifest.descriptor)
                for blob in manifest.blobs:
                    await self._check_blob(pair, manifest, blob, level)

    async def _named(self, target: Reference, root: Descriptor) -> Descriptor:
        """The manifest that the target's name names. If it names nothing, it is asked again the way that a
        source is, past caches: a cache may still have the answer from before it was put."""
        site, name = site_of(target), target.tag or root.digest
        try:
            return await self._sink_at(site).resolve(name)
        except NotFound:
            return await self._source_at(site).resolve(name)

    async def _check_blob(self, pair: Pair, manifest: Manifest, blob: Descriptor, level: VerifyLevel) -> None:
        site = site_of(pair.target)
        key = (site.registry, blob.digest)
        if level == "content" and key not in self._read_back:
            self._read_back[key] = asyncio.create_task(self._read(pair, blob))
            await self._was_read(key)
        elif not await self._sink_at(site).has(blob) and not await can_be_read(self._source_at(site), blob):
            raise NotFound(
                f"{site} has no blob {blob.digest}, which manifest {manifest.descriptor.digest} names"
            )
        elif key in self._read_back:
            await self._was_read(key)

    async def _was_read(self, key: tuple[str, Digest]) -> None:
        """Wait for the one reading of a blob. If it is cancelled, so are all that wait for it."""
        try:
            await self._read_back[key]
        except BlobflowError as error:
            raise own_copy(error) from error.__cause__

    async def _read(self, pair: Pair, blob: Descriptor) -> None:
        """Read a blob back. Others that want the same blob at this registry wait for this one's answer."""
        site = site_of(pair.target)
        verifier = Verifier(blob, f"blob {blob.digest} at {site}")
        async with self._reads, self._source_at(site).open(blob) as chunks:
            async for chunk in chunks:
                verifier.feed(chunk)
        verifier.finish()


async def moved_tags(
    resolved: Mapping[Reference, Descriptor],
    source_at: SourceAt,
    runner: BoundedRunner,
    moved: dict[Reference, Digest | None],
) -> None:
    """Ask sources again what their tags name; `moved` gets those that no longer name what they were
    `resolved` to, with what they name now (None: nothing).

    If another manifest was put, made of the one that was resolved, that is no move. A source that can't be
    asked any more is not known to have moved.
    """

    async def ask(reference: Reference) -> None:
        try:
            found = (await source_at(site_of(reference)).resolve(reference.tag)).digest
        except NotFound:
            moved[reference] = None
        except BlobflowError:
            return
        else:
            if found != resolved[reference].digest:
                moved[reference] = found

    await runner.for_each(ask, sorted(_by_tag(resolved)))


def _by_tag(references: Iterable[Reference]) -> list[Reference]:
    """The references that name a tag and no digest: a digest can't move."""
    return [reference for reference in references if reference.tag and not reference.digest]
