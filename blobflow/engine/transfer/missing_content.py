"""Missing content: a registry that refuses a manifest and names what it lacks gets that, in the same run.

A survey may be told that content is there which is not: by a cache, by a mount that did nothing, by a
registry that lost it or is inconsistent. The registry that refuses a manifest says what it lacks
(MANIFEST_BLOB_UNKNOWN, with digests). Then blobs are copied and children put, whatever the survey found, and
the manifest is put again; over all manifests of a run, each piece of content goes to each site once.

Only content that is wanted there is sent: of a sparse index the children that were not chosen stay absent,
and the refusal stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

from blobflow.content import Site, SourceAt
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.plan.steps import Copy, Put, Step
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.transfer.admission import StepPermits
from blobflow.errors import BlobflowError, Rejected
from blobflow.events import Observer, Warned
from blobflow.oci import Descriptor, Digest, Manifest, parse_manifest

# Where content of a plan can be read that the run itself has not read, or need not.
SitesOf = Mapping[Digest, tuple[Site, ...]]
# Puts a manifest's bytes at a site, under tags or under its digest alone.
PutBytes = Callable[[Site, Descriptor, tuple[str, ...], StepPermits | None], Awaitable[None]]
# Whether a child of a manifest should be where its parent is.
Wanted = Callable[[Digest], bool]
_NOWHERE: tuple[Site, ...] = ()


class MissingContent:
    """Sends the targets of one transfer the content that they report missing.

    `made`: manifests that no source has; manifests that are read here are added. `origins`: where content can
    be read that is not in the graph. `put` and `copy` make one attempt each, and their callers retry;
    `brought` is called with each piece of content that is there now.
    """

    def __init__(
        self,
        graph: Graph,
        made: MutableMapping[Digest, Manifest],
        origins: SitesOf,
        *,
        source_at: SourceAt,
        manifest_budget: ManifestBudget,
        steps: Callable[[], Iterable[Step]],
        put: PutBytes,
        copy: Callable[[Copy], Awaitable[None]],
        brought: Callable[[Step], None],
        observe: Observer,
    ) -> None:
        self._graph = graph
        self._made = made
        self._origins = origins
        self._source_at = source_at
        self._manifest_budget = manifest_budget
        self._steps = steps
        self._put = put
        self._copy = copy
        self._told_of = brought
        self._observe = observe
        self._mentions: dict[tuple[Site, Digest], tuple[Descriptor, Wanted]] = {}
        self._warned: set[str] = set()
        self._found_at: dict[Digest, tuple[Site, ...]] = {}
        self._brought = AsyncMemo(self._bring)

    async def put(self, step: Put, manifest: Descriptor, permits: StepPermits) -> None:
        """Put the step's manifest, or its fallback, and whatever the target reports missing: before that is
        looked for, the step's permits are released.

        Raises what putting raises, and what copying the missing content raises.
        """
        wanted = self._chosen(step, manifest)
        await self._put_whole(step.target, manifest, step.tags, wanted, permits)

    async def _put_whole(
        self,
        site: Site,
        manifest: Descriptor,
        tags: tuple[str, ...],
        wanted: Wanted,
        permits: StepPermits | None = None,
    ) -> None:
        brought: set[Digest] = set()
        while True:
            try:
                await self._put(site, manifest, tags, permits)
                return
            except Rejected as error:
                if permits is not None:
                    permits.release()
                lacked = {Digest(each) for each in error.missing if each != manifest.digest}
                found = await self._find(manifest, lacked, wanted)
                if not lacked - brought or found is None:
                    if lacked and lacked <= brought:
                        error.message += "; that was brought just now, and it still does not find it"
                    elif self._leaves_out(manifest, lacked):
                        error.message += (
                            "; foreign layers are left out; --foreign-layers brings those that the source has"
                        )
                    raise
                refusal = error
            fresh = [found[digest] for digest in sorted(lacked - brought)]
            if site.registry not in self._warned:
                self._warned.add(site.registry)
                self._observe(
                    Warned(
                        f"{refusal.message}; it was taken to have that, and gets it now, and so it is with"
                        " whatever else it names"
                    )
                )
            for each in fresh:
                self._mentions[site, each.digest] = each, wanted
                await self._brought.get((site, each.digest))
            brought |= lacked

    def _leaves_out(self, manifest: Descriptor, lacked: set[Digest]) -> bool:
        """Whether a manifest's foreign layers, which are not carried, are among what its target lacks."""
        parent = self._manifest(manifest.digest)
        return parent is not None and any(
            layer.digest in lacked and layer.digest not in parent.carried for layer in parent.foreign
        )

    async def _bring(self, key: tuple[Site, Digest]) -> None:
        site, digest = key
        content, wanted = self._mentions[key]
        step: Put | Copy
        if (manifest := self._manifest(digest)) is not None:
            step = Put(manifest.descriptor, site)
            await self._put_whole(site, manifest.descriptor, (), wanted)
        else:
            step = Copy(content, min(self._sites(digest)), site)
            await self._copy(step)
        self._told_of(step)

    async def _find(
        self, manifest: Descriptor, lacked: set[Digest], wanted: Wanted
    ) -> dict[Digest, Descriptor] | None:
        """The descriptors of the missing content below a manifest; None if some of it can't be sent, or is
        not wanted."""
        found: dict[Digest, Descriptor] = {}
        level, met = [manifest.digest], {manifest.digest}
        while level and len(found) < len(lacked):
            parent = self._manifest(level.pop())
            if parent is None:
                continue
            where = self._sites(parent.descriptor.digest)
            for blob in parent.blobs:
                if where:
                    self._found_at.setdefault(blob.digest, where)
                if blob.digest in lacked and self._sites(blob.digest):
                    found[blob.digest] = blob
            for child in parent.manifests:
                if child.digest in met or not wanted(child.digest):
                    continue
                met.add(child.digest)
                if child.digest in lacked and await self._is_readable(child, parent):
                    found[child.digest] = child
                level.append(child.digest)
        return found if found.keys() == lacked else None

    async def _is_readable(self, child: Descriptor, parent: Manifest) -> bool:
        """Whether a manifest's bytes are at hand. If the target had it when a plan was saved, they are read
        now, from its origin or from where its parent is."""
        if self._manifest(child.digest) is not None:
            return True
        for site in self._origins.get(child.digest) or self._sites(parent.descriptor.digest):
            try:
                async with self._manifest_budget.moving(site.registry, child):
                    raw = await self._source_at(site).read(child)
                    self._made[child.digest] = parse_manifest(raw, child.media_type, digest=child.digest)
            except BlobflowError:
                continue  # then it can't be sent, and the refusal is reported
            self._found_at[child.digest] = (site,)
            return True
        return False

    def _manifest(self, digest: Digest) -> Manifest | None:
        return self._made.get(digest) or self._graph.manifests.get(digest)

    def _sites(self, content: Digest) -> tuple[Site, ...]:
        here = self._graph.origins.get(content) or self._origins.get(content)
        return here or self._found_at.get(content, _NOWHERE)

    def _chosen(self, step: Put, manifest: Descriptor) -> Wanted:
        """A predicate for the children of a step's manifest that are wanted at its target."""
        if not step.sparse or (step.fallback is not None and manifest.digest == step.fallback.digest):
            return lambda digest: True
        pruned = self._manifest(step.fallback.digest) if step.fallback is not None else None
        listed = {child.digest for child in pruned.manifests} if pruned is not None else set()

        def chosen(digest: Digest) -> bool:
            return digest in listed or any(
                isinstance(each, Put) and each.target == step.target and each.manifest.digest == digest
                for each in self._steps()
            )

        return chosen
