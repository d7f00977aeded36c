"""Garbage collection: which content stays and which is removed, also while other processes use the store.

It evicts the least recently used first, and never what must stay (`blobflow.transports.store`, "What may be
removed"). It chooses once, over a snapshot, and evicts in small transactions in which it looks again: whoever
takes a lease first and looks for the blob afterwards (as `StoreCache.share` does), or is promised it, either
keeps the blob or finds it gone, never half.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from blobflow.errors import StorageError, StorageFull
from blobflow.oci import Digest
from blobflow.transports.store.clock import now
from blobflow.transports.store.inventory import BlobInfo, list_with
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.partial_sweep import sweep_partials
from blobflow.transports.store.promises import KEPT_SECONDS
from blobflow.transports.store.reachability import ReachableDigests
from blobflow.transports.store.store import Store

_pause = asyncio.sleep
# Evictions in one transaction, and the seconds after which it ends early, since other writers wait for it.
_BATCH = 64
_TURN_SECONDS = 0.01


class GcResult(msgspec.Struct, frozen=True):
    """What gc removed, and the bytes of the blobs that stay."""

    blobs: int
    blob_bytes: int
    partials: int
    partial_bytes: int
    left_bytes: int


async def collect_garbage(store: Store, max_bytes: int | None = None) -> GcResult:
    """Sweep dead partials, and evict blobs until at most `max_bytes` of them stay (None: evict none).

    What roots reach, leases hold and clients were promised stays, even if it is more than that. Other writers
    of the store get their turn between any two batches. May be cancelled between any two removals. Raises
    StorageError.
    """
    store.state.check_writable()
    partials = await asyncio.to_thread(sweep_partials, store.paths)
    store.blobs.write_uses(at_once=True)
    with contextlib.suppress(StorageFull):  # this housekeeping can wait, making room can't
        store.leases.sweep()
        store.repositories.forget_old_roots()
        await _forget_absent(store)
    sweep = _Sweep(store)
    victims: list[BlobInfo] = []
    left = sum(held.size for held in sweep.blobs)
    for held in sweep.blobs:
        if max_bytes is None or left <= max_bytes:
            break
        if not held.kept:
            victims.append(held)
            left -= held.size
    evicted = await sweep.evict(victims)
    gone = sum(held.size for held in evicted)
    return GcResult(
        blobs=len(evicted),
        blob_bytes=gone,
        partials=len(partials),
        partial_bytes=sum(file.size for file in partials),
        left_bytes=sum(held.size for held in sweep.blobs) - gone,
    )


def remove_blobs(store: Store, digests: Collection[Digest]) -> list[BlobInfo]:
    """Remove blobs, all of them or none; returns what was removed.

    Raises StorageError if one of them is not held, is in use, or is kept for a tag that is served from here.
    """
    store.state.check_writable()
    sweep = _Sweep(store)
    held = {blob.digest: blob for blob in sweep.blobs}
    wanted = list(dict.fromkeys(digests))
    with sweep.condemning() as condemn:
        for digest in wanted:
            if digest not in held:
                raise StorageError(f"blob {digest} is not in the store {store.root}")
            if digest in sweep.leased:
                raise StorageError(
                    f"blob {digest} is in use by a running blobflow; try again when it is done"
                )
            if sweep.keeps(digest):
                raise StorageError(
                    f"blob {digest} is needed by a tag of the registry served from {store.root}, or was "
                    "pushed there just now; delete the tag first"
                )
        for digest in wanted:
            condemn(held[digest])
    sweep.remove_condemned()
    return [held[digest] for digest in wanted]


class _Sweep:
    """One sweep of a store: what is held, what must stay, and the removal of what need not.

    A blob is removed in two steps. It is condemned in a transaction, in which it is looked at again (see
    `blobflow.transports.store`, "What may be removed"): its rows go, and its file is renamed away, so that
    from this moment on nobody finds it. The file is unlinked afterwards, which may take long.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reachable = ReachableDigests(store)
        self._condemned: list[Path] = []
        self.leased: set[Digest] = set()
        self.blobs = list_with(store, self._reachable)

    def keeps(self, digest: Digest) -> bool:
        """Whether the blob must stay; asked inside a transaction that has caught up."""
        if digest in self.leased or digest in self._reachable:
            return True
        row = self._store.state.row(
            "SELECT added FROM blobs WHERE digest = ? AND EXISTS "
            "(SELECT 1 FROM members WHERE members.digest = blobs.digest AND registry = '')",
            digest,
        )
        return row is not None and now() - row[0] < KEPT_SECONDS

    @contextlib.contextmanager
    def condemning(self) -> Iterator[Callable[[BlobInfo], None]]:
        """One transaction, and the function that condemns a blob in it.

        On a full disk the transaction may fail, while the files are gone all the same and made room: then the
        rows are left to the next gc, since a row alone never makes a blob held.
        """
        state = self._store.state
        gone: list[BlobInfo] = []

        def condemn(held: BlobInfo) -> None:
            path = self._store.blobs.condemn(held.digest)
            if path is not None:
                self._condemned.append(path)
            gone.append(held)

        self._reachable.catch_up()  # a long look at everything anew happens while others write
        try:
            with state.transaction():
                self._reachable.catch_up()
                self.leased = self._store.leases.living()
                yield condemn
                _delete_rows(self._store, [held.digest for held in gone])
        except StorageFull:
            if not gone:
                raise

    async def evict(self, victims: Sequence[BlobInfo]) -> list[BlobInfo]:
        """Remove blobs, except those that must stay by now or were used since they were chosen."""
        evicted: list[BlobInfo] = []
        waiting = deque(victims)
        while waiting:
            begun = time.monotonic()
            with self.condemning() as condemn:
                for _ in range(min(_BATCH, len(waiting))):
                    held = waiting.popleft()
                    row = self._store.state.row("SELECT used FROM blobs WHERE digest = ?", held.digest)
                    if not self.keeps(held.digest) and (row is None or row[0] <= held.used):
                        condemn(held)
                        evicted.append(held)
                    if time.monotonic() - begun > _TURN_SECONDS:
                        break
            took = time.monotonic() - begun
            self.remove_condemned()
            await _pause(took)  # other writers get as long a turn as they had to wait
        return evicted

    def remove_condemned(self) -> None:
        """Unlink what was condemned. Raises StorageError."""
        while self._condemned:
            path = self._condemned.pop()
            with translate_os_errors("remove", path):
                path.unlink(missing_ok=True)


async def _forget_absent(store: Store) -> None:
    """Delete the rows of blobs whose files are gone: looked for in a thread, and again in the transaction."""
    digests = [Digest(digest) for (digest,) in store.state.rows("SELECT digest FROM blobs")]
    absent = await asyncio.to_thread(lambda: [each for each in digests if store.blobs.size_of(each) is None])
    for first in range(0, len(absent), _BATCH):
        part = absent[first : first + _BATCH]
        with store.state.transaction():
            _delete_rows(store, [digest for digest in part if store.blobs.size_of(digest) is None])
        await asyncio.sleep(0)


def _delete_rows(store: Store, digests: Sequence[Digest]) -> None:
    """Delete the rows of blobs, inside the transaction that removes them or finds them gone."""
    rows = [(digest,) for digest in digests]
    store.state.write_many("DELETE FROM blobs WHERE digest = ?", rows)
    store.state.write_many("DELETE FROM members WHERE registry = '' AND digest = ?", rows)
