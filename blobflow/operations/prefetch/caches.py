"""Warms pull-through caches, by the requests that their clients make.

A blob that several repositories of an edge share is pulled for one after the other: an edge that stores it
once has it for the second, and one that keeps repositories apart (distribution) fetches it for each.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from blobflow.client import Client
from blobflow.content import Site, Sleep, SourceAt, Verifier
from blobflow.engine.concurrency.bounded_runner import MAX_SMALL_REQUESTS, BoundedRunner, run_together
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.sources.roots import ResolvedRoots
from blobflow.errors import BlobflowError
from blobflow.events import (
    PhaseCount,
    PhaseStarted,
)
from blobflow.oci import Descriptor, Digest, Reference
from blobflow.operations.prefetch.images import (
    Attempts,
    Count,
    FoundImages,
    Resolve,
    WarmResult,
    find_images,
    tell,
    without,
)
from blobflow.transports.registry import Registries

# Seconds that an edge gets to store a blob that was pulled: for a slow disk, and for the second read from the
# upstream that distribution 2.8.2 makes.
STORE_SECONDS = 30.0
# Seconds before the first probe; then twice as long each time. An early probe is costly: an edge that has not
# stored a blob yet begins to fetch it once more.
_FIRST_LOOK = 0.5

BlobAt = tuple[Site, Digest]


async def warm_caches(
    client: Client,
    pairs: Sequence[Pair],
    *,
    again: bool = False,
    settle: float = STORE_SECONDS,
    sleep: Sleep = asyncio.sleep,
) -> list[WarmResult]:
    """Pull each pair's image through its target, a pull-through cache, and return what is warm of each.

    `again`: pull also blobs that a cache probe shows as stored, for edges that answer a part of a blob which
    they don't have. `settle`: seconds that an edge gets to store what was pulled. Failures are in the result.
    On cancel connections are closed; what the edges have by then stays there.
    """
    registries, observer = client.registries, client.observer
    observer(PhaseStarted("resolve", len(pairs)))
    found = await find_images(
        pairs, lambda pair: pair.target, *_asked_of(registries, client.meter.counts["resolve"])
    )
    observer(PhaseStarted("warm", len(found.blobs)))
    attempts = Attempts(observer, client.meter, sleep, times=client.settings.retry_times)
    pulling = CachePull(registries, attempts, client.settings.concurrency, again=again)
    await pulling.pull(found.blobs)
    observer(PhaseStarted("verify", len(found.blobs)))
    with client.meter.waits.begin(
        "work", "", "giving the caches time to store what was pulled", seconds=settle
    ):
        await pulling.look(settle, sleep)
    told = [_warmth(pair, found, pulling) for pair in pairs]
    tell(told, observer)
    return told


def _asked_of(registries: Registries, count: PhaseCount) -> tuple[SourceAt, Resolve]:
    """How edges are asked: each one itself, and for a tag by GET. For many caches a HEAD is no pull, and an
    image that was only asked for by digest has no tag there once the source is gone. `count`: how many
    were."""

    async def resolve(references: set[Reference]) -> ResolvedRoots:
        roots: dict[Reference, Descriptor] = {}
        failures: dict[Reference, BlobflowError] = {}

        async def ask(reference: Reference) -> None:
            try:
                manifest = await registries.repository(site_of(reference)).fetch(reference.name)
                roots[reference] = manifest.descriptor
            except BlobflowError as error:
                failures[reference] = error

        await BoundedRunner(MAX_SMALL_REQUESTS).for_each(ask, sorted(references), count=count)
        return ResolvedRoots(roots, failures)

    return registries.repository, resolve


def _warmth(pair: Pair, found: FoundImages, pulling: CachePull) -> WarmResult:
    image, edge = str(pair.target), pair.target.host
    root = found.roots.get(pair)
    digest = root.digest if root else ""
    if (error := found.failures.get(pair)) is not None:
        return without(pair, pair.target, edge, digest, error)
    site, blobs = site_of(pair.target), found.blobs[pair]
    spots = [(site, blob.digest) for blob in blobs]
    wrong = next((pulling.failures[spot] for spot in spots if spot in pulling.failures), None)
    cold = sum(spot in pulling.cold for spot in spots)
    pulled = [blob for blob, spot in zip(blobs, spots, strict=True) if spot in pulling.pulled]
    return WarmResult(
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


class CachePull:
    """The pulls of one run. `pulled`: blobs that were not stored before; `cold`: those not stored yet."""

    def __init__(self, registries: Registries, attempts: Attempts, concurrency: int, *, again: bool) -> None:
        self.pulled: set[BlobAt] = set()
        self.cold: dict[BlobAt, Descriptor] = {}
        self.failures: dict[BlobAt, BlobflowError] = {}
        self._registries = registries
        self._attempts = attempts
        self._concurrency = concurrency
        self._again = again
        self._count = attempts.count

    async def pull(self, wanted: Mapping[Pair, Iterable[Descriptor]]) -> None:
        """Have every edge fetch the blobs that it has not stored, several at once, the largest first."""
        edges: defaultdict[str, dict[Digest, dict[Site, Descriptor]]] = defaultdict(dict)
        for pair, blobs in wanted.items():
            site = site_of(pair.target)
            for blob in blobs:
                edges[site.registry].setdefault(blob.digest, {})[site] = blob

        async def of_edge(blobs: Iterable[dict[Site, Descriptor]]) -> None:
            largest = sorted(blobs, key=lambda at: -next(iter(at.values())).size)
            await BoundedRunner(self._concurrency).for_each(self._pull_everywhere, largest, count=self._count)

        await run_together(of_edge(blobs.values()) for blobs in edges.values())

    async def _pull_everywhere(self, at: Mapping[Site, Descriptor]) -> None:
        for site, blob in sorted(at.items()):
            once = partial(self._pull, site, blob)
            if (error := await self._attempts.bring(blob, str(site), once)) is not None:
                self.failures[site, blob.digest] = error
                self.cold.pop((site, blob.digest), None)

    async def _pull(self, site: Site, blob: Descriptor, count: Count) -> None:
        verifier = Verifier(blob, f"blob {blob.digest} at {site}")
        async with self._registries.probe_cache(site, blob, again=self._again) as chunks:
            if chunks is None:
                return
            self.pulled.add((site, blob.digest))
            self.cold[site, blob.digest] = blob
            async for chunk in chunks:
                verifier.feed(chunk)
                count(len(chunk))
        verifier.finish()

    async def look(self, settle: float, sleep: Sleep) -> None:
        """Probe until all that was pulled is stored, for at most `settle` seconds; the rest stays `cold`."""
        delay, left = _FIRST_LOOK, settle
        while self.cold and left > 0:
            await sleep(min(delay, left))
            left -= delay
            delay *= 2
            await BoundedRunner(self._concurrency).for_each(self._look_at, list(self.cold.items()))

    async def _look_at(self, spot_and_blob: tuple[BlobAt, Descriptor]) -> None:
        spot, blob = spot_and_blob
        try:
            async with self._registries.probe_cache(spot[0], blob) as chunks:
                if chunks is None:
                    del self.cold[spot]
        except BlobflowError as error:
            del self.cold[spot]
            self.failures[spot] = error
