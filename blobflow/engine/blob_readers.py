"""Bodies as the executor hands them on: verified, counted, and with the side to blame for an error."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from blobflow.content import BlobReader, BlobStream, Source, Verifier
from blobflow.errors import IntegrityError, NotFound, error_side
from blobflow.oci import Descriptor

Count = Callable[[int], None]


async def can_be_read(source: Source, blob: Descriptor) -> bool:
    """Whether a blob's first byte can be had; of one without bytes that is not known."""
    if not blob.size:
        return False
    try:
        async with source.open(blob, 0, 1) as chunks:
            return any([bool(chunk) async for chunk in chunks])
    except (NotFound, IntegrityError):
        return False


def source_body(source: Source, blob: Descriptor, *, over: Callable[[], None]) -> BlobReader:
    """The blob as its source gives it, verified where it is read from the start.

    `over` is called when a reading ends, whole or left early, and maybe twice: the slot at the source is free
    again. Not when it breaks: who reads once more keeps the slot meanwhile.
    """

    @asynccontextmanager
    async def body(offset: int) -> AsyncIterator[BlobStream]:
        async with AsyncExitStack() as stack:
            with error_side("source"):
                chunks = await stack.enter_async_context(source.open(blob, offset))
            yield _whole(chunks, blob, over) if not offset else _rest(chunks, over)
        over()

    return body


async def _whole(chunks: BlobStream, blob: Descriptor, over: Callable[[], None]) -> BlobStream:
    verifier = Verifier(blob)
    with error_side("source"):
        async for chunk in chunks:
            verifier.feed(chunk)
            yield chunk
        verifier.finish()
    over()


def from_start(body: BlobReader) -> BlobReader:
    """The same body for a reader that trusts nobody below: every opening reads from the start.

    A source vouches for nothing that lies below an offset. A target that goes on from one gets the rest only
    while the whole is read and hashed again, and the last block when it matched.
    """

    @asynccontextmanager
    async def whole(offset: int) -> AsyncIterator[BlobStream]:
        async with body(0) as chunks:
            yield _after(chunks, offset) if offset else chunks

    return whole


async def _after(chunks: BlobStream, offset: int) -> BlobStream:
    async for chunk in chunks:
        if offset >= len(chunk):
            offset -= len(chunk)
            continue
        yield memoryview(chunk)[offset:] if offset else chunk
        offset = 0


async def _rest(chunks: BlobStream, over: Callable[[], None]) -> BlobStream:
    with error_side("source"):
        async for chunk in chunks:
            yield chunk
    over()


class Sent:
    """What one target took of a blob of `size` bytes in all its tries: `bytes`, and `at`, the offset from
    which it wanted it last."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.bytes = 0
        self.at = 0

    def count(self, size: int) -> int:
        """So many more; how many of them are beyond the blob's size, and so were sent once more."""
        before, self.bytes = self.bytes, self.bytes + size
        return max(0, self.bytes - max(before, self.size))

    def given_up(self, place: str) -> str:
        """Why `place` (`host/repository`) is not sent the blob once more."""
        return (
            f"given up after {self.bytes / 1e6:.1f} MB were sent for {self.size / 1e6:.1f} MB: uploads end on"
            " their way; if a proxy before the registry does that,"
            f" `blobflow probe {place}-probe` shows what gets through"
        )


def counted(body: BlobReader, begin: Count, count: Count, over: Callable[[], None]) -> BlobReader:
    """The same body; `begin` is told the offset of every opening, `count` the bytes of every chunk taken, and
    `over` is called when the last of them was asked past."""

    @asynccontextmanager
    async def counting(offset: int) -> AsyncIterator[BlobStream]:
        begin(offset)
        async with body(offset) as chunks:
            yield _counted(chunks, count, over)

    return counting


async def _counted(chunks: BlobStream, count: Count, over: Callable[[], None]) -> BlobStream:
    async for chunk in chunks:
        count(len(chunk))
        yield chunk
    over()
