"""Warms the store of this machine: reads the chosen images from the sources, and keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from blobflow.client import Client
from blobflow.content import Cache, Site, Sleep, SourceAt
from blobflow.engine.blob_readers import SourceReader
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, BoundedRunner
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.sources.roots import resolve_roots
from blobflow.errors import BlobflowError
from blobflow.events import (
    PhaseStarted,
)
from blobflow.oci import Descriptor, Digest
from blobflow.operations.prefetch.images import (
    Attempts,
    Count,
    FoundImages,
    WarmResult,
    find_images,
    tell,
    without,
)


async def warm_store(
    client: Client, pairs: Sequence[Pair], *, sleep: Sleep = asyncio.sleep
) -> list[WarmResult]:
    """Read the blobs of each pair's chosen image into the store, and keep them there.

    Later runs with this store read them from there. Raises StorageError if the store can't hold them all.
    """
    observer = client.observer
    async with client.using(cache="all") as keeping, keeping.services() as services:
        observer(PhaseStarted("resolve", len(pairs)))
        resolve = partial(
            resolve_roots,
            source_at=services.source_at,
            runner=BoundedRunner(MAX_LOOKUPS),
            count=services.meter.counts["resolve"],
        )
        found = await find_images(pairs, lambda pair: pair.source, services.source_at, resolve)
        observer(PhaseStarted("warm", len(found.blobs)))
        attempts = Attempts(observer, client.meter, sleep, times=services.retry_times)
        filling = StoreFill(services.source_at, services.cache, attempts)
        await filling.fill(found.blobs, client.settings.concurrency)
        told = [filling.warmth(pair, found) for pair in pairs]
        tell(told, observer)
        await keeping.tidy()
        return told


class StoreFill:
    """Fills a store. `read`: the blobs that it did not hold before."""

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
        await BoundedRunner(concurrency).for_each(self._read, missing, count=self._attempts.count)

    async def _read(self, blob_and_site: tuple[Descriptor, Site]) -> None:
        blob, site = blob_and_site
        reader = SourceReader(self._source_at(site), blob)
        self.read.add(blob.digest)

        async def once(count: Count) -> None:
            async with self._cache.share(blob, reader, keep=True) as shared, shared.open() as stream:
                async for chunk in stream:
                    count(len(chunk))

        if (error := await self._attempts.bring(blob, str(site), once)) is not None:
            self.failures[blob.digest] = error

    def warmth(self, pair: Pair, found: FoundImages) -> WarmResult:
        """The result of one image."""
        root = found.roots.get(pair)
        digest = root.digest if root else ""
        if (error := found.failures.get(pair)) is not None:
            return without(pair, pair.source, "store", digest, error)
        blobs = found.blobs[pair]
        wrong = next((self.failures[blob.digest] for blob in blobs if blob.digest in self.failures), None)
        read = [blob for blob in blobs if blob.digest in self.read]
        return WarmResult(
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
