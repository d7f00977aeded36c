"""The content of bundles, sent from where it is.

A blob is checked against its digest once, while it is sent for the first time: a thread reads it as its
bytes leave, and the last of them wait for what the thread says. So the first byte of a large layer does not
wait for the last, and nobody gets the whole of a damaged blob. What is damaged is not here from then on,
unless another bundle has it, too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from blobflow.errors import DigestMismatch, IntegrityError, NotFound, StorageError, own_copy
from blobflow.oci import Digest, hasher_for
from blobflow.oci.digest import algorithm_of, head_of
from blobflow.transports.archive.contents import StoredFile
from blobflow.transports.archive.images import OciImages
from blobflow.transports.archive.open_archive import OpenArchive
from blobflow.transports.files import translate_os_errors
from blobflow.transports.store.served_content import BlobFile

# Threads that check: one can wait for the disk while another hashes.
_THREADS = 2


class ServedArchive:
    """One archive that stays open: it is read on where it lies even if its name goes."""

    def __init__(self, opened: OpenArchive, images: OciImages, fd: int) -> None:
        self.opened = opened
        self.images = images
        self.fd = fd
        self._written = _last_write(fd)

    @property
    def name(self) -> str:
        return self.opened.name

    def check_unchanged(self) -> None:
        """Raises StorageError if the file was written to since it was opened: what lies where is not known
        any more."""
        with translate_os_errors("read", self.name):
            written = _last_write(self.fd)
        if written != self._written:
            raise StorageError(
                f"{self.name} was changed while it is served; end this process, and serve a whole bundle anew"
            )


def _last_write(fd: int) -> tuple[int, int]:
    about = os.fstat(fd)
    return about.st_size, about.st_mtime_ns


class _Place(msgspec.Struct, frozen=True, gc=False):
    """Where a blob is: in the archive of that number, at `offset`."""

    number: int
    offset: int
    size: int


class ArchivedBlobs:
    """Implements `ServedBlobs` over open archives, which it closes. The first that has a blob counts."""

    def __init__(self, archives: Sequence[ServedArchive]) -> None:
        self._archives = archives
        self._verified: set[int] = set()
        self._damaged: set[tuple[int, Digest]] = set()
        self._checking: dict[Digest, asyncio.Future[None]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._closing = False

    def close(self) -> None:
        """Stop checking, and close the archives."""
        self._closing = True
        for checking in self._checking.values():
            checking.cancel()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for archive in self._archives:
            archive.opened.close()

    def check_unchanged(self) -> None:
        """Raises StorageError if any of the archives was changed."""
        for archive in self._archives:
            archive.check_unchanged()

    def mark_used(self, digest: Digest) -> None:
        """Nothing here is ever evicted."""

    def size_of(self, digest: Digest) -> int | None:
        place = self._place_of(digest)
        if place is None:
            return None
        self._archives[place.number].check_unchanged()
        return place.size

    def read_now(self, digest: Digest, most: int) -> bytes | None:
        place = self._place_of(digest)
        if place is None or place.size > most:
            return None
        try:
            return self._read(digest, place)
        except (IntegrityError, StorageError):
            return None

    async def read_whole(self, digest: Digest) -> bytes:
        place = self._place_of(digest)
        if place is None:
            raise self._not_found(digest)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._readers(), self._read, digest, place)
        except IntegrityError:
            self._damaged.add((place.number, digest))
            raise

    async def open_file(self, digest: Digest) -> BlobFile:
        place = self._place_of(digest)
        if place is None:
            raise self._not_found(digest)
        archive = self._archives[place.number]
        archive.check_unchanged()
        with translate_os_errors("read", archive.name):
            file = os.fdopen(os.dup(archive.fd), "rb", buffering=0)
        self._check_soon(digest, place)
        return BlobFile(file, place.offset, archive.name, partial(self._verify, digest, place))

    def _place_of(self, digest: Digest) -> _Place | None:
        for number, archive in enumerate(self._archives):
            stored = archive.images.blob(digest)
            if stored is not None and stored.offset is not None and (number, digest) not in self._damaged:
                return _Place(number, stored.offset, stored.size)
        return None

    async def _verify(self, digest: Digest, place: _Place) -> None:
        """Return when the blob at this place is checked. Being cancelled takes nothing from others who wait.

        Raises IntegrityError, StorageError.
        """
        checking = self._check_soon(digest, place)
        if checking is not None:
            await asyncio.wait((checking,))
            if checking.cancelled():
                raise _closed(self._archives[place.number])
            if error := checking.exception():
                raise own_copy(error)
        self._archives[place.number].check_unchanged()

    def _check_soon(self, digest: Digest, place: _Place) -> asyncio.Future[None] | None:
        """The check of a blob, begun now unless it is under way; None if it was done."""
        if head_of(digest) in self._verified:
            return None
        checking = self._checking.get(digest)
        if checking is None:
            checking = asyncio.ensure_future(self._check(digest, place))
            self._checking[digest] = checking
            checking.add_done_callback(lambda done: self._check_ended(digest, done))
        return checking

    def _check_ended(self, digest: Digest, done: asyncio.Future[None]) -> None:
        self._checking.pop(digest, None)
        if not done.cancelled():
            done.exception()  # whoever asked may be gone

    async def _check(self, digest: Digest, place: _Place) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._readers(), self._hash, digest, place)
        except IntegrityError:
            self._damaged.add((place.number, digest))
            raise
        self._verified.add(head_of(digest))

    def _hash(self, digest: Digest, place: _Place) -> None:
        hasher = hasher_for(digest)
        for block in self._blocks(place):
            hasher.update(block)
        self._compare(digest, place, hasher.hexdigest())

    def _read(self, digest: Digest, place: _Place) -> bytes:
        """A small blob; in a thread. Raises DigestMismatch, StorageError."""
        content = b"".join(self._blocks(place))
        hasher = hasher_for(digest)
        hasher.update(content)
        self._compare(digest, place, hasher.hexdigest())
        return content

    def _blocks(self, place: _Place) -> Iterator[bytes]:
        archive = self._archives[place.number]
        for block in archive.opened.blocks(StoredFile(place.size, offset=place.offset)):
            if self._closing:
                raise _closed(archive)
            yield block

    def _compare(self, digest: Digest, place: _Place, encoded: str) -> None:
        archive = self._archives[place.number]
        archive.check_unchanged()  # which is another thing than damage, and is told as that
        actual = f"{algorithm_of(digest)}:{encoded}"
        if actual != digest:
            raise DigestMismatch(f"{digest} in {archive.name}", expected=digest, actual=actual)

    def _readers(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "blobflow-check")
        return self._threads

    def _not_found(self, digest: Digest) -> NotFound:
        return NotFound(f"blob {digest} is in none of the bundles")


def _closed(archive: ServedArchive) -> StorageError:
    return StorageError(f"{archive.name} was not read to its end: it is being closed")
