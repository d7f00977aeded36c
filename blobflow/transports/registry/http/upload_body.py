"""Upload bodies: a blob's bytes as the body of a request.

aiohttp pulls the body from a task of its own, and wraps what fails there into errors of its own. An
`UploadBody` keeps the original, counts the bytes sent, and can tell a stalled peer from a stalled source:
only the first is the peer's fault.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from blobflow.content import BlobStream, Chunk, Extent, HasExtents
from blobflow.errors import BlobflowError, ConnectionLost, SizeMismatch, StorageError
from blobflow.events import HostMeter
from blobflow.transports.registry.http.limiter import Throttle
from blobflow.transports.sendfile import FileCutShort, send_inline
from blobflow.waits import OpenWait, WaitKind

# A peer slower than this (bytes a second) counts as standing still: one chunk of 1 MiB gets a minute more.
SLOWEST = 16 * 1024
# Bytes of a file that are sent at once: as much as a chunk has.
EXTENT = 1024 * 1024
# What sendfile(2) says of the file; all else is about the connection.
_DISK_FAILED = frozenset({errno.EIO, errno.ESTALE})


class UploadBody:
    """Exactly `size` bytes of `stream`, for one request.

    `error` holds what the stream raised, or SizeMismatch where it ended early or went on too long; `done` is
    True when every byte was taken. `throttle`, if set, says when bytes may go; `answer_limit` ends
    `answer_seconds` after the last of them. Call `stop` before leaving the context that `stream` came from.
    """

    def __init__(self, stream: BlobStream, size: int, what: str, meter: HostMeter) -> None:
        self.size = size
        self.sent = 0
        self.error: BlobflowError | None = None
        self.pulling = False
        self.throttle: Throttle | None = None
        self.answer_limit: asyncio.Timeout | None = None
        self.answer_seconds = 0.0
        self._pull = stream.__anext__
        self._extents = stream if isinstance(stream, HasExtents) else None
        self._what = what
        self._meter = meter
        self._puller: asyncio.Task[object] | None = None
        self._chunk_size = 0
        self._watch: asyncio.TimerHandle | None = None
        self._wait: OpenWait | None = None
        self._answer: WaitKind = "answer"

    def watched_by(self, wait: OpenWait) -> None:
        """The wait for the answer is one for the body's bytes until the last of them was taken."""
        self._wait, self._answer = wait, wait.wait.kind
        wait.pulls = lambda: self.pulling
        wait.become("send")

    @property
    def done(self) -> bool:
        return self.sent == self.size

    def begin(self) -> None:
        """Call once, in the task that will pull."""
        if self._puller is not None:
            # aiohttp up to 3.13 sends an idempotent request again when a kept connection was closed under it.
            raise ConnectionLost(f"connection lost while sending {self._what}", received=self.sent)
        self._puller = asyncio.current_task()

    async def pull(self) -> Chunk:
        """The next chunk, valid until the next call; nothing at the end."""
        chunk = await self._next(None)
        assert not isinstance(chunk, Extent)
        return chunk

    async def pull_or_extent(self) -> Chunk | Extent:
        """As `pull`, or an extent where the bytes lie in a file."""
        return await self._next(self._extents)

    def unreadable(self, reason: OSError) -> StorageError:
        """The error of an extent whose file can't be read, to be raised by who sends it."""
        self.error = StorageError(f"{self._what} ended: a file of the store can't be read: {reason}")
        return self.error

    async def _next(self, extents: HasExtents | None) -> Chunk | Extent:
        self.pulling = True
        try:
            chunk: Chunk | Extent | None = None
            if extents is not None:
                chunk = await extents.next_extent(EXTENT)
            if chunk is None:
                chunk = await self._pull()
            if self.throttle is not None:
                await self.throttle.wait(len(chunk))
        except StopAsyncIteration:
            if self.sent != self.size:
                self.error = SizeMismatch(self._what, expected=self.size, actual=self.sent)
                raise self.error from None
            if self._wait is not None:
                self._wait.become(self._answer)
            if self.answer_limit is not None:
                self.answer_limit.reschedule(asyncio.get_running_loop().time() + self.answer_seconds)
            return b""
        except BlobflowError as error:
            self.error = error
            raise
        finally:
            self.pulling = False
        self._chunk_size = size = len(chunk)
        self.sent += size
        self._meter.bytes_written += size
        if self.sent > self.size:
            self.error = SizeMismatch(self._what, expected=self.size, actual=self.sent)
            raise self.error
        return chunk

    def watch(self, deadline: asyncio.Timeout, progress: float) -> None:
        """Let `deadline` expire when the peer takes nothing for `progress` seconds while bytes are there.

        Until the first byte is asked for there is no connection yet, which has timeouts of its own.
        """
        loop = asyncio.get_running_loop()
        seen, since = self.sent, loop.time()

        def look() -> None:
            nonlocal seen, since
            now = loop.time()
            if self.done or self.pulling or self._puller is None or self.sent != seen:
                seen, since = self.sent, now
            elif now - since > progress + self._chunk_size / SLOWEST:
                deadline.reschedule(now)
                return
            self._watch = loop.call_later(progress / 4, look)

        look()

    async def stop(self) -> None:
        """Stop pulling; on return nobody is inside the stream any more."""
        if self._watch is not None:
            self._watch.cancel()
        if self._puller is not None and not self._puller.done():
            self._puller.cancel()
            await asyncio.wait({self._puller})


class UploadPayload(aiohttp.payload.Payload):
    """An upload body as aiohttp's request body.

    A view that it gives is sent from where it lies, and the next is asked for when the kernel has taken
    it all; where a transport keeps bytes of its own (TLS), it gets a copy.
    """

    def __init__(self, body: UploadBody) -> None:
        super().__init__(body, content_type="application/octet-stream")
        self._body = body

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a blob on its way is no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Send the whole body; its size is what was announced."""
        self._body.begin()
        transport = getattr(writer, "transport", None)
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            while chunk := await self._body.pull():
                await writer.write(chunk if isinstance(chunk, bytes) else bytes(chunk))
            return
        transport.set_write_buffer_limits(high=0)
        first = True
        try:
            while chunk := await self._next(transport, writer, first=first):
                first = False
                await writer.write(chunk)
                while transport.get_write_buffer_size():
                    await writer.drain()
                    if transport.get_write_buffer_size():  # it was not paused: nobody wakes us
                        await asyncio.sleep(0)
        finally:
            transport.set_write_buffer_limits()

    async def _next(
        self, transport: asyncio.Transport, writer: AbstractStreamWriter, *, first: bool
    ) -> Chunk:
        """The next bytes that are no extent; extents before them are sent. aiohttp keeps the request's head
        back until the first chunk, which therefore has to be one."""
        if first:
            return await self._body.pull()
        while isinstance(chunk := await self._body.pull_or_extent(), Extent):
            try:
                await send_inline(transport, writer.drain, chunk)
            except OSError as error:
                if isinstance(error, FileCutShort) or error.errno in _DISK_FAILED:
                    raise self._body.unreadable(error) from None
                raise
        return chunk


class ChunkSplitter:
    """Splits a stream at chosen places: the pieces of a chunked upload."""

    def __init__(self, stream: BlobStream) -> None:
        self._stream = stream
        self._rest: Chunk = b""

    def take(self, size: int) -> BlobStream:
        """The next `size` bytes, or fewer at the end; whole before the next piece is taken."""
        return _Piece(self, size)

    async def next(self, most: int) -> Chunk:
        """The next bytes, `most` or fewer. Raises StopAsyncIteration at the end."""
        view = memoryview(self._rest or await self._stream.__anext__())
        self._rest = view[most:]
        return view[:most]

    async def next_extent(self, most: int) -> Extent | None:
        """The next bytes as an extent, if the stream has them as one, and nothing was left over before."""
        if self._rest or not isinstance(self._stream, HasExtents):
            return None
        return await self._stream.next_extent(most)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class _Piece:
    """A `BlobStream` of `size` bytes."""

    def __init__(self, splitter: ChunkSplitter, size: int) -> None:
        self._splitter = splitter
        self._left = size

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if not self._left:
            raise StopAsyncIteration
        chunk = await self._splitter.next(self._left)
        self._left -= len(chunk)
        return chunk

    async def next_extent(self, most: int) -> Extent | None:
        if not self._left:
            raise StopAsyncIteration
        extent = await self._splitter.next_extent(min(most, self._left))
        if extent is not None:
            self._left -= len(extent)
        return extent

    async def aclose(self) -> None:
        await self._splitter.aclose()
