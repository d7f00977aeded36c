"""Compression formats by their first bytes; for unsupported ones, the command that unpacks them.

What a file is called says nothing: an archive `.tar.gz` is often none. Read are gzip and zstd, which OCI has
for layers; bzip2, xz and lz4, in which archives come (k3s' air-gap images among them), and the first two of
them in layers of old docker archives.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["gzip", "zstd", "bzip2", "xz", "lz4"]

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
_READ: dict[bytes, Kind] = {
    GZIP: "gzip",
    ZSTD: "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
# zstd's skippable frames (RFC 8878, 3.1.2), behind a first byte of 0x50 to 0x5f: pzstd begins with one.
_SKIPPABLE = b"\x2a\x4d\x18"
# What unpacks each to standard output.
_COMMANDS = {
    "gzip": "gzip -dc",
    "zstd": "zstd -dc --long=31",
    "bzip2": "bzip2 -dc",
    "xz": "xz -dc",
    "lz4": "lz4 -dc",
}


class UnsupportedFormat(msgspec.Struct, frozen=True):
    """A compression that is not read, and the command that unpacks it to standard output."""

    name: str
    command: str


_UNREAD = {
    b"PK\x03\x04": UnsupportedFormat("zip", "unzip -p"),
    b"7z\xbc\xaf\x27\x1c": UnsupportedFormat("7-Zip", "7z x -so"),
    b"LZIP": UnsupportedFormat("lzip", "lzip -dc"),
    b"LRZI": UnsupportedFormat("lrzip", "lrzip -d -o -"),
    b"\x89LZO\x00\r\n\x1a\n": UnsupportedFormat("lzop", "lzop -dc"),
    b"\x02\x21\x4c\x18": UnsupportedFormat("lz4's legacy format", "lz4 -dc"),
    b"\x1f\x9d": UnsupportedFormat("compress", "gzip -dc"),
}
_LZMA = UnsupportedFormat("lzma", "xz -dc --format=lzma")


def compression_of(head: bytes) -> Kind | None:
    """The compression of content that begins so; None if it has none that is read."""
    if head[:1] and head[0] & 0xF0 == 0x50 and head[1:4] == _SKIPPABLE:
        return "zstd"
    return next((kind for magic, kind in _READ.items() if head.startswith(magic)), None)


def unsupported_compression_of(head: bytes) -> UnsupportedFormat | None:
    """The compression of content that begins so, if it is one that is not read."""
    if head.startswith(b"\x5d\x00\x00") and head[5:13] == b"\xff" * 8:  # lzma of a size that is not said
        return _LZMA
    return next((unread for magic, unread in _UNREAD.items() if head.startswith(magic)), None)


def is_compressed(head: bytes) -> bool:
    """Whether content that begins so is compressed, in a way that is read or in one that is not."""
    return compression_of(head) is not None or unsupported_compression_of(head) is not None


def decompress_command(kind: Kind) -> str:
    """The command that unpacks what is compressed so, where we can't."""
    return _COMMANDS[kind]
