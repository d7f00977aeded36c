"""How much a run may put into a store, and saying so before the first byte moves.

A store may hold so many bytes of blobs; what nobody needs any more goes after a run (`keeping.gc`), the least
recently used first. So the room of a run is the limit less what can't go, and never more than the disk has.

A disk may be full all the same, when the bytes come: others write to it, too. A run that must keep what it
reads (`StrictCache`) then fails; any other goes past the store (`BestEffortCache`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from blobflow.content import BlobReader, BlobStream, Cache, Tap, tapped
from blobflow.errors import BlobflowError, StalePartial, StorageError, StoreLeft
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

    def reader(self, blob: Descriptor) -> BlobReader:
        return self._cache.reader(blob)

    def share(
        self, blob: Descriptor, reader: BlobReader, *, keep: bool = False
    ) -> AbstractAsyncContextManager[BlobReader]:
        return self._cache.share(blob, reader, keep=keep)


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

    def reader(self, blob: Descriptor) -> BlobReader:
        return self._cache.reader(blob)

    @asynccontextmanager
    async def share(
        self, blob: Descriptor, reader: BlobReader, *, keep: bool = False
    ) -> AsyncIterator[BlobReader]:
        """As `Cache.share` while the store works; `reader` itself afterwards."""
        async with AsyncExitStack() as stack:
            if not self._failed or await self.has(blob):
                try:
                    shared = await stack.enter_async_context(self._cache.share(blob, reader, keep=keep))
                    reader = _Watched(shared, partial(self._leave, blob))
                except StorageError as error:
                    self._leave(blob, error)
            yield reader

    def _leave(self, blob: Descriptor, error: StorageError) -> StoreLeft:
        """Keep the blob, and all that are still to come, out of the store."""
        self._left.add(blob.digest)
        self._failed = True
        self._store.report_failure(error)
        return StoreLeft(error.message)


class _Watched(Tap):
    """A blob as the store shares it: where the store fails, `leave` says what is raised."""

    def __init__(self, shared: BlobReader, leave: Callable[[StorageError], StoreLeft]) -> None:
        self._shared = shared
        self._leave = leave

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async with AsyncExitStack() as stack:
            try:
                stream = await stack.enter_async_context(self._shared.open(offset))
            except StorageError as error:
                raise self._leave(error) from error
            yield tapped(stream, self)

    def fail(self, error: BlobflowError) -> BlobflowError:
        if isinstance(error, StorageError) and not isinstance(error, StalePartial):
            return self._leave(error)
        return error
