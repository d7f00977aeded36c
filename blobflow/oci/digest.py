"""Digests: `algorithm:encoded`, image-spec descriptor.md, "Digests".

`Digest` is a checked string: only `parse_digest` and `digest_of` make one, so holding one is proof of form.
We verify sha256 and sha512; any other algorithm is refused, because content that can't be verified can't be
moved.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType, Protocol

from blobflow.errors import InvalidDigest

Digest = NewType("Digest", str)

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
ALGORITHMS = tuple(_HEX_LENGTH)
_FORM = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


class Hasher(Protocol):
    """The part of hashlib's objects that we use."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def parse_digest(text: str) -> Digest:
    """Check `text` and return it as a Digest. Raises InvalidDigest with the reason."""
    if _FORM.match(text):
        return Digest(text)
    algorithm, colon, encoded = text.partition(":")
    shown = repr(text[:150])
    if not colon:
        raise InvalidDigest(f"{shown} is not a digest: it has no algorithm, as in sha256:<hex>")
    if algorithm not in _HEX_LENGTH:
        raise InvalidDigest(f"{shown} has an algorithm that blobflow can't verify (sha256 and sha512 it can)")
    raise InvalidDigest(
        f"{shown} is not a digest: {algorithm} takes {_HEX_LENGTH[algorithm]} lower-case hex digits, "
        f"not {len(encoded)} characters"
    )


def algorithm_of(digest: Digest) -> str:
    return digest[:6]


def encoded_of(digest: Digest) -> str:
    return digest[7:]


def head_of(digest: Digest) -> int:
    """The first 64 bits: a key that takes a third of the memory, where it does no harm if two are alike."""
    return int(digest[7:23], 16)


def hasher_for(digest: Digest) -> Hasher:
    """A fresh hash state of the digest's algorithm."""
    return hashlib.new(digest[:6], usedforsecurity=False)


def digest_of(content: bytes | memoryview, algorithm: str = "sha256") -> Digest:
    """The digest of bytes at hand."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()}")
