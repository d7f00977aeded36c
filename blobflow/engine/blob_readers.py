"""A blob's readers as the executor hands them on: verified, counted, and with the side of an error named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from blobflow.content import (
    BlobReader,
    BlobStream,
    Counter,
    Notice,
    PartStream,
    Source,
    Tap,
    Verifier,
    tapped,
)
from blobflow.errors import BlobflowError, IntegrityError, NotFound, error_side
from blobflow.oci import Descriptor


async def can_be_read(source: Source, blob: Descriptor) -> bool:
    """Whether a blob's first byte can be had; of one without bytes that is not known."""
    if not blob.size:
        return False
    try:
        async with source.open(blob, 0, 1) as stream:
            return any([bool(chunk) async for chunk in stream])
    except (NotFound, IntegrityError):
        return False


class SourceReader:
    """The blob as its source gives it, verified where it is read from the start. Errors name the source.

    `finished` is called when a reading ends, whole or left early, and maybe twice: the slot at the source is
    free again. Not when it breaks: who reads once more keeps the slot meanwhile.
    """

    def __init__(
        self, source: Source, blob: Descriptor, *, finished: Callable[[], None] | None = None
    ) -> None:
        self._source = source
        self._blob = blob
        self._finished = finished

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        taps: list[Tap] = [_FromSource()] if offset else [Verifier(self._blob), _FromSource()]
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


class WholeReader:
    """The same blob for a reader that trusts nobody below: every opening reads from the start.

    A source vouches for nothing that lies below an offset. A target that goes on from one gets the rest only
    while the whole is read and hashed again, and the last chunk when it matched.
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
