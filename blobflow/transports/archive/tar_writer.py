"""Writes a tar in any order: every file gets its slot when it is announced, and is filled in later.

So several blobs come in at once, each behind its own header, and nothing is copied to make the archive. A
place that was announced and never filled (its blob failed) is closed up at the end, by moving what is behind
it; only then are bytes moved.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable

import msgspec

from blobflow.transports.archive.tar_reader import END, header_of, padding
from blobflow.transports.files import BLOCK, translate_os_errors, write_at


class ReservedSlot(msgspec.Struct, frozen=True):
    """A file's place: its header at `start`, its content at `content`, the next place at `end`."""

    path: str
    size: int
    start: int
    content: int
    end: int


class TarWriter:
    """A tar in the file `fd`. `name` is for messages."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._end = 0
        self._regions: dict[Hashable, ReservedSlot] = {}
        self._filled: set[Hashable] = set()

    @property
    def fd(self) -> int:
        return self._fd

    @property
    def size(self) -> int:
        """Bytes of all places so far."""
        return self._end

    def region(self, key: Hashable) -> ReservedSlot | None:
        """The place of a file that has come in whole."""
        return self._regions[key] if key in self._filled else None

    def reserve(self, key: Hashable, path: str, size: int) -> ReservedSlot:
        """The place of the file `key`, given now if it has none yet."""
        if key not in self._regions:
            content = self._end + len(header_of(path, size))
            end = content + size + len(padding(size))
            self._regions[key] = ReservedSlot(path, size, self._end, content, end)
            self._end = end
        return self._regions[key]

    def write(self, content: bytes | bytearray, offset: int) -> None:
        """Write at a place in the file. Raises StorageError."""
        with translate_os_errors("write", self._name):
            write_at(self._fd, content, offset)

    def fill(self, key: Hashable) -> None:
        """The content of the file is all there: write what makes it an entry."""
        region = self._regions[key]
        self.write(header_of(region.path, region.size), region.start)
        self.write(padding(region.size), region.content + region.size)
        self._filled.add(key)

    def add(self, key: Hashable, path: str, content: bytes) -> None:
        """Write a whole file."""
        self.write(content, self.reserve(key, path, len(content)).content)
        self.fill(key)

    def close_up(self, keys: Iterable[Hashable]) -> None:
        """Keep these files alone, without room between them; in a thread."""
        kept = set(keys) & self._filled
        at = 0
        regions: dict[Hashable, ReservedSlot] = {}
        for key, region in self._regions.items():
            if key not in kept:
                continue
            moved = region.start - at
            if moved:
                self._move(region.start, at, region.end - region.start)
            regions[key] = ReservedSlot(
                region.path, region.size, at, region.content - moved, region.end - moved
            )
            at = region.end - moved
        self._regions, self._filled, self._end = regions, kept, at

    def _move(self, low: int, to: int, size: int) -> None:
        with translate_os_errors("write", self._name):
            for offset in range(0, size, BLOCK):
                block = os.pread(self._fd, min(BLOCK, size - offset), low + offset)
                write_at(self._fd, block, to + offset)

    def finish(self) -> None:
        """End the archive here; in a thread. Raises StorageError."""
        self.write(END, self._end)
        with translate_os_errors("write", self._name):
            os.ftruncate(self._fd, self._end + len(END))
