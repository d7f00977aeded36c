"""Small blobs that a run has read before it copies anything, as signatures are for a verdict: held in memory
within a bound, so that their copies need not ask the source again."""

from __future__ import annotations

from blobflow.oci import Descriptor, Digest

# Bytes of blobs that a run holds. A signature has less than 1 kB, a sigstore bundle 10 kB: those of hundreds
# of images, and what exceeds it costs a request each.
HELD_BYTES = 4 * 1024 * 1024
# The overhead charged for a blob besides its bytes, about what it takes in memory.
_OBJECT = 300


class BlobsAtHand:
    """The content of blobs by digest; nothing is forgotten, and what exceeds the bound is not held."""

    def __init__(self, room: int = HELD_BYTES) -> None:
        """`room` in bytes."""
        self._room = room
        self._held: dict[Digest, bytes] = {}

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """What goes to another process holds nothing: it asks the sources."""
        return BlobsAtHand, ()

    def __eq__(self, other: object) -> bool:
        """What is at hand makes no difference, but for what is asked of sources."""
        return isinstance(other, BlobsAtHand)

    def keep(self, digest: Digest, content: bytes) -> None:
        """Hold a blob, whose content was verified against its digest, if there is room."""
        weight = len(content) + _OBJECT
        if digest not in self._held and weight <= self._room:
            self._room -= weight
            self._held[digest] = content

    def content(self, blob: Descriptor) -> bytes | None:
        """The blob's bytes; None if they are not held, or have another size than the descriptor says: then
        its source is asked, and whoever reads it there says what is wrong."""
        content = self._held.get(blob.digest)
        return content if content is not None and len(content) == blob.size else None
