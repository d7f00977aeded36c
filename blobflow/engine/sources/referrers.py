"""Referrers: finds the signatures, SBOMs and attestations of images at their sources.

It looks up the referrers of each wanted manifest, and then theirs, since a signature may be signed in turn.
The referrers are read into the graph like all manifests. A list is only a hint: a referrer names its subject
itself, in its `subject` field.
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
    """The referrers that sources list for their manifests: asked for once, and remembered with the errors.

    `look_ahead` may be called while the manifests are read: it is another request, so it costs no time.
    """

    def __init__(self, source_at: SourceAt, *, advice: str = "; --referrers off does without") -> None:
        """`advice`: what errors say that can be done about them."""
        self._source_at = source_at
        self._advice = advice
        self._found = AsyncMemo(self._ask)

    async def look_ahead(self, places: Iterable[ManifestAt], runner: BoundedRunner) -> None:
        """Ask ahead for the referrers of these. Raises nothing that `lookup` will raise."""
        await runner.for_each(self._found.prefetch, sorted(set(places)))

    async def lookup(self, place: ManifestAt) -> list[Referrer]:
        """The referrers that are listed for a manifest, in a fixed order. Raises what the source raises."""
        return await self._found.get(place)

    async def _ask(self, place: ManifestAt) -> list[Referrer]:
        site, subject = place
        source = self._source_at(site)
        try:
            with error_side("source"):
                found = await source.referrers(subject) if isinstance(source, Refers) else []
        except BlobflowError as error:
            error.message += f" (looking for what refers to {subject}{self._advice})"
            raise
        # The other fields of a list may be of any length, and the referrers themselves are read anyway.
        lean = [msgspec.structs.replace(each, manifest=without_platform(each.manifest)) for each in found]
        return sorted(lean, key=lambda each: (each.manifest.digest, each.tag))


class FoundReferrers(msgspec.Struct, frozen=True):
    """The referrers of manifests of the sources. `strangers`: listed ones that refer to something else;
    `unreadable`: listed ones that can't be read; `failures`: manifests whose referrers could not be looked
    up."""

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
    lookups: ReferrerLookups,
    reader: GraphReader,
) -> FoundReferrers:
    """Find the referrers of these manifests, and theirs in turn, and read them."""
    search = _Search(graph, source_at, runner, lookups, reader)
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
        lookups: ReferrerLookups,
        reader: GraphReader,
    ) -> None:
        self._source_at = source_at
        self._runner = runner
        self._lookups = lookups
        self._reader = reader
        self.graph = graph
        self.referrers: dict[ManifestAt, list[Referrer]] = {}
        self.strangers: dict[ManifestAt, list[SkippedReferrer]] = {}
        self.unreadable: dict[ManifestAt, BlobflowError] = {}
        self.failures: dict[ManifestAt, BlobflowError] = {}

    async def look(self, level: Sequence[ManifestAt]) -> list[ManifestAt]:
        """Look up the referrers of one level, and read them. Returns the next level."""
        await self._runner.for_each(self._ask, level)
        # Also those that the graph has: others may be reading only now what is below them.
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
            self.referrers[place] = await self._lookups.lookup(place)
        except BlobflowError as error:
            self.referrers[place] = []
            self.failures[place] = error

    def _sort_out(self, place: ManifestAt) -> None:
        """Keep those of a manifest's listed referrers whose `subject` names it."""
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
        """Read referrers into the graph. One that is gone, or is no known kind of manifest, is unreadable;
        any other error is a failure."""
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
    """Why a listed manifest does not refer to the one that it is listed for, as a clause; "" where it does.

    `subject` is its own. The digest alone decides. cosign's tags are names that only cosign gives, and its
    manifests there have no subject: signatures name theirs in their payload, which their verifier reads.
    """
    if subject is None:
        return "" if referrer.how == "cosign" else "it is listed, and has no subject itself"
    return "" if subject.digest == referrer.subject else f"its subject is another manifest, {subject.digest}"


def _pinned(site: Site, digest: Digest) -> Reference:
    return Reference(site.registry, site.repository, digest=digest)


class SkippedReferrer(msgspec.Struct, frozen=True):
    """A referrer that is not mirrored; `because` is a clause."""

    referrer: Referrer
    because: str
