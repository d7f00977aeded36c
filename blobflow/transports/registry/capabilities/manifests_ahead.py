"""Manifests that were read with the answer of what a tag names, until somebody reads them by digest. Plain
state."""

from __future__ import annotations

from blobflow.bounded_cache import BoundedCache
from blobflow.oci import Descriptor, Digest

# Bytes of one manifest that are read ahead. Those of signatures have some kB, with certificates and log
# entries some more; nobody waits for room in memory to read so many.
MOST_AHEAD = 64 * 1024
# Of all that are held, some hundred to a thousand signatures: who looks at more images at once asks for the
# others twice, as for what nobody reads within so many seconds.
_ROOM = 4 * 1024 * 1024
_SECONDS = 300.0
_MANIFESTS = 10_000
# The overhead charged for a manifest besides its bytes.
_OBJECT = 300


class ManifestsAhead:
    """The manifests of one host's repositories that were read ahead. Each is verified, and taken once."""

    def __init__(self) -> None:
        self._held: BoundedCache[tuple[str, Digest], bytes] = BoundedCache(
            entries=_MANIFESTS,
            room=_ROOM,
            seconds=_SECONDS,
            weigh=lambda key, raw: len(raw) + _OBJECT,
        )

    @property
    def has_room(self) -> bool:
        """Whether another one is held without another's being forgotten."""
        return self._held.weight + MOST_AHEAD + _OBJECT <= _ROOM and len(self._held) < _MANIFESTS

    def keep(self, repository: str, digest: Digest, raw: bytes) -> None:
        """Hold a manifest, whose bytes were verified against its digest."""
        self._held.put((repository, digest), raw)

    def take(self, repository: str, manifest: Descriptor) -> bytes | None:
        """The bytes of a manifest, which is not held any more; None if it was not, or is said to have another
        size."""
        raw = self._held.pop((repository, manifest.digest))
        return raw if raw is not None and (not manifest.sized or len(raw) == manifest.size) else None
