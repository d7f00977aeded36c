"""Listening: an application on a socket, from start to a graceful stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from types import TracebackType

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from blobflow.errors import InvalidConfig
from blobflow.events import Observer, ignore
from blobflow.oci.ip_address import is_loopback
from blobflow.server.http.bodies import STALL_SECONDS, UNREAD_BYTES
from blobflow.server.http.connections import ConnectionLimiter, max_connections
from blobflow.server.http.handshakes import Handshakes

# Seconds that requests have, after a stop, to end by themselves.
GRACE_SECONDS = 5.0
# Bytes of a request's first line and of one of its headers, of which there may be 128: nothing that a client
# of ours sends comes near it, and what anybody can make us hold stays below about 2 MiB.
MAX_LINE = 8190
MAX_HEADER = 16 * 1024


def _is_ours(record: logging.LogRecord) -> bool:
    """Keeps what clients get wrong out of the log: the parser's errors quote the request, logins and all."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_log = logging.getLogger(__name__)
_log.addFilter(_is_ours)


class Server:
    """One application on one address. `async with` starts and stops it.

    It refuses to listen beyond loopback unless `allow_remote`: whoever can reach it may read, write and
    delete everything in it, unless the application knows better.

    A client that stands still for `stall` seconds is dropped: between requests, within a request's headers
    (which have that long in all), and, where the kernel has TCP_USER_TIMEOUT (Linux), when it takes no more
    of an answer. Within a body the application's `BodyTransport` watches.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
        grace: float = GRACE_SECONDS,
        stall: float = STALL_SECONDS,
        tls: ssl.SSLContext | None = None,
        most: int | None = None,
        observer: Observer = ignore,
    ) -> None:
        """`port` 0 takes a free one. `tls`: see `tls_context`; None is plain HTTP. `most` connections at once
        (None: as many as the limit of open files allows): see `connections`; `observer` hears when there are
        too many.

        Raises InvalidConfig for an address beyond loopback.
        """
        if not allow_remote and not is_loopback(host):
            raise InvalidConfig(
                f"the registry would listen on {host}, where others can reach and change it; "
                "listen on 127.0.0.1, or allow remote access explicitly"
            )
        self._app = app
        self._host = host
        self._asked_port = port
        self._grace = grace
        self._stall = stall
        self._tls = tls
        self._most = most
        self._observer = observer
        self._listening: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._handshakes: Handshakes | None = None
        self.port = 0

    @property
    def address(self) -> str:
        """`host:port` as it stands in a reference; IPv6 in brackets."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    async def start(self) -> None:
        """Listen. On return clients can connect. Raises InvalidConfig when the address can't be had."""
        runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=_log,
            handle_signals=False,
            shutdown_timeout=self._grace,
            keepalive_timeout=self._stall,
            max_line_size=MAX_LINE,
            max_field_size=MAX_HEADER,
            # Blobs are bytes: a Content-Encoding on an upload means nothing here.
            auto_decompress=False,
            read_bufsize=UNREAD_BYTES,
        )
        await runner.setup()
        assert runner.server is not None
        self._handshakes = Handshakes(self._tls, self._stall) if self._tls else None
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                ConnectionLimiter(
                    runner.server,
                    most=self._most or max_connections(),
                    observer=self._observer,
                    handshakes=self._handshakes,
                ),
                self._host,
                self._asked_port,
                backlog=1024,
            )
        except OSError as error:
            await runner.cleanup()
            raise InvalidConfig(
                f"can't listen on {self._host} port {self._asked_port}: {_reason(error)}"
            ) from error
        self._runner = runner
        self.port = int(self._listening.sockets[0].getsockname()[1])
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            for listening in self._listening.sockets:  # connections take it over from here
                listening.setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(self._stall * 1000))
                )

    async def stop(self) -> None:
        """Take no more connections, give requests the grace time to end, then cut them.

        Upload sessions are cancelled. May be called twice.
        """
        runner, self._runner = self._runner, None
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._handshakes is not None:
            self._handshakes.close()
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()


def _reason(error: OSError) -> str:
    """The system's words; asyncio's repeat the address."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)
