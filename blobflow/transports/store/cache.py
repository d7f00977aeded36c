"""The store as a run's cache (`blobflow.content.Cache`), and two ways to deal with a full or failing one.

Others write to the same disk, so it may be full when the bytes come, whatever was planned. A run that must
keep what it reads then fails (`StrictCache`); any other passes the store by (`BestEffortCache`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from blobflow.content import BlobReader, BlobStream, Cache, Tap, tapped
from blobflow.errors import BlobflowError, StalePartial, StorageError, StoreLeft
from blobflow.oci import Descriptor, Digest
from blobflow.transports.store.downloads import InFlightBlob, SuspendedWriters
from blobflow.transports.store.recording import RecordedReader
from blobflow.transports.store.store import Store

_MB = 1_000_000


class StoreCache:
    """`blobflow.content.Cache` over a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._suspended = SuspendedWriters()
        self._in_flight: dict[Digest, list[InFlightBlob]] = {}

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held whole, verified when it came in."""
        return self._store.blobs.size_of(blob.digest) == blob.size

    async def partial_sizes(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        """See `blobflow.content.Cache`; the partials of living writers count too."""
        return self._store.partials.sizes(blob.digest for blob in blobs)

    def reader(self, blob: Descriptor) -> BlobReader:
        """A reader of a held blob; opening it raises NotFound if it is gone, IntegrityError if damaged."""
        return _HeldBlob(self._store, blob.digest)

    @asynccontextmanager
    async def share(
        self,
        blob: Descriptor,
        reader: BlobReader,
        *,
        keep: bool = False,
        joins: Callable[[BlobReader], bool] = lambda other: True,
        resumes: Callable[[], Awaitable[bool]] | None = None,
    ) -> AsyncIterator[BlobReader]:
        """Read the blob once for everyone who shares it; see `blobflow.content.Cache`.

        The first caller's `reader` is read; a caller shares it if it expects the same size, and its `joins`
        returns True for that reader. A failed share is not retried: the next caller starts a new writer,
        which goes on where the failed one stopped. `keep` by any caller keeps the blob. A blob that was held
        before is read from the store and stays. One that nobody keeps is removed when the last caller leaves,
        unless it leaves by an exception (the blob did not get where it should): then the bytes stay for
        whoever tries again. `resumes`: asked before what is here of the blob, or all of it, is given out; if
        it returns False, `reader` is read from the first byte.

        Raises StorageError on entry if the lease can't be written.
        """
        lease = await self._store.leases.acquire(blob.digest)
        try:
            in_flight = await self._join(
                blob, joins, resumes, lambda: self._start(blob, reader, keep, resumes)
            )
            if in_flight is None:
                yield self.reader(blob)
                return
            in_flight.keep = in_flight.keep or keep
            async with in_flight.joined() as shared:
                yield shared
        finally:
            self._store.leases.release(lease)

    def recorded(
        self,
        blob: Descriptor,
        reader: BlobReader,
        worth: Callable[[], bool],
        ended: Callable[[], None],
    ) -> BlobReader:
        """See `blobflow.content.Cache`. No room is looked for: who asks has made sure of it."""
        return RecordedReader(self._store, self._suspended, blob, reader, worth, ended)

    async def _join(
        self,
        blob: Descriptor,
        joins: Callable[[BlobReader], bool],
        resumes: Callable[[], Awaitable[bool]] | None,
        start: Callable[[], InFlightBlob],
    ) -> InFlightBlob | None:
        """The blob in flight, to be joined at once; None if the blob is held already."""
        while not (await self.has(blob) and (resumes is None or await resumes())):
            in_flight = next(
                (
                    each
                    for each in self._in_flight.get(blob.digest, ())
                    if each.blob.size == blob.size and joins(each.source)
                ),
                None,
            )
            if in_flight is not None and in_flight.error is None and not in_flight.joinable:
                await asyncio.wait((in_flight.task,))  # its last reader has just left: see what remains
                continue
            if in_flight is None or not in_flight.joinable:
                in_flight = start()
            return in_flight
        return None

    def _start(
        self,
        blob: Descriptor,
        reader: BlobReader,
        keep: bool,
        resumes: Callable[[], Awaitable[bool]] | None,
    ) -> InFlightBlob:
        in_flight = InFlightBlob(self._store, self._suspended, blob, reader, keep=keep, resumes=resumes)
        self._in_flight.setdefault(blob.digest, []).insert(0, in_flight)

        def ended(_: asyncio.Task[None]) -> None:
            others = self._in_flight[blob.digest]
            others.remove(in_flight)
            if not others:
                del self._in_flight[blob.digest]

        in_flight.task.add_done_callback(ended)
        return in_flight


class StrictCache:
    """`blobflow.content.Cache` for a run that keeps all it reads: it must have room for all of that.

    Before it copies the first blob, a run asks for every blob that it will copy (`has`). As soon as those
    that are not held yet come to more than `capacity` bytes, that is a StorageError.
    """

    def __init__(self, store: Store, cache: Cache, capacity: int) -> None:
        self._store = store
        self._cache = cache
        self._capacity = capacity
        self._wanted: set[Digest] = set()
        self._wanted_bytes = 0

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held. Raises StorageError if it is not, and there is no capacity for it."""
        if await self._cache.has(blob):
            return True
        if blob.digest not in self._wanted:
            self._wanted.add(blob.digest)
            self._wanted_bytes += blob.size
        if self._wanted_bytes > self._capacity:
            raise StorageError(
                f"to keep all blobs of this run, the store {self._store.root} would need room for more than "
                f"{self._capacity / _MB:.1f} MB; raise the cache size, free some space, or do not keep them "
                "all"
            )
        return False

    async def partial_sizes(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        return await self._cache.partial_sizes(blobs)

    def reader(self, blob: Descriptor) -> BlobReader:
        return self._cache.reader(blob)

    def share(
        self, blob: Descriptor, reader: BlobReader, *, keep: bool = False
    ) -> AbstractAsyncContextManager[BlobReader]:
        return self._cache.share(blob, reader, keep=keep)

    def recorded(
        self,
        blob: Descriptor,
        reader: BlobReader,
        worth: Callable[[], bool],
        ended: Callable[[], None],
    ) -> BlobReader:
        return self._cache.recorded(blob, reader, worth, ended)


class BestEffortCache:
    """`blobflow.content.Cache` for a run that needs the targets served, not the store filled.

    Once the store has failed (it is full, read-only, gone), which is reported once, blobs that it does not
    hold whole go straight from the source to each target. A blob in flight raises StoreLeft, and its next
    attempt goes straight as well. So a disk that fills up costs each blob at most one more read a target.
    """

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._failed = False
        self._left: set[Digest] = set()

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held and has not failed to come out of the store."""
        if blob.digest in self._left:
            return False
        try:
            return await self._cache.has(blob)
        except StorageError as error:
            self._leave(blob, error)
            return False

    async def partial_sizes(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        try:
            return await self._cache.partial_sizes(blobs)
        except StorageError:  # the first share reports it
            return {}

    def reader(self, blob: Descriptor) -> BlobReader:
        return self._cache.reader(blob)

    @asynccontextmanager
    async def share(
        self, blob: Descriptor, reader: BlobReader, *, keep: bool = False
    ) -> AsyncIterator[BlobReader]:
        """As `Cache.share` while the store works; `reader` itself afterwards."""
        async with AsyncExitStack() as stack:
            if not self._failed or await self.has(blob):
                try:
                    shared = await stack.enter_async_context(self._cache.share(blob, reader, keep=keep))
                    reader = _Watched(shared, partial(self._leave, blob))
                except StorageError as error:
                    self._leave(blob, error)
            yield reader

    def recorded(
        self,
        blob: Descriptor,
        reader: BlobReader,
        worth: Callable[[], bool],
        ended: Callable[[], None],
    ) -> BlobReader:
        """As `Cache.recorded` while the store works; `reader` itself afterwards."""
        if self._failed:
            ended()
            return reader
        return self._cache.recorded(blob, reader, worth, ended)

    def _leave(self, blob: Descriptor, error: StorageError) -> StoreLeft:
        """Pass the store by for this blob, and for all that are still to come."""
        self._left.add(blob.digest)
        self._failed = True
        self._store.report_failure(error)
        return StoreLeft(error.message)


class _Watched(Tap):
    """A blob as the store shares it: where the store fails, `leave` says what is raised."""

    def __init__(self, shared: BlobReader, leave: Callable[[StorageError], StoreLeft]) -> None:
        self._shared = shared
        self._leave = leave

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async with AsyncExitStack() as stack:
            try:
                stream = await stack.enter_async_context(self._shared.open(offset))
            except StorageError as error:
                raise self._leave(error) from error
            yield tapped(stream, self)

    def fail(self, error: BlobflowError) -> BlobflowError:
        if isinstance(error, StorageError) and not isinstance(error, StalePartial):
            return self._leave(error)
        return error


class _HeldBlob:
    """A `BlobReader` of a blob that the store has."""

    def __init__(self, store: Store, digest: Digest) -> None:
        self._store = store
        self._digest = digest

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[BlobStream]:
        return self._store.blobs.open(self._digest, offset)
