"""Removes partials that have no writer and will not be resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from blobflow.oci.digest import encoded_of
from blobflow.transports.store.clock import now
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.partial_files import remove_partial
from blobflow.transports.store.paths import CONDEMNED, UPLOAD, StorePaths

# Seconds for which a partial that nobody writes stays for a later run to go on with.
PARTIAL_SECONDS = 24 * 3600


class FileInfo(msgspec.Struct, frozen=True):
    """A file, its size in bytes, and when it was last written (Unix seconds)."""

    path: Path
    size: int
    modified: int


def list_partials(paths: StorePaths) -> list[FileInfo]:
    """Every file under `partials/`. Raises StorageError."""
    found: list[FileInfo] = []
    with translate_os_errors("list", paths.partials):
        for path in paths.partials.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(file_info(path))
    return found


def file_info(path: Path) -> FileInfo:
    """What stat(2) says of the file. Raises OSError."""
    stat = path.stat()
    return FileInfo(path, stat.st_size, int(stat.st_mtime))


def sweep_partials(paths: StorePaths) -> list[FileInfo]:
    """As `remove_stale_partials`, and the partials of blobs that are held by now. In a thread. Raises
    StorageError."""
    with translate_os_errors("list", paths.blobs):
        held = {encoded_of(digest) for digest in paths.held()}
    return remove_stale_partials(paths, PARTIAL_SECONDS, done=held)


def remove_stale_partials(
    paths: StorePaths,
    upload_seconds: float,
    living: Collection[str] = (),
    *,
    done: Collection[str] = (),
) -> list[FileInfo]:
    """Remove partials that nobody writes, and nobody will go on with. In a thread.

    They are: partials not written for PARTIAL_SECONDS (uploads: for `upload_seconds`), partials of the
    encoded digests in `done`, and what a sweep that died had condemned; none whose token is in `living`. The
    age of a partial from the future (the clock went back) counts from now on, or it would stay for as long as
    the clock was wrong. Raises StorageError.
    """
    seconds = {CONDEMNED: 0.0, UPLOAD: upload_seconds}
    swept: list[FileInfo] = []
    for file in list_partials(paths):
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
