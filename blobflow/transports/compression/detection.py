"""Chooses the decompressor for content by its first bytes, and computes the digests of uncompressed
layers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from blobflow.oci import Digest
from blobflow.transports.compression.bzip2_xz_lz4 import Bzip2Decompressor, Lz4Decompressor, XzDecompressor
from blobflow.transports.compression.decompressor import MAX_WINDOW, Decompressor, GzipDecompressor
from blobflow.transports.compression.formats import compression_of
from blobflow.transports.compression.zstd import ZstdDecompressor
from blobflow.transports.files import BLOCK


def decompressor_for(
    head: bytes, name: str, *, padded: bool = False, zstd_window: int = MAX_WINDOW
) -> Decompressor | None:
    """What inflates content that begins so; None if it has no compression that is read.

    `name` is for messages. `padded`: zeros behind its end do no harm. They are found behind archives that
    lay on tapes or went through dd; of a layer they are refused, as containers/image and containerd do.
    `zstd_window`: bytes of the largest window that is read.
    Raises UnsupportedContent where this Python lacks what it takes.
    """
    match compression_of(head):
        case "gzip":
            return GzipDecompressor(name, padded=padded)
        case "zstd":
            return ZstdDecompressor(name, padded=padded, window=zstd_window)
        case "bzip2":
            return Bzip2Decompressor(name, padded=padded)
        case "xz":
            return XzDecompressor(name, padded=True)  # its own format has zeros behind a stream
        case "lz4":
            return Lz4Decompressor(name, padded=padded)
        case None:
            return None


def in_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces of any size as blocks of 1 MiB but for the last."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        while len(gathered) >= BLOCK:
            yield bytes(gathered[:BLOCK])
            del gathered[:BLOCK]
    if gathered:
        yield bytes(gathered)


class UncompressedDigest:
    """The digest that a compressed layer has without its compression: of its bytes as they pass, in order."""

    def __init__(self, head: bytes, name: str) -> None:
        """`head`: its first bytes, which tell how it is compressed; `name` is for messages."""
        inflater = decompressor_for(head, name)
        assert inflater is not None, "the layer is compressed"
        self._inflater = inflater
        self._hasher = hashlib.sha256(usedforsecurity=False)

    def update(self, block: bytes) -> None:
        """Take the next bytes. Raises DamagedStream, UnsupportedContent."""
        for piece in self._inflater.decompress(block):
            self._hasher.update(piece)

    def finish(self) -> Digest:
        """The digest, as docker's configs have it. Raises DamagedStream unless the layer has its end."""
        self._inflater.finish()
        return Digest(f"sha256:{self._hasher.hexdigest()}")
