"""Decompressing zstd (RFC 8878). libzstd's streaming calls only stop where their input stops, so frames are
walked here. That also bounds what one call gives: a block of a frame never holds more than 128 KiB."""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from blobflow.transports.compression.decompressor import MAX_WINDOW, Decompressor
from blobflow.transports.compression.formats import ZSTD

# RFC 8878, 3.1.1: sizes in bytes of what a frame consists of.
_MAX_BLOCK = 128 * 1024
_BLOCK_HEADER = 3
_CHECKSUM = 4
_DICTIONARY_ID = (0, 1, 2, 4)
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a first byte of 0x50 to 0x5f
_SKIPPABLE_HEADER = 8
_RLE, _RESERVED = 1, 3
_TOO_MUCH = "too much memory"  # in libzstd's words for a window that is larger than allowed


class ZstdDecompressor(Decompressor):
    """zstd, also of several frames and with skippable ones, with its checksums."""

    kind = "zstd"

    def __init__(self, name: str, *, padded: bool, window: int = MAX_WINDOW) -> None:
        super().__init__(name, padded=padded)
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=window)
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
            if _TOO_MUCH in str(error):  # which only a frame's header brings about
                raise self._too_large(f"with a window of {_window(element) // 2**20} MiB", "zstd") from None
            raise self._damaged(error) from None
        if self._frame.eof != self._ending:
            raise self._damaged("its zstd frame has another end than its blocks say")
        if self._ending:
            self._frame = None
        return out


def _window(header: bytes) -> int:
    """Bytes of the window that a frame's header asks for (RFC 8878, 3.1.1.1.2). libzstd does not say where it
    is more than it takes itself; a frame of a single segment is its own."""
    descriptor, at = header[len(ZSTD)], len(ZSTD) + 1
    if descriptor & 0x20:
        return int.from_bytes(header[at + _DICTIONARY_ID[descriptor & 3] :], "little")
    return (8 + (header[at] & 7)) << (7 + (header[at] >> 3))
