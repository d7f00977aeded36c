"""Explains the operating system's errors for the store, in one sentence that says what to do about them."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from blobflow.errors import StorageError, StorageFull

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or put the store elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space, or put the store elsewhere",
    errno.EFBIG: "files may not be that large; raise the limit (ulimit -f), or put the store elsewhere",
    errno.EROFS: "the file system is read-only; put the store elsewhere",
    errno.EACCES: "permission denied; change its owner or mode, or put the store elsewhere",
    errno.EPERM: "the operation is not permitted; change its owner or mode, or put the store elsewhere",
    errno.ENOTDIR: "a part of the path is not a directory; move it away, or put the store elsewhere",
    errno.EEXIST: "something else is in its place; move it away, or put the store elsewhere",
    errno.EISDIR: "a directory is in its place; move it away, or put the store elsewhere",
    errno.ENOENT: "the store's directory is gone, or a part of it; run again, and it is made anew",
    errno.EIO: "the disk has an input/output error; check it",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n), or lower the concurrency",
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def storage_error(doing: str, path: Path | str, error: OSError) -> StorageError:
    """The one sentence for an OSError met while `doing` ("write", "open", …) something to `path`."""
    reason = _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    kind = StorageFull if error.errno in _FULL else StorageError
    return kind(f"can't {doing} {path}: {reason}")


@contextlib.contextmanager
def translate_os_errors(doing: str, path: Path | str) -> Iterator[None]:
    """Turn any OSError inside into a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(doing, path, error) from error
