"""Files of layouts and archives: reading, durable writing, and the operating system's errors in words.

The store promises more (checksums, resuming, eviction) and has rooms of its own for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from blobflow.content import BlobStream, Chunk
from blobflow.errors import SizeMismatch, StorageError, StorageFull
from blobflow.waits import HostWaits

# One read of a file, and about what one write gathers: a write costs by the call.
BLOCK = 1024 * 1024
_PIECES = 512  # buffers in one writev(2); IOV_MAX is 1024
_TEMPORARY = ".blobflow-"
# Seconds that a file is left alone after its last change: its writer locks it within one.
_SWEPT_AFTER = 60
# Seconds that a folder's lock is waited for: who has it writes some small files, and many may take turns.
LOCK_SECONDS = 60.0
_LOOK_EVERY = 0.01

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or name another place",
    errno.EDQUOT: "the disk quota is used up; free some space, or name another place",
    errno.EFBIG: "the file would be larger than allowed; name another place",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "permission denied; change its owner or mode, or name another place",
    errno.EPERM: "the operation is not permitted; change its owner or mode, or name another place",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EISDIR: "it is a directory, not a file",
    errno.ENOENT: "there is no such file or directory",
    errno.EIO: "the disk has an input/output error; check it",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.ENXIO: "it is a socket or device that nothing can be read from",
    errno.ESPIPE: "it is a pipe, and can only be read from its start to its end",
}
_P = ParamSpec("_P")
_T = TypeVar("_T")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def translate_os_errors(doing: str, path: Path | str) -> Iterator[None]:
    """Turn any OSError inside into a StorageError that says what could not be done ("read", …) to `path`."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
        kind = StorageFull if error.errno in _FULL else StorageError
        raise kind(f"can't {doing} {path}: {reason}") from error


async def read_range(fd: int, path: Path | str, low: int, high: int) -> AsyncGenerator[Chunk, None]:
    """The file's bytes `low` ≤ i < `high`. Raises SizeMismatch where it ends before; StorageError."""
    while low < high:
        with translate_os_errors("read", path):
            chunk = os.pread(fd, min(BLOCK, high - low), low)
        if not chunk:
            raise SizeMismatch(str(path), expected=high, actual=low)
        low += len(chunk)
        yield chunk


@contextlib.asynccontextmanager
async def open_range(path: Path, low: int, high: int) -> AsyncIterator[BlobStream]:
    """As `read_range`, of a file that is opened for it. Raises FileNotFoundError on entry, StorageError.

    Nothing is read after leaving: the number would soon be another file's.
    """
    fd = open_to_read(path)
    try:
        async with contextlib.aclosing(read_range(fd, path, low, high)) as stream:
            yield stream
    finally:
        os.close(fd)


def open_to_read(path: Path) -> int:
    """A descriptor of the file; of a pipe at once, whether or not anybody writes to it.

    Raises FileNotFoundError, for the caller to put into words; StorageError.
    """
    with translate_os_errors("read", path):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            pass
        else:
            os.set_blocking(fd, True)
            return fd
    raise FileNotFoundError(path)


def is_stream(path: Path) -> bool:
    """Whether the path leads to a device, a pipe or the like (`/dev/stdout`, `>(…)`), which is written to as
    it stands: a file renamed over it would take its place for everybody. Raises StorageError."""
    with translate_os_errors("look at", path):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def stream_at(path: Path | None) -> Iterator[Callable[[bytes], None]]:
    """A function that writes to what `is_stream`, or to standard output (None). Raises StorageError."""
    with translate_os_errors("write", path or "standard output"):
        fd = 1 if path is None else os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield lambda block: write_all(fd, [block])
        finally:
            if path is not None:
                os.close(fd)


class AtomicFile:
    """A file on its way into `folder`: written under a name that means nothing, then renamed into place.

    A context manager: what has not landed at its end is removed. While it lives it is locked, so that what a
    killed process left can be told apart, and swept.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{_TEMPORARY}{secrets.token_hex(8)}"
        self._fd = -1
        self._gathered: list[Chunk] = []
        self._size = 0

    @property
    def fd(self) -> int:
        """The open file, for who writes it in another order."""
        return self._fd

    def __enter__(self) -> AtomicFile:
        with translate_os_errors("write", self._path.parent):
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with contextlib.suppress(OSError):  # where locks are not supported nothing is swept
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._fd)
        self._fd = -1

    def write(self, chunk: Chunk) -> None:
        """Take the next bytes. Raises StorageError."""
        self._gathered.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
        self._size += len(chunk)
        if self._size >= BLOCK or len(self._gathered) >= _PIECES:
            self._flush()

    def land(self, target: Path) -> None:
        """Make it the file `target`, durably; in a thread if it is large. Raises StorageError."""
        if is_stream(target):
            raise StorageError(f"can't write {target}: it is no file, and must not be replaced by one")
        self._flush()
        with translate_os_errors("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.fsync(self._fd)
            self._path.replace(target)
            os.close(self._fd)
            self._fd = -1
            sync_folder(target.parent)

    def _flush(self) -> None:
        pieces, self._gathered, self._size = self._gathered, [], 0
        with translate_os_errors("write", self._path.parent):
            write_all(self._fd, pieces)


def write_all(fd: int, pieces: Sequence[Chunk]) -> None:
    """writev(2) until everything is written: a disk that fills up takes a part and then says so."""
    views = [memoryview(piece) for piece in pieces]
    while views:
        written = os.writev(fd, views)
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if views:
            views[0] = views[0][written:]


def write_at(fd: int, content: bytes | bytearray, offset: int) -> None:
    """pwrite(2) until everything is written."""
    view = memoryview(content)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def sync_folder(path: Path) -> None:
    """Make renames into the folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_stale_temporaries(folder: Path) -> None:
    """Remove what killed processes were writing in `folder`; what can't be removed stays."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_TEMPORARY}*"):
            if time.time() - path.stat().st_mtime < _SWEPT_AFTER:
                continue
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                continue
            finally:
                os.close(fd)


@contextlib.contextmanager
def locked_folder(path: Path, waits: HostWaits | None = None) -> Iterator[None]:
    """Hold the folder's flock(2), which the kernel frees when we die; in a thread.

    Waits for others, which is then among the `waits`, but not for ever, since everybody who may list the
    folder can lock it: raises StorageError after LOCK_SECONDS.
    """
    with translate_os_errors("lock", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with translate_os_errors("lock", path):
            locked = try_lock(fd)
        if not locked:
            with (waits or HostWaits()).begin("lock", host=str(path)):
                _wait_for_lock(fd, path)
        yield
    finally:
        os.close(fd)


def _wait_for_lock(fd: int, path: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        time.sleep(_LOOK_EVERY)
        with translate_os_errors("lock", path):
            if try_lock(fd):
                return
        if time.monotonic() > until:
            raise StorageError(
                f"other processes have had {path} locked for {LOCK_SECONDS:.0f} seconds; try again when "
                "they are done"
            )


def try_lock(fd: int) -> bool:
    """Take the file's flock(2) unless somebody has it; says whether it did. Raises OSError."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def in_thread(work: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T:
    """Run `work` in a thread. If cancelled it is waited for all the same: files are its until it ends."""
    return await finish_despite_cancel(asyncio.to_thread(work, *arguments, **options))


async def finish_despite_cancel(work: Coroutine[Any, Any, _T]) -> _T:
    """Wait for `work`. If cancelled it goes on and is waited for, and then CancelledError is raised."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # it is nobody's any more
        raise
