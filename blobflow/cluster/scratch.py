"""Folders for what Dask keeps of workers on disk, which end with their process; those of killed ones are
removed by the next.

Whoever has such a folder holds a lock on it (flock(2)), which the kernel frees when it dies. A folder has its
name only once it is locked.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blobflow.transports.files import try_lock

_PREFIX = "blobflow-cluster-"
_UNLOCKED = "blobflow-new-"


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A new folder; what dead processes of this user left is removed before. Raises OSError."""
    _remove_dead()
    made = Path(tempfile.mkdtemp(prefix=_UNLOCKED))
    folder = made.with_name(made.name.replace(_UNLOCKED, _PREFIX, 1))
    fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try_lock(fd)
        made.rename(folder)
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(fd)


def _remove_dead() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another one removes it, or it is another user's
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(fd).st_uid == os.geteuid() and try_lock(fd):
                    shutil.rmtree(folder)
            finally:
                os.close(fd)
