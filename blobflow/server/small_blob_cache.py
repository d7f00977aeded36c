"""The cache of small content in memory: manifests and configs that clients requested recently.

Content never changes under its digest and was verified when it was read, so nothing here can be wrong.
Whether a repository has it, the store says each time: what was deleted is not served from here.
"""

from __future__ import annotations

from blobflow.bounded_cache import BoundedCache
from blobflow.oci import Digest

# Bytes in all. A manifest has some kilobytes, so this is thousands of images.
MAX_BYTES = 16 * 1024 * 1024
# Bytes of one: a manifest of megabytes would displace hundreds that are asked for more often.
MAX_BLOB_BYTES = 512 * 1024
# Contents at once: a small one takes some hundred bytes beyond its own.
MAX_ENTRIES = 20_000
# Seconds after which it is read again.
KEEP_SECONDS = 3600.0


class SmallBlobCache:
    """The least recently used goes first. Used on one loop only."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._held: BoundedCache[Digest, bytes] = BoundedCache(
            entries=MAX_ENTRIES,
            room=max_bytes,
            largest=MAX_BLOB_BYTES,
            seconds=KEEP_SECONDS,
            weigh=lambda digest, content: len(content),
        )

    def get(self, digest: Digest) -> bytes | None:
        return self._held.get(digest)

    def put(self, digest: Digest, content: bytes) -> None:
        """Hold verified content, unless it is too large."""
        self._held.put(digest, content)

    def forget(self, digest: Digest) -> None:
        """The store no longer has the content."""
        self._held.pop(digest)
