"""The store as the target of a run: pushed blobs are read to their end, and so kept. Nothing is tagged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from blobflow.content import BlobReader, BlobStream, Site
from blobflow.errors import NotFound, StorageError
from blobflow.oci import Descriptor, Digest, parse_manifest
from blobflow.transports.layout.image_names import digest_or_none
from blobflow.transports.layout.index_json import check_manifest, check_size
from blobflow.transports.store import Store


class StoreSink:
    """Implements Sink for a run in cache mode `all`, and Source. What it was asked for stays leased until
    `close`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._leases: dict[Digest, str] = {}

    def close(self) -> None:
        while self._leases:
            self._store.leases.release(self._leases.popitem()[1])

    def check(self) -> None:
        """Raise StorageError unless everything is there; to be asked after a run that ended well."""
        for digest in self._leases:
            if self._store.blobs.size_of(digest) is None:
                raise StorageError(f"the store {self._store.root} could not keep blob {digest}")

    async def resolve(self, name: str) -> Descriptor:
        digest = digest_or_none(name)
        if digest is None or self._store.blobs.size_of(digest) is None:
            raise NotFound(f"the store has no {name}")
        return parse_manifest(self._store.blobs.read_small(digest), digest=digest).descriptor

    async def read(self, manifest: Descriptor) -> bytes:
        raw = self._store.blobs.read_small(manifest.digest)
        check_size(raw, manifest, f"manifest {manifest.digest}")
        return raw

    def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AbstractAsyncContextManager[BlobStream]:
        return self._store.blobs.open(blob.digest, offset, blob.size if end is None else end)

    async def is_empty(self) -> bool:
        return False

    async def has(self, content: Descriptor) -> bool:
        self._lease(content)
        return self._store.blobs.size_of(content.digest) == content.size

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        return await self.has(blob)

    async def push(self, blob: Descriptor, reader: BlobReader) -> None:
        """Let the run's own cache take it in."""
        self._lease(blob)
        async with reader.open() as stream:
            async for _ in stream:
                pass

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        check_manifest(raw, manifest, f"manifest {manifest.digest}")
        self._lease(manifest)
        self._store.blobs.write_small(raw, manifest.digest)

    def _lease(self, content: Descriptor) -> None:
        if content.digest not in self._leases:
            self._leases[content.digest] = self._store.leases.acquire_now(content.digest)
