"""The growing partial: a blob is written once, and any number of readers follow at their own pace.

Readers read the file (out of the page cache), so nothing is queued for them and memory stays bounded however
slow they are. What they may see grows as the writer flushes, up to the last WITHHELD bytes, which show only
when size and digest of the whole have matched.

The life of a `InFlightBlob` is one task: take up what is there (a writer parked in this process; else what a
dead one left, its bytes hashed again; else nothing), pump the source's body from there, verify, and, when
kept or when everybody has left, commit or remove. A writer that stops early, because its source failed or
because nobody reads any more, is parked with its hash state, so that the next `share` in this process goes
on at once; when the store closes, or this process dies, only the bytes remain.

Two processes that want the same blob at the same time each write a partial of their own, and the first to
commit wins: rename(2) puts the same bytes under the same name. That costs a second read of the source, and
spares a protocol between processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from blobflow.content import BlobReader, BlobStream, Chunk
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
# Parked writers, an open file each; beyond, the oldest is suspended and will be hashed again.
_PARKED_AT_MOST = 32


class SuspendedWriters:
    """Writers that stopped early, in this process, with their hash state."""

    def __init__(self) -> None:
        self._writers: OrderedDict[Digest, Writer] = OrderedDict()

    def park(self, digest: Digest, writer: Writer) -> None:
        """Keep the writer for the next share of the digest; a short one is removed."""
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
        if len(self._writers) > _PARKED_AT_MOST:
            self._writers.popitem(last=False)[1].suspend()

    def take(self, digest: Digest) -> Writer | None:
        writer = self._writers.pop(digest, None)
        return None if writer is None or writer.ended else writer


class InFlightBlob:
    """One blob on its way in, and those who read it.

    `unfinished`: the last who left did so by an exception: the bytes stay, for whoever tries again.
    """

    def __init__(
        self, store: Store, parked: SuspendedWriters, blob: Descriptor, reader: BlobReader, *, keep: bool
    ) -> None:
        self.blob = blob
        self.keep = keep
        self.unfinished = False
        self.inside = 0
        self.error: BaseException | None = None
        self._store = store
        self._parked = parked
        self._source = reader
        self._writer: Writer | None = None
        self._fd = -1
        self._visible = 0
        self._verified = False
        self._news = asyncio.Event()
        self._left = asyncio.Event()
        self.task = asyncio.create_task(self._live(), name=f"share {blob.digest}")

    @property
    def joinable(self) -> bool:
        return self.error is None and not self._left.is_set()

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[BlobReader]:
        """One more inside; when the last of them goes, it ends."""
        self.inside += 1
        well = False
        try:
            yield self
            well = True
        finally:
            self.inside -= 1
            if not self.inside:
                self.unfinished = not well
                self._left.set()
                if not self._verified:
                    self.task.cancel()
                await asyncio.wait((self.task,))

    @contextlib.asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        """Follow the writer: a stream for one of those inside."""
        async with contextlib.aclosing(self._follow(offset)) as stream:
            yield stream

    async def _follow(self, offset: int) -> AsyncGenerator[Chunk, None]:
        """The bytes from `offset`, as they become visible; then the end, or the writer's error."""
        fd = -1
        try:
            while not (self._verified and offset >= self.blob.size):
                if self.error is not None:
                    raise own_copy(self.error)
                if offset >= self._visible:
                    await self._news.wait()
                    continue
                if fd < 0:
                    fd = self._duplicate()
                with translate_os_errors("read", self._store.paths.partials):
                    chunk = os.pread(fd, min(READ, self._visible - offset), offset)
                if not chunk:
                    raise StorageError(f"the partial of blob {self.blob.digest} was cut short on disk")
                offset += len(chunk)
                yield chunk
        finally:
            if fd >= 0:
                os.close(fd)

    def _duplicate(self) -> int:
        """A reader's own descriptor: it stays good while the writer commits, and after everybody left."""
        if self._fd < 0:
            raise StorageError(f"blob {self.blob.digest} is read after its share has ended")
        with translate_os_errors("read", self._store.paths.partials):
            return os.dup(self._fd)

    async def _live(self) -> None:
        try:
            self._writer = writer = await self._take_up()
            await self._pump(writer)
            self._verify(writer)
            if not self.keep:
                await self._left.wait()
            await self._settle(writer)
        except asyncio.CancelledError:
            self._fail(StorageError(f"the share of blob {self.blob.digest} was abandoned"), going_on=True)
            raise
        except IntegrityError as error:
            self._fail(error, going_on=False)
        except Exception as error:  # noqa: BLE001  whatever it is, every reader raises it
            self._fail(error, going_on=not isinstance(error, StalePartial))
        finally:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _fail(self, error: BaseException, *, going_on: bool) -> None:
        """Tell every reader; leave the bytes for the next share, unless they are under suspicion."""
        if not self._verified:
            self.error = error
        writer = self._writer
        if writer is not None and going_on and not self._verified:
            self._parked.park(self.blob.digest, writer)
        elif writer is not None:
            writer.abort()
        self._announce()

    async def _take_up(self) -> Writer:
        digest, size = self.blob.digest, self.blob.size
        writer = self._parked.take(digest) or await self._store.partials.resume(digest)
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
        self._show(writer)
        return writer

    async def _pump(self, writer: Writer) -> None:
        size = self.blob.size
        if writer.offset == size:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + _FLUSH_SECONDS
        async with self._source.open(writer.offset) as stream:
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
                    self._show(writer)

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
        self._announce()

    async def _settle(self, writer: Writer) -> None:
        """Commit, or remove, or park for who tries again.

        Readers have what they came for by now: a blob that can't be kept is only a warning. What others left
        of the blob before is of no more use, and goes as well.
        """
        if self.keep:
            try:
                await writer.commit(self.blob.digest, self.blob.size)
            except StorageError as error:
                self._store.report_failure(error)
            else:
                self._store.partials.remove_abandoned(self.blob.digest)
            await self._left.wait()
        elif self.unfinished:
            self._parked.park(self.blob.digest, writer)
        else:
            writer.abort()
            self._store.partials.remove_abandoned(self.blob.digest)

    def _show(self, writer: Writer) -> None:
        visible = min(writer.flushed, max(0, self.blob.size - WITHHELD))
        if visible > self._visible:
            self._visible = visible
            self._announce()

    def _announce(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class StoreCache:
    """`blobflow.content.Cache` over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parked = SuspendedWriters()
        self._growing: dict[Digest, InFlightBlob] = {}

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held whole, verified when it came in."""
        return self._store.blobs.size_of(blob.digest) == blob.size

    async def begun(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        """See `blobflow.content.Cache`; what a living writer is still filling counts too."""
        return self._store.partials.sizes(blob.digest for blob in blobs)

    def reader(self, blob: Descriptor) -> BlobReader:
        """Opens a held blob; NotFound then if it is gone, IntegrityError if it is damaged."""
        return _Held(self._store, blob.digest)

    @contextlib.asynccontextmanager
    async def share(
        self, blob: Descriptor, reader: BlobReader, *, keep: bool = False
    ) -> AsyncIterator[BlobReader]:
        """Read the blob once for everyone inside; see `blobflow.content.Cache`.

        The first one's `reader` is read. A failed share is not retried: who enters again starts a new writer,
        which goes on where the failed one stopped. `keep` by anyone keeps. A blob that was held before is
        read from the store and stays. One that nobody keeps is removed when the last leaves, unless that is
        by an exception (it did not get where it should): then its bytes stay for whoever tries again.

        Raises StorageError on entry when the lease can't be noted.
        """
        lease = await self._store.leases.take(blob.digest)
        try:
            growing = await self._join(blob, reader, keep)
            if growing is None:
                yield self.reader(blob)
                return
            async with growing.joined() as shared:
                yield shared
        finally:
            self._store.leases.release(lease)

    async def _join(self, blob: Descriptor, reader: BlobReader, keep: bool) -> InFlightBlob | None:
        """The blob's writer, to get inside of at once; None if the blob is held already."""
        while not await self.has(blob):
            growing = self._growing.get(blob.digest)
            if growing is not None and growing.error is None and not growing.joinable:
                await asyncio.wait((growing.task,))  # the last one has just left: see what remains
                continue
            if growing is None or not growing.joinable:
                growing = self._start(blob, reader, keep)
            growing.keep = growing.keep or keep
            return growing
        return None

    def _start(self, blob: Descriptor, reader: BlobReader, keep: bool) -> InFlightBlob:
        growing = InFlightBlob(self._store, self._parked, blob, reader, keep=keep)
        self._growing[blob.digest] = growing

        def ended(_: asyncio.Task[None]) -> None:
            if self._growing.get(blob.digest) is growing:
                del self._growing[blob.digest]

        growing.task.add_done_callback(ended)
        return growing


class _Held:
    """A `BlobReader` of what the store holds."""

    def __init__(self, store: Store, digest: Digest) -> None:
        self._store = store
        self._digest = digest

    def open(self, offset: int = 0) -> contextlib.AbstractAsyncContextManager[BlobStream]:
        return self._store.blobs.open(self._digest, offset)
