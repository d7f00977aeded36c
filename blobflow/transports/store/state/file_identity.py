"""File identity: is the open file (the state file, the store's root) still the one at its path?

sqlite does not notice in WAL mode when its files are removed, replaced or unmounted: it goes on with files
that nobody will find again, and every transaction succeeds (sqlite 3.40; SQLITE_READONLY_DBMOVED is only for
rollback journals). While a connection is open neither the WAL nor its index is ever removed or replaced by
sqlite, so all three have to be the same files for as long.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

_File = tuple[int, int]  # device and inode


class FileIdentity(msgspec.Struct, frozen=True):
    """Paths with the device and inode that were there; None: nothing was."""

    files: tuple[tuple[Path, _File | None], ...]


def identity_of_folder(path: Path) -> FileIdentity:
    return FileIdentity(((path, _file(path)),))


def identity_of(path: Path) -> FileIdentity:
    """Of the state file at `path`, with what sqlite has beside it.

    Some calls of stat(2), a few microseconds, no descriptor: to open a file of sqlite's and close it would
    drop the locks that this process has on it.
    """
    beside = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    found = ((each, _file(each)) for each in beside)
    return FileIdentity(((path, _file(path)), *(pair for pair in found if pair[1])))


def is_still_there(identity: FileIdentity) -> bool:
    """Whether what was there when `identity` was taken still is."""
    return all(_file(path) == file for path, file in identity.files)


def _file(path: Path) -> _File | None:
    try:
        about = path.stat()
    except OSError:  # gone, or out of reach: for who uses it that is one thing
        return None
    return about.st_dev, about.st_ino
