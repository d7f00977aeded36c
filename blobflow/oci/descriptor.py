"""Descriptors: image-spec descriptor.md. An edge of the graph; the digest is the node."""

from __future__ import annotations

import msgspec

from blobflow.oci.digest import Digest
from blobflow.oci.platform import Platform

# The size of content of which nobody has told it. What a document lists always has one, and 0 is a size as
# any other: of an empty layer, or a lie.
UNKNOWN_SIZE = -1


class Descriptor(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What a parent says of a child. `size` is in bytes, or UNKNOWN_SIZE.

    Platform and annotations belong to this mention, not to the content: the same digest can be mentioned
    twice with different ones. So graphs are keyed by digest.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    urls: tuple[str, ...] | None = None
    artifact_type: str | None = None

    @property
    def sized(self) -> bool:
        """Whether the size is known."""
        return self.size != UNKNOWN_SIZE

    def __hash__(self) -> int:
        return hash((self.digest, self.size, self.media_type))
