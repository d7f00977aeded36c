"""Decompressors for bzip2, xz and lz4's frames, where the libraries are installed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from blobflow.errors import UnsupportedContent
from blobflow.transports.compression.decompressor import MAX_WINDOW, DamagedStream, StreamDecompressor
from blobflow.transports.compression.formats import Kind, decompress_command
from blobflow.transports.files import BLOCK

_XZ_BESIDES = 16 * 1024 * 1024  # bytes that xz needs besides its dictionary


class _Library(StreamDecompressor):
    """What a library reads stream by stream."""

    kind: Kind = "xz"
    _state: Any  # the same face in all three of bz2, lzma and lz4, and no common type
    _errors: tuple[type[Exception], ...] = (OSError, EOFError, ValueError)

    def _open(self) -> None:
        try:
            self._state = self._opened()
        except ImportError:  # where Python was built without
            raise UnsupportedContent(
                f"{self._name} is {self.kind}, which this Python can't read; unpack it first: "
                f"{decompress_command(self.kind)}"
            ) from None

    @abstractmethod
    def _opened(self) -> Any: ...

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

    def _failed(self, error: Exception) -> DamagedStream | UnsupportedContent:
        return self._damaged(error)


class Bzip2Decompressor(_Library):
    """bzip2, also of several streams, as pbzip2 writes it, with its checksums. It needs 4 MiB."""

    kind: Kind = "bzip2"
    _first = ord("B")

    def _opened(self) -> Any:
        import bz2

        return bz2.BZ2Decompressor()


class XzDecompressor(_Library):
    """xz, also of several streams, with its checksums, and with the padding that its format has (2.2)."""

    kind: Kind = "xz"
    _first = 0xFD
    _spaced = True

    def _opened(self) -> Any:
        import lzma

        self._errors = (lzma.LZMAError, EOFError, ValueError)
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW + _XZ_BESIDES)

    def _failed(self, error: Exception) -> DamagedStream | UnsupportedContent:
        if "Memory usage limit" in str(error):  # liblzma's own number for it does not come through
            return self._too_large("with a larger dictionary", self.kind)
        return super()._failed(error)


class Lz4Decompressor(_Library):
    """lz4's frames, also several, with their checksums. It needs some MiB."""

    kind: Kind = "lz4"
    _first = 0x04
    _errors = (RuntimeError, EOFError, ValueError)

    def _opened(self) -> Any:
        import lz4.frame

        return lz4.frame.LZ4FrameDecompressor()
