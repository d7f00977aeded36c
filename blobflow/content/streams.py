"""Blob streams: a reader opens a blob, a stream is one reading of its bytes.

A `BlobReader` opens a blob's bytes at an offset, as often as is needed, so whoever holds one can retry and
resume. A `BlobStream` is what it opens: a resource with an end, not just an iterator.

What only looks at the bytes (hashing, counting, naming the side of an error) is a `Tap`. A stream has any
number of taps and still costs a chunk one await, since `tapped` lays them beside each other and not around
each other: a chunk goes from the socket through its download (of a large blob: and the stream that may go
over to ranges) and one `TappedStream` to the request's body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, NoReturn, Protocol, Self, runtime_checkable

from blobflow.errors import BlobflowError
from blobflow.oci import Descriptor

Chunk = bytes | memoryview

# See `is_small`. At 16 MB/s so many bytes take 16 ms.
SMALL_BLOB = 256 * 1024


def is_small(blob: Descriptor) -> bool:
    """Whether a blob is a small request: read whole and then written by one request, beside the blobs that
    stream and not in their turn. Most blobs of a set are (configs, scripts, certificates), and on a long path
    each of them would take a stream's place for three round trips."""
    return blob.size <= SMALL_BLOB


class BlobStream(Protocol):
    """One reading of a blob's bytes, from the offset at which it was opened to the end.

    An async generator of chunks is one. `aclose` ends the reading wherever it is, waits for no peer, and is
    done when its connection or file is given back; the second time it does nothing. A chunk that is asked for
    after it raises, or the stream has ended: a part never passes for the whole.
    """

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    def __anext__(self) -> Awaitable[Chunk]:
        """The next bytes, at least one; a `memoryview` is valid until the next call. StopAsyncIteration at
        the end, which only comes after all of the bytes did."""
        ...

    def aclose(self) -> Awaitable[None]: ...


class Extent(NamedTuple):
    """Bytes of a blob, `start` ≤ i < `end` of the file `fd`, which may leave by sendfile(2) as they are."""

    fd: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@runtime_checkable
class HasExtents(Protocol):
    """A `BlobStream` whose bytes lie in a file: they can be had as extents in place of chunks, in turns."""

    def next_extent(self, most: int) -> Awaitable[Extent | None]:
        """As `__anext__`: the next bytes, at least one and at most `most`, as good as a chunk would be. The
        descriptor is valid until the next call or the end. None if the next bytes have to be had as a chunk.
        """
        ...


class BlobReader(Protocol):
    """Opens the bytes of one blob. See `blobflow.content` for what it promises about wrong ones."""

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[BlobStream]:
        """A stream of the bytes from `offset` on. Entering makes the request or opens the file, and raises
        what comes of that; leaving closes the stream."""
        ...


class Tap:
    """Looks at a stream from the side: at its chunks, its end and its failure. Sans-IO."""

    __slots__ = ()

    def feed(self, chunk: Chunk) -> None:
        """A chunk, before it is passed on. What is raised here fails the stream in place of the chunk."""

    def pass_over(self, size: int) -> None:
        """So many bytes are passed on in place of a chunk, and nobody here sees them. Only asked of who says
        that it can do without (`blind`)."""

    @property
    def blind(self) -> bool:
        """Whether this does without the bytes, and only wants to know how many pass: then they may be sent
        from the file where they lie. So it is for who doesn't `feed`."""
        return type(self).feed is Tap.feed

    def finish(self) -> None:
        """The last byte was taken: the reader is done with it, and has asked for more in vain.

        Called once; not for a stream that failed or was left early.
        """

    def fail(self, error: BlobflowError) -> BlobflowError:
        """The stream, or a tap on it, failed; what its reader is to see raised."""
        return error


class Counter(Tap):
    """Calls `count` with the bytes of every chunk."""

    __slots__ = ("_count",)

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count

    def feed(self, chunk: Chunk) -> None:
        self._count(len(chunk))

    def pass_over(self, size: int) -> None:
        self._count(size)

    @property
    def blind(self) -> bool:
        return True


class Notice(Tap):
    """Calls `finished` when the last byte was taken."""

    __slots__ = ("_finished",)

    def __init__(self, finished: Callable[[], None]) -> None:
        self._finished = finished

    def finish(self) -> None:
        self._finished()


def tapped(stream: BlobStream, *taps: Tap) -> BlobStream:
    """The same stream, seen by `taps` after those that it has already."""
    if isinstance(stream, TappedStream):
        return TappedStream(stream.untapped, (*stream.taps, *taps))
    return TappedStream(stream, taps)


class TappedStream:
    """`untapped`, whose chunks every one of `taps` sees before they are passed on."""

    __slots__ = ("_ended", "_feeds", "_next", "taps", "untapped")

    def __init__(self, untapped: BlobStream, taps: tuple[Tap, ...]) -> None:
        self.untapped = untapped
        self.taps = taps
        self._next = untapped.__anext__
        self._feeds = [tap.feed for tap in taps if type(tap).feed is not Tap.feed]
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        try:
            chunk = await self._next()
            for feed in self._feeds:
                feed(chunk)
        except StopAsyncIteration:
            self._finish()
            raise
        except BlobflowError as error:
            self._raise(error)
        return chunk

    async def next_extent(self, most: int) -> Extent | None:
        """See `HasExtents`; None where a tap has to see the bytes, or they lie in no file."""
        stream = self.untapped
        if self._ended or not isinstance(stream, HasExtents) or not all(tap.blind for tap in self.taps):
            return None
        try:
            extent = await stream.next_extent(most)
            if extent is not None:
                for tap in self.taps:
                    tap.pass_over(len(extent))
        except StopAsyncIteration:
            self._finish()
            raise
        except BlobflowError as error:
            self._raise(error)
        return extent

    async def aclose(self) -> None:
        await self.untapped.aclose()

    def _finish(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            for tap in self.taps:
                tap.finish()
        except BlobflowError as error:
            self._raise(error)

    def _raise(self, error: BlobflowError) -> NoReturn:
        """Raise what the taps make of an error."""
        self._next, self._feeds, self._ended = _failed, [], True
        failure = error
        for tap in self.taps:
            failure = tap.fail(failure)
        if failure is error:
            raise error
        raise failure from error


async def _failed() -> Chunk:
    raise BlobflowError("a blob is read on although its stream has failed")


class PartStream:
    """What remains of `stream` without its first `skip` bytes; with `length`, no more than so many of it."""

    __slots__ = ("_left", "_next", "_skip", "_stream")

    def __init__(self, stream: BlobStream, skip: int, length: int | None = None) -> None:
        self._stream = stream
        self._next = stream.__anext__
        self._skip = skip
        self._left = length

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._left == 0:
            raise StopAsyncIteration
        while self._skip >= len(chunk := await self._next()):
            self._skip -= len(chunk)
        if self._skip or self._left is not None:
            past = None if self._left is None else self._skip + self._left
            chunk = memoryview(chunk)[self._skip : past]
            self._skip = 0
        if self._left is not None:
            self._left -= len(chunk)
        return chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def no_bytes() -> AsyncGenerator[Chunk, None]:
    """A stream without any chunk."""
    return
    yield b""
