"""Decompressors, which work block by block: what all have in common, and gzip (RFC 1952).

What goes in is pushed, what comes out is never more than 1 MiB at once. Every member and every frame has to
have its end.

What is inflated is bounded: past the first GiB, more than 200 times what was read is taken for a bomb. That
is ten times what layers of real images come to; gzip can reach 1032 times, zstd far more. So is of how many
parts it is made: each costs some microseconds, also where nothing comes out of it.

What an inflater holds is bounded by `MAX_WINDOW`, and by what it has given so far.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import cast

from isal import isal_zlib

from blobflow.errors import StorageError, UnsupportedContent
from blobflow.transports.compression.formats import GZIP, Kind, decompress_command
from blobflow.transports.files import BLOCK

# Bytes of what went by that an inflater has to keep, as the content's own header says: zstd's window, xz's
# dictionary. `zstd --long=28` asks for as many, `xz -9` for a quarter; zstd's own default is the half. Two
# layers are inflated at once, so this may cost twice as much memory, if there is as much content.
MAX_WINDOW = 256 * 1024 * 1024

BOMB_FROM = 1024**3
BOMB_RATIO = 200
# Zeros that are read behind the end, where they may pad it: a device of zeros has none.
MAX_PADDING = 64 * 1024**2
# Members, frames and blocks that are read whatever comes out of them. Beyond that there is no more than one
# for so many bytes that came out: stargz and zstd:chunked make two or three for a tar header, of 512 bytes.
PARTS_FROM = 65_536
PART_BYTES = 64

_IsalError = cast("type[Exception]", isal_zlib.IsalError)  # its stubs call it an instance


class DamagedStream(StorageError):
    """Compressed content that is truncated or damaged."""


class WindowTooLarge(UnsupportedContent):
    """What was to be inflated asks for more memory than it gets. `window`: for how much, in words."""

    def __init__(self, message: str, window: str) -> None:
        super().__init__(message)
        self.window = window


class Decompressor(ABC):
    """Takes compressed blocks in order, then `finish`. Used by one thread at a time."""

    kind = ""

    def __init__(self, name: str, *, padded: bool) -> None:
        self._name = name
        self._padded = padded
        self._padding = False
        self._zeros = 0
        self._taken = 0
        self._given = 0
        self._parts = 0

    def decompress(self, block: bytes) -> Iterator[bytes]:
        """What the block holds, in pieces of at most 1 MiB. To be read to its end before the next block.

        Raises DamagedStream, UnsupportedContent for a bomb.
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

    def whole(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """What all the blocks hold, in pieces of at most 1 MiB, to the end. Raises as `decompress`,
        `finish`."""
        for block in blocks:
            yield from self.decompress(block)
        self.finish()

    @abstractmethod
    def _pieces(self, block: bytes) -> Iterator[bytes]: ...

    @abstractmethod
    def finish(self) -> None:
        """There is no more. Raises DamagedStream unless the last member or frame had its end."""

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > PARTS_FROM and self._parts * PART_BYTES > self._given:
            raise UnsupportedContent(
                f"{self._name} is {self.kind} of {self._parts} parts with little or nothing in them, which "
                "no image is; it is not read any further"
            )

    def _too_large(self, window: str, kind: Kind) -> WindowTooLarge:
        return WindowTooLarge(
            f"{self._name} is {kind} {window}; up to {MAX_WINDOW // 2**20} MiB is read, so unpack it first: "
            f"{decompress_command(kind)}",
            window,
        )

    def _cut_off(self) -> DamagedStream:
        return DamagedStream(f"{self._name} is cut off: its {self.kind} stream has no end")

    def _damaged(self, why: object) -> DamagedStream:
        return DamagedStream(f"{self._name} is damaged: {why}")

    def _without_padding(self, block: bytes) -> bytes:
        """What is left of a block behind an end, which can only be nothing once padding has begun."""
        left = block.lstrip(b"\0") if self._padded else block
        self._pass_zeros(len(block) - len(left))
        self._padding = self._padding or len(left) < len(block)
        if left and self._padding:
            raise self._behind()
        return left

    def _pass_zeros(self, count: int) -> None:
        self._zeros += count
        if self._zeros > MAX_PADDING:
            raise UnsupportedContent(
                f"{self._name} has more than {MAX_PADDING // 1024**2} MiB of zeros behind its {self.kind} "
                "stream; is it the right file?"
            )

    def _behind(self) -> DamagedStream:
        return DamagedStream(f"{self._name} has something behind its {self.kind} stream")


# Bytes of a member that are looked at first, and then eight times as many, and so on: where members are
# short, what is behind one is not copied for each of them.
FIRST_STEP = 4096


class StreamDecompressor(Decompressor):
    """Streams one behind the other, each of which tells its own end, whatever is in them."""

    _first = 0  # the first byte of every stream
    _spaced = False  # whether zeros may lie between streams

    def __init__(self, name: str, *, padded: bool) -> None:
        super().__init__(name, padded=padded)
        self._begin()

    def _begin(self) -> None:
        self._begin_part()
        self._step = FIRST_STEP
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Begin a stream."""

    @property
    @abstractmethod
    def _unused(self) -> int | None:
        """Bytes of what was given last that lie behind the stream's end; None before that."""

    @abstractmethod
    def _out_of(self, piece: bytes | memoryview) -> Iterator[bytes]: ...

    def _pieces(self, block: bytes) -> Iterator[bytes]:
        view, at = memoryview(block), 0
        while at < len(block):
            if self._unused is not None:
                if self._spaced and not block[at]:
                    begin, at = at, len(block) - len(block[at:].lstrip(b"\0"))
                    self._pass_zeros(at - begin)
                    continue
                if self._padding or not block[at]:
                    if self._without_padding(block[at:]):
                        raise self._behind()
                    return
                if block[at] != self._first:
                    raise self._behind()
                self._begin()
            piece = view[at : at + self._step]
            self._step = min(8 * self._step, BLOCK)
            at += len(piece)
            yield from self._out_of(piece)
            at -= self._unused or 0

    def finish(self) -> None:
        if self._unused is None:
            raise self._cut_off()


class GzipDecompressor(StreamDecompressor):
    """gzip, also of several members (RFC 1952, 2.2), with its checksums."""

    kind = "gzip"
    _first = GZIP[0]

    def _open(self) -> None:
        self._state = isal_zlib.decompressobj(31)

    @property
    def _unused(self) -> int | None:
        return len(self._state.unused_data) if self._state.eof else None

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
