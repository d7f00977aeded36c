"""TLS handshakes: connections that are accepted, and not yet anybody's.

asyncio's server shows nobody a connection before its handshake is done, which may take a minute. So that such
ones can be counted and closed as others are, connections are accepted in the clear, and TLS begins here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import cast

from aiohttp.web_protocol import RequestHandler


class Handshakes:
    """The handshakes of one server that are under way. Used on one loop; `close` it."""

    def __init__(self, context: ssl.SSLContext, seconds: float) -> None:
        """`seconds`: those that a handshake may take."""
        self.context = context
        self.seconds = seconds
        self._under_way: dict[Handshake, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[Handshake]:
        """The oldest first."""
        return iter(tuple(self._under_way))

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self, handshake: Handshake) -> None:
        task = asyncio.get_running_loop().create_task(handshake.go())
        self._under_way[handshake] = task
        task.add_done_callback(lambda _: self._under_way.pop(handshake))

    def close(self) -> None:
        """End all of them."""
        for each in self:
            each.cut()


class Handshake(asyncio.Protocol):
    """One connection until its handshake is done; `handler` is its protocol from then on."""

    def __init__(self, handshakes: Handshakes, handler: RequestHandler) -> None:
        self._handshakes = handshakes
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._came: list[bytes] = []
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        self._handshakes.start(self)

    def data_received(self, data: bytes) -> None:
        """What came before TLS began, and what came with the end of the handshake."""
        self._came.append(data)

    async def go(self) -> None:
        """Shake hands, and give the connection to its handler; a client that can't is cut off."""
        try:
            tls = await self._shaken()
        except (OSError, RuntimeError):  # also what is wrong with TLS; uvloop's word for a closed transport
            self.cut()
            return
        if tls is None or tls.is_closing():
            return
        tls.set_protocol(self._handler)
        self._handler.connection_made(tls)
        for data in self._came:
            self._handler.data_received(data)

    async def _shaken(self) -> asyncio.Transport | None:
        loop, transport = asyncio.get_running_loop(), self._transport
        assert transport is not None
        if transport.is_closing():  # the client is gone: uvloop would not hear of it before the time is over
            return None
        starting = loop.create_task(
            loop.start_tls(
                transport,
                self,
                self._handshakes.context,
                server_side=True,
                ssl_handshake_timeout=self._handshakes.seconds,
            )
        )
        # In one turn TLS becomes the transport's protocol, in the next it begins; nothing is read between.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        early, self._came = b"".join(self._came), []
        if transport.is_closing() and not starting.done():  # likewise
            starting.cancel()
            return None
        if early and not starting.done():
            _feed(cast(asyncio.BufferedProtocol, transport.get_protocol()), early)
        return await starting

    def cut(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Give a protocol what came for it, as a transport does."""
    while data:
        room = memoryview(protocol.get_buffer(len(data)))
        count = min(len(room), len(data))
        room[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]
