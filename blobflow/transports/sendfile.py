"""Sends a file's bytes to a plain socket by sendfile(2), on any event loop.

asyncio's loop sends from its own thread, and uvloop has no sendfile at all. Here a few threads send: the
kernel copies without the interpreter's lock, so that large blobs take the second core, and the loop answers
small requests meanwhile. No client keeps a thread for long: if it takes no more for the moment, the loop
waits until it does, so that a thousand slow clients cost no thread.

The threads work on duplicates of both descriptors. Whoever closes the connection or the file meanwhile can't
make them write to whatever got the number next. The kernel ends a connection when its last descriptor is
closed: one that is cancelled or aborted here ends up to a turn later.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor

from blobflow.content import Extent

# Each copies on a core of its own: more threads than cores only take turns.
THREADS = 4
# Seconds of one turn in a thread, and milliseconds that it waits for a socket that takes none: a client on
# this machine makes some in far less.
_TURN = 0.1
_WAIT_MS = 5
# What one call copies: enough that calls cost nothing, and the turn's end is noticed.
_AT_ONCE = 4 * 1024 * 1024
# What goes out on the loop's own thread, before any other is asked: most blobs are no larger.
_INLINE = 512 * 1024


class FileCutShort(ConnectionAbortedError):
    """The file ends before what was to be sent."""


class SendfileThreads:
    """Threads that send files, started when the first has to."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "blobflow-send")

    async def send(
        self,
        transport: asyncio.WriteTransport | None,
        drain: Callable[[], Awaitable[None]],
        extent: Extent,
    ) -> None:
        """Send an extent behind what the connection has been given.

        `drain` waits until the transport has taken that. Raises ConnectionError and TimeoutError when the
        peer is gone, FileCutShort if the file ends before the extent, and other OSErrors where it can't be
        read.
        """
        file, start, end = extent
        pair = await _descriptors(transport, drain, file)
        try:
            at = start + pair.copy(start, min(end, start + _INLINE))
            while at < end:
                at += await self._turn(pair, at, end)
                if at < end:
                    await _writable(pair.socket)
        finally:
            pair.leave()

    async def _turn(self, pair: _Descriptors, at: int, end: int) -> int:
        turn = self._threads.submit(pair.turn, at, end)
        pair.lent = turn
        return await asyncio.shield(asyncio.wrap_future(turn))


async def send_inline(
    transport: asyncio.WriteTransport | None,
    drain: Callable[[], Awaitable[None]],
    extent: Extent,
) -> None:
    """As `SendfileThreads.send`, on the loop's own thread, which a MiB takes no longer than `write` would.

    For bodies that go out piece by piece: handing a MiB to a thread costs a third of what sending it does.
    """
    file, at, end = extent
    pair = await _descriptors(transport, drain, file)
    try:
        while (at := at + pair.copy(at, end)) < end:
            await _writable(pair.socket)
    finally:
        pair.leave()


async def _descriptors(
    transport: asyncio.WriteTransport | None, drain: Callable[[], Awaitable[None]], file: int
) -> _Descriptors:
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the peer is gone")
    await _drained(transport, drain)
    return _Descriptors(transport.get_extra_info("socket").fileno(), file)


class _Descriptors:
    """A socket and a file, duplicated; `lent` is the last turn of a thread with them."""

    def __init__(self, socket: int, file: int) -> None:
        self.socket = os.dup(socket)
        try:
            self._file = os.dup(file)
        except OSError:
            os.close(self.socket)
            raise
        self.lent: Future[int] | None = None

    def copy(self, at: int, end: int) -> int:
        """Copy once. Returns how many bytes went; 0 if the socket takes none."""
        if at >= end:
            return 0
        try:
            sent = os.sendfile(self.socket, self._file, at, min(end - at, _AT_ONCE))
        except BlockingIOError:
            return 0
        if not sent:
            raise FileCutShort("a blob's file became shorter while it was sent")
        return sent

    def turn(self, at: int, end: int) -> int:
        """In a thread: copy for a turn, or until the socket has taken nothing for a while."""
        begun, until = at, time.monotonic() + _TURN
        writable = select.poll()
        writable.register(self.socket, select.POLLOUT)
        while at < end and time.monotonic() < until:
            sent = self.copy(at, end)
            at += sent
            if not sent and not writable.poll(_WAIT_MS):
                break
        return at - begun

    def leave(self) -> None:
        """Close both, as soon as no thread works with them."""
        if self.lent is None:
            self._close()
        else:
            self.lent.add_done_callback(lambda _: self._close())

    def _close(self) -> None:
        os.close(self.socket)
        os.close(self._file)


async def _drained(transport: asyncio.WriteTransport, drain: Callable[[], Awaitable[None]]) -> None:
    """Wait until the kernel has all that was written before."""
    low, high = transport.get_write_buffer_limits()
    transport.set_write_buffer_limits(high=0)
    try:
        await drain()
    finally:
        transport.set_write_buffer_limits(high=high, low=low)
    if transport.get_write_buffer_size():
        raise ConnectionResetError("the peer is gone")


async def _writable(socket: int) -> None:
    """Wait until the socket takes more, or is broken."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        loop.remove_writer(socket)
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(socket, wake)
    try:
        await ready
    finally:
        loop.remove_writer(socket)
