"""Referrers: finds the signatures, SBOMs and attestations of images at their sources.

It looks up the referrers of each wanted manifest, and then theirs, since a signature may be signed in turn.
The referrers are read into the graph like all manifests. A list is only a hint: a referrer names its subject
itself, in its `subject` field.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from blobflow.content import Referrer, Refers, RefersAtHand, Site, Source, SourceAt
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.pairs import site_of
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.errors import BlobflowError, NotFound, UnsupportedContent, error_side
from blobflow.oci import Descriptor, Digest, Manifest, Reference, digest_of, parse_manifest
from blobflow.oci.platform_choice import without_platform

# Referrers of referrers. A signed SBOM makes two levels, a counter-signature three.
MAX_DEPTH = 4


# A manifest at one source.
ManifestAt = tuple[Site, Digest]


class ReferrerLookups:
    """The referrers that sources list for their manifests: asked for once, and remembered with the errors.

    `look_ahead` may be called while the manifests are read: it is another request, so it costs no time.
    """

    def __init__(self, source_at: SourceAt) -> None:
        self._source_at = source_at
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
            error.message += f" (looking for what refers to {subject})"
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

    def hanging(
        self,
        site: Site,
        digests: Iterable[Digest],
        refused: Callable[[Sequence[Manifest]], str] = lambda closure: "",
    ) -> tuple[list[tuple[Referrer, tuple[Manifest, ...]]], list[SkippedReferrer]]:
        """What hangs on these manifests of a site and on all that does, each with all its manifests, subjects
        first; and what was left: strangers, what can't be read, and what is `refused` for a reason."""
        hanging: dict[tuple[Digest, Digest, str], tuple[Referrer, tuple[Manifest, ...]]] = {}
        left: list[SkippedReferrer] = []
        waiting = deque(digests)
        met = set(waiting)
        while waiting:
            place = (site, waiting.popleft())
            left += self.strangers.get(place, ())
            for referrer in self.referrers.get(place, ()):
                digest = referrer.manifest.digest
                error = self.unreadable.get((site, digest))
                closure = () if error is not None else tuple(self.graph.closure(digest))
                because = error.message if error is not None else refused(closure)
                if because:
                    left.append(SkippedReferrer(referrer, because))
                    continue
                hanging[digest, place[1], referrer.tag] = (referrer, closure)
                fresh = [each.descriptor.digest for each in closure if each.descriptor.digest not in met]
                met.update(fresh)
                waiting.extend(fresh)
        return [*hanging.values()], left


async def find_referrers(
    places: Iterable[ManifestAt],
    graph: Graph,
    source_at: SourceAt,
    runner: BoundedRunner,
    lookups: ReferrerLookups,
    reader: GraphReader,
    advice: str = "; --referrers off does without",
) -> FoundReferrers:
    """Find the referrers of these manifests, and theirs in turn, and read them. `advice`: what errors say
    that can be done about them."""
    search = _Search(graph, source_at, runner, lookups, reader, advice)
    level = sorted(set(places))
    for _ in range(MAX_DEPTH):
        if level:
            level = await search.look(level)
    return FoundReferrers(
        search.graph, search.referrers, search.strangers, search.unreadable, search.failures
    )


def listed_below(
    referrers: Mapping[ManifestAt, Sequence[Referrer]],
    places: Iterable[ManifestAt],
    but: Collection[Digest] = (),
) -> list[Referrer]:
    """What is listed for these manifests, and for what is, each once, subjects first; without some manifests,
    and what is listed for those."""
    waiting = deque(places)
    met = set(waiting)
    found: dict[tuple[Digest, Digest, str], Referrer] = {}
    while waiting:
        site, subject = waiting.popleft()
        for each in referrers.get((site, subject), ()):
            if each.manifest.digest in but:
                continue
            found.setdefault((each.manifest.digest, subject, each.tag), each)
            if (place := (site, each.manifest.digest)) not in met:
                met.add(place)
                waiting.append(place)
    return [*found.values()]


class ListedReferrers(msgspec.Struct, frozen=True):
    """What sources list as referrers of manifests, unread. `failures`: manifests of which they could not
    say."""

    referrers: dict[ManifestAt, list[Referrer]]
    failures: dict[ManifestAt, BlobflowError]

    def below(self, places: Iterable[ManifestAt]) -> list[Referrer]:
        """What is listed for these manifests, and for what is, each once, subjects first."""
        return listed_below(self.referrers, places)


async def list_referrers(
    places: Iterable[ManifestAt], runner: BoundedRunner, lookups: ReferrerLookups
) -> ListedReferrers:
    """List the referrers of these manifests, and theirs in turn, without reading them."""
    referrers: dict[ManifestAt, list[Referrer]] = {}
    failures: dict[ManifestAt, BlobflowError] = {}

    async def ask(place: ManifestAt) -> None:
        try:
            referrers[place] = await lookups.lookup(place)
        except BlobflowError as error:
            referrers[place] = []
            failures[place] = error

    level = sorted(set(places))
    for _ in range(MAX_DEPTH):
        await runner.for_each(ask, level)
        further = {(site, each.manifest.digest) for site, digest in level for each in referrers[site, digest]}
        level = sorted(further - referrers.keys())
    return ListedReferrers(referrers, failures)


class _Search:
    def __init__(
        self,
        graph: Graph,
        source_at: SourceAt,
        runner: BoundedRunner,
        lookups: ReferrerLookups,
        reader: GraphReader,
        advice: str,
    ) -> None:
        self._source_at = source_at
        self._runner = runner
        self._lookups = lookups
        self._reader = reader
        self._advice = advice
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
            error.message += self._advice
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
        failures = read.failures
        if belied := self._belied(roots, failures):
            read = await read_graph(belied, self._source_at, self._runner, reader=self._reader)
            failures = {reference: failures[reference] for reference in failures.keys() - belied.keys()}
            failures |= read.failures
        self.graph = msgspec.structs.replace(read.graph, roots=self.graph.roots)
        for reference, error in sorted(failures.items()):
            place = (site_of(reference), roots[reference].digest)
            self.unreadable[place] = error
            if not isinstance(error, NotFound | UnsupportedContent):
                self.failures[place] = error

    def _belied(
        self, roots: Mapping[Reference, Descriptor], failures: Collection[Reference]
    ) -> dict[Reference, Descriptor]:
        """Those that were read and failed, of which a list told another size or media type, as they are."""
        held = {each: self._reader.manifests.get(roots[each].digest) for each in failures}
        return {
            each: manifest.descriptor
            for each, manifest in held.items()
            if manifest is not None
            and (roots[each].size, roots[each].media_type)
            != (manifest.descriptor.size, manifest.descriptor.media_type)
        }


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


async def referrers_at_hand(source: Source, root: Descriptor) -> str:
    """A hash over all that files list as referring to an image, to what is below it, and to that in turn.

    "" for nothing, for a source whose answers cost requests, and for lists that can't be read: the run that
    wants those says so.
    """
    if not isinstance(source, RefersAtHand):
        return ""
    try:
        found = sorted(await _listed_below(source, root, source)) if await source.has_referrers() else ()
    except BlobflowError:
        return ""
    return digest_of(repr(found).encode()) if found else ""


async def _listed_below(source: Source, root: Descriptor, lists: Refers) -> set[tuple[Digest, Digest, str]]:
    """Subject, referrer and tag of all that is listed below a root, whether it can be read or not."""
    found: set[tuple[Digest, Digest, str]] = set()
    waiting, met = [root], {root.digest}
    while waiting:
        manifest = waiting.pop()
        listed = await lists.referrers(manifest.digest)
        found.update((manifest.digest, each.manifest.digest, each.tag) for each in listed)
        below = [each.manifest for each in listed]
        with suppress(BlobflowError):  # of an index some may be elsewhere
            raw = await source.read(manifest)
            below += parse_manifest(raw, manifest.media_type, digest=manifest.digest).manifests
        waiting += (each for each in below if each.digest not in met)
        met.update(each.digest for each in below)
    return found
