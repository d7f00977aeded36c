"""Blob readers around a source's: they verify, count, and name the side in errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from blobflow.content import (
    BlobReader,
    BlobStream,
    Chunk,
    Counter,
    LineRate,
    Notice,
    PartStream,
    RateTap,
    Source,
    Tap,
    Verifier,
    tapped,
)
from blobflow.errors import BlobflowError, IntegrityError, NotFound, error_side
from blobflow.oci import Descriptor


async def can_be_read(source: Source, blob: Descriptor) -> bool:
    """Whether a blob's first byte can be read; False for an empty blob, of which nothing can be read."""
    if not blob.size:
        return False
    try:
        async with source.open(blob, 0, 1) as stream:
            return any([bool(chunk) async for chunk in stream])
    except (NotFound, IntegrityError):
        return False


class SourceReader:
    """The blob as its source gives it, verified where it is read from the start. Errors name the source.

    `finished` is called when a reading ends, whole or abandoned early, and maybe twice: the permit at the
    source is free again. Not when the reading breaks: a retry keeps the permit. `line` is told how fast the
    bytes come.
    """

    def __init__(
        self,
        source: Source,
        blob: Descriptor,
        *,
        finished: Callable[[], None] | None = None,
        line: LineRate | None = None,
    ) -> None:
        self._source = source
        self._blob = blob
        self._finished = finished
        self._line = line

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        taps: list[Tap] = [_FromSource()] if offset else [Verifier(self._blob), _FromSource()]
        if self._line is not None:
            taps.append(RateTap(self._line, asyncio.get_running_loop().time))
        if self._finished is not None:
            taps.append(Notice(self._finished))
        async with AsyncExitStack() as stack:
            with error_side("source"):
                stream = await stack.enter_async_context(self._source.open(self._blob, offset))
            yield tapped(stream, *taps)
        if self._finished is not None:
            self._finished()


class _FromSource(Tap):
    """Names the source in what fails."""

    __slots__ = ()

    def fail(self, error: BlobflowError) -> BlobflowError:
        error.side = error.side or "source"
        return error


class HeldReader:
    """A blob whose bytes are in memory, verified when they were read."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async with aclosing(self._chunks(offset)) as stream:
            yield stream

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        if offset < len(self._content):
            yield self._content[offset:]


class WholeReader:
    """The same blob for a target that resumes: every opening reads from the start.

    A source does not verify the bytes before an offset. A target that resumes from one gets the rest while
    the whole blob is read and hashed again, and gets the last chunk only once the digest matched.
    """

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async with self._reader.open() as stream:
            yield PartStream(stream, offset) if offset else stream


class CountedReader:
    """The same blob; `begin` is told the offset of every opening, `count` the bytes of every chunk taken, and
    `finished` is called when the last of them was taken."""

    def __init__(
        self,
        reader: BlobReader,
        *,
        begin: Callable[[int], None],
        count: Callable[[int], None],
        finished: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._begin = begin
        self._taps = Counter(count), Notice(finished)

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self._begin(offset)
        async with self._reader.open(offset) as stream:
            yield tapped(stream, *self._taps)


class Sent:
    """What one target received of a blob of `size` bytes over all attempts: `bytes`, and `at`, the offset at
    which the last attempt began."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bytes = 0
        self.at = 0

    def count(self, size: int) -> int:
        """Count `size` more bytes. Returns how many of them exceed the blob's size, that is, were resent."""
        before, self.bytes = self.bytes, self.bytes + size
        return max(0, self.bytes - max(before, self.size))

    def given_up(self, place: str) -> str:
        """Why `place` (`host/repository`) is not sent the blob once more."""
        return (
            f"given up after {self.bytes / 1e6:.1f} MB were sent for {self.size / 1e6:.1f} MB: uploads end on"
            " their way; if a proxy before the registry does that,"
            f" `blobflow probe {place}-probe` shows what gets through"
        )
