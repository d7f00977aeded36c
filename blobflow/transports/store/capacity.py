"""How much a run may put into a store, and saying so before the first byte moves.

A store may hold so many bytes of blobs; what nobody needs any more goes after a run (`keeping.gc`), the least
recently used first. So the room of a run is the limit less what can't go, and never more than the disk has.

A disk may be full all the same, when the bytes come: others write to it, too. A run that must keep what it
reads (`StrictCache`) then fails; any other goes past the store (`BestEffortCache`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from blobflow.content import BlobReader, BlobStream, Cache
from blobflow.errors import StalePartial, StorageError, StoreLeft
from blobflow.oci import Descriptor, Digest
from blobflow.transports.store.inventory import disk_usage
from blobflow.transports.store.store import Store

_MB = 1_000_000


def available_capacity(store: Store, limit: int | None) -> int:
    """Bytes that a run may add to the store, of which `limit` bytes may be blobs.

    None is the default limit, which fits the disk: what the store holds and half of what is free. Raises
    StorageError.
    """
    usage = disk_usage(store)
    if limit is None:
        limit = usage.blob_bytes + usage.free_bytes // 2
    return max(0, min(limit - usage.kept_bytes, usage.free_bytes))


class StrictCache:
    """`blobflow.content.Cache` for a run that keeps all it reads: it must have room for all of that.

    A run asks for every blob that it will copy, before it copies the first (`has`). As soon as what is not
    held yet goes over `room` bytes, that is a StorageError.
    """

    def __init__(self, store: Store, cache: Cache, room: int) -> None:
        self._store = store
        self._cache = cache
        self._room = room
        self._wanted: set[Digest] = set()
        self._wanted_bytes = 0

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held. Raises StorageError if it is not, and there is no room for it."""
        if await self._cache.has(blob):
            return True
        if blob.digest not in self._wanted:
            self._wanted.add(blob.digest)
            self._wanted_bytes += blob.size
        if self._wanted_bytes > self._room:
            raise StorageError(
                f"to keep all blobs of this run, the store {self._store.root} would need room for more than "
                f"{self._room / _MB:.1f} MB; raise the cache size, free some space, or do not keep them all"
            )
        return False

    async def begun(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        return await self._cache.begun(blobs)

    def body(self, blob: Descriptor) -> BlobReader:
        return self._cache.body(blob)

    def share(
        self, blob: Descriptor, body: BlobReader, *, keep: bool = False
    ) -> AbstractAsyncContextManager[BlobReader]:
        return self._cache.share(blob, body, keep=keep)


class BestEffortCache:
    """`blobflow.content.Cache` for a run that needs the targets served, not the store filled.

    Once the store has failed (it is full, read-only, gone), which is told, blobs that it does not hold whole
    go straight from the source to each target. A blob under way raises StoreLeft, and its next attempt goes
    that way, too. So a disk that fills up costs each blob at most one more reading a target.
    """

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._failed = False
        self._left: set[Digest] = set()

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held and has not failed to come out of the store."""
        if blob.digest in self._left:
            return False
        try:
            return await self._cache.has(blob)
        except StorageError as error:
            self._leave(blob, error)
            return False

    async def begun(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        try:
            return await self._cache.begun(blobs)
        except StorageError:  # the first share says so
            return {}

    def body(self, blob: Descriptor) -> BlobReader:
        return self._cache.body(blob)

    @asynccontextmanager
    async def share(
        self, blob: Descriptor, body: BlobReader, *, keep: bool = False
    ) -> AsyncIterator[BlobReader]:
        """As `Cache.share` while the store works; `body` itself afterwards."""
        async with AsyncExitStack() as stack:
            if not self._failed or await self.has(blob):
                try:
                    shared = await stack.enter_async_context(self._cache.share(blob, body, keep=keep))
                    body = self._watched(blob, shared)
                except StorageError as error:
                    self._leave(blob, error)
            yield body

    def _watched(self, blob: Descriptor, shared: BlobReader) -> BlobReader:
        @asynccontextmanager
        async def watched(offset: int) -> AsyncIterator[BlobStream]:
            async with AsyncExitStack() as stack:
                try:
                    chunks = await stack.enter_async_context(shared(offset))
                except StorageError as error:
                    raise self._leave(blob, error) from error
                yield self._passed(blob, chunks)

        return watched

    async def _passed(self, blob: Descriptor, chunks: BlobStream) -> BlobStream:
        try:
            async for chunk in chunks:
                yield chunk
        except StalePartial:
            raise
        except StorageError as error:
            raise self._leave(blob, error) from error

    def _leave(self, blob: Descriptor, error: StorageError) -> StoreLeft:
        """Keep the blob, and all that are still to come, out of the store."""
        self._left.add(blob.digest)
        self._failed = True
        self._store.report_failure(error)
        return StoreLeft(error.message)
