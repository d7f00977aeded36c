"""Generates blobs that no registry has already, and that hardly compress."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing

from blobflow.content import BlobStream, Chunk
from blobflow.oci import Descriptor, media, parse_digest

# The block that blobs repeat, and the longest chunk that they are yielded in.
BLOCK = 1024 * 1024


class Generator:
    """Makes blobs: each has some bytes of its own, then the generator's noise. A blob costs no memory."""

    def __init__(self) -> None:
        self._noise = memoryview(os.urandom(BLOCK))
        self._made = 0

    def blob(self, size: int) -> Generated:
        """A blob of `size` bytes."""
        self._made += 1
        return Generated(f"{self._made:016}".encode(), self._noise, size)


class Generated:
    """One blob: its descriptor, and a reader of its bytes that may be opened any number of times."""

    def __init__(self, head: bytes, noise: memoryview, size: int) -> None:
        self._head = head
        self._noise = noise
        self._size = size
        hashed = hashlib.sha256()
        for piece in self._pieces(0):
            hashed.update(piece)
        digest = parse_digest(f"sha256:{hashed.hexdigest()}")
        self.descriptor = Descriptor(media.OCI_LAYER_GZIP, digest, size)

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[BlobStream]:
        """See `BlobReader`; it never fails."""
        return aclosing(self._chunks(offset))

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        for piece in self._pieces(offset):
            yield piece

    def _pieces(self, offset: int) -> Iterator[memoryview]:
        """The bytes from `offset`: the head lies over the beginning of the first block."""
        while offset < self._size:
            inside = offset % BLOCK
            if offset < len(self._head):
                piece = memoryview(self._head)[offset:]
            else:
                piece = self._noise[inside:]
            piece = piece[: self._size - offset]
            yield piece
            offset += len(piece)
