"""The blobs that a repository's manifests reference, with their sizes: only these may be pulled through.

A blob that a held manifest names is part of an image of the repository, so it may be fetched, or become
visible where another repository fetched it, without a question to the upstream. So may one that a manifest
names which was served lately: whoever has the manifest asks for its blobs next, also when it was evicted
meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import islice

from blobflow.bounded_cache import BoundedCache
from blobflow.errors import UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, parse_manifest
from blobflow.server.errors import ApiError
from blobflow.server.manifest_index import INLINE_BYTES, DigestHead, ManifestIndexes, ManifestReader
from blobflow.transports.store import Store

# Blobs of one repository that are remembered; some hundred bytes each.
MAX_BLOBS = 200_000
_BLOB_BYTES = 200
_MANIFEST_BYTES = 80
# Blobs that are searched for at once in repositories that have more.
MAX_SEARCHES = 16
# Seconds for which the blobs of a manifest are known after it was served, and after which one that is served
# again is read again; and the bound on both, in entries of about two hundred bytes.
SERVED_SECONDS = 3600.0
REREAD_SECONDS = 600.0
MAX_SERVED = 100_000

# A blob's digest, as its first 128 bits, and its size in bytes.
Sizes = list[tuple[int, int]]


class RepositoryBlobs:
    """The blobs that the manifests of one repository name: a `ManifestIndex`. `whole`: it has all of them.

    Several manifests may name one blob, so the index is made anew, without those of manifests that are gone,
    when as many are gone as are there.
    """

    def __init__(self) -> None:
        self.known: set[DigestHead] = set()
        self.whole = True
        self._gone = 0
        self._sizes: dict[int, int] = {}

    def add(self, digest: Digest, found: Sizes) -> None:
        self._sizes.update(found)
        if len(self._sizes) > MAX_BLOBS:
            self.whole = False
            for key in list(islice(self._sizes, len(self._sizes) - MAX_BLOBS // 2)):
                del self._sizes[key]

    def forget(self, gone: set[DigestHead]) -> bool:
        self._gone += len(gone)
        return self._gone <= len(self.known)

    def size_of(self, blob: Digest) -> int | None:
        return self._sizes.get(_key(blob))

    @property
    def weight(self) -> int:
        return len(self._sizes) * _BLOB_BYTES + len(self.known) * _MANIFEST_BYTES


class ReferencedBlobs:
    """Used on one loop only; files are read by `reader`. `close` it."""

    def __init__(self, store: Store, reader: ManifestReader) -> None:
        self._searches = 0
        self._reader = reader
        self._served: BoundedCache[tuple[str, Digest], bool] = BoundedCache(
            entries=MAX_SERVED, seconds=REREAD_SECONDS
        )
        self._served_sizes: BoundedCache[tuple[str, int], int] = BoundedCache(
            entries=MAX_SERVED, seconds=SERVED_SECONDS
        )
        self._indexes: ManifestIndexes[Sizes, RepositoryBlobs] = ManifestIndexes(
            store, reader, make=RepositoryBlobs, look=_blobs_in
        )

    async def find(self, repository: str, digest: Digest) -> Descriptor | None:
        """The blob as a manifest of the repository names it; None if none does. Raises StorageError."""
        at_hand = self._indexes.at_hand(repository)
        size = at_hand.size_of(digest) if at_hand else None
        if size is None:
            size = self._served_sizes.get((repository, _key(digest)))
        if size is None:
            index = await self._indexes.current(repository)
            size = index.size_of(digest)
            if size is None and not index.whole:
                size = await self._search(repository, digest)
        return None if size is None else Descriptor("application/octet-stream", digest, size)

    def note(self, repository: str, manifest: Manifest) -> None:
        """Take in a manifest that has just come into the repository."""
        self._indexes.note(repository, manifest.descriptor.digest, _sizes(manifest))

    async def note_served(
        self, repository: str, digest: Digest, media_type: str, read: Callable[[], Awaitable[bytes]]
    ) -> None:
        """Know the blobs of a manifest that a client is about to get, or has; `read` gives its bytes."""
        if self._served.get((repository, digest)):
            return
        raw = await read()
        if len(raw) <= INLINE_BYTES:
            sizes = _blobs_in(raw, media_type, digest)
        else:
            sizes = await self._reader.run(lambda: _blobs_in(raw, media_type, digest))
        for key, size in sizes:
            self._served_sizes.put((repository, key), size)
        self._served.put((repository, digest), True)

    async def close(self) -> None:
        await self._indexes.close()

    async def _search(self, repository: str, digest: Digest) -> int | None:
        """The size of a blob of a repository that has too many to remember. Raises ApiError while too many
        blobs are being searched for."""
        if self._searches >= MAX_SEARCHES:
            raise ApiError("TOOMANYREQUESTS", "too many blobs are being searched for; try again later")
        self._searches += 1
        try:
            async with aclosing(self._indexes.each(repository)) as manifests:
                async for _, sizes in manifests:
                    for key, size in sizes:
                        if key == _key(digest):
                            return size
        finally:
            self._searches -= 1
        return None


def _key(digest: Digest) -> int:
    return int(digest[7:39], 16)


def _sizes(manifest: Manifest) -> Sizes:
    return [(_key(blob.digest), blob.size) for blob in manifest.blobs]


def _blobs_in(raw: bytes, kind: str, digest: Digest) -> Sizes:
    """Nothing if the manifest is damaged: whoever reads it hears of that."""
    try:
        return _sizes(parse_manifest(raw, kind, digest=digest, let_in=True))
    except UnsupportedContent:
        return []
