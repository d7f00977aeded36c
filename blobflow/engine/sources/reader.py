"""The graph reader: from roots (see `sources.roots`) to a graph of digests. Asks the sources only.

It reads closures level by level, so that before each level it is known how much there is to read.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec

from blobflow.content import Site, SourceAt
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.pairs import site_of
from blobflow.engine.sources.blobs_at_hand import BlobsAtHand
from blobflow.engine.sources.configs import find_platform, may_name_platform
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.sources.mentions import Origins, check_mention, find_wrong_sizes
from blobflow.engine.sources.pull_quota import AdmitReads, DescriptorAt, unlimited
from blobflow.errors import (
    BlobflowError,
    NotFound,
    RegistryError,
    UnsupportedContent,
    error_side,
    own_copy,
    without_frames,
)
from blobflow.events import Observer, PhaseCount, Warned, ignore
from blobflow.oci import Descriptor, Digest, Manifest, Platform, Reference, media
from blobflow.oci.local_reference import transport_of
from blobflow.oci.platform_choice import (
    EVERYTHING,
    PlatformChoice,
    attested_digest,
    candidates,
    declared_platform,
)

# Indexes inside indexes. The spec sets no limit; real ones have one level, attestation bundles two.
MAX_NESTING = 8


class GraphRead(msgspec.Struct, frozen=True):
    graph: Graph
    failures: dict[Reference, BlobflowError]


async def read_graph(
    roots: Mapping[Reference, Descriptor],
    source_at: SourceAt,
    runner: BoundedRunner,
    *,
    choices: Mapping[Reference, Collection[PlatformChoice]] = {},
    foreign: bool = False,
    sparse: bool = False,
    manifest_budget: ManifestBudget | None = None,
    reader: GraphReader | None = None,
) -> GraphRead:
    """Read the part of each root's closure that `choices` want (no choices: all of it), by digest.

    A manifest that several sources list is read once. A source whose closure can't be read whole is in
    `failures`, and the graph then leaves it out. Where an index does not tell what a child runs on, and that
    matters, the child's config is read too. `foreign`: foreign layers that the source itself holds become
    blobs like all others.
    A layout or archive may have an index and only some of its children, as `ctr images export` writes them:
    then the others are left out, unless none of the wanted ones is there.
    `sparse`: children that an index lists and its site does not have are left out, without a failure.
    `manifest_budget`: bounds the memory that the manifests of this and other graphs take together.

    `reader`: a reader that others use too, maybe at the same time; the graph then has what they read.
    """
    reader = reader or GraphReader(source_at, manifest_budget=manifest_budget)
    for reference, root in roots.items():
        reader.manifests.expect(site_of(reference), root.digest)
    walks: dict[PlatformChoice, _Walk] = {}
    for reference, root in sorted(roots.items()):
        for choice in choices.get(reference) or (EVERYTHING,):
            walks.setdefault(_reading(choice), _Walk(_reading(choice))).enter((site_of(reference), root))
    for _ in range(MAX_NESTING + 1):
        await reader.read([mention for walk in walks.values() for mention in walk.level], runner)
        for walk in walks.values():
            walk.go_down(reader)
    await reader.ask_configs([mention for walk in walks.values() for mention in walk.in_doubt], runner)
    if foreign:
        await reader.carry_foreign(runner)
    await reader.settle_sizes(runner)
    failures: dict[Reference, BlobflowError] = {}
    for reference, root in sorted(roots.items()):
        for choice in choices.get(reference) or (EVERYTHING,):
            error = walks[_reading(choice)].failure((site_of(reference), root), reader, sparse=sparse)
            if error is not None:
                failures.setdefault(reference, error)
    kept = {reference: root for reference, root in roots.items() if reference not in failures}
    return GraphRead(reader.graph(kept), failures)


def _reading(choice: PlatformChoice) -> PlatformChoice:
    """The choice as far as it affects what is read."""
    return PlatformChoice(choice.platforms, "only" if choice.index == "only" else "auto")


class _Walk:
    """A walk down through everything that one choice wants. `in_doubt`: images whose platform no parent
    names, where the choice depends on it."""

    def __init__(self, choice: PlatformChoice) -> None:
        self._choice = choice
        self._met: set[DescriptorAt] = set()
        self.level: list[DescriptorAt] = []
        self.in_doubt: list[DescriptorAt] = []

    def enter(self, mention: DescriptorAt) -> None:
        if mention not in self._met:
            self._met.add(mention)
            self.level.append(mention)

    def go_down(self, reader: GraphReader) -> None:
        """Go on from the level that was read to the next one."""
        above, self.level = self.level, []
        for site, descriptor in above:
            if (site, descriptor.digest) not in reader.errors:
                manifest = reader.manifests[descriptor.digest]
                untold = declared_platform(descriptor) is None and not attested_digest(descriptor)
                if self._choice.platforms and not manifest.is_index and untold:
                    self.in_doubt.append((site, descriptor))
                for child in candidates(manifest, self._choice):
                    self.enter((site, child))

    def failure(self, root: DescriptorAt, reader: GraphReader, *, sparse: bool) -> BlobflowError | None:
        """Why the wanted part of a root was not read whole; None if it was. `sparse`: content that is absent
        below the root is no failure."""
        site, todo = root[0], [root[1]]
        seen: set[Digest] = set()
        mentions: set[tuple[Digest, int, str]] = set()
        while todo:
            mention = todo.pop()
            digest = mention.digest
            if (said := (digest, mention.size, mention.media_type)) not in mentions:
                mentions.add(said)
                if (error := reader.contradicted(site, mention)) is not None:
                    return error
            if digest in seen:
                continue
            seen.add(digest)
            if (error := reader.errors.get((site, digest))) is not None:
                if digest == root[1].digest or not isinstance(error, NotFound):
                    return error
                if not sparse:
                    return _of_sparse(error)
                continue
            if not reader.walked(site, digest):
                return UnsupportedContent(
                    f"index {digest} in {site} is nested more than {MAX_NESTING} levels deep", side="source"
                )
            todo += reversed(self._wanted(site, reader.manifests[digest], reader))
        return None

    def _wanted(self, site: Site, index: Manifest, reader: GraphReader) -> Sequence[Descriptor]:
        """The children of an index that have to be read."""
        found = candidates(index, self._choice)
        here = [child for child in found if not reader.lacks(site, child)]
        return here if any(not attested_digest(child) for child in here) else found


def _of_sparse(error: NotFound) -> NotFound:
    """The error for a child that an index lists and its site does not have, with what to do about it."""
    own = own_copy(error)
    own.message += "; the index that lists it is sparse there: choose what is there with --platform"
    return own


def treated_as(manifest: Descriptor) -> str:
    """How a manifest is treated that is not of the media type it is listed as; the end of a sentence."""
    return f"by its content it is {manifest.media_type!r}, and is taken as that"


class GraphReader:
    """Reads manifests, each digest once, however many sites have it and however many readers want it."""

    def __init__(
        self,
        source_at: SourceAt,
        admit: AdmitReads = unlimited,
        manifest_budget: ManifestBudget | None = None,
        observe: Observer = ignore,
        count: PhaseCount | None = None,
    ) -> None:
        """`admit` is asked before a level is read; what it raises ends that reading. `observe` is told, once
        a manifest, of those that are not what they are called. `count`: how many were read."""
        self._source_at = source_at
        self._admit = admit
        self._observe = observe
        self._count = count
        self._belied: set[tuple[str, str, str]] = set()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._walked: set[tuple[Site, Digest]] = set()
        self._configs = AsyncMemo(self._read_config)
        self._foreign = AsyncMemo(self._holds_foreign)
        self.errors: dict[tuple[Site, Digest], BlobflowError] = {}
        self.manifests = (manifest_budget or ManifestBudget()).mapping()
        self.platforms: dict[Digest, Platform] = {}
        self.origins = Origins()
        self.blobs = BlobsAtHand()

    def graph(self, roots: Mapping[Reference, Descriptor]) -> Graph:
        """The graph as far as it was read, for these roots; it grows with what is read after."""
        return Graph(self.manifests, dict(roots), self.origins.settled(), self.platforms, self.blobs)

    async def read(self, level: Sequence[DescriptorAt], runner: BoundedRunner) -> None:
        """Read one level: each digest at the first site that names it, then, where that failed, at others.

        One level at a time is read from a host, so that its pull quota is shared out once.
        """
        async with AsyncExitStack() as turns:
            for host in sorted({site.registry for site, _ in level}):
                await turns.enter_async_context(self._turns[host])
            fresh = {mention[1].digest: mention for mention in reversed(level)}
            for digest, (site, _) in list(fresh.items()):
                if digest in self.manifests or (site, digest) in self._walked:
                    del fresh[digest]
            while fresh:
                admitted = await self._admit(list(reversed(fresh.values())))
                await runner.for_each(self._read, admitted, count=self._count)
                for _, descriptor in admitted:
                    del fresh[descriptor.digest]
            await runner.for_each(self._read, level)

    async def _read(self, mention: DescriptorAt) -> None:
        site, descriptor = mention
        digest = descriptor.digest
        if (site, digest) in self._walked:
            return
        self._walked.add((site, digest))
        try:
            if digest not in self.manifests:
                with error_side("source"):
                    await self.manifests.read(site, self._source_at(site), descriptor)
        except BlobflowError as error:
            self.errors[site, digest] = without_frames(error)
            return
        except BaseException:
            self._walked.discard((site, digest))
            raise
        self.origins.note(digest, site)
        for blob in self.manifests[digest].blobs:
            self.origins.note(blob.digest, site)

    async def carry_foreign(self, runner: BoundedRunner) -> None:
        """Include in manifests those foreign layers that a site which has the manifest holds itself."""
        asked = {
            (site, layer.digest): (site, layer)
            for digest, manifest in self.manifests.items()
            for layer in manifest.foreign
            for site in self.origins[digest]
        }
        await runner.for_each(self._look_for, [asked[key] for key in sorted(asked)])
        for digest, manifest in self.manifests.items():
            held = [layer.digest for layer in manifest.foreign if layer.digest in self.origins]
            if held:
                self.manifests[digest] = manifest.carrying(held)

    async def _look_for(self, mention: DescriptorAt) -> None:
        """Ask whether a site holds a foreign layer, and record the answer or the error."""
        site, layer = mention
        try:
            if await self._foreign.get(mention):
                self.origins.note(layer.digest, site)
        except BlobflowError as error:
            for digest, manifest in self.manifests.items():
                if layer in manifest.foreign:
                    self.errors.setdefault((site, digest), error)

    async def _holds_foreign(self, mention: DescriptorAt) -> bool:
        """Read a foreign layer's first byte from the site itself. A site that says no does not hold it."""
        site, layer = mention
        try:
            with error_side("source"):
                async with self._source_at(site).open(layer, 0, 1) as chunks:
                    return bool([len(chunk) async for chunk in chunks])
        except RegistryError as error:
            if error.retryable:
                raise
            return False

    def contradicted(self, site: Site, mention: Descriptor) -> BlobflowError | None:
        """Why a descriptor does not fit the manifest that was read under its digest, perhaps for another
        parent."""
        held = self.manifests.get(mention.digest)
        own = held.descriptor if held is not None else mention
        kinds = site.registry, mention.media_type, own.media_type
        if media.belied(mention.media_type, own.media_type) and kinds not in self._belied:
            self._belied.add(kinds)  # a registry that does it once does it always: a set may have thousands
            self._observe(
                Warned(
                    f"{site} calls {own.digest} {mention.media_type!r}; {treated_as(own)}, as whatever else"
                    f" is called so at {site.registry}"
                )
            )
        if held is None or (mention.size == own.size and mention.media_type == own.media_type):
            return None
        return check_mention(mention, held.descriptor, lambda: self.manifests.raw(mention.digest), str(site))

    async def settle_sizes(self, runner: BoundedRunner) -> None:
        """Where manifests differ in how large a blob is, fail those that a site proves wrong."""
        lies = await find_wrong_sizes(self.manifests, self.origins, self._source_at, runner)
        for key, error in lies.items():
            self.errors.setdefault(key, error)

    def lacks(self, site: Site, manifest: Descriptor) -> bool:
        """Whether a layout or archive has the manifest's parent without having the manifest."""
        return bool(transport_of(site.registry)) and isinstance(
            self.errors.get((site, manifest.digest)), NotFound
        )

    def walked(self, site: Site, digest: Digest) -> bool:
        """Whether that manifest was read, or tried to be read, at that site."""
        return (site, digest) in self._walked

    async def ask_configs(self, images: Iterable[DescriptorAt], runner: BoundedRunner) -> None:
        """Learn the platforms of images from their configs."""
        asked = {
            image.digest: (site, image) for site, image in images if (site, image.digest) not in self.errors
        }
        await runner.for_each(self._ask_config, [asked[digest] for digest in sorted(asked)])

    async def _ask_config(self, mention: DescriptorAt) -> None:
        site, image = mention
        try:
            await self._configs.get(mention)
        except BlobflowError as error:
            self.errors[site, image.digest] = without_frames(error)

    async def _read_config(self, mention: DescriptorAt) -> None:
        site, image = mention
        manifest = self.manifests[image.digest]
        assert manifest.config is not None, "an image has a config"
        if not may_name_platform(manifest):
            return
        async with self.manifests.manifest_budget.moving(site.registry, manifest.config):
            with error_side("source"):
                platform = await find_platform(self._source_at(site), manifest)
        if platform is not None:
            self.platforms[image.digest] = platform
