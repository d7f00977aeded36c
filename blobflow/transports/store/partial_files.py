"""The files under `partials/`, each locked by its living writer.

A writer holds its partial's flock(2). The kernel frees it with the process, so whoever gets the lock knows
that the writer is dead: no pid is trusted, and it works between containers that share a store.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.permissions import PRIVATE, Permissions

# Bytes from which on a partial is kept. A shorter one is cheaper fetched again than kept, hashed and swept.
# That nothing shorter is ever adopted also makes sure that its creator has had the time to lock it.
KEPT_FROM = 1024 * 1024


def open_partial(
    path: Path, *, create: bool, ours: bool = False, permissions: Permissions = PRIVATE
) -> int | None:
    """Open a partial and take its lock; None if somebody has it, or it is gone by now.

    With `create` it is made with these permissions; it can be gone all the same, since a sweep may find it
    before it is locked. `ours`: this process wrote it, and may open it also where there are no locks. Raises
    OSError.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
    try:
        fd = os.open(path, flags, permissions.file_mode)
    except FileNotFoundError:
        if not create:
            return None
        raise
    if create:
        permissions.apply(fd)
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


def supports_locks(fd: int) -> bool:
    """Whether the file system knows flock(2): somebody else's lock says so as well as one of ours."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def try_lock(fd: int) -> bool:
    """Take the file's flock(2) if nobody has it. Where locks are not supported, nobody gets one."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
