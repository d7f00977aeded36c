"""Downloads: a blob's bytes from a registry, counted, throttled to the rate limit, aborted below the minimum
rate, and with errors of our own where they break off."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Self

import aiohttp

from blobflow.content import Chunk
from blobflow.errors import ConnectionLost
from blobflow.oci import Descriptor
from blobflow.transports.registry.http.content_encoding import decode_stream, magic_of
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.minimum_rate import MinimumRate, TooSlow
from blobflow.transports.registry.http.socket_body import SocketBodyReader, take_over

Receive = Callable[[], Awaitable[Chunk]]


class Download:
    """A `BlobStream` of the body of `response`, the answer to `description`: at least `expected` bytes, else
    ConnectionLost or TimedOut. `finished` is called when the last of them was taken. `packed`: the codings
    to undo, and the blob below them. `kept`: the connection is to be used again after it, and the chunks are
    bytes that stay valid.

    `close` ends it wherever it is, whoever waits for its next chunk. A connection that was taken over is
    closed with it; the others are `response`'s.
    """

    def __init__(
        self,
        client: HostClient,
        response: aiohttp.ClientResponse,
        description: str,
        expected: int,
        finished: Callable[[], None],
        *,
        packed: tuple[tuple[str, ...], Descriptor] | None = None,
        kept: bool = False,
    ) -> None:
        self._client = client
        self._response = response
        self._asked = description
        self._expected = expected
        self._finished = finished
        self._packed = packed
        self._kept = kept
        self._received = 0
        self._receive: Receive | None = None
        self._socket: SocketBodyReader | None = None
        self._rate: MinimumRate | None = None
        self._closed = False
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        client = self._client
        if self._closed and not self._ended:
            raise self._lost()
        try:
            receive = self._receive or await self._begin()
            chunk = await receive()
        except (aiohttp.ClientError, OSError) as error:
            raise client.lost(error, self._asked, self._received, self._expected) from None
        if not chunk:
            self._end()
            raise StopAsyncIteration
        size = len(chunk)
        self._received += size
        client.meter.bytes_read += size
        if client.reading is not None:
            await client.reading.wait(size)
        return chunk

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """As `aclose`; nothing of it is waited for."""
        self._closed = True
        if self._rate is not None:
            self._rate.stop()
        if self._socket is not None:
            self._socket.close()

    async def _begin(self) -> Receive:
        """Choose the way in which the bytes come, when the first of them are asked for."""
        self._rate = rate = MinimumRate(self._fail)
        pieces = partial(_piece, self._response, rate)
        if self._packed is not None:
            codings, blob = self._packed
            what = f"{self._client.host}'s answer to {self._asked}"
            unsized = self._response.content_length is None
            content = decode_stream(_all_pieces(pieces), codings, what, magic_of(blob) if unsized else b"")
            self._receive = lambda: anext(content, b"")
            return self._receive
        if self._client.reading is None and not self._kept:
            self._socket = await take_over(self._response, self._expected)
        self._receive = pieces if self._socket is None else partial(self._socket.receive, rate)
        return self._receive

    def _end(self) -> None:
        """All that comes has come; it may be too little."""
        if self._rate is not None:
            self._rate.stop()
        if self._received < self._expected or (self._closed and not self._ended):
            raise self._lost()
        if not self._ended:
            self._ended = True
            self._finished()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(
            f"connection to {self._client.host} lost after {self._received} of {self._expected} bytes"
            f" ({self._asked})",
            received=self._received,
            expected=self._expected,
        )

    def _fail(self, error: TooSlow) -> None:
        if self._socket is not None:
            self._socket.fail(error)
        else:
            self._response.content.set_exception(error)


async def _piece(response: aiohttp.ClientResponse, rate: MinimumRate) -> bytes:
    """What comes next, in the pieces that aiohttp received, since joining them copies every byte once more.
    Those of a chunked answer may be small, and are joined. Nothing at the end."""
    rate.waiting()
    if response.content_length is None:
        piece = await response.content.readany()
    else:
        piece, _ = await response.content.readchunk()
    rate.came(len(piece))
    return piece


async def _all_pieces(receive: Callable[[], Awaitable[bytes]]) -> AsyncGenerator[bytes, None]:
    while piece := await receive():
        yield piece
