"""Verifies that bytes are the blob that a descriptor names: by its size and its digest."""

from __future__ import annotations

import msgspec

from blobflow.content.streams import BlobStream, Chunk, Tap, tapped
from blobflow.errors import DigestMismatch, SizeMismatch
from blobflow.oci import Descriptor, hasher_for, media


class Verifier(Tap):
    """Hashes and counts bytes as they pass, and says at the last one whether they are the blob. Sans-IO.

    Feed every chunk in order; `feed` returns only if the chunk may be passed on, so withholding the last
    block is built in: the chunk that completes the size is released only when the digest has matched.
    """

    __slots__ = ("_blob", "_hasher", "_what", "received")

    def __init__(self, blob: Descriptor, what: str = "") -> None:
        self._blob = blob
        self._what = what or f"blob {blob.digest}"
        self._hasher = hasher_for(blob.digest)
        self.received = 0

    @property
    def complete(self) -> bool:
        return self.received == self._blob.size

    def feed(self, chunk: Chunk) -> None:
        """Take a chunk. Raises SizeMismatch when it goes past the size, DigestMismatch when it ends wrong."""
        self.received += len(chunk)
        if self.received > self._blob.size:
            raise SizeMismatch(self._what, expected=self._blob.size, actual=self.received)
        self._hasher.update(chunk)
        if self.received == self._blob.size:
            self._check()

    def finish(self) -> None:
        """Call at the end. Raises SizeMismatch if bytes are missing; checks the digest of an empty blob."""
        if self.received != self._blob.size:
            raise SizeMismatch(self._what, expected=self._blob.size, actual=self.received)
        if not self._blob.size:
            self._check()

    def _check(self) -> None:
        actual = f"{self._blob.digest[:6]}:{self._hasher.hexdigest()}"
        if actual != self._blob.digest:
            raise DigestMismatch(self._what, expected=self._blob.digest, actual=actual)


def checked(raw: bytes, content: Descriptor) -> bytes:
    """The bytes, if they are what the descriptor says. Raises SizeMismatch, DigestMismatch."""
    if not content.sized:
        content = msgspec.structs.replace(content, size=len(raw))
    verifier = Verifier(
        content, f"{'manifest' if content.media_type in media.MANIFESTS else 'blob'} {content.digest}"
    )
    if raw:
        verifier.feed(raw)
    verifier.finish()
    return raw


def verified(stream: BlobStream, blob: Descriptor, what: str = "") -> BlobStream:
    """The same stream, opened at offset 0: its last chunk is withheld until the whole matched. Raises
    SizeMismatch, DigestMismatch."""
    return tapped(stream, Verifier(blob, what))
