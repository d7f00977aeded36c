"""The checksums that guard re-reads of a blob's file, one a block; a part of the store's format."""

from __future__ import annotations

import xxhash

from blobflow.content import Chunk

# Bytes that one checksum covers.
BLOCK = 4 * 1024 * 1024
# One read of a file, and the longest chunk that leaves the store, in bytes.
READ = 1024 * 1024


class BlockChecksums:
    """xxh3-64 of each 4 MiB block of what is fed, 8 bytes a block, little-endian."""

    __slots__ = ("_done", "_open", "_room")

    def __init__(self) -> None:
        self._done = bytearray()
        self._open = xxhash.xxh3_64()
        self._room = BLOCK

    def feed(self, chunk: Chunk) -> None:
        if len(chunk) < self._room:
            self._open.update(chunk)
            self._room -= len(chunk)
            return
        view = memoryview(chunk)
        while len(view) >= self._room:
            self._open.update(view[: self._room])
            view = view[self._room :]
            self._done += self._open.intdigest().to_bytes(8, "little")
            self._open.reset()
            self._room = BLOCK
        self._open.update(view)
        self._room -= len(view)

    def result(self) -> bytes:
        if self._room == BLOCK:
            return bytes(self._done)
        return bytes(self._done) + self._open.intdigest().to_bytes(8, "little")
