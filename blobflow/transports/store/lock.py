"""The store's lock: held while a store is created or opened, so that two processes don't create one state
file.

It is a file of its own in the store, with the store's modes, because flock(2) needs no more than an open
descriptor: a lock on the folder itself can be had by everybody who may list it. Versions of blobflow that
lock the folder are not kept out. What both do then is ordered by sqlite; only two that meet a corrupt state
file in the same instant could each move one aside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from blobflow.errors import StorageError
from blobflow.transports.files import try_lock
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.permissions import Permissions

# Opening takes milliseconds, and some seconds where a state file of gigabytes is checked on a cold disk.
LOCK_SECONDS = 15.0
_LOOK_EVERY = 0.02
_SHOWN = 32  # bytes of the lock file, which holds a process number


@contextlib.contextmanager
def hold_lock(path: Path, permissions: Permissions) -> Iterator[None]:
    """Hold the lock file at `path`, which is made if it is not there; the kernel frees it when we die.

    Waits while others take their turns, but for one of them at most LOCK_SECONDS: raises StorageError then,
    which names that process if it can.
    """
    with translate_os_errors("lock", path):
        permissions.create(path)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _wait(fd, path)
        _show(fd, str(os.getpid()))
        try:
            yield
        finally:
            _show(fd, "")
    finally:
        os.close(fd)


async def wait_until_free(path: Path) -> None:
    """Return when nobody holds the lock file at `path`, be it only for a moment: who takes it then, with
    `hold_lock`, need not stop a whole event loop for it. Raises as that does; says nothing of a file that
    can't be opened, which is to be said by who takes the lock."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        for _ in _attempts(fd, path):
            await asyncio.sleep(_LOOK_EVERY)
    finally:
        os.close(fd)


def _wait(fd: int, path: Path) -> None:
    for _ in _attempts(fd, path):
        time.sleep(_LOOK_EVERY)


def _attempts(fd: int, path: Path) -> Iterator[None]:
    """Try to take the lock, once a step, until it is taken."""
    holder, since = _shown(fd), time.monotonic()
    while not _taken(fd, path):
        if (other := _shown(fd)) != holder:
            holder, since = other, time.monotonic()
        if time.monotonic() - since > LOCK_SECONDS:
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise StorageError(
                f"{who} has had the store {path.parent} locked for {LOCK_SECONDS:.0f} seconds; try again "
                "when it is done"
            )
        yield


def _taken(fd: int, path: Path) -> bool:
    with translate_os_errors("lock", path):
        return try_lock(fd)


def _shown(fd: int) -> str:
    with contextlib.suppress(OSError):
        return os.pread(fd, _SHOWN, 0).decode("ascii", "replace").strip()
    return ""


def _show(fd: int, text: str) -> None:
    """Say who has the lock. On a full disk that can't be said, and the lock is held all the same."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, text.encode(), 0)
