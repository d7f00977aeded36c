"""Sets up aiohttp's client for this transport: its timeouts and limits, and how much of an answer is read."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from blobflow.transports.registry.http.host_settings import HostAccess
from blobflow.transports.registry.http.limiter import Throttle
from blobflow.transports.registry.http.minimum_rate import MINIMUM_BYTES, MINIMUM_SECONDS, MinimumRate
from blobflow.transports.registry.http.tls import system_ssl_context
from blobflow.transports.registry.http.upload_body import UploadBody
from blobflow.transports.registry.origins import GuardedResolver
from blobflow.waits import CURRENT_WAIT

CONNECT_SECONDS = 15.0
# Name look-up, all addresses of a name and the TLS handshake together.
CONNECT_TOTAL_SECONDS = 45.0
# No byte moved for so long: the connection is dead. There is no limit on the whole.
PROGRESS_SECONDS = 60.0
# From when an answer may begin, its head has to have come whole after so many seconds more.
HEAD_SECONDS = 60.0
# Bytes read ahead of the consumer of a blob. 64 KiB, aiohttp's own, costs a third more CPU.
READ_AHEAD = 1024 * 1024
# Where bytes a second are limited, what is read ahead has been read: a second's worth, but not too little.
MIN_READ_AHEAD = 16 * 1024
# Heads that are taken for one request: that of its answer, and what may be said before it (RFC 9110, 15.2),
# which is once or twice.
MAX_HEADS = 20
MAX_ERROR_BODY = 64 * 1024
ERROR_SECONDS = 5.0


class _Connection(ResponseHandler):
    """One on which something came while nothing was asked is not used again (RFC 9112, 9.2).

    aiohttp (3.14) looks at that when it takes a connection back, but not when it gives one out: what came in
    between, such as a 408, was the answer to the next request, and each later answer was one late.
    """

    _heads = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        # It is made when TCP has connected: what is left of connecting is TLS, if there is any.
        if (wait := CURRENT_WAIT.get()) is not None:
            wait.become("tls")

    def is_connected(self) -> bool:
        return super().is_connected() and not self.should_close

    def set_response_params(self, **settings: Any) -> None:
        self._heads = 0
        super().set_response_params(**settings)

    def _take_head(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        """Take in the head of an answer. aiohttp holds as many as come, be they about nothing (1xx)."""
        self._heads += 1
        if self._heads <= MAX_HEADS:
            super().feed_data(data, size)
        elif self._heads == MAX_HEADS + 1:
            self.set_exception(HttpProcessingError(message="too many answers to one request"))
            if self.transport is not None:
                self.transport.abort()

    feed_data = _take_head  # as aiohttp's parser calls it


class _Connector(aiohttp.TCPConnector):
    """Says of the request's wait that it is one for a connection, as long as that is so."""

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        wait = CURRENT_WAIT.get()
        if wait is None:
            return await super()._create_connection(req, traces, timeout)
        kind = wait.wait.kind
        wait.become("connect")
        try:
            return await super()._create_connection(req, traces, timeout)
        finally:
            wait.become(kind)


def new_client(
    access: HostAccess, guard: GuardedResolver, user_agent: str, reading: Throttle | None
) -> aiohttp.ClientSession:
    """A client for one host and for where that sends us; nothing is kept between requests but connections."""
    ahead = READ_AHEAD if reading is None else int(min(READ_AHEAD, max(MIN_READ_AHEAD, reading.rate)))
    # No limit: the permits are the limit, and a pool's queue could deadlock where they can't.
    connector = _Connector(limit=0, resolver=guard, ssl=access.tls)
    kind: type[ResponseHandler] = _Connection
    connector._factory = partial(kind, loop=asyncio.get_running_loop())
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout_of(PROGRESS_SECONDS),
        headers={"User-Agent": user_agent, "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=ahead,
        max_field_size=32 * 1024,  # signed Locations are long
    )


def timeout_of(progress: float) -> aiohttp.ClientTimeout:
    """No limit on the whole; `progress`: seconds without a byte from the peer once the request is sent."""
    return aiohttp.ClientTimeout(
        total=None, connect=CONNECT_TOTAL_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=progress
    )


def head_limit(timeout: aiohttp.ClientTimeout, body: bytes | UploadBody | None) -> asyncio.Timeout:
    """The time for a request up to the whole head of its answer: HEAD_SECONDS after all that comes before has
    to have happened. An upload body, whose sending has a limit of its own, sets it going when its last byte
    is taken.
    """
    seconds = (timeout.sock_read or 0) + HEAD_SECONDS
    if isinstance(body, UploadBody):
        limit = body.answer_limit = asyncio.timeout(None)
        body.answer_seconds = seconds
        return limit
    return asyncio.timeout(
        CONNECT_TOTAL_SECONDS + len(body or b"") * MINIMUM_SECONDS / MINIMUM_BYTES + seconds
    )


def ssl_for(access: HostAccess, url: URL) -> ssl.SSLContext | bool:
    """What a request to `url` says of TLS: the host's choice, at whatever host it ends."""
    return system_ssl_context() if access.tls is True and url.scheme == "https" else access.tls


async def read_small(
    response: aiohttp.ClientResponse, limit: int, throttle: Throttle | None, into: bytearray
) -> None:
    """Read an answer's body `into` a buffer, until that has more than `limit` bytes.

    Raises what aiohttp does, and TooSlow.
    """
    content = response.content
    rate = MinimumRate(content.set_exception) if not content.is_eof() else None  # most answers are here whole
    try:
        while len(into) <= limit:
            if rate is not None:
                rate.waiting()
            part = await content.readany()
            if not part:
                break
            into += part
            if rate is not None:
                rate.came(len(part))
            if throttle is not None:
                await throttle.wait(len(part))
    finally:
        if rate is not None:
            rate.stop()


async def read_error(response: aiohttp.ClientResponse) -> bytes:
    """A refusal's body, as much as comes quickly (distribution 2.8 sends a wrong Content-Length with 416)."""
    parts: list[bytes] = []
    size = 0
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(ERROR_SECONDS):
            while size < MAX_ERROR_BODY and (part := await response.content.readany()):
                parts.append(part)
                size += len(part)
    return b"".join(parts)[:MAX_ERROR_BODY]


async def discard(response: aiohttp.ClientResponse) -> None:
    """Read an answer that we don't need, if it is short, so that its connection can be used again."""
    try:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(ERROR_SECONDS):
                await response.content.read(MAX_ERROR_BODY)
    finally:
        close_response(response)


def close_response(response: aiohttp.ClientResponse) -> None:
    """End an answer. A connection on which some of it is still to come is closed at once, and not by TLS's
    farewell, for which a peer that goes on sending, or does nothing, could let us wait."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()
