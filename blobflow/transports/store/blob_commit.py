"""Commits a partial as a blob: the rename into `blobs/` and the row, in one transaction."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from blobflow.errors import DigestMismatch
from blobflow.oci import Digest, digest_of, hasher_for
from blobflow.oci.digest import algorithm_of
from blobflow.transports.files import finish_despite_cancel, in_thread, write_all
from blobflow.transports.store.block_checksums import READ
from blobflow.transports.store.clock import now
from blobflow.transports.store.os_errors import storage_error, translate_os_errors
from blobflow.transports.store.paths import StorePaths
from blobflow.transports.store.state.database import State
from blobflow.transports.store.state.group_commit import Row

# Files up to this many bytes are synced by the thread that commits them, together with others'. A larger one
# would keep these waiting.
_SYNCED_TOGETHER = 1024 * 1024
_INTO_BLOBS = "INSERT OR REPLACE INTO blobs(digest, size, blocks, added, used)"
# A manifest that the repository holds already keeps its media type.
_INTO_MEMBERS = "INSERT OR IGNORE INTO members(registry, repository, digest, media_type)"


class BlobCommit:
    """The job (`state.group_commit.Job`) that makes a partial the blob `digest`.

    The file is renamed and its row written in one transaction, so that whoever removes blobs sees both or
    none. `content` is what is not in the file yet; `fd` is the file, to be closed, and -1 if there is none so
    far. `repository` is where the blob becomes visible; "" for nowhere.
    """

    durable = True
    has_file = True
    plain = True

    def __init__(
        self, paths: StorePaths, state: State, digest: Digest, blocks: bytes, path: Path, fd: int = -1
    ) -> None:
        self.size = 0
        self.content = b""
        self.repository = ""
        self._also: Callable[[], Any] = lambda: None
        self._paths = paths
        self._state = state
        self._digest = digest
        self._blocks = blocks
        self._path = path
        self._fd = fd
        self._synced = False
        self._handed_over = False

    def also(self, work: Callable[[], Any]) -> None:
        """Call `work` in the transaction, before anything else: what it raises undoes everything."""
        self._also, self.plain = work, False

    async def go(self, wanted: Digest | None = None) -> Any:
        """Commit it; returns what the work of `also` returned.

        Slow work is done first, in a thread of its own: to sync a large file, and to read all of it for the
        digest `wanted`. If cancelled, the blob is committed all the same. Raises DigestMismatch,
        StorageError.
        """
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
                self._fd = os.open(self._path, flags, self._paths.permissions.file_mode)
                self._paths.permissions.apply(self._fd)
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
            os.replace(self._path, self._paths.blob_name(self._digest))  # noqa: PTH105  as it is cheaper
        except OSError as error:
            raise storage_error("write", self._paths.blob(self._digest), error) from error
        fd, self._fd = self._fd, -1  # and with it the lock, which kept others from sweeping it
        os.close(fd)
        self._state.renamed_into(self._paths.blobs / algorithm_of(self._digest))
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
    """Write the row of a blob whose file is in place."""
    state.write(f"{_INTO_BLOBS} VALUES (?, ?, ?, ?, ?)", digest, size, blocks, now(), now())
