"""Decompressing bzip2, xz and lz4's frames, as far as the libraries are at hand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol

from blobflow.errors import UnsupportedContent
from blobflow.transports.archive.compressions import Kind, unpacking
from blobflow.transports.archive.inflating import MAX_WINDOW, Damaged, Streams
from blobflow.transports.files import BLOCK

_XZ_BESIDES = 16 * 1024 * 1024  # bytes that xz needs besides its dictionary


class _Decompressor(Protocol):
    """What bz2, lzma and lz4 have in common. After its end a stream's `unused_data` is what lies behind."""

    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...


class _Library(Streams):
    """What a library reads stream by stream."""

    kind: Kind = "xz"
    _state: _Decompressor
    _errors: tuple[type[Exception], ...] = (OSError, EOFError, ValueError)

    def _open(self) -> None:
        try:
            self._state = self._opened()
        except ImportError:  # where Python was built without
            raise UnsupportedContent(
                f"{self._name} is {self.kind}, which this Python can't read; unpack it first: "
                f"{unpacking(self.kind)}"
            ) from None

    @abstractmethod
    def _opened(self) -> _Decompressor: ...

    @property
    def _unused(self) -> int | None:
        return len(self._state.unused_data or b"") if self._state.eof else None

    def _out_of(self, piece: bytes | memoryview) -> Iterator[bytes]:
        while not self._state.eof:
            try:
                out = self._state.decompress(piece, BLOCK)
            except self._errors as error:
                raise self._failed(error) from None
            piece = b""
            if out:
                yield out
            if self._state.needs_input and not self._state.eof:
                return

    def _failed(self, error: Exception) -> Damaged | UnsupportedContent:
        return self._damaged(error)


class Unbzip2(_Library):
    """bzip2, also of several streams, as pbzip2 writes it, with its checksums. It needs 4 MiB."""

    kind: Kind = "bzip2"
    _first = ord("B")

    def _opened(self) -> _Decompressor:
        import bz2

        return bz2.BZ2Decompressor()


class Unxz(_Library):
    """xz, also of several streams, with its checksums."""

    kind: Kind = "xz"
    _first = 0xFD

    def _opened(self) -> _Decompressor:
        import lzma

        self._errors = (lzma.LZMAError, EOFError, ValueError)
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW + _XZ_BESIDES)

    def _failed(self, error: Exception) -> Damaged | UnsupportedContent:
        if "Memory usage limit" in str(error):  # liblzma's own number for it does not come through
            return self._too_large("with a larger dictionary", self.kind)
        return super()._failed(error)


class Unlz4(_Library):
    """lz4's frames, also several, with their checksums. It needs some MiB."""

    kind: Kind = "lz4"
    _first = 0x04
    _errors = (RuntimeError, EOFError, ValueError)

    def _opened(self) -> _Decompressor:
        import lz4.frame

        opened: _Decompressor = lz4.frame.LZ4FrameDecompressor()
        return opened
