"""`oci-archive:FILE` and `docker-archive:FILE` as Sources.

An archive is opened when it is first asked for something, once. From then on it is like a layout: images by
name, manifests in memory or on disk, blobs in the file or in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from blobflow.content import BlobStream, Counter, Referrer, Site, tapped
from blobflow.errors import BlobflowError, NotFound, SizeMismatch, own_copy
from blobflow.events import HostMeter
from blobflow.oci import Descriptor, Digest
from blobflow.oci.local_reference import OCI_ARCHIVE, STREAM, path_of, transport_of
from blobflow.transports.archive.images import DockerImages, Images, OciImages, read_manifest
from blobflow.transports.archive.importer import Importer
from blobflow.transports.archive.open_archive import OpenArchive, open_archive
from blobflow.transports.store import Store


class _Found(msgspec.Struct, frozen=True):
    opened: OpenArchive
    images: Images


class ArchiveSource:
    """One archive. Implements Source, Lists and RefersAtHand; made without looking at the disk."""

    def __init__(self, site: Site, store: Store, importer: Importer, meter: HostMeter) -> None:
        self.site = site
        self._store = store
        self._importer = importer
        self._meter = meter
        self._opening = asyncio.Lock()
        self._found: _Found | BlobflowError | None = None
        self._others: Sequence[ArchiveSource] = ()

    def read_with(self, others: Sequence[ArchiveSource]) -> None:
        """Look in these, too, for manifests that the index of this one names: in the other parts of a bundle.
        They are opened when this one is, if it names what it does not have."""
        self._others = [other for other in others if other is not self]

    def close(self) -> None:
        if isinstance(self._found, _Found):
            self._found.opened.close()

    @property
    def taken_in(self) -> int:
        """How many files the archives of this run had to bring into the store so far. What is known from an
        earlier run, or can stay where it is, is not among them."""
        return self._importer.begun

    async def tags(self) -> list[str]:
        """One name for each image that has any, in the order of the archive."""
        return (await self._images()).tags()

    async def names(self) -> dict[int, tuple[str, ...]]:
        """All names of each image, by the n of the `@n` that asks for it, in the order of the archive."""
        return (await self._images()).names()

    async def origins(self) -> dict[int, str]:
        """Where images were when a bundle was saved, by the n of their `@n`; of those of which it says so."""
        return (await self._images()).origins()

    async def referrers(self, subject: Digest) -> list[Referrer]:
        """See `Refers.referrers`."""
        return (await self._images()).referrers(subject)

    async def has_referrers(self) -> bool:
        """See `RefersAtHand.has_referrers`."""
        return (await self._images()).has_referrers()

    async def held(self) -> frozenset[Digest]:
        """The digests of what is in an OCI archive, of a docker archive those of the images asked for."""
        return (await self._open()).images.held()

    async def size_of(self, digest: Digest) -> int | None:
        """Bytes of what is held under a digest; None if nothing is."""
        stored = (await self._open()).images.blob(digest)
        return None if stored is None else stored.size

    async def resolve(self, name: str) -> Descriptor:
        """What a name, `@n`, a digest or "" (the only image) means here."""
        return await (await self._images()).resolve(name)

    async def read(self, manifest: Descriptor) -> bytes:
        found = await self._open()
        raw = read_manifest(found.opened, found.images, manifest)
        self._meter.bytes_read += len(raw)
        return raw

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        found = await self._open()
        stored = found.images.blob(blob.digest)
        if stored is None:
            raise NotFound(f"{self.site} has no blob {blob.digest}")
        if stored.size != blob.size:
            what = f"blob {blob.digest} of {self.site}"
            raise SizeMismatch(what, expected=blob.size, actual=stored.size)
        stop = blob.size if end is None else end
        async with aclosing(found.opened.chunks(stored, offset, stop)) as stream:
            yield tapped(stream, Counter(self._count))

    def _count(self, size: int) -> None:
        self._meter.bytes_read += size

    async def _images(self) -> Images:
        """The images, with the other parts at hand if any of them lies there."""
        images = (await self._open()).images
        if self._others and isinstance(images, OciImages):
            if images.is_part():
                opened = [(await other._open()).images for other in self._others]
                images.look_in([other for other in opened if isinstance(other, OciImages)])
            self._others = ()
        return images

    async def _open(self) -> _Found:
        """The archive is read when this is first called. Raises the same error every time."""
        async with self._opening:
            if self._found is None:
                try:
                    with self._meter.waits.begin("read", host=path_of(self.site.registry)):
                        self._found = await self._look()
                except BlobflowError as error:
                    error.about_file = True
                    self._found = error
            if isinstance(self._found, BlobflowError):
                raise own_copy(self._found)
            return self._found

    async def _look(self) -> _Found:
        path = path_of(self.site.registry)
        oci = transport_of(self.site.registry) == OCI_ARCHIVE
        opened = await open_archive(
            None if path == STREAM else Path(path), self._store, self._importer, oci=oci
        )
        try:
            place = str(self.site)
            images = OciImages(opened, place) if oci else DockerImages(opened, place, self._importer)
        except BlobflowError:
            opened.close()
            raise
        return _Found(opened, images)
