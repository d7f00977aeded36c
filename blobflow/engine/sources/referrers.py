"""Referrers: what refers to images, signatures, SBOMs and attestations, is looked up at their sources.

Each manifest that is wanted of an image is asked for, and then what was found, since a signature may be
signed for in turn. The referrers are read into the graph like everything else. A list is only a hint: what
refers to a manifest says so itself, in its `subject`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from blobflow.content import Referrer, Refers, Site, SourceAt
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.pairs import site_of
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.errors import BlobflowError, NotFound, UnsupportedContent, error_side
from blobflow.oci import Descriptor, Digest, Reference
from blobflow.oci.platform_choice import without_platform

# Referrers of referrers. A signed SBOM makes two levels, a counter-signature three.
MAX_DEPTH = 4


# A manifest at one source.
ManifestAt = tuple[Site, Digest]


class ReferrerLookups:
    """What sources say refers to manifests of theirs: asked for once, and remembered with what went wrong.

    `look_ahead` may be called while the manifests are read: it is another request, so it costs no time.
    """

    def __init__(self, source_at: SourceAt) -> None:
        self._source_at = source_at
        self._found = AsyncMemo(self._ask)

    async def look_ahead(self, places: Iterable[ManifestAt], runner: BoundedRunner) -> None:
        """Ask for what refers to these. Raises nothing that `of` will raise."""
        await runner.each(self._found.ahead, sorted(set(places)))

    async def of(self, place: ManifestAt) -> list[Referrer]:
        """What refers to a manifest, in a fixed order. Raises what the source answers."""
        return await self._found.of(place)

    async def _ask(self, place: ManifestAt) -> list[Referrer]:
        site, subject = place
        source = self._source_at(site)
        try:
            with error_side("source"):
                found = await source.referrers(subject) if isinstance(source, Refers) else []
        except BlobflowError as error:
            error.message += f" (looking for what refers to {subject}; --referrers off does without)"
            raise
        # What a list says of them besides is as long as its keeper likes, and they are read themselves.
        lean = [msgspec.structs.replace(each, manifest=without_platform(each.manifest)) for each in found]
        return sorted(lean, key=lambda each: (each.manifest.digest, each.tag))


class FoundReferrers(msgspec.Struct, frozen=True):
    """What refers to manifests of the sources. `strangers`: what is listed, and refers to something else;
    `unreadable`: referrers that are listed, and can't be had; `failures`: manifests for which it could not be
    found out."""

    graph: Graph
    referrers: dict[ManifestAt, list[Referrer]]
    strangers: dict[ManifestAt, list[SkippedReferrer]]
    unreadable: dict[ManifestAt, BlobflowError]
    failures: dict[ManifestAt, BlobflowError]


async def find_referrers(
    places: Iterable[ManifestAt],
    graph: Graph,
    source_at: SourceAt,
    runner: BoundedRunner,
    referrals: ReferrerLookups,
    reader: GraphReader,
) -> FoundReferrers:
    """Find what refers to these manifests, and to that, and read it."""
    search = _Search(graph, source_at, runner, referrals, reader)
    level = sorted(set(places))
    for _ in range(MAX_DEPTH):
        if level:
            level = await search.look(level)
    return FoundReferrers(
        search.graph, search.referrers, search.strangers, search.unreadable, search.failures
    )


class _Search:
    def __init__(
        self,
        graph: Graph,
        source_at: SourceAt,
        runner: BoundedRunner,
        referrals: ReferrerLookups,
        reader: GraphReader,
    ) -> None:
        self._source_at = source_at
        self._runner = runner
        self._referrals = referrals
        self._reader = reader
        self.graph = graph
        self.referrers: dict[ManifestAt, list[Referrer]] = {}
        self.strangers: dict[ManifestAt, list[SkippedReferrer]] = {}
        self.unreadable: dict[ManifestAt, BlobflowError] = {}
        self.failures: dict[ManifestAt, BlobflowError] = {}

    async def look(self, level: Sequence[ManifestAt]) -> list[ManifestAt]:
        """Ask for what refers to one level, and read it. Returns the next level."""
        await self._runner.each(self._ask, level)
        # Also those that the graph has: what is below them may be only now on its way, for others.
        roots = {
            _pinned(site, referrer.manifest.digest): referrer.manifest
            for site, digest in level
            for referrer in self.referrers.get((site, digest), ())
        }
        await self._read(roots)
        for place in level:
            self._sort_out(place)
        return sorted(
            {
                (site, manifest.descriptor.digest)
                for site, digest in level
                for referrer in self.referrers.get((site, digest), ())
                for manifest in self.graph.closure(referrer.manifest.digest)
                if (site, manifest.descriptor.digest) not in self.referrers
            }
        )

    async def _ask(self, place: ManifestAt) -> None:
        try:
            self.referrers[place] = await self._referrals.of(place)
        except BlobflowError as error:
            self.referrers[place] = []
            self.failures[place] = error

    def _sort_out(self, place: ManifestAt) -> None:
        """Keep of what is listed for a manifest what refers to it by its own word."""
        own, strangers = [], []
        for referrer in self.referrers.get(place, ()):
            manifest = self.graph.manifests.get(referrer.manifest.digest)
            because = _stranger(referrer, manifest.subject) if manifest is not None else ""
            if because:
                strangers.append(SkippedReferrer(referrer, because))
            else:
                own.append(referrer)
        self.referrers[place] = own
        self.strangers[place] = strangers

    async def _read(self, roots: Mapping[Reference, Descriptor]) -> None:
        """Read referrers into the graph. One that is gone, or is no manifest that we know, is unreadable; any
        other error is a failure."""
        if not roots:
            return
        read = await read_graph(roots, self._source_at, self._runner, reader=self._reader)
        self.graph = msgspec.structs.replace(read.graph, roots=self.graph.roots)
        for reference, error in read.failures.items():
            place = (site_of(reference), roots[reference].digest)
            self.unreadable[place] = error
            if not isinstance(error, NotFound | UnsupportedContent):
                self.failures[place] = error


def _stranger(referrer: Referrer, subject: Descriptor | None) -> str:
    """Why what is listed does not refer to the manifest that it is listed for, as a clause; "" where it does.

    `subject` is its own. The digest decides; size and media type say nothing that a digest does not. cosign's
    tags are names that only cosign gives, and what it keeps there has no subject: signatures name theirs in
    their payload, which who checks them has to read.
    """
    if subject is None:
        return "" if referrer.how == "cosign" else "it is listed, and has no subject itself"
    return "" if subject.digest == referrer.subject else f"its subject is another manifest, {subject.digest}"


def _pinned(site: Site, digest: Digest) -> Reference:
    return Reference(site.registry, site.repository, digest=digest)


class SkippedReferrer(msgspec.Struct, frozen=True):
    """A referrer that is left where it is; `because` is a clause."""

    referrer: Referrer
    because: str
