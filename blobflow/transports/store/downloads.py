"""In-flight blobs: each is written once into a partial, and any number of readers follow at their own pace.

Readers read the file (out of the page cache), so nothing is queued for them and memory stays bounded however
slow they are. What they may see grows as the writer flushes, up to the last WITHHELD bytes, which show only
when size and digest of the whole have matched.

The life of an `InFlightBlob` is one task: begin or resume a writer (one suspended in this process; else the
partial of a dead one, its bytes hashed again; else a new one), read the source from there, verify, and commit
at once if the blob is to be kept, else remove it when the last reader has left. A writer that stops early,
because its source failed or because nobody reads any more, is suspended with its hash state, so that the next
`share` in this process goes on at once. When the store closes, or this process dies, only the bytes remain.

Two processes that want the same blob at the same time each write a partial of their own, and the first to
commit wins: rename(2) puts the same bytes under the same name. That costs a second read of the source, and
spares a protocol between processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self

from blobflow.content import BlobReader, BlobStream, Chunk, Extent
from blobflow.errors import DigestMismatch, IntegrityError, SizeMismatch, StalePartial, StorageError, own_copy
from blobflow.oci import Descriptor, Digest
from blobflow.transports.store.block_checksums import READ
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.partial_files import KEPT_FROM
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import Writer

# Bytes that no reader gets before the digest matched. One would do; a lone byte would cost each of them a
# write of its own.
WITHHELD = 64 * 1024
# Gathered bytes of a slow source become visible at least this often.
_FLUSH_SECONDS = 0.5
# Suspended writers in memory, an open file each. Beyond, the oldest is closed, and its bytes will be hashed
# again.
_MAX_SUSPENDED = 32


class SuspendedWriters:
    """Writers of this process that stopped early, open and with their hash state."""

    def __init__(self) -> None:
        self._writers: OrderedDict[Digest, Writer] = OrderedDict()

    def keep(self, digest: Digest, writer: Writer) -> None:
        """Keep the writer for the next share of the digest; a short partial is removed instead."""
        if writer.offset < KEPT_FROM:
            writer.abort()
            return
        with contextlib.suppress(StorageError):  # a full disk has ended the writer, and removed its partial
            writer.flush()
        if writer.ended:
            return
        earlier = self._writers.pop(digest, None)
        if earlier is not None:
            earlier.suspend()
        self._writers[digest] = writer
        if len(self._writers) > _MAX_SUSPENDED:
            self._writers.popitem(last=False)[1].suspend()

    def take(self, digest: Digest) -> Writer | None:
        """The digest's writer, to go on with; None if there is none."""
        writer = self._writers.pop(digest, None)
        return None if writer is None or writer.ended else writer


class InFlightBlob:
    """One blob that is being written, its writer, and its readers. A `BlobReader` for each that has joined.

    `source` is the reader whose bytes they are. `readers` counts those that have joined and not left.
    `unfinished` says that the last of them left by an exception, so that the bytes stay for whoever tries
    again. `error` is what ended the writer early.
    """

    def __init__(
        self,
        store: Store,
        suspended: SuspendedWriters,
        blob: Descriptor,
        reader: BlobReader,
        *,
        keep: bool,
        resumes: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """`resumes`: see `StoreCache.share`."""
        self.blob = blob
        self.keep = keep
        self.unfinished = False
        self.readers = 0
        self.error: BaseException | None = None
        self._store = store
        self._suspended = suspended
        self.source = reader
        self._resumes = resumes
        self._writer: Writer | None = None
        self._fd = -1
        self._visible = 0
        self._verified = False
        self._changed = asyncio.Event()
        self._all_left = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"share {blob.digest}")

    @property
    def partials(self) -> Path:
        """The folder that its file is in, to name in errors."""
        return self._store.paths.partials

    @property
    def joinable(self) -> bool:
        """Whether one more reader may join: the writer has not failed, and the last reader has not left."""
        return self.error is None and not self._all_left.is_set()

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[BlobReader]:
        """Join as a reader. When the last reader leaves, the writer ends, and is waited for."""
        self.readers += 1
        succeeded = False
        try:
            yield self
            succeeded = True
        finally:
            self.readers -= 1
            if not self.readers:
                self.unfinished = not succeeded
                self._all_left.set()
                if not self._verified:
                    self.task.cancel()
                await asyncio.wait((self.task,))

    @contextlib.asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        """The bytes from `offset` as they become visible; for whoever has joined."""
        async with contextlib.aclosing(_Follower(self, offset)) as stream:
            yield stream

    async def visible_from(self, offset: int) -> int:
        """Wait for bytes beyond `offset`. Returns where the visible ones end; `offset` at the blob's end.
        Raises the writer's error, if it failed."""
        while not (self._verified and offset >= self.blob.size):
            if self.error is not None:
                raise own_copy(self.error)
            if offset < self._visible:
                return self._visible
            await self._changed.wait()
        return offset

    def duplicate(self) -> int:
        """A reader's own descriptor, which stays good while the writer commits and after everybody left."""
        if self._fd < 0:
            raise StorageError(f"blob {self.blob.digest} is read after its share has ended")
        with translate_os_errors("read", self._store.paths.partials):
            return os.dup(self._fd)

    async def _run(self) -> None:
        try:
            self._writer = writer = await self._begin_or_resume()
            await self._pump(writer)
            if not self.keep:
                await self._all_left.wait()
            await self._commit_or_discard(writer)
        except asyncio.CancelledError:
            self._fail(StorageError(f"the share of blob {self.blob.digest} was abandoned"), resumable=True)
            raise
        except IntegrityError as error:
            self._fail(error, resumable=False)
        except Exception as error:  # noqa: BLE001  whatever it is, every reader raises it
            self._fail(error, resumable=not isinstance(error, StalePartial))
        finally:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _fail(self, error: BaseException, *, resumable: bool) -> None:
        """Let every reader raise `error`; keep the bytes for the next share if they are `resumable`."""
        if not self._verified:
            self.error = error
        writer = self._writer
        if writer is not None and writer.offset and resumable and not self._verified:
            self._suspended.keep(self.blob.digest, writer)
        elif writer is not None:
            writer.abort()
        self._wake_readers()

    async def _begin_or_resume(self) -> Writer:
        """The writer to go on with, or a new one where there is none, or its bytes can't become the blob."""
        digest, size = self.blob.digest, self.blob.size
        writer = self._suspended.take(digest) or await self._store.partials.resume(digest)
        if writer is not None and writer.offset and self._resumes is not None:
            self._writer = writer  # its bytes stay if the question fails
            if not await self._resumes():
                writer.suspend()
                writer = self._writer = None
        if writer is not None:
            spoiled = writer.offset == size and writer.digest_so_far() != digest
            if writer.offset > size or spoiled:
                writer.abort()
                writer = None
        if writer is None:
            writer = self._store.partials.begin(digest)
        try:
            with translate_os_errors("read", writer.path):
                self._fd = os.dup(writer.fd)
        except StorageError:
            writer.abort()
            raise
        self._make_visible(writer)
        return writer

    async def _pump(self, writer: Writer) -> None:
        """Read what is missing, and verify the whole. What is found wrong is raised where the source is open,
        so that the source learns of it, as it does from who verifies a stream."""
        size = self.blob.size
        if writer.offset == size:
            self._verify(writer)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + _FLUSH_SECONDS
        async with self.source.open(writer.offset) as stream:
            async for chunk in stream:
                if writer.offset + len(chunk) > size:
                    actual = writer.offset + len(chunk)
                    raise SizeMismatch(f"blob {self.blob.digest}", expected=size, actual=actual)
                before = writer.flushed
                writer.write(chunk)
                if loop.time() >= due:
                    writer.flush()
                if writer.flushed > before:
                    due = loop.time() + _FLUSH_SECONDS
                    self._make_visible(writer)
            self._verify(writer)

    def _verify(self, writer: Writer) -> None:
        """The digest of the whole, over what was received and, where bytes were adopted, read from disk."""
        writer.flush()
        digest, size = self.blob.digest, self.blob.size
        actual = writer.digest_so_far()
        if writer.offset != size:
            raise SizeMismatch(f"blob {digest}", expected=size, actual=writer.offset)
        if actual != digest:
            if writer.adopted:
                raise StalePartial(
                    f"what an earlier run left of blob {digest} is damaged; it is dropped, to be read again"
                )
            raise DigestMismatch(f"blob {digest}", expected=digest, actual=actual)
        self._verified = True
        self._visible = size
        self._wake_readers()

    async def _commit_or_discard(self, writer: Writer) -> None:
        """Commit, remove, or suspend for whoever tries again.

        The readers have what they came for, so a blob that can't be kept is only a warning. What others left
        of the blob before is of no more use, and is removed as well.
        """
        if self.keep:
            try:
                await writer.commit(self.blob.digest, self.blob.size)
            except StorageError as error:
                self._store.report_failure(error)
            else:
                self._store.partials.remove_abandoned(self.blob.digest)
            await self._all_left.wait()
        elif self.unfinished:
            self._suspended.keep(self.blob.digest, writer)
        else:
            writer.abort()
            self._store.partials.remove_abandoned(self.blob.digest)

    def _make_visible(self, writer: Writer) -> None:
        visible = min(writer.flushed, max(0, self.blob.size - WITHHELD))
        if visible > self._visible:
            self._visible = visible
            self._wake_readers()

    def _wake_readers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Follower:
    """One reader's stream of a blob in flight: the bytes from `offset` as they become visible."""

    def __init__(self, in_flight: InFlightBlob, offset: int) -> None:
        self._in_flight = in_flight
        self._at = offset
        self._fd = -1
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        extent = await self.next_extent(READ)
        with translate_os_errors("read", self._in_flight.partials):
            chunk = os.pread(extent.fd, len(extent), extent.start)
        self._at = extent.start + len(chunk)
        if not chunk:
            raise StorageError(f"the partial of blob {self._in_flight.blob.digest} was cut short on disk")
        return chunk

    async def next_extent(self, most: int) -> Extent:
        """See `HasExtents`. What is visible comes from the writer, or has been hashed with the whole."""
        if self._closed:
            raise StorageError(f"blob {self._in_flight.blob.digest} is read on after its reader has left")
        end = min(await self._in_flight.visible_from(self._at), self._at + most)
        if end == self._at:
            raise StopAsyncIteration
        if self._fd < 0:
            self._fd = self._in_flight.duplicate()
        extent = Extent(self._fd, self._at, end)
        self._at = end
        return extent

    async def aclose(self) -> None:
        self._closed = True
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
