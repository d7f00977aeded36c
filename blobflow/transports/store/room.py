"""How much a run may put into a store, and saying so before the first byte moves.

A store may hold so many bytes of blobs; what nobody needs any more goes after a run (`keeping.gc`), the least
recently used first. So the room of a run is the limit less what can't go, and never more than the disk has.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from blobflow.content import Body, Cache
from blobflow.errors import StorageError
from blobflow.oci import Descriptor, Digest
from blobflow.transports.store.keeping import du
from blobflow.transports.store.store import Store

_MB = 1_000_000


def room_in(store: Store, limit: int | None) -> int:
    """Bytes that a run may add to the store, of which `limit` bytes may be blobs.

    None is the default limit, which fits the disk: what the store holds and half of what is free. Raises
    StorageError.
    """
    usage = du(store)
    if limit is None:
        limit = usage.blob_bytes + usage.free_bytes // 2
    return max(0, min(limit - usage.kept_bytes, usage.free_bytes))


class KeepsAll:
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

    def body(self, blob: Descriptor) -> Body:
        return self._cache.body(blob)

    def share(self, blob: Descriptor, body: Body, *, keep: bool = False) -> AbstractAsyncContextManager[Body]:
        return self._cache.share(blob, body, keep=keep)
