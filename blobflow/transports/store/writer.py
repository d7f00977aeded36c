"""One writer of one partial: bytes come in, are hashed on the way, and become a blob or nothing.

Small chunks are gathered and written together, because a write costs by the call: on the development machine
4 MiB writes took 0.24 s/GB, 1 MiB 0.35, 256 KiB 0.8; handing them to a thread took longer than any.

A living writer holds its partial's flock(2). The kernel frees it with the process, so whoever gets the lock
knows that the writer is dead: no pid is trusted, and it works between containers that share a store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from blobflow.content import Chunk
from blobflow.errors import DigestMismatch, SizeMismatch, StorageError
from blobflow.oci import Digest, digest_of, hasher_for
from blobflow.oci.digest import Hasher, algorithm_of
from blobflow.transports.files import finish_despite_cancel, in_thread, write_all
from blobflow.transports.store.paths import (
    StorePaths,
    storage_error,
    supports_locks,
    translate_os_errors,
    try_lock,
)
from blobflow.transports.store.permissions import PRIVATE, Permissions
from blobflow.transports.store.state.database import State
from blobflow.transports.store.state.group_commit import Row

# What one checksum covers; a part of the store's format.
BLOCK = 4 * 1024 * 1024
# One read of a file, and the longest chunk that leaves the store.
READ = 1024 * 1024
# Gathered bytes that go out in one writev(2), and the most pieces it takes anywhere (IOV_MAX is 1024).
_GATHER = 1024 * 1024
_PIECES = 512
# A chunk this long is written as it comes, from where it lies: a view need not be copied then.
_DIRECT = 256 * 1024
# A shorter partial is cheaper fetched again than kept, hashed and swept. That nothing shorter is ever adopted
# also makes sure that its creator has had the time to lock it.
KEPT_FROM = 1024 * 1024
# Files up to this many bytes are synced by the job that commits them, together with others'; a larger one
# would keep these waiting.
_SYNCED_TOGETHER = 1024 * 1024
_INTO_BLOBS = "INSERT OR REPLACE INTO blobs(digest, size, blocks, added, used)"
# What is visible already stays what it is there: a manifest keeps its media type.
_INTO_MEMBERS = "INSERT OR IGNORE INTO members(registry, repository, digest, media_type)"


class BlockChecksums:
    """xxh3-64 of each 4 MiB block of what is fed, 8 bytes a block, little-endian."""

    __slots__ = ("_done", "_open", "_room")

    def __init__(self) -> None:
        self._done = bytearray()
        self._open = xxhash.xxh3_64()
        self._room = BLOCK

    def feed(self, chunk: Chunk) -> None:
        if len(chunk) < self._room:
            self._open.update(chunk)
            self._room -= len(chunk)
            return
        view = memoryview(chunk)
        while len(view) >= self._room:
            self._open.update(view[: self._room])
            view = view[self._room :]
            self._done += self._open.intdigest().to_bytes(8, "little")
            self._open.reset()
            self._room = BLOCK
        self._open.update(view)
        self._room -= len(view)

    def result(self) -> bytes:
        if self._room == BLOCK:
            return bytes(self._done)
        return bytes(self._done) + self._open.intdigest().to_bytes(8, "little")


class Writer:
    """A partial on its way in.

    `token` names it; `offset` is how many bytes it has taken in all; `flushed` how many of them are in its
    file, which is made when the first are (or by `open`). `digest` is what it is meant to become, if that is
    known yet; `adopted` is how many bytes were found on disk, left by a process that died. It ends by exactly
    one of `commit`, `abort` and `suspend`; after that it takes nothing more.

    A writer that waits for more, maybe for long, can `rest`: it has no descriptor then, and no lock. Who
    sweeps leaves its partial alone until it is old.
    """

    __slots__ = (
        "_algorithm",
        "_ended",
        "_gathered",
        "_halted",
        "_hasher",
        "_layout",
        "_living",
        "_state",
        "_sums",
        "adopted",
        "digest",
        "fd",
        "flushed",
        "offset",
        "path",
        "token",
    )

    def __init__(
        self,
        layout: StorePaths,
        state: State,
        living: set[Writer],
        digest: Digest | None,
        path: Path,
        fd: int = -1,
        *,
        algorithm: str = "sha256",
    ) -> None:
        """`algorithm`: what the digest will be of, where only that is known."""
        self.token = path.name.rpartition(".")[2]
        self.digest = digest
        self.path = path
        self.fd = fd
        self.offset = 0
        self.flushed = 0
        self.adopted = 0
        self._layout = layout
        self._state = state
        self._living = living
        self._ended = False
        self._halted = False
        self._sums = BlockChecksums()
        self._algorithm = algorithm_of(digest) if digest else algorithm
        self._hasher: Hasher = hashlib.new(self._algorithm, usedforsecurity=False)
        self._gathered: list[Chunk] = []
        living.add(self)

    def write(self, chunk: Chunk) -> None:
        """Take the next bytes. Raises StorageError, and then nothing is left of the partial."""
        self._check_open()
        self._hasher.update(chunk)
        self._sums.feed(chunk)
        self.offset += len(chunk)
        if len(chunk) >= _DIRECT:
            self._gathered.append(chunk)
            self.flush()
            return
        self._gathered.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
        if self.offset - self.flushed >= _GATHER or len(self._gathered) >= _PIECES:
            self.flush()

    @property
    def ended(self) -> bool:
        """Whether it takes no more: it was committed, aborted or suspended, or a write failed."""
        return self._ended

    def open(self) -> None:
        """Have the file, and its lock: make it, or find it again after `rest`. Raises StorageError, and then
        the writer has ended."""
        self._check_open()
        if self.fd >= 0:
            return
        try:
            fd = self._opened()
        except OSError as error:
            self.abort()
            raise storage_error("write", self.path, error) from error
        if fd is None:
            self.abort()
            raise StorageError(f"the partial {self.path} is gone, or no longer what was written")
        self.fd = fd

    def _opened(self) -> int | None:
        """None: somebody has swept the partial, or has written to it."""
        fd = open_partial(self.path, create=not self.flushed, ours=True, access=self._layout.access)
        if fd is not None and os.fstat(fd).st_size == self.flushed:
            return fd
        if fd is not None:
            os.close(fd)
        return None

    def rest(self) -> None:
        """Write what was gathered, and give the descriptor back until there is more. Raises StorageError, as
        `write`."""
        self.flush()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def flush(self) -> None:
        """Write what was gathered, so that others can read it. Raises StorageError, as `write`."""
        self._check_open()
        if not self._gathered:
            return
        self.open()
        pieces, self._gathered = self._gathered, []
        try:
            write_all(self.fd, pieces)
        except OSError as error:
            self.abort()
            raise storage_error("write", self.path, error) from error
        self.flushed = self.offset

    def digest_so_far(self) -> Digest:
        """The digest of all bytes taken, in the algorithm of `digest`, or the one that was named instead."""
        return Digest(f"{self._algorithm}:{self._hasher.hexdigest()}")

    async def commit(
        self,
        digest: Digest,
        size: int | None = None,
        *,
        verified: bool = False,
        repository: str = "",
    ) -> None:
        """Make the bytes the blob `digest`: fsync, rename into place, fsync the directory, note it.

        `size` in bytes is checked if given. `verified`: the caller has hashed every byte itself; it only
        spares the second pass that a sha512 digest costs when nobody named it at `begin`. `repository`: one
        that is served from here, in which the blob becomes visible at the same moment.

        Raises DigestMismatch, SizeMismatch or StorageError, and then nothing is left of the partial. When
        cancelled, the blob is either there whole or not at all.
        """
        self._check_open()
        what = f"blob {digest}"
        if size is not None and size != self.offset:
            self.abort()
            raise SizeMismatch(what, expected=size, actual=self.offset)
        hashed = algorithm_of(digest) == self._algorithm
        if hashed and self.digest_so_far() != digest:
            self.abort()
            raise DigestMismatch(what, expected=digest, actual=self.digest_so_far())
        if self.flushed:
            self.flush()
            self.open()
        content, self._gathered = b"".join(self._gathered), []
        # A file that is only just made gets a name that nobody sweeps, as nobody locks it.
        path = self.path if self.fd >= 0 else self._layout.partial(None, self.token)
        fd, self.fd = self.fd, -1
        prepare_commit = BlobCommit(self._layout, self._state, digest, self._sums.result(), path, fd)
        prepare_commit.size, prepare_commit.content, prepare_commit.repository = (
            self.offset,
            content,
            repository,
        )
        self._end()  # from here on the job owns the file, also when we are cancelled
        await prepare_commit.go(None if hashed or verified else digest)

    def abort(self) -> None:
        """Give up: remove the partial. Does nothing to a writer that has ended."""
        if self._ended:
            return
        self._end()
        if self.fd >= 0 or self.flushed:
            with contextlib.suppress(OSError):
                self.path.unlink()
        if self.fd >= 0:
            os.close(self.fd)

    def suspend(self) -> None:
        """Stop and leave the partial on disk for whoever goes on (`Store.resume`), in any process.

        Nothing but its bytes is kept: who goes on hashes them again.
        """
        if self._ended:
            return
        with contextlib.suppress(StorageError):
            self.flush()
        if self._ended:
            return
        self._end()
        if self.fd >= 0:
            os.close(self.fd)

    def rehash(self) -> None:
        """Take over the bytes on disk: hash them all again. In a thread; `halt` stops it early.

        Raises StorageError.
        """
        with translate_os_errors("read", self.path):
            while not self._halted and (chunk := os.pread(self.fd, READ, self.offset)):
                self._hasher.update(chunk)
                self._sums.feed(chunk)
                self.offset += len(chunk)
        self.flushed = self.adopted = self.offset

    def halt(self) -> None:
        """Stop a `rehash` that runs in a thread; the writer is only good for `suspend` then."""
        self._halted = True

    def _check_open(self) -> None:
        if self._ended:
            raise StorageError(f"the partial {self.path} has ended and takes no more bytes")

    def _end(self) -> None:
        self._ended = True
        self._living.discard(self)


class BlobCommit:
    """The job (`groupcommit.Job`) that makes a partial the blob `digest`: the file is renamed and its row
    written in one transaction, so that whoever removes blobs sees both or none.

    `content` is what is not in the file yet; `fd` is the file, to be closed, and -1 if there is none so far.
    `repository`: where the blob becomes visible; "": nowhere.
    """

    durable = True
    has_file = True
    plain = True

    def __init__(
        self, layout: StorePaths, state: State, digest: Digest, blocks: bytes, path: Path, fd: int = -1
    ) -> None:
        self.size = 0
        self.content = b""
        self.repository = ""
        self._also: Callable[[], Any] = lambda: None
        self._layout = layout
        self._state = state
        self._digest = digest
        self._blocks = blocks
        self._path = path
        self._fd = fd
        self._synced = False
        self._handed_over = False

    def also(self, work: Callable[[], Any]) -> None:
        """Call `work` in the transaction, before anything else is done: what it raises undoes all."""
        self._also, self.plain = work, False

    async def go(self, wanted: Digest | None = None) -> Any:
        """Commit it; returns what the work of `also` returned. What takes long is done in a thread of its
        own first: to sync a large file, and to read it all for the digest `wanted`. If cancelled it is
        committed all the same."""
        if self._state.in_threads and wanted is None and self.size <= _SYNCED_TOGETHER:
            self._handed_over = True
            return await self._state.commit(self)
        try:
            return await finish_despite_cancel(self._commit(wanted))
        finally:
            if not self._handed_over:  # it was cancelled before it began, with its whole loop
                self.discard()

    async def _commit(self, wanted: Digest | None) -> Any:
        if self._fd >= 0 and (wanted is not None or self.size > _SYNCED_TOGETHER):
            await in_thread(self._check_and_sync, wanted)
        elif wanted is not None:
            actual = digest_of(self.content, algorithm_of(wanted))
            if actual != wanted:
                raise DigestMismatch(f"blob {wanted}", expected=wanted, actual=actual)
        self._handed_over = True
        return await self._state.commit(self)

    def _check_and_sync(self, wanted: Digest | None) -> None:
        with translate_os_errors("write", self._path):
            if self.content:
                write_all(self._fd, [self.content])
                self.content = b""
            if wanted is not None:
                _check_file(self._fd, wanted)
            os.fsync(self._fd)
        self._synced = True

    def prepare(self) -> None:
        with translate_os_errors("write", self._path):
            if self._fd < 0:
                flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL
                self._fd = os.open(self._path, flags, self._layout.access.file_mode)
                self._layout.access.apply(self._fd)
            if self.content:
                write_all(self._fd, [self.content])

    def sync(self) -> None:
        if self._synced:
            return
        with translate_os_errors("write", self._path):
            os.fsync(self._fd)

    def apply(self) -> Any:
        done = self._also()
        try:
            os.replace(self._path, self._layout.blob_name(self._digest))  # noqa: PTH105  as it is cheaper
        except OSError as error:
            raise storage_error("write", self._layout.blob(self._digest), error) from error
        fd, self._fd = self._fd, -1  # and with it the lock, which kept others from sweeping it
        os.close(fd)
        self._state.renamed_into(self._layout.blobs / algorithm_of(self._digest))
        return done

    def rows(self) -> Sequence[Row]:
        at = now()
        blob = Row(_INTO_BLOBS, (self._digest, self.size, self._blocks, at, at))
        if not self.repository:
            return (blob,)
        return (blob, Row(_INTO_MEMBERS, ("", self.repository, self._digest, "")))

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_partial(
    path: Path, *, create: bool, ours: bool = False, access: Permissions = PRIVATE
) -> int | None:
    """Open a partial and take its lock; None if somebody has it, or it is gone by now.

    One that is created is made as `access` says. That can happen to it, too: who sweeps may find it before it
    is locked. `ours`: this process wrote it, so that it may be opened also where there are no locks.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
    try:
        fd = os.open(path, flags, access.file_mode)
    except FileNotFoundError:
        if not create:
            return None
        raise
    if create:
        access.apply(fd)
    # Between open and lock it may have been committed or removed; then the path names another file, or none.
    # Where locks are not supported nobody can sweep or adopt it either, which is all they are for.
    if (try_lock(fd) or ((create or ours) and not supports_locks(fd))) and _is_still(fd, path):
        return fd
    os.close(fd)
    return None


def remove_partial(path: Path) -> bool:
    """Remove a partial unless a living writer has it; says whether it did. Raises StorageError."""
    with translate_os_errors("remove", path):
        fd = open_partial(path, create=False)
        if fd is None:
            return False
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(fd)
    return True


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _check_file(fd: int, wanted: Digest) -> None:
    hasher = hasher_for(wanted)
    offset = 0
    while chunk := os.pread(fd, READ, offset):
        hasher.update(chunk)
        offset += len(chunk)
    actual = f"{algorithm_of(wanted)}:{hasher.hexdigest()}"
    if actual != wanted:
        raise DigestMismatch(f"blob {wanted}", expected=wanted, actual=actual)


def record_blob(state: State, digest: Digest, size: int, blocks: bytes) -> None:
    """Note a blob that is there."""
    state.write(f"{_INTO_BLOBS} VALUES (?, ?, ?, ?, ?)", digest, size, blocks, now(), now())


def now() -> int:
    """Unix seconds: for ages and order only, so that a clock that goes back does no harm."""
    return int(time.time())
