"""What stays and what goes: listing, checking and sweeping a store, also while others use it.

gc evicts the least recently used first, and never what must stay (`blobflow.transports.store`, "What may be
removed"). It chooses once, over a snapshot, and evicts in small transactions in which it looks again: whoever
takes a lease first and looks for the blob afterwards (as `StoreCache.share` does), or is promised it, either
keeps it or finds it gone, never half.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from blobflow.errors import IntegrityError, NotFound, StorageError, StorageFull
from blobflow.oci import Digest
from blobflow.oci.digest import encoded_of
from blobflow.transports.store.paths import CONDEMNED, UPLOAD, StorePaths, translate_os_errors
from blobflow.transports.store.promises import KEPT_SECONDS
from blobflow.transports.store.reachability import ReachableDigests
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import now, remove_partial

# A partial that nobody writes stays this long for a later run to go on with.
PARTIAL_SECONDS = 24 * 3600
_pause = asyncio.sleep
# Evictions in one transaction, and seconds after which it ends with what it has: others wait for it.
_BATCH = 64
_TURN_SECONDS = 0.01


class BlobInfo(msgspec.Struct, frozen=True):
    """A blob in the store: `size` in bytes, `used` last in Unix seconds, `kept` if a root reaches it,
    somebody holds a lease, or a client was promised it lately."""

    digest: Digest
    size: int
    used: int
    kept: bool


class DiskUsage(msgspec.Struct, frozen=True):
    """What a store takes up, and what its disk has left; in bytes where not a count."""

    blobs: int
    blob_bytes: int
    kept_bytes: int
    partials: int
    partial_bytes: int
    free_bytes: int


class GcResult(msgspec.Struct, frozen=True):
    """What gc removed, and the bytes of blobs that stay."""

    blobs: int
    blob_bytes: int
    partials: int
    partial_bytes: int
    left_bytes: int


class _File(msgspec.Struct, frozen=True):
    path: Path
    size: int
    modified: int


def list_blobs(store: Store) -> list[BlobInfo]:
    """Every blob held, the least recently used first. Raises StorageError."""
    return _listed(store, ReachableDigests(store))


def disk_usage(store: Store) -> DiskUsage:
    """What the store takes up. Raises StorageError."""
    blobs = list_blobs(store)
    partials = _partial_files(store.layout)
    with translate_os_errors("look at", store.root):
        free = shutil.disk_usage(store.root).free
    return DiskUsage(
        blobs=len(blobs),
        blob_bytes=sum(held.size for held in blobs),
        kept_bytes=sum(held.size for held in blobs if held.kept),
        partials=len(partials),
        partial_bytes=sum(file.size for file in partials),
        free_bytes=free,
    )


async def verify_blobs(store: Store) -> AsyncIterator[tuple[BlobInfo, IntegrityError | None]]:
    """Hash every blob against its name; yields each, with the error of a damaged one, which is dropped.

    Blobs that go meanwhile are passed over. In a store opened read-only nothing is dropped. Raises
    StorageError.
    """
    for held in list_blobs(store):
        try:
            await store.rehash(held.digest)
        except NotFound:
            continue
        except IntegrityError as error:
            yield held, error
        else:
            yield held, None


async def collect_garbage(store: Store, max_bytes: int | None = None) -> GcResult:
    """Sweep dead partials, and evict blobs until at most `max_bytes` of them stay (None: evict none).

    What roots reach, leases hold and clients were promised stays even if it is more than that. Others that
    write to the store come in between any two batches. May be cancelled between any two removals. Raises
    StorageError.
    """
    store.state.check_writable()
    partials = await asyncio.to_thread(sweep_partials, store.layout)
    store.flush_uses()
    with contextlib.suppress(StorageFull):  # what is noted only here can wait, making room can't
        store.leases.sweep()
        store.forget_holds()
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
    """Remove blobs, all of them or none; returns what went.

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
    """One going through a store: what is there, what must stay, and the removal of what need not.

    A blob is removed in two steps. It is condemned in a transaction, in which it is looked at again (see
    `blobflow.transports.store`, "What may be removed"): its rows go, and its file is renamed away, so that
    from this moment on it is not there for anybody. The file, whose removal may take long, goes afterwards.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reachable = ReachableDigests(store)
        self._condemned: list[Path] = []
        self.leased: set[Digest] = set()
        self.blobs = _listed(store, self._reachable)

    def keeps(self, digest: Digest) -> bool:
        """Inside a transaction that has caught up: whether the blob must stay."""
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
        """One transaction. On a full disk it may fail, and the files are gone all the same, so that there is
        room now: then the rows are left to the next gc. Nobody takes a row for a blob."""
        state = self._store.state
        gone: list[BlobInfo] = []

        def condemn(held: BlobInfo) -> None:
            moved = self._store.condemn_file(held.digest)
            if moved is not None:
                self._condemned.append(moved)
            gone.append(held)

        self._reachable.catch_up()  # what it has to look at anew for long, it does while others write
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
        """Remove blobs, but for those that must stay by now, or were used since they were chosen."""
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
            await _pause(took)  # for as long as others had to wait, they have their turn
        return evicted

    def remove_condemned(self) -> None:
        while self._condemned:
            path = self._condemned.pop()
            with translate_os_errors("remove", path):
                path.unlink(missing_ok=True)


async def _forget_absent(store: Store) -> None:
    """Delete the rows of blobs whose files are gone. Looked at before, and again when it is done."""
    digests = [Digest(digest) for (digest,) in store.state.rows("SELECT digest FROM blobs")]
    absent = await asyncio.to_thread(lambda: [each for each in digests if store.size_of(each) is None])
    for first in range(0, len(absent), _BATCH):
        part = absent[first : first + _BATCH]
        with store.state.transaction():
            _delete_rows(store, [digest for digest in part if store.size_of(digest) is None])
        await asyncio.sleep(0)


def _delete_rows(store: Store, digests: Sequence[Digest]) -> None:
    """Inside the transaction that removes blobs, or finds that they are gone."""
    rows = [(digest,) for digest in digests]
    store.state.write_many("DELETE FROM blobs WHERE digest = ?", rows)
    store.state.write_many("DELETE FROM members WHERE registry = '' AND digest = ?", rows)


def _listed(store: Store, reachable: ReachableDigests) -> list[BlobInfo]:
    """Every blob held, the least recently used first."""
    files = _blob_files(store.layout)
    members = {digest for (digest,) in store.state.rows("SELECT digest FROM members WHERE registry = ''")}
    uses = {
        digest: (added, used)
        for digest, added, used in store.state.rows("SELECT digest, added, used FROM blobs")
    }
    leased, at = store.leases.living(), now()
    blobs: list[BlobInfo] = []
    for digest, file in files.items():
        added, used = uses.get(digest, (0, file.modified))
        promised = digest in members and at - added < KEPT_SECONDS
        kept = promised or digest in reachable or digest in leased
        blobs.append(BlobInfo(digest, file.size, max(added, used), kept))
    return sorted(blobs, key=lambda held: (held.used, held.digest))


def _blob_files(layout: StorePaths) -> dict[Digest, _File]:
    found: dict[Digest, _File] = {}
    with translate_os_errors("list", layout.blobs):
        for digest in layout.held():
            with contextlib.suppress(FileNotFoundError):
                found[digest] = _file(layout.blob(digest))
    return found


def _partial_files(layout: StorePaths) -> list[_File]:
    found: list[_File] = []
    with translate_os_errors("list", layout.partials):
        for path in layout.partials.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(_file(path))
    return found


def _file(path: Path) -> _File:
    told = path.stat()
    return _File(path, told.st_size, int(told.st_mtime))


def sweep_partials(layout: StorePaths) -> list[_File]:
    """As `remove_stale_partials`, and of blobs that are held by now, too. In a thread. Raises
    StorageError."""
    with translate_os_errors("list", layout.blobs):
        held = {encoded_of(digest) for digest in layout.held()}
    return remove_stale_partials(layout, PARTIAL_SECONDS, done=held)


def remove_stale_partials(
    layout: StorePaths,
    upload_seconds: float,
    living: Collection[str] = (),
    *,
    done: Collection[str] = (),
) -> list[_File]:
    """Remove partials that nobody writes, and nobody will go on with. In a thread.

    These are those that were left alone for PARTIAL_SECONDS (those of uploads: for `upload_seconds`), those
    of digests that are `done`, and what a sweep that died had condemned; but none of those whose tokens are
    `living`. One from the future (the clock went back) counts from now on, or it would stay for as long as
    that was wrong. Raises StorageError.
    """
    seconds = {CONDEMNED: 0.0, UPLOAD: upload_seconds}
    swept: list[_File] = []
    for file in _partial_files(layout):
        name, _, token = file.path.name.rpartition(".")
        if token in living:
            continue
        if file.modified > now():
            with contextlib.suppress(OSError):  # it has just been committed or removed
                os.utime(file.path)
        old = now() - file.modified >= seconds.get(name, PARTIAL_SECONDS)
        if (old or name in done) and remove_partial(file.path):
            swept.append(file)
    return swept
