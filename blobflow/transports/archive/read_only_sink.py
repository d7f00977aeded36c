"""An existing archive as the target of a verification: a Sink that never writes."""

from __future__ import annotations

from collections.abc import Sequence

from blobflow.content import BlobReader, Site
from blobflow.errors import NotFound, SizeMismatch, StorageError
from blobflow.oci import Descriptor
from blobflow.transports.archive.source import ArchiveSource


class ReadOnlySink:
    """Implements Sink over an archive as it is. What would write raises StorageError."""

    def __init__(self, archive: ArchiveSource) -> None:
        self._archive = archive

    async def resolve(self, name: str) -> Descriptor:
        return await self._archive.resolve(name)

    async def is_empty(self) -> bool:
        return False

    async def has(self, content: Descriptor) -> bool:
        """Whether it is there, and as long as it should be."""
        try:
            async with self._archive.open(content):
                return True
        except (NotFound, SizeMismatch):
            return False

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        return False

    async def push(self, blob: Descriptor, reader: BlobReader) -> None:
        raise self._unwritten()

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        raise self._unwritten()

    def _unwritten(self) -> StorageError:
        return StorageError(f"{self._archive.site} is only looked at, and not to be written")
