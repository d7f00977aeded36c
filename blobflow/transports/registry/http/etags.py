"""ETags of blobs under way, to resume a broken read of the same version (RFC 9110, 13.1.5)."""

from __future__ import annotations

# Blobs whose reads may be resumed; far more than are in flight at a host.
_MOST = 256
_LONGEST = 256  # characters; an ETag is a hash or two


class Etags(dict[str, str]):
    """The strong ETag that each path last answered with; the oldest are forgotten."""

    def note(self, path: str, etag: str) -> None:
        """Remember an answer's ETag; If-Range takes no weak one."""
        self.pop(path, None)
        if etag.startswith('"') and len(etag) <= _LONGEST:
            self[path] = etag
        if len(self) > _MOST:
            del self[next(iter(self))]
