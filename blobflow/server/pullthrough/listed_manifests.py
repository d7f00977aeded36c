"""The manifests that the indexes of a repository list, whether these are here or not.

Where a policy accepted an index, it accepted what that lists: the digests are a part of it.
"""

from __future__ import annotations

from contextlib import aclosing
from itertools import islice

from blobflow.errors import UnsupportedContent
from blobflow.oci import Digest, Manifest, media, parse_manifest
from blobflow.server.manifest_index import DigestHead, ManifestIndexes, ManifestReader
from blobflow.transports.store import Store

# Manifests of one repository that are remembered, and the bytes of one.
MAX_MANIFESTS = 100_000
_DIGEST_BYTES = 200
_KNOWN_BYTES = 80


class RepositoryLists:
    """What the indexes of one repository list: a `ManifestIndex`. `whole`: all of it.

    Digests are whole, since somebody could find two that begin alike. The index is made anew as soon as one
    that is listed in it is gone.
    """

    def __init__(self) -> None:
        self.known: set[DigestHead] = set()
        self.whole = True
        self._listed: dict[Digest, None] = {}

    def add(self, digest: Digest, found: list[Digest]) -> None:
        self._listed.update(dict.fromkeys(found))
        if len(self._listed) > MAX_MANIFESTS:
            self.whole = False
            for each in list(islice(self._listed, len(self._listed) - MAX_MANIFESTS // 2)):
                del self._listed[each]

    def forget(self, gone: set[DigestHead]) -> bool:
        return not gone

    def __contains__(self, manifest: Digest) -> bool:
        return manifest in self._listed

    @property
    def weight(self) -> int:
        return len(self._listed) * _DIGEST_BYTES + len(self.known) * _KNOWN_BYTES


class ListedManifests:
    """Used on one loop only; files are read by `reader`. `close` it."""

    def __init__(self, store: Store, reader: ManifestReader) -> None:
        self._indexes: ManifestIndexes[list[Digest], RepositoryLists] = ManifestIndexes(
            store, reader, make=RepositoryLists, look=_listed_in, kinds=media.INDEXES
        )

    async def has(self, repository: str, manifest: Digest) -> bool:
        """Whether an index that the repository holds lists the manifest. Raises StorageError."""
        index = await self._indexes.current(repository)
        if manifest in index:
            return True
        return not index.whole and await self._search(repository, manifest)

    def note(self, repository: str, manifest: Manifest) -> None:
        """Take in a manifest that has just come into the repository."""
        if manifest.is_index:
            self._indexes.note(repository, manifest.descriptor.digest, _listed(manifest))

    async def close(self) -> None:
        await self._indexes.close()

    async def _search(self, repository: str, manifest: Digest) -> bool:
        async with aclosing(self._indexes.each(repository)) as indexes:
            async for _, listed in indexes:
                if manifest in listed:
                    return True
        return False


def _listed(index: Manifest) -> list[Digest]:
    return [each.digest for each in index.manifests]


def _listed_in(raw: bytes, kind: str, digest: Digest) -> list[Digest]:
    """Nothing if the index is damaged: whoever reads it hears of that."""
    try:
        return _listed(parse_manifest(raw, kind, digest=digest, let_in=True))
    except UnsupportedContent:
        return []
