"""Decompressing gzip (RFC 1952) and zstd (RFC 8878), a block at a time and to its very end.

What goes in is pushed, what comes out is never more than 1 MiB at once. Every member and every frame has to
have its end: libzstd's streaming calls only stop where their input stops, so frames are walked here. That
also bounds what one call gives: a block of a frame never holds more than 128 KiB.

What is inflated is bounded: past the first GiB, more than 200 times what was read is taken for a bomb. That
is ten times what layers of real images come to; gzip can reach 1032 times, zstd far more. So is of how many
parts it is made: each costs some microseconds, also where nothing comes out of it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import cast

import zstandard
from isal import isal_zlib

from blobflow.errors import StorageError, UnsupportedContent
from blobflow.oci import Digest
from blobflow.transports.files import BLOCK

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"PK\x03\x04": "zip"}
_MAGIC = 6  # bytes that tell any of them

BOMB_FROM = 1024**3
BOMB_RATIO = 200
# Members, frames and blocks that are read whatever comes out of them. Beyond that there is no more than one
# for so many bytes that came out: stargz and zstd:chunked make two or three for a tar header, of 512 bytes.
PARTS_FROM = 65_536
PART_BYTES = 64

_IsalError = cast("type[Exception]", isal_zlib.IsalError)  # its stubs call it an instance


class Damaged(StorageError):
    """What was to be inflated is cut off or spoilt."""


def is_compressed(head: bytes) -> bool:
    """Whether content that begins so is compressed, in a way that is read or in one that is not."""
    return head[:_MAGIC].startswith((GZIP, ZSTD, *_OTHERS))


def other_compression(head: bytes) -> str:
    """The name of a compression that is not read; "" for any other content."""
    return next((what for magic, what in _OTHERS.items() if head.startswith(magic)), "")


def inflater_for(head: bytes, name: str, *, padded: bool = False) -> Inflater | None:
    """What inflates content that begins so; None if it is neither gzip nor zstd.

    `name` is for messages. `padded`: zeros behind its end do no harm. They are found behind archives that
    lay on tapes or went through dd; of a layer they are refused, as containers/image and containerd do.
    """
    if head.startswith(GZIP):
        return _Gunzip(name, padded=padded)
    if head.startswith(ZSTD):
        return _Unzstd(name, padded=padded)
    return None


class BareDigest:
    """The digest that a compressed layer has without its compression: of its bytes as they pass, in order."""

    def __init__(self, head: bytes, name: str) -> None:
        """`head`: its first bytes, which tell how it is compressed; `name` is for messages."""
        inflater = inflater_for(head, name)
        assert inflater is not None, "the layer is compressed by gzip or zstd"
        self._inflater = inflater
        self._hasher = hashlib.sha256(usedforsecurity=False)

    def update(self, block: bytes) -> None:
        """Take the next bytes. Raises Damaged, UnsupportedContent."""
        for piece in self._inflater.inflate(block):
            self._hasher.update(piece)

    def finish(self) -> Digest:
        """The digest, as docker's configs have it. Raises Damaged unless the layer has its end."""
        self._inflater.finish()
        return Digest(f"sha256:{self._hasher.hexdigest()}")


class Inflater(ABC):
    """Takes compressed blocks in order, then `finish`. Used by one thread at a time."""

    kind = ""

    def __init__(self, name: str, *, padded: bool) -> None:
        self._name = name
        self._padded = padded
        self._padding = False
        self._taken = 0
        self._given = 0
        self._parts = 0

    def inflate(self, block: bytes) -> Iterator[bytes]:
        """What the block holds, in pieces of at most 1 MiB. To be read to its end before the next block.

        Raises Damaged, UnsupportedContent for a bomb.
        """
        self._taken += len(block)
        for piece in self._pieces(block):
            self._given += len(piece)
            if self._given > max(BOMB_FROM, BOMB_RATIO * self._taken):
                raise UnsupportedContent(
                    f"{self._name} inflates to more than {BOMB_RATIO} times its size, which no image does; "
                    "it is not read any further"
                )
            yield piece

    @abstractmethod
    def _pieces(self, block: bytes) -> Iterator[bytes]: ...

    @abstractmethod
    def finish(self) -> None:
        """There is no more. Raises Damaged unless the last member or frame had its end."""

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > PARTS_FROM and self._parts * PART_BYTES > self._given:
            raise UnsupportedContent(
                f"{self._name} is {self.kind} of {self._parts} parts with little or nothing in them, which "
                "no image is; it is not read any further"
            )

    def _cut_off(self) -> Damaged:
        return Damaged(f"{self._name} is cut off: its {self.kind} stream has no end")

    def _damaged(self, why: object) -> Damaged:
        return Damaged(f"{self._name} is damaged: {why}")

    def _without_padding(self, block: bytes) -> bytes:
        """What is left of a block behind an end, which can only be nothing once padding has begun."""
        left = block.lstrip(b"\0") if self._padded else block
        self._padding = self._padding or len(left) < len(block)
        if left and self._padding:
            raise self._behind()
        return left

    def _behind(self) -> Damaged:
        return Damaged(f"{self._name} has something behind its {self.kind} stream")


# Bytes of a member that are looked at first, and then eight times as many, and so on: where members are
# short, what is behind one is not copied for each of them.
FIRST_STEP = 4096


class _Gunzip(Inflater):
    """gzip, also of several members (RFC 1952, 2.2), with its checksums."""

    kind = "gzip"

    def __init__(self, name: str, *, padded: bool) -> None:
        super().__init__(name, padded=padded)
        self._begin()

    def _begin(self) -> None:
        self._begin_part()
        self._state = isal_zlib.decompressobj(31)
        self._step = FIRST_STEP

    def _pieces(self, block: bytes) -> Iterator[bytes]:
        view, at = memoryview(block), 0
        while at < len(block):
            if self._state.eof:
                if self._padding or not block[at]:
                    if self._without_padding(block[at:]):
                        raise self._behind()
                    return
                if block[at] != GZIP[0]:
                    raise self._behind()
                self._begin()
            piece = view[at : at + self._step]
            self._step = min(8 * self._step, BLOCK)
            at += len(piece)
            yield from self._out_of(piece)
            if self._state.eof:
                at -= len(self._state.unused_data)

    def _out_of(self, piece: bytes | memoryview) -> Iterator[bytes]:
        out = b""
        while not self._state.eof and (piece or len(out) == BLOCK):  # a full one may not have been all
            try:
                out = self._state.decompress(piece, BLOCK)
            except _IsalError as error:
                raise self._damaged(error) from None
            piece = self._state.unconsumed_tail
            if out:
                yield out

    def finish(self) -> None:
        if not self._state.eof:
            raise self._cut_off()


# RFC 8878, 3.1.1: sizes in bytes of what a frame consists of.
_MAX_BLOCK = 128 * 1024
_BLOCK_HEADER = 3
_CHECKSUM = 4
_DICTIONARY_ID = (0, 1, 2, 4)
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a first byte of 0x50 to 0x5f
_SKIPPABLE_HEADER = 8
_RLE, _RESERVED = 1, 3


class _Unzstd(Inflater):
    """zstd, also of several frames and with skippable ones, with its checksums."""

    kind = "zstd"

    def __init__(self, name: str, *, padded: bool) -> None:
        super().__init__(name, padded=padded)
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._held = bytearray()
        self._size = 0  # of the element that comes next: a header, a block or a checksum; 0: not known yet
        self._checksum = False  # whether the frame has one, behind its last block
        self._last_block = False
        self._ending = False  # with the element the frame ends
        self._skipping = 0

    def _pieces(self, block: bytes) -> Iterator[bytes]:
        self._held += block
        while self._held:
            if self._skipping:
                passed = min(self._skipping, len(self._held))
                del self._held[:passed]
                self._skipping -= passed
                continue
            self._size = self._size or (self._begin() if self._frame is None else self._next())
            if self._skipping:
                continue
            if not self._size or len(self._held) < self._size:
                return
            element = bytes(self._held[: self._size])
            del self._held[: self._size]
            self._size = 0
            if out := self._decompress(element):
                yield out

    def finish(self) -> None:
        if self._held or self._skipping or self._frame is not None:
            raise self._cut_off()

    def _begin(self) -> int:
        """Bytes of the header of the frame that begins here; 0: not to be told yet, or there is none."""
        if self._padding or not self._held[0]:
            self._held[:] = self._without_padding(bytes(self._held))
        head = self._held
        if len(head) < len(ZSTD):
            return 0
        if head.startswith(ZSTD):
            if len(head) == len(ZSTD):
                return 0
            self._begin_part()
            descriptor = head[len(ZSTD)]
            single = bool(descriptor & 0x20)
            self._frame = self._decompressor.decompressobj()
            self._last_block = self._ending = False
            self._checksum = bool(descriptor & 0x04)
            content_size = (int(single), 2, 4, 8)[descriptor >> 6]
            return len(ZSTD) + 1 + (not single) + _DICTIONARY_ID[descriptor & 3] + content_size
        if head[0] & 0xF0 != 0x50 or head[1:4] != _SKIPPABLE:
            raise self._behind()
        if len(head) >= _SKIPPABLE_HEADER:
            self._begin_part()
            self._skipping = _SKIPPABLE_HEADER + int.from_bytes(head[4:8], "little")
        return 0

    def _next(self) -> int:
        """Bytes of the block that comes, with its header, or of the checksum; 0 if that can't be told yet."""
        if self._last_block:
            self._ending = True
            return _CHECKSUM
        if len(self._held) < _BLOCK_HEADER:
            return 0
        header = int.from_bytes(self._held[:_BLOCK_HEADER], "little")
        self._begin_part()
        kind, size, self._last_block = header >> 1 & 3, header >> 3, bool(header & 1)
        self._ending = self._last_block and not self._checksum
        if kind == _RESERVED or size > _MAX_BLOCK:
            raise self._damaged("it has a zstd block of a kind or size that there is not")
        return _BLOCK_HEADER + (1 if kind == _RLE else size)

    def _decompress(self, element: bytes) -> bytes:
        assert self._frame is not None, "what is decompressed belongs to a frame"
        try:
            out = self._frame.decompress(element)
        except zstandard.ZstdError as error:
            raise self._damaged(error) from None
        if self._frame.eof != self._ending:
            raise self._damaged("its zstd frame has another end than its blocks say")
        if self._ending:
            self._frame = None
        return out
