"""Incoming blobs from upstreams: one read for all clients that want a blob, resumed where it breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Self

from blobflow.content import BlobReader, BlobStream, Chunk, Site, Sleep, SourceAt, Tap, tapped
from blobflow.errors import BlobflowError, IntegrityError, StalePartial, Throttled, TimedOut
from blobflow.oci import Descriptor
from blobflow.retrying import Attempts
from blobflow.server.errors import ApiError
from blobflow.server.pullthrough.circuit_breaker import CircuitBreaker
from blobflow.transports.store import Store, StoreCache

# Reads of a blob that bring no byte, one after the other, before the blob has failed; seconds between two.
MAX_ATTEMPTS = 4
RETRY_PAUSE = 0.5
# A read that brings fewer bytes than this in so many seconds has failed: it keeps others waiting.
SLOW_BYTES = 64 * 1024
SLOW_SECONDS = 60.0

# Whether an upstream says that its repository has a blob.
HasBlob = Callable[[Site, Descriptor], Awaitable[bool]]


class IncomingBlobs:
    """Used on one loop only; `close` it. `read` is called with each chunk's site and bytes, and `begun` when
    an upstream is asked for a blob. `retry_times`: how often a read that breaks is begun again without a byte
    having come, in place of MAX_ATTEMPTS; 0: never."""

    def __init__(
        self,
        store: Store,
        source_at: SourceAt,
        breaker: CircuitBreaker,
        *,
        clock: Callable[[], float],
        sleep: Sleep,
        begun: Callable[[Site], None],
        read: Callable[[Site, int], None],
        retry_times: int | None = None,
    ) -> None:
        self._store = store
        self._caches: dict[str, StoreCache] = {}  # by registry: those that were configured, which are few
        self._source_at = source_at
        self._breaker = breaker
        self._clock = clock
        self._sleep = sleep
        self._begun = begun
        self._count = read
        self._attempts = MAX_ATTEMPTS if retry_times is None else retry_times + 1
        self._followers: set[asyncio.Future[None]] = set()

    async def close(self) -> None:
        """Wait until those who follow a blob, who have been cancelled by then, have left it."""
        while self._followers:
            await asyncio.wait(self._followers)

    @asynccontextmanager
    async def follow(
        self, upstream: Site, blob: Descriptor, has: HasBlob | None = None, *, anywhere: bool = True
    ) -> AsyncIterator[BlobReader]:
        """A reader of the blob while it comes in; see `blobflow.content.Cache.share`. Reading it raises
        ApiError for what the upstream did, IntegrityError and StorageError.

        What one registry sends is followed by nobody who wants the blob from another. `anywhere`: a read of
        it from another repository of the same registry will do, and so will what is here of it; otherwise
        that is given out only if the upstream `has` the blob.
        """
        cache = self._caches.setdefault(upstream.registry, StoreCache(self._store))

        reader = _Upstream(self, upstream, blob, asks=not anywhere)

        def joins(other: BlobReader) -> bool:
            if anywhere:
                return True
            if not isinstance(other, _Upstream) or other.site != upstream or other.has_resumed_unasked:
                return False
            other.asks = True  # before it goes on with anything
            return True

        async def resumes() -> bool:
            if reader.asks:
                return has is not None and await has(upstream, blob)
            reader.has_resumed_unasked = True
            return True

        left = asyncio.get_running_loop().create_future()
        self._followers.add(left)
        try:
            async with cache.share(blob, reader, keep=True, joins=joins, resumes=resumes) as shared:
                yield shared
        finally:
            self._followers.discard(left)
            left.set_result(None)

    async def read(self, upstream: Site, blob: Descriptor, offset: int) -> AsyncGenerator[Chunk | None, None]:
        """The upstream's bytes from `offset`, through its breaks. After the last of them comes None, while
        the upstream can still hear (`athrow`) what is wrong with them."""
        retries = _ReadRetries(offset, self._attempts)
        attempts = Attempts(retries, lambda failure: self._sleep(failure.delay))
        async with self._breaker.guard(upstream, "blob", blob.digest):
            self._begun(upstream)
            source = self._source_at(upstream)
            while True:
                try:
                    async with source.open(blob, retries.offset) as stream:
                        async for chunk in tapped(stream, _Fast(self._clock)):
                            retries.offset += len(chunk)
                            self._count(upstream, len(chunk))
                            yield chunk
                        yield None
                    return
                except (IntegrityError, StalePartial):  # found by the source, or by who has read all of it
                    raise
                except BlobflowError as error:
                    failure = error
                await attempts.failed(failure)


class _Upstream:
    """A `BlobReader` of what an upstream has. `asks`: what is here of the blob is not given out before the
    upstream says that it has the blob. `has_resumed_unasked`: it is, without that."""

    def __init__(self, incoming: IncomingBlobs, upstream: Site, blob: Descriptor, *, asks: bool) -> None:
        self._incoming = incoming
        self.site = upstream
        self._blob = blob
        self.asks = asks
        self.has_resumed_unasked = False

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async with aclosing(self._incoming.read(self.site, self._blob, offset)) as chunks:
            try:
                yield _UpToNone(chunks)
            except (IntegrityError, StalePartial) as error:
                with suppress(BlobflowError, ApiError):  # it hears of it, and the error is the reader's
                    await chunks.athrow(error)
                raise


class _UpToNone:
    """A `BlobStream` of the chunks before the first None."""

    def __init__(self, chunks: AsyncGenerator[Chunk | None, None]) -> None:
        self._chunks = chunks
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        chunk = None if self._ended else await anext(self._chunks)
        if chunk is None:
            self._ended = True
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await self._chunks.aclose()


class _Fast(Tap):
    """Fails a stream of which too little comes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._came = 0

    def feed(self, chunk: Chunk) -> None:
        self._came += len(chunk)
        if self._came >= SLOW_BYTES:
            self._since, self._came = self._clock(), 0
        elif self._clock() - self._since > SLOW_SECONDS:
            raise _TooSlow(f"no more than {self._came} bytes of a blob have come in {SLOW_SECONDS:.0f} s")


class _TooSlow(TimedOut):
    """Bytes come, but so few that they never end."""


class _ReadRetries:
    """The retry `Policy` of one read, which goes on at `offset`: what brought a byte counts as the first of
    so many attempts."""

    def __init__(self, offset: int, attempts: int) -> None:
        self.offset = offset
        self._attempts = attempts
        self._failed_at = offset
        self._failed = 0

    def next_delay(self, error: BlobflowError) -> float | None:
        """See `Policy.next_delay`."""
        self._failed = 1 if self.offset > self._failed_at else self._failed + 1
        self._failed_at = self.offset
        if self._failed >= self._attempts or isinstance(error, (Throttled, _TooSlow)) or not error.retryable:
            return None
        return RETRY_PAUSE * self._failed

    def attempts_for(self, error: BlobflowError) -> int:
        """See `Policy.attempts_for`: what brings bytes begins the count anew."""
        return 0
