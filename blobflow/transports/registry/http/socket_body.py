"""Reads a large body without aiohttp: straight from the socket into buffers that are reused.

aiohttp makes a bytes object of every read, queues it, and joins what was queued: a third of the CPU that a
gigabyte costs. Once an answer's headers are in, and its body is long and of a known length over plain TCP,
the connection's protocol is exchanged for a `SocketBodyReader`, which fills one buffer while the other is
used. The connection is not given back to aiohttp, whose parser has not seen the body: it is closed at the
end. A new connection a large blob is the price, and the reason why small bodies don't go this way.

Everything else (TLS, unknown lengths, other loops' transports) goes aiohttp's own way; tests compare the two.

No private state is touched: a transport may be given another protocol, and the one before is told that its
connection has ended, as asyncio tells it. A connection of our own with a parser beside it (httptools, h11)
would have the same loop over the same buffers, and besides it the proxies, the resolving, the authorization,
the redirects and the traces once more, which here are over when the body begins.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

import aiohttp

from blobflow.transports.registry.http.minimum_rate import MinimumRate, TooSlow

# A body from this size on is worth a connection of its own: at 1 GB/s it takes 4 ms, a connection 0.3 ms.
SOCKET_FROM = 4 * 1024 * 1024
# And as long as aiohttp lacks so much of it: the connection of a body that it has whole is the pool's again.
SOCKET_LEFT = 1024 * 1024
# Each of the two buffers of a body has one of these sizes. 256 KiB cost 5 % more CPU; four times as much
# costs less in the kernel, which wakes the peer for every read and write, but is only for a few large bodies.
BUFFER = 1024 * 1024
LARGE_BUFFER = 4 * BUFFER
# A body of so many large buffers is worth them, while so many are not in use.
_LARGE_BUFFERS_FROM = 4
_MAX_LARGE_BUFFERS = 6
# Buffers of each size that are kept for the next body.
_MAX_KEPT = 16


class BufferPool:
    """The pool of buffers for all bodies under way."""

    def __init__(self) -> None:
        self._free: dict[int, list[bytearray]] = {BUFFER: [], LARGE_BUFFER: []}
        self._large = 0

    def take(self, missing: int) -> list[bytearray]:
        """Two of the size that suits a body of which so many bytes are to come."""
        large = missing >= _LARGE_BUFFERS_FROM * LARGE_BUFFER and self._large + 2 <= _MAX_LARGE_BUFFERS
        size = LARGE_BUFFER if large else BUFFER
        self._large += 2 * large
        free = self._free[size]
        return [free.pop() if free else bytearray(size) for _ in range(2)]

    def give_back(self, buffers: list[bytearray], *, whole: bool) -> None:
        """No body needs these any more. They are only kept where their last bytes were asked past (`whole`):
        a reader that broke off may have left a view of them where they are still to be sent from."""
        size = len(buffers[0])
        self._large -= len(buffers) * (size == LARGE_BUFFER)
        if whole and len(self._free[size]) < _MAX_KEPT:
            self._free[size].extend(buffers)


_buffers = BufferPool()


class SocketBodyReader(asyncio.BufferedProtocol):
    """Takes `missing` bytes from a transport, and gives them as views.

    What came in before the exchange is `early`, and not counted as missing.
    """

    def __init__(self, transport: asyncio.Transport, early: Iterable[bytes], missing: int) -> None:
        self._transport = transport
        self._early = deque(early)
        self._missing = missing
        self._buffers = _buffers.take(missing)
        self._capacity = len(self._buffers[0])
        self._filling = 0
        self._filled = 0
        self._paused = False
        self._lost: BaseException | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._overflow = bytearray(1)

    def start(self) -> None:
        """Take the transport over; it must have been paused."""
        self._transport.set_protocol(self)
        if self._missing:
            self._transport.resume_reading()

    # The transport's side

    def get_buffer(self, sizehint: int) -> memoryview | bytearray:
        room = min(self._capacity - self._filled, self._missing)
        if room <= 0:  # more than was announced: not ours to read, and the connection ends with this body
            return self._overflow
        return memoryview(self._buffers[self._filling])[self._filled : self._filled + room]

    def buffer_updated(self, nbytes: int) -> None:
        if not self._missing:
            return
        self._filled += nbytes
        self._missing -= nbytes
        if self._filled == self._capacity or not self._missing:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._lost = exc
        self._wake()

    # The reader's side

    async def receive(self, rate: MinimumRate) -> memoryview:
        """What comes next, up to the announced size, valid until the next call; nothing at the end.

        That comes early where the connection ends early, or where this is closed. Raises what it is made to
        `fail` with, and what the connection broke with.
        """
        if self._early:
            return memoryview(self._early.popleft())
        while not self._filled:
            if not self._missing or self._ended:
                return self._end()
            rate.waiting()
            await self._wait()
        rate.came(self._filled)
        taken, size = self._buffers[self._filling], self._filled
        self._filling, self._filled = 1 - self._filling, 0
        if self._paused and self._missing and not self._ended:
            self._paused = False
            self._transport.resume_reading()
        return memoryview(taken)[:size]

    def _end(self) -> memoryview:
        whole = not self._missing and self._lost is None
        self._release(whole=whole)
        if self._lost is not None:
            raise self._lost
        return memoryview(b"")

    def close(self) -> None:
        """End the body wherever it is; who waits for its next chunk gets none."""
        self._release(whole=False)

    def fail(self, error: TooSlow) -> None:
        """Raise this where the next chunk is waited for."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    async def _wait(self) -> None:
        """Return when bytes came, or the end. One timer looks after all the waits of a body: a timeout each
        would cost as much as the reads."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _release(self, *, whole: bool) -> None:
        """End the connection, and give the buffers back; only once."""
        if self._buffers[0] is self._overflow:
            return
        self._ended = True
        self._missing = self._filled = 0
        self._early.clear()
        self._transport.abort()
        _buffers.give_back(self._buffers, whole=whole)
        self._buffers = [self._overflow, self._overflow]
        self._wake()


async def take_over(response: aiohttp.ClientResponse, size: int) -> SocketBodyReader | None:
    """A reader of the body of `response`, of which `size` bytes are wanted; None where that can't be.

    After this nothing may be read from `response`, only closed. Does not suspend.
    """
    connection, content = response.connection, response.content
    length = response.content_length
    if size < SOCKET_FROM or length is None or length < size or connection is None:
        return None
    transport, protocol = connection.transport, connection.protocol
    if transport is None or protocol is None or transport.get_extra_info("sslcontext") is not None:
        return None
    if content.exception() is not None or content.total_bytes > length - SOCKET_LEFT:
        return None
    early = await _read_so_far(content)
    transport.pause_reading()
    # For aiohttp the connection has ended. Else it would resume reading by each piece that is taken of an
    # earlier body, which may have come whole and still be read: bytes would come for which there is no room.
    protocol.connection_lost(None)
    reader = SocketBodyReader(transport, early, length - sum(map(len, early)))
    # aiohttp's error about the body that it lost keeps this frame until Python's collector comes by.
    del early
    reader.start()
    return reader


async def _read_so_far(content: aiohttp.StreamReader) -> list[bytes]:
    """All that aiohttp has of a body, in the pieces that it came in. Where it had paused, its parser may have
    held some back: reading goes on by that, and so the parser is empty when the content is."""
    parts: list[bytes] = []
    size = 0
    while size < content.total_bytes:
        part, _ = await content.readchunk()
        parts.append(part)
        size += len(part)
    return parts
