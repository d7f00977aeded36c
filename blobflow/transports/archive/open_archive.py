"""An open archive: its contents, and the bytes of each file wherever they are."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec

from blobflow.bounded_file import open_readable
from blobflow.content import Chunk
from blobflow.errors import NoSuchFile, NotFound, StorageError, UnsupportedContent
from blobflow.oci import MAX_MANIFEST_BYTES, Digest
from blobflow.transports.archive.contents import Contents, StoredFile, scan
from blobflow.transports.archive.importer import Importer
from blobflow.transports.archive.tar_input import (
    STDIN,
    STDIN_NAME,
    FileInput,
    begins_compressed,
    is_file_at_start,
    stream_input,
)
from blobflow.transports.compression.detection import UncompressedDigest
from blobflow.transports.files import BLOCK, in_thread, read_range, translate_os_errors
from blobflow.transports.store import ImportCache, Store

_contents = msgspec.msgpack.Decoder(Contents)
# What is recorded of an archive: in which form (one that was read by other rules is read again), and bytes at
# most. A thousand images come to 10 MB; what is larger is read again every time.
_FORM = 3
_MAX_RECORD = 16 * 1024 * 1024


class OpenArchive:
    """The contents of one archive, `name` in messages. Holds its file open until `close`. `store`: where the
    rest of them is; None if all of them are in the file."""

    def __init__(self, name: str, fd: int, contents: Contents, store: Store | None) -> None:
        self.name = name
        self.contents = contents
        self._fd = fd
        self._store = store

    def close(self) -> None:
        _close(self._fd)

    def small(self, stored: StoredFile | None, what: str) -> bytes:
        """A whole file that is no larger than a manifest may be. Raises NotFound, UnsupportedContent."""
        if stored is None:
            raise NotFound(f"there is no {what}")
        if stored.size > MAX_MANIFEST_BYTES:
            raise UnsupportedContent(f"{what} has {stored.size} bytes; it may have {MAX_MANIFEST_BYTES}")
        if stored.raw is not None:
            return stored.raw
        if stored.digest:
            return self._in_store().blobs.read_small(stored.digest)
        if stored.offset is None:
            raise UnsupportedContent(f"{what} is no JSON")
        return b"".join(self.blocks(stored))

    async def chunks(self, stored: StoredFile, low: int, high: int) -> AsyncGenerator[Chunk, None]:
        """The file's bytes `low` ≤ i < `high`."""
        if stored.raw is not None:
            if low < high:
                yield stored.raw[low:high]
        elif stored.digest:
            async with self._in_store().blobs.open(stored.digest, low, high) as chunks:
                async for chunk in chunks:
                    yield chunk
        else:
            start = stored.offset or 0
            async with aclosing(read_range(self._fd, self.name, start + low, start + high)) as found:
                async for chunk in found:
                    yield chunk

    def _in_store(self) -> Store:
        assert self._store is not None, "what is in a store was brought there"
        return self._store

    def head(self, stored: StoredFile) -> bytes:
        """The first bytes of a file that is in the archive."""
        with translate_os_errors("read", self.name):
            return os.pread(self._fd, min(BLOCK // 1024, stored.size), stored.offset or 0)

    def blocks(self, stored: StoredFile) -> Iterator[bytes]:
        """A file that is in the archive, in blocks of 1 MiB but for the last; for a thread."""
        at, end = stored.offset or 0, (stored.offset or 0) + stored.size
        while at < end:
            with translate_os_errors("read", self.name):
                block = os.pread(self._fd, min(BLOCK, end - at), at)
            if not block:
                raise StorageError(f"{self.name} was cut off while it was read")
            at += len(block)
            yield block

    def digests(self, stored: StoredFile, what: str) -> tuple[Digest, Digest]:
        """The digest of a compressed layer that is in the archive, and its diff_id; for a thread.

        Raises DamagedStream for one that is spoilt, is cut off or goes on behind its end; UnsupportedContent.
        """
        hasher, bare = hashlib.sha256(usedforsecurity=False), UncompressedDigest(self.head(stored), what)
        for block in self.blocks(stored):
            hasher.update(block)
            bare.update(block)
        return Digest(f"sha256:{hasher.hexdigest()}"), bare.finish()


async def open_archive(path: Path | None, store: Store, importer: Importer, *, oci: bool) -> OpenArchive:
    """Open the archive at `path` (None: standard input), looking through it or reading it whole. Standard
    input that is a file, at its beginning, is an archive like any other.

    A compressed archive that was read before, and is the same file still, is not read again as long as the
    store holds what came out of it. Raises NoSuchFile, StorageError, UnsupportedContent, IntegrityError.
    """
    if path is None:
        if is_file_at_start(STDIN):
            return await _opened(STDIN_NAME, STDIN, store, importer, oci=oci)
        return await _imported(STDIN_NAME, STDIN, store, importer, oci=oci)
    fd = await in_thread(_open, path)
    try:
        return await _opened(str(path), fd, store, importer, oci=oci)
    except BaseException:
        _close(fd)
        raise


def _open(path: Path) -> int:
    """In a thread, since a pipe's writer is waited for. Raises NoSuchFile, StorageError."""
    with translate_os_errors("read", path):
        try:
            return open_readable(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
    raise NoSuchFile(f"there is no archive {path}")


async def _opened(name: str, fd: int, store: Store, importer: Importer, *, oci: bool) -> OpenArchive:
    about = os.fstat(fd)
    if stat.S_ISDIR(about.st_mode):
        raise UnsupportedContent(f"{name} is a folder, not an archive; a layout is oci:{name}")
    if not stat.S_ISREG(about.st_mode):
        return await _imported(name, fd, store, importer, oci=oci)
    if not begins_compressed(fd, name):
        return OpenArchive(name, fd, await in_thread(scan, FileInput(fd, name)), store)
    imports = ImportCache(store)
    file = f"{_FORM} {about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns}"
    keys = [f"{file} {version}" for version in (("oci",) if oci else importer.versions)]
    for key in keys:
        known = imports.archive(key)
        if known is not None and importer.holds(contents := _contents.decode(known)):
            return OpenArchive(name, fd, contents, store)
    opened = await _imported(name, fd, store, importer, oci=oci)
    record = msgspec.msgpack.encode(opened.contents)
    if len(record) <= _MAX_RECORD:
        imports.record_archive(keys[-1], record)
    return opened


async def _imported(name: str, fd: int, store: Store, importer: Importer, *, oci: bool) -> OpenArchive:
    tar = await in_thread(stream_input, fd, name)
    return OpenArchive(name, fd, await importer.take(tar, oci=oci), store)


def _close(fd: int) -> None:
    if fd != STDIN:
        os.close(fd)
