"""Composition: warming. Pull-through caches are made to fetch what their clients will ask for.

    pairs (image at its source → image at the edge)
      ─► resolve at the edge ─► read what is chosen of each image, through the edge
      ─► pull each blob through the edge, unless a glance shows that it is stored; the bytes are dropped
      ─► glance again, until what was pulled is stored or patience ends

Everything is asked of the edge alone, as its clients do, so the edge alone needs a way to the source. A blob
that several repositories of an edge share is pulled for one after the other: an edge that stores it once has
it for the second, and one that keeps repositories apart (distribution) fetches it for each.

`warm_cache` is the same for the store of this machine: what is chosen is read from the sources, and kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

import msgspec

from blobflow.content import Cache, Site, Sleep, SourceAt, Verifier
from blobflow.engine.bodies import source_body
from blobflow.engine.flow import LANE
from blobflow.engine.lane import Lane, together
from blobflow.engine.plan import Graph, Pair, site_of
from blobflow.engine.resolve import Resolved, read_graph, resolve_roots
from blobflow.engine.retry import Tries, delay_before_retry
from blobflow.engine.shape import choices_of, shape_pairs
from blobflow.environment import settings_for
from blobflow.errors import BlobflowError, NoSuchPlatform, StorageError
from blobflow.events import (
    ImageDone,
    Meter,
    Observer,
    PhaseStarted,
    Retrying,
    StepDone,
    StepFailed,
    StepStarted,
    ignore,
)
from blobflow.mirror import Settings, open_registries, opened, tidy
from blobflow.oci import Descriptor, Digest, Reference
from blobflow.oci.choice import Choice
from blobflow.transports.registry import Registries

# Seconds that an edge gets to store what went through it: a disk that is slow, and the second reading of the
# upstream that distribution 2.8.2 makes for it.
SETTLE = 30.0
# Seconds before the first look whether it has; then twice as long each time. Looking early costs: an edge
# that has not stored a blob yet begins to fetch it once more.
_FIRST_LOOK = 0.5

Status = Literal["warm", "cold", "failed", "skipped"]
Spot = tuple[Site, Digest]


class Warmth(msgspec.Struct, frozen=True):
    """What became of one image at one edge.

    `warm`: the edge has all of it; `cold`: it passed all of it on, and had not stored `cold` blobs by the
    end; `failed`: `error` says why; `skipped`: `reason` does. `blobs` and `bytes` of the image as it was
    chosen; `pulled` and `bytes_pulled` of those that were not there before, also if another image has them
    too.
    """

    image: str
    edge: str
    digest: str = ""
    status: Status = "failed"
    error: str = ""
    blobs: int = 0
    bytes: int = 0
    pulled: int = 0
    bytes_pulled: int = 0
    cold: int = 0
    reason: str = ""


class Found(msgspec.Struct, frozen=True):
    """What the images are: the manifests read, each pair's root and blobs, and what could not be read."""

    roots: dict[Pair, Descriptor]
    blobs: dict[Pair, tuple[Descriptor, ...]]
    failures: dict[Pair, BlobflowError]


async def warm(
    pairs: Sequence[Pair],
    settings: Settings | None = None,
    *,
    again: bool = False,
    settle: float = SETTLE,
    observer: Observer = ignore,
    meter: Meter | None = None,
    sleep: Sleep = asyncio.sleep,
) -> list[Warmth]:
    """Pull each pair's image through its target, a pull-through cache, and say of each what is warm.

    `again`: pull also what a glance shows as stored, for edges that answer a part of what they don't have.
    `settle`: seconds that an edge gets to store what was pulled. Failures are in what is returned. On cancel
    connections are closed; what the edges have by then stays there.
    """
    meter = meter or Meter()
    settings = settings_for(settings)
    async with open_registries(settings, observer, meter) as registries:
        observer(PhaseStarted("resolve", len(pairs)))
        found = await _find(pairs, lambda pair: pair.target, *_asked_of(registries))
        observer(PhaseStarted("warm", len(found.blobs)))
        attempts = Attempts(observer, meter, sleep)
        pulling = Pulling(registries, attempts, settings.concurrency, again=again)
        await pulling.pull(found.blobs)
        observer(PhaseStarted("verify", len(found.blobs)))
        await pulling.look(settle, sleep)
    told = [_warmth(pair, found, pulling) for pair in pairs]
    _tell(told, observer)
    return told


Resolve = Callable[[set[Reference]], Awaitable[Resolved]]


def _asked_of(registries: Registries) -> tuple[SourceAt, Resolve]:
    """How edges are asked: each itself, and for a tag by GET. To many caches a HEAD is no pull, and what was
    only asked for by digest has no tag there once the source is gone."""

    async def resolve(references: set[Reference]) -> Resolved:
        roots: dict[Reference, Descriptor] = {}
        failures: dict[Reference, BlobflowError] = {}

        async def ask(reference: Reference) -> None:
            try:
                manifest = await registries.repository(site_of(reference)).fetch(reference.name)
                roots[reference] = manifest.descriptor
            except BlobflowError as error:
                failures[reference] = error

        await Lane(LANE).each(ask, sorted(references))
        return Resolved(roots, failures)

    return registries.repository, resolve


async def _find(
    pairs: Sequence[Pair], end: Callable[[Pair], Reference], source_at: SourceAt, resolve: Resolve
) -> Found:
    """Read what each pair chooses of the image at one of its ends."""
    lane = Lane(LANE)
    resolved = await resolve({end(pair) for pair in pairs})
    there = [pair for pair in pairs if end(pair) in resolved.roots]
    as_read = {
        pair: Pair(
            end(pair),
            end(pair),
            Choice(pair.choice.platforms),
            missing_platform=pair.missing_platform,
        )
        for pair in there
    }
    graph = await read_graph(resolved.roots, source_at, lane, choices=choices_of(as_read.values()))
    failures = {pair: resolved.failures[end(pair)] for pair in pairs if end(pair) in resolved.failures}
    failures |= {pair: graph.failures[end(pair)] for pair in there if end(pair) in graph.failures}
    for error in failures.values():
        error.side = None  # an edge is neither side, and its host is named
    whole = {pair: read for pair, read in as_read.items() if pair not in failures}
    blobs, more = _blobs_of(whole, graph.graph)
    return Found({pair: resolved.roots[end(pair)] for pair in there}, blobs, failures | more)


def _blobs_of(
    pairs: Mapping[Pair, Pair], graph: Graph
) -> tuple[dict[Pair, tuple[Descriptor, ...]], dict[Pair, BlobflowError]]:
    """The blobs that each pair chooses, each once; and the pairs that choose what is not there."""
    shapes = shape_pairs(pairs.values(), graph, {})
    blobs: dict[Pair, tuple[Descriptor, ...]] = {}
    for pair, read in pairs.items():
        if read in shapes.of:
            named = (blob for manifest in shapes.of[read].manifests for blob in manifest.blobs)
            blobs[pair] = tuple({blob.digest: blob for blob in named}.values())
    without = {**shapes.failures, **shapes.skipped}
    return blobs, {pair: without[read] for pair, read in pairs.items() if read in without}


def _without(pair: Pair, image: Reference, edge: str, digest: str, error: BlobflowError) -> Warmth:
    """An image of which nothing can be brought, or is to be."""
    if isinstance(error, NoSuchPlatform) and pair.missing_platform == "skip":
        return Warmth(str(image), edge, digest, "skipped", reason=error.message)
    return Warmth(str(image), edge, digest, error=str(error))


def _warmth(pair: Pair, found: Found, pulling: Pulling) -> Warmth:
    image, edge = str(pair.target), pair.target.host
    root = found.roots.get(pair)
    digest = root.digest if root else ""
    if (error := found.failures.get(pair)) is not None:
        return _without(pair, pair.target, edge, digest, error)
    site, blobs = site_of(pair.target), found.blobs[pair]
    spots = [(site, blob.digest) for blob in blobs]
    wrong = next((pulling.failures[spot] for spot in spots if spot in pulling.failures), None)
    cold = sum(spot in pulling.cold for spot in spots)
    pulled = [blob for blob, spot in zip(blobs, spots, strict=True) if spot in pulling.pulled]
    return Warmth(
        image,
        edge,
        digest,
        status="failed" if wrong else "cold" if cold else "warm",
        error=str(wrong) if wrong else "",
        blobs=len(blobs),
        bytes=sum(blob.size for blob in blobs),
        pulled=len(pulled),
        bytes_pulled=sum(blob.size for blob in pulled),
        cold=cold,
    )


def _tell(told: Iterable[Warmth], observer: Observer) -> None:
    told = list(told)
    for number, each in enumerate(told, start=1):
        done = ImageDone(each.image, each.image, each.digest, each.status, each.error, number, len(told))
        observer(msgspec.structs.replace(done, reason=each.reason))


Count = Callable[[int], None]


class Attempts:
    """Blobs under way: told to the observer, and tried again where that may help. `sleep` takes seconds."""

    def __init__(self, observer: Observer, meter: Meter, sleep: Sleep) -> None:
        self._observe = observer
        self._active = meter.active
        self._sleep = sleep
        self._steps = 0

    async def bring(
        self, blob: Descriptor, where: str, once: Callable[[Count], Awaitable[None]]
    ) -> BlobflowError | None:
        """Do `once`, which counts the bytes that pass, until it succeeds or nothing helps: why not, then.

        Raises StorageError: that is not about this blob alone.
        """
        self._steps += 1
        step = self._steps
        self._observe(StepStarted(step, "copy", blob.digest, where, blob.size))
        try:
            await self._patiently(step, f"blob {blob.digest} of {where}", once)
        except StorageError:
            raise
        except BlobflowError as error:
            self._observe(StepFailed(step, "copy", blob.digest, where, str(error)))
            return error
        finally:
            self._active.pop(step, None)
        self._observe(StepDone(step, "copy", blob.digest, where, blob.size))
        return None

    async def _patiently(self, step: int, what: str, once: Callable[[Count], Awaitable[None]]) -> None:
        def count(size: int) -> None:
            self._active[step] += size

        tries = Tries()
        while True:
            self._active[step] = 0
            try:
                return await once(count)
            except BlobflowError as error:
                tries = tries.after(error)
                delay = delay_before_retry(error, tries, random.random)
                error.attempts = max(error.attempts, tries.made)
                if delay is None:
                    raise
                self._observe(Retrying(what, str(error), tries.made, delay))
            await self._sleep(delay)


class Pulling:
    """The pulling of one run. `pulled`: what was not stored before; `cold`: what is not stored yet."""

    def __init__(self, registries: Registries, attempts: Attempts, concurrency: int, *, again: bool) -> None:
        self.pulled: set[Spot] = set()
        self.cold: dict[Spot, Descriptor] = {}
        self.failures: dict[Spot, BlobflowError] = {}
        self._registries = registries
        self._attempts = attempts
        self._concurrency = concurrency
        self._again = again

    async def pull(self, wanted: Mapping[Pair, Iterable[Descriptor]]) -> None:
        """Have every edge fetch what it has not stored, so many blobs at once at each, the largest first."""
        edges: defaultdict[str, dict[Digest, dict[Site, Descriptor]]] = defaultdict(dict)
        for pair, blobs in wanted.items():
            site = site_of(pair.target)
            for blob in blobs:
                edges[site.registry].setdefault(blob.digest, {})[site] = blob

        async def of_edge(blobs: Iterable[dict[Site, Descriptor]]) -> None:
            largest = sorted(blobs, key=lambda at: -next(iter(at.values())).size)
            await Lane(self._concurrency).each(self._pull_everywhere, largest)

        await together(of_edge(blobs.values()) for blobs in edges.values())

    async def _pull_everywhere(self, at: Mapping[Site, Descriptor]) -> None:
        for site, blob in sorted(at.items()):
            once = partial(self._pull, site, blob)
            if (error := await self._attempts.bring(blob, str(site), once)) is not None:
                self.failures[site, blob.digest] = error
                self.cold.pop((site, blob.digest), None)

    async def _pull(self, site: Site, blob: Descriptor, count: Count) -> None:
        verifier = Verifier(blob, f"blob {blob.digest} at {site}")
        async with self._registries.glance(site, blob, again=self._again) as chunks:
            if chunks is None:
                return
            self.pulled.add((site, blob.digest))
            self.cold[site, blob.digest] = blob
            async for chunk in chunks:
                verifier.feed(chunk)
                count(len(chunk))
        verifier.finish()

    async def look(self, settle: float, sleep: Sleep) -> None:
        """Ask until all that was pulled is stored, for so many seconds at most; what is not stays `cold`."""
        delay, left = _FIRST_LOOK, settle
        while self.cold and left > 0:
            await sleep(min(delay, left))
            left -= delay
            delay *= 2
            await Lane(self._concurrency).each(self._look_at, list(self.cold.items()))

    async def _look_at(self, spot_and_blob: tuple[Spot, Descriptor]) -> None:
        spot, blob = spot_and_blob
        try:
            async with self._registries.glance(spot[0], blob) as chunks:
                if chunks is None:
                    del self.cold[spot]
        except BlobflowError as error:
            del self.cold[spot]
            self.failures[spot] = error


async def warm_cache(
    pairs: Sequence[Pair],
    settings: Settings | None = None,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    sleep: Sleep = asyncio.sleep,
) -> list[Warmth]:
    """Read the blobs of what each pair chooses of its source's image into the store, and keep them there.

    Later runs with this store take them from there. Raises StorageError if the store can't hold them all.
    """
    meter = meter or Meter()
    settings = msgspec.structs.replace(settings_for(settings), cache="all")
    async with opened(settings, observer, meter) as (world, store):
        observer(PhaseStarted("resolve", len(pairs)))
        resolve = partial(resolve_roots, source_at=world.source_at, lane=Lane(LANE))
        found = await _find(pairs, lambda pair: pair.source, world.source_at, resolve)
        observer(PhaseStarted("warm", len(found.blobs)))
        filling = Filling(world.source_at, world.cache, Attempts(observer, meter, sleep))
        await filling.fill(found.blobs, settings.concurrency)
        told = [filling.warmth(pair, found) for pair in pairs]
        _tell(told, observer)
        await tidy(store, settings)
        return told


class Filling:
    """The filling of a store. `read`: what was not held before."""

    def __init__(self, source_at: SourceAt, cache: Cache, attempts: Attempts) -> None:
        self._source_at = source_at
        self._cache = cache
        self._attempts = attempts
        self.read: set[Digest] = set()
        self.failures: dict[Digest, BlobflowError] = {}

    async def fill(self, wanted: Mapping[Pair, Iterable[Descriptor]], concurrency: int) -> None:
        """Read each blob once, from the first of its sources in their order, the largest first."""
        origins = {
            blob.digest: (blob, site_of(pair.source))
            for pair, blobs in sorted(wanted.items(), reverse=True)
            for blob in blobs
        }
        missing = [each for each in origins.values() if not await self._cache.has(each[0])]
        missing.sort(key=lambda each: (-each[0].size, each[0].digest))
        await Lane(concurrency).each(self._read, missing)

    async def _read(self, blob_and_site: tuple[Descriptor, Site]) -> None:
        blob, site = blob_and_site
        body = source_body(self._source_at(site), blob, over=lambda: None)
        self.read.add(blob.digest)

        async def once(count: Count) -> None:
            async with self._cache.share(blob, body, keep=True) as shared, shared(0) as chunks:
                async for chunk in chunks:
                    count(len(chunk))

        if (error := await self._attempts.bring(blob, str(site), once)) is not None:
            self.failures[blob.digest] = error

    def warmth(self, pair: Pair, found: Found) -> Warmth:
        """What became of one image."""
        root = found.roots.get(pair)
        digest = root.digest if root else ""
        if (error := found.failures.get(pair)) is not None:
            return _without(pair, pair.source, "store", digest, error)
        blobs = found.blobs[pair]
        wrong = next((self.failures[blob.digest] for blob in blobs if blob.digest in self.failures), None)
        read = [blob for blob in blobs if blob.digest in self.read]
        return Warmth(
            str(pair.source),
            "store",
            digest,
            status="failed" if wrong else "warm",
            error=str(wrong) if wrong else "",
            blobs=len(blobs),
            bytes=sum(blob.size for blob in blobs),
            pulled=len(read),
            bytes_pulled=sum(blob.size for blob in read),
        )
