"""Small content that was asked for just now, held in memory: manifests, configs.

Content never changes under its digest and was verified when it was read, so nothing here can be wrong.
Whether a repository has it, is asked of the store each time: what was deleted is not served from here.
"""

from __future__ import annotations

from collections import OrderedDict

from blobflow.oci import Digest

# Bytes in all. A manifest has some kilobytes, so this is thousands of images.
ROOM = 32 * 1024 * 1024


class Recent:
    """The least recently used goes first. Used on one loop only."""

    def __init__(self, room: int = ROOM) -> None:
        self._left = room
        self._held: OrderedDict[Digest, bytes] = OrderedDict()

    def get(self, digest: Digest) -> bytes | None:
        content = self._held.get(digest)
        if content is not None:
            self._held.move_to_end(digest)
        return content

    def put(self, digest: Digest, content: bytes) -> None:
        """Hold verified content."""
        earlier = self._held.pop(digest, None)
        self._left += len(earlier or b"") - len(content)
        self._held[digest] = content
        while self._left < 0:
            self._left += len(self._held.popitem(last=False)[1])
