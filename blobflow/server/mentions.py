"""Which blobs the manifests of a repository speak of, and with what size: what may be pulled through there.

A blob that a manifest held here names is part of an image of the repository, so it may be fetched, or be
shown where another repository fetched it, without asking whether it is there. What is mentioned never changes
with a manifest, so each is read once.
"""

from __future__ import annotations

import asyncio

from blobflow.errors import UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, media, parse_manifest
from blobflow.transports.store import Store

# Repositories whose mentions are held; the longest unused goes. Some hundred bytes a blob.
_MOST = 64


class Mentions:
    """Used on one loop only; files are read in a thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blobs: dict[str, dict[Digest, Descriptor]] = {}
        self._read: dict[str, set[Digest]] = {}

    async def find(self, repository: str, digest: Digest) -> Descriptor | None:
        """The blob as a manifest of the repository has it; None: none does."""
        found = self._blobs.get(repository, {}).get(digest)
        return found or (await self._all(repository)).get(digest)

    def note(self, repository: str, manifest: Manifest) -> None:
        """Take in a manifest that has just come into the repository."""
        blobs = self._blobs.pop(repository, {})
        self._blobs[repository] = blobs | {blob.digest: blob for blob in manifest.blobs}
        self._read.setdefault(repository, set()).add(manifest.descriptor.digest)
        while len(self._blobs) > _MOST:
            oldest = next(iter(self._blobs))
            del self._blobs[oldest], self._read[oldest]

    async def _all(self, repository: str) -> dict[Digest, Descriptor]:
        known = self._read.get(repository, set())
        held = self._store.members(repository, media.IMAGES)
        unread = [(digest, kind) for digest, kind in held if digest not in known]
        for manifest in await asyncio.to_thread(self._parsed, unread) if unread else ():
            self.note(repository, manifest)
        return self._blobs.get(repository, {})

    def _parsed(self, unread: list[tuple[Digest, str]]) -> list[Manifest]:
        """In a thread. A manifest whose file is gone or damaged speaks of nothing."""
        found = []
        for digest, kind in unread:
            try:
                found.append(parse_manifest(self._store.path_of(digest).read_bytes(), kind, digest=digest))
            except (OSError, UnsupportedContent):
                continue
        return found
