"""Where an archive's bytes come from: a plain file, which can be read anywhere, or a compressed one or a
pipe, which is read once from its start.

What is inflated is bounded: past the first GiB, more than 200 times what was read is taken for a bomb. That
is ten times what layers of real images come to; gzip can reach 1032 times, zstd far more.
"""

from __future__ import annotations

import os
from typing import IO, Protocol, cast

import zstandard
from isal import isal_zlib

from blobflow.errors import StorageError, UnsupportedContent
from blobflow.transports.archive.tar import cut_off
from blobflow.transports.files import BLOCK, translated

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}

_Damaged = cast("type[Exception]", isal_zlib.IsalError)  # its stubs call it an instance

BOMB_FROM = 1024**3
BOMB_RATIO = 200
STDIN = 0


class PlainTape:
    """An uncompressed archive in a file: what is passed over is not read."""

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.position = 0
        self._fd = fd
        self._size = os.fstat(fd).st_size

    def read(self, size: int) -> bytes:
        with translated("read", self.name):
            chunk = os.pread(self._fd, size, self.position)
        self.position += len(chunk)
        return chunk

    def skip(self, size: int) -> None:
        if self.position + size > self._size:
            self.position = self._size
            raise cut_off(self)
        self.position += size


class _Inflater(Protocol):
    def read(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end."""
        ...


class RunningTape:
    """An archive that comes through a decompressor or a pipe. Used by one thread at a time."""

    def __init__(self, raw: Raw, inflater: _Inflater) -> None:
        self.name = raw.name
        self.position = 0
        self._raw = raw
        self._inflater = inflater

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        wanted = size
        while wanted and (piece := self._inflater.read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        self.position += size - wanted
        if self.position > max(BOMB_FROM, BOMB_RATIO * self._raw.taken):
            raise UnsupportedContent(
                f"{self.name} inflates to more than {BOMB_RATIO} times its size, which no image does; "
                "it is not read any further"
            )
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

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


class Raw:
    """The bytes as they are in the file or pipe. `taken` counts what was read; `head` are the first."""

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.taken = 0
        self._fd = fd
        self.head = self._ahead = self._fill(BLOCK)

    def read(self, size: int = -1) -> bytes:
        if self._ahead:
            chunk, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            with translated("read", self.name):
                chunk = os.read(self._fd, size)
        self.taken += len(chunk)
        return chunk

    def _fill(self, size: int) -> bytes:
        """Read until there is enough to tell what it is: a pipe gives little at a time."""
        chunk = b""
        with translated("read", self.name):
            while len(chunk) < min(size, 512) and (more := os.read(self._fd, size - len(chunk))):
                chunk += more
        return chunk


def running_tape(fd: int, name: str) -> RunningTape:
    """What comes out of the file or pipe. Raises UnsupportedContent for other compressions."""
    raw = Raw(fd, name)
    for magic, what in _OTHERS.items():
        if raw.head.startswith(magic):
            raise UnsupportedContent(f"{name} is a {what} file; blobflow reads tar, tar.gz and tar.zst")
    if raw.head.startswith(GZIP):
        return RunningTape(raw, _Gunzip(raw))
    if raw.head.startswith(ZSTD):
        return RunningTape(raw, _Unzstd(raw))
    return RunningTape(raw, raw)


def is_compressed(fd: int) -> bool:
    """Whether a file that can be read anywhere is compressed."""
    head = os.pread(fd, 6, 0)
    return head.startswith((GZIP, ZSTD, *_OTHERS))


class _Gunzip:
    """gzip, also of several members (RFC 1952, 2.2), with its checksums."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw
        self._state = isal_zlib.decompressobj(31)
        self._input = b""

    def read(self, size: int) -> bytes:
        while True:
            if not self._input:
                self._input = self._raw.read(BLOCK // 4)
            if not self._input:
                if self._state.eof:
                    return b""
                raise StorageError(f"{self._raw.name} is cut off: its gzip stream has no end")
            if self._state.eof:
                if not self._input.startswith(GZIP[:1]):
                    self._input = self._input.lstrip(b"\0")  # what tapes and dd pad with
                    if self._input:
                        raise StorageError(f"{self._raw.name} has something behind its gzip stream")
                    continue
                self._state = isal_zlib.decompressobj(31)
            try:
                out = self._state.decompress(self._input, size)
            except _Damaged as error:
                raise StorageError(f"{self._raw.name} is damaged: {error}") from None
            self._input = self._state.unused_data if self._state.eof else self._state.unconsumed_tail
            if out:
                return out


class _Unzstd:
    """zstd, also of several frames."""

    def __init__(self, raw: Raw) -> None:
        self._name = raw.name
        self._reader = zstandard.ZstdDecompressor().stream_reader(
            cast("IO[bytes]", raw), read_size=BLOCK // 4, read_across_frames=True
        )

    def read(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            raise StorageError(f"{self._name} is damaged: {error}") from None
