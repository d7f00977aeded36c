"""The spill file for what a run can't hold in memory: unnamed, beside the partials, gone with the process."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from blobflow.errors import StorageError
from blobflow.transports.store.os_errors import storage_error
from blobflow.transports.store.store import Store


class SpillFile:
    """Implements `blobflow.content.Aside`. The file is made when something is first kept in it."""

    def __init__(self, store: Store) -> None:
        self._folder = store.paths.partials
        self._file: BinaryIO | None = None
        self._end = 0
        self._writing = threading.Lock()

    def close(self) -> None:
        """Give the disk space back. What was kept can't be read any more."""
        if self._file is not None:
            self._file.close()

    def keep(self, content: bytes | bytearray) -> Callable[[], bytes]:
        """Write `content`, and return a function that reads it again. Both raise StorageError."""
        try:
            with self._writing:
                if self._file is None:
                    self._file = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115
                fd, start, at = self._file.fileno(), self._end, 0
                while at < len(content):
                    at += os.pwrite(fd, memoryview(content)[at:], start + at)
                self._end += len(content)
        except OSError as error:
            raise storage_error("put manifests aside in", self._folder, error) from error
        return partial(self._read, start, len(content))

    def _read(self, start: int, size: int) -> bytes:
        assert self._file is not None
        parts, at = [], start
        try:
            while at < start + size and (part := os.pread(self._file.fileno(), start + size - at, at)):
                parts.append(part)
                at += len(part)
        except OSError as error:
            raise storage_error("read what was put aside in", self._folder, error) from error
        if at < start + size:
            raise StorageError(f"what was put aside in {self._folder} was cut off")
        return parts[0] if len(parts) == 1 else b"".join(parts)
