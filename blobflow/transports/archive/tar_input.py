"""The input of an archive's bytes: a plain file, which can be read anywhere, or a compressed one or a
pipe, which is read once from its start."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from blobflow.content import Chunk
from blobflow.errors import DigestMismatch, UnsupportedContent
from blobflow.oci import Digest, hasher_for
from blobflow.oci.digest import algorithm_of
from blobflow.transports.archive.tar_reader import cut_off
from blobflow.transports.compression.decompressor import Decompressor
from blobflow.transports.compression.detection import decompressor_for
from blobflow.transports.compression.formats import is_compressed, unsupported_compression_of
from blobflow.transports.files import BLOCK, translate_os_errors

STDIN = 0
STDIN_NAME = "standard input"
_AT_ONCE = BLOCK // 4  # compressed bytes read at once; a MiB or so comes out of them
_HEAD = 512  # bytes that tell what it is


class FileInput:
    """An uncompressed archive in a file: what is passed over is not read."""

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.position = 0
        self._fd = fd
        self._size = os.fstat(fd).st_size

    @property
    def taken(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        with translate_os_errors("read", self.name):
            chunk = os.pread(self._fd, size, self.position)
        self.position += len(chunk)
        return chunk

    def skip(self, size: int) -> None:
        if self.position + size > self._size:
            self.position = self._size
            raise cut_off(self)
        self.position += size


class StreamInput:
    """A tar that comes through a decompressor or a pipe. Used by one thread at a time."""

    def __init__(self, raw: RawInput, inflater: Decompressor | None) -> None:
        self.name = raw.name
        self.position = 0
        self._raw = raw
        self._blocks = _blocks(raw, inflater)
        self._block = b""
        self._at = 0

    @property
    def taken(self) -> int:
        return self._raw.taken

    def read(self, size: int) -> bytes:
        pieces: list[Chunk] = []
        wanted = size
        while wanted:
            if self._at == len(self._block):
                self._block, self._at = self._following(), 0
                if not self._block:
                    break
            piece = memoryview(self._block)[self._at : self._at + wanted]
            self._at += len(piece)
            wanted -= len(piece)
            pieces.append(piece)
        self.position += size - wanted
        return b"".join(pieces)

    def _following(self) -> bytes:
        """The next bytes, b"" at the end."""
        return next(self._blocks, b"")

    def skip(self, size: int) -> None:
        while size:
            passed = len(self.read(min(size, BLOCK)))
            if not passed:
                raise cut_off(self)
            size -= passed

    def drain(self) -> None:
        """Read what is left, so that a checksum at the end is looked at."""
        while self.read(BLOCK):
            pass


class LayerInput(StreamInput):
    """A layer, whose bare bytes are hashed as they pass."""

    def __init__(self, raw: RawInput, inflater: Decompressor | None, diff_id: Digest) -> None:
        super().__init__(raw, inflater)
        self._diff_id = diff_id
        self._hasher = hasher_for(diff_id)

    def _following(self) -> bytes:
        block = super()._following()
        self._hasher.update(block)
        return block

    def verify(self) -> None:
        """Read what is left. Raises DigestMismatch unless the bare layer is the one that it should be."""
        self.drain()
        actual = f"{algorithm_of(self._diff_id)}:{self._hasher.hexdigest()}"
        if actual != self._diff_id:
            raise DigestMismatch(f"{self.name}, uncompressed,", expected=self._diff_id, actual=actual)


class RawInput:
    """The bytes as they are in the file or pipe. `taken` counts what was read; `head` are the first."""

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.taken = 0
        self._fd = fd
        self.head = self._ahead = self._fill(_HEAD)

    def read(self, size: int) -> bytes:
        """At most `size` bytes (of the head: all), b"" at the end."""
        chunk, self._ahead = self._ahead, b""
        if not chunk:
            with translate_os_errors("read", self.name):
                chunk = os.read(self._fd, size)
        self.taken += len(chunk)
        return chunk

    def _fill(self, size: int) -> bytes:
        """Read until there is enough to tell what it is: a pipe gives little at a time."""
        chunk = b""
        with translate_os_errors("read", self.name):
            while len(chunk) < size and (more := os.read(self._fd, BLOCK - len(chunk))):
                chunk += more
        return chunk


def _blocks(raw: RawInput, inflater: Decompressor | None) -> Iterator[bytes]:
    """What comes out, in pieces of any size."""
    blocks = iter(lambda: raw.read(_AT_ONCE if inflater else BLOCK), b"")
    return blocks if inflater is None else inflater.whole(blocks)


def stream_input(fd: int, name: str) -> StreamInput:
    """What comes out of an archive's file or pipe. Raises UnsupportedContent for other compressions."""
    raw = _raw(fd, name)
    return StreamInput(raw, decompressor_for(raw.head, name, padded=True))


def layer_input(fd: int, name: str, diff_id: Digest) -> LayerInput:
    """What comes out of a layer's file. Raises UnsupportedContent for other compressions."""
    raw = _raw(fd, name)
    return LayerInput(raw, decompressor_for(raw.head, name), diff_id)


def _raw(fd: int, name: str) -> RawInput:
    raw = RawInput(fd, name)
    if unread := unsupported_compression_of(raw.head):
        raise UnsupportedContent(
            f"{name} is compressed by {unread.name}, which is not read; unpack it first: {unread.command}"
        )
    return raw


def is_file_at_start(fd: int) -> bool:
    """Whether a descriptor that was handed to us is a file of which nothing has been read: then it can be
    read anywhere. A pipe, a device or the rest of a file is read once."""
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0
    except OSError:  # it is closed, which whoever reads it is told
        return False


def begins_compressed(fd: int, name: str) -> bool:
    """Whether a file that can be read anywhere is compressed. Raises StorageError."""
    with translate_os_errors("read", name):
        return is_compressed(os.pread(fd, _HEAD, 0))
