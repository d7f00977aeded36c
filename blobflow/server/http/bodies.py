"""Receives and sends bodies: the one interface between the registry's rules and its sockets.

Everything that is large goes through here, in both directions, and nothing else does. A registry for tests
puts in its own `BodyTransport`, which counts, slows down, breaks or falsifies every byte, unknown to the
endpoints.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, Protocol

from aiohttp import StreamReader, web

from blobflow.content import Extent
from blobflow.server.http.ranges import ByteRange
from blobflow.transports.sendfile import SendfileThreads

# A read from disk or socket. Buffers of 1 MiB cost a third less CPU a byte than those of 64 KiB.
READ_BYTES = 1024 * 1024
# Bytes of a body that wait for an endpoint to read them, and as much again that the socket gave at once. Any
# connection may bring so much, also one whose login is wrong. Of bodies that are being read twice READ_BYTES
# may wait, for so many bodies at once.
UNREAD_BYTES = 64 * 1024
_WIDE_BODIES = 32
# Seconds without a byte after which a peer counts as gone: longer than a lossy line's worst pause, short
# enough that connections which are held open for nothing don't pile up.
STALL_SECONDS = 60.0
# Bytes that this process reads at once for all clients together that it writes to, and for each at least:
# over TLS a client that stands still keeps several times as many in memory. The least may also wait in a
# connection before more is read.
_SENT_BYTES = 32 * 1024 * 1024
_LEAST_SENT = 64 * 1024
_SHORTER = "a blob's file became shorter while it was sent"


class BodyTransport(Protocol):
    """Moves bodies. Both methods raise ConnectionError when the client is gone."""

    def receive(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """The request's body as it arrives; never more than about two READ_BYTES are held."""
        ...

    async def send(
        self, request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, span: ByteRange
    ) -> None:
        """Answer with `response`, whose headers are complete, and the file's bytes of `span`."""
        ...


class SocketBodyTransport:
    """As fast as it goes: the kernel copies files to plain sockets; over TLS this process reads and writes.

    A request's body that stands still for `stall` seconds is a client that is gone. Of one that takes no more
    of an answer the kernel knows: see `Server`.
    """

    def __init__(self, *, stall: float = STALL_SECONDS) -> None:
        self._stall = stall
        self._receiving = 0
        self._writing = 0
        self._sending = SendfileThreads()

    async def receive(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        is_wide = hasattr(request.content, "set_read_chunk_size")  # aiohttp 3.14
        if is_wide and self._receiving < _WIDE_BODIES:
            request.content.set_read_chunk_size(READ_BYTES)
        self._receiving += 1
        try:
            while chunk := await self._next(request):
                yield chunk
        finally:
            self._receiving -= 1

    async def _next(self, request: web.BaseRequest) -> bytes:
        if request.content.is_eof():  # all has come: there is nothing to wait for
            return await _chunk(request.content)
        try:
            async with asyncio.timeout(self._stall):
                return await _chunk(request.content)
        except TimeoutError:
            raise ConnectionAbortedError("the client sent nothing for too long") from None

    async def send(
        self, request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, span: ByteRange
    ) -> None:
        await response.prepare(request)
        transport = request.transport
        if transport is not None and transport.get_extra_info("sslcontext") is None:
            extent = Extent(file.fileno(), span.start, span.end)
            await self._sending.send(transport, request.writer.drain, extent)
            return
        if transport is not None:
            transport.set_write_buffer_limits(high=_LEAST_SENT)
        self._writing += 1
        try:
            async for chunk in read_span(file, span, self._piece):
                await response.write(chunk)
        finally:
            self._writing -= 1

    def _piece(self) -> int:
        """Bytes that are read at once for one of those that are written to."""
        return max(_LEAST_SENT, min(READ_BYTES, _SENT_BYTES // max(1, self._writing)))


async def _chunk(content: StreamReader) -> bytes:
    """The next bytes, none at the end; not by `readany`, which joins what has come: a copy of every byte."""
    while True:
        try:
            chunk, _ = await content.readchunk()
        except RuntimeError:  # aiohttp's word for a connection that this process has closed
            raise ConnectionAbortedError("the connection was closed") from None
        if chunk or content.at_eof():  # an HTTP chunk may end with no byte
            return chunk


async def read_span(
    file: BinaryIO, span: ByteRange, piece: Callable[[], int] = lambda: READ_BYTES
) -> AsyncIterator[bytes]:
    """The file's bytes of `span`, `piece` at a time. Raises ConnectionError if the file ends before."""
    at = span.start
    while at < span.end:
        chunk = os.pread(file.fileno(), min(piece(), span.end - at), at)
        if not chunk:
            raise ConnectionAbortedError(_SHORTER)
        at += len(chunk)
        yield chunk
