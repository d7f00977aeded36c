"""Listening: an application on a socket, from start to a graceful stop."""

from __future__ import annotations

import ipaddress
from types import TracebackType

from aiohttp import web

from blobflow.errors import InvalidConfig
from blobflow.server.wire import READ

# Seconds that requests under way have, after a stop, to end by themselves.
GRACE = 5.0


class Server:
    """One application on one address. `async with` starts and stops it.

    It refuses to listen beyond loopback unless `allow_remote`: whoever can reach it may read, write and
    delete everything in it.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
        grace: float = GRACE,
    ) -> None:
        """`port` 0 takes a free one. Raises InvalidConfig for an address beyond loopback."""
        if not allow_remote and not is_loopback(host):
            raise InvalidConfig(
                f"the registry would listen on {host}, where others can reach and change it; "
                "listen on 127.0.0.1, or allow remote access explicitly"
            )
        self._app = app
        self._host = host
        self._asked_port = port
        self._grace = grace
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def address(self) -> str:
        """`host:port` as it stands in a reference; IPv6 in brackets."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def start(self) -> None:
        """Listen. On return clients can connect. Raises InvalidConfig when the address can't be had."""
        runner = web.AppRunner(
            self._app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=self._grace,
            # Blobs are bytes: a Content-Encoding on an upload is none of our business.
            auto_decompress=False,
            read_bufsize=READ,
        )
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._asked_port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise InvalidConfig(
                f"can't listen on {self._host} port {self._asked_port}: {error.strerror or error}"
            ) from error
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Take no more connections, let requests under way end for the grace time, then cut them.

        Upload sessions are cancelled. May be called twice.
        """
        runner, self._runner = self._runner, None
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`. Names are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
