"""The capacity of a store for a run, known before the first byte moves.

A store may hold so many bytes of blobs, and gc removes what nobody needs after a run. So the capacity of a
run is the limit less what must stay, and never more than the disk has.
"""

from __future__ import annotations

from blobflow.transports.store.inventory import disk_usage
from blobflow.transports.store.store import Store


def available_capacity(store: Store, limit: int | None) -> int:
    """Bytes that a run may add to the store, of which `limit` bytes may be blobs.

    None is the default limit, which fits the disk: what the store holds and half of what is free. Raises
    StorageError.
    """
    usage = disk_usage(store)
    if limit is None:
        limit = usage.blob_bytes + usage.free_bytes // 2
    return max(0, min(limit - usage.kept_bytes, usage.free_bytes))
