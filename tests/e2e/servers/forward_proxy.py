"""A forward proxy: CONNECT for https, absolute-form for http (RFC 9110, 9.3.6; RFC 9112, 3.2.2).

It alone knows where the names in `places` are, as the proxy of a closed network does, and wants a login if
given one. What was asked of it is journaled.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from tests.deadlines import HANGS_AFTER

_MAX_HEAD = 64 * 1024
_PIECE = 256 * 1024


class ForwardProxy:
    """`asked` are the request lines' methods and hosts; `turned_away` counts requests without the login."""

    def __init__(self, places: Mapping[str, str], login: str) -> None:
        self.host = ""
        self.asked: list[tuple[str, str]] = []
        self.turned_away = 0
        self._open: set[asyncio.Task[Any]] = set()
        self._places = places
        self._basic = f"basic {base64.b64encode(login.encode()).decode()}" if login else ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            self._open.discard(task)

    async def close(self) -> None:
        """End the connections that clients left open."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").rstrip().split("\r\n")
        method, target, version = line.split(" ")
        named = dict(field.split(": ", 1) for field in fields)
        lower = {name.lower(): value for name, value in named.items()}
        if self._basic and lower.get("proxy-authorization", "").replace("Basic", "basic") != self._basic:
            self.turned_away += 1
            writer.write(b"HTTP/1.1 407 Login wanted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        self.asked.append((method, url.netloc))
        place, _, port = self._places.get(url.netloc, url.netloc).rpartition(":")
        there, back = await asyncio.open_connection(place, int(port), limit=_MAX_HEAD)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            path = url.path + (f"?{url.query}" if url.query else "")
            kept = [f"{name}: {value}" for name, value in named.items() if not _is_ours(name)]
            back.write(
                "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""]).encode()
            )
        up = asyncio.create_task(_pour(reader, back))
        try:
            await _pour(there, writer)
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            back.close()


def _is_ours(name: str) -> bool:
    return name.lower() in ("proxy-authorization", "proxy-connection", "connection")


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    with suppress(ConnectionError, OSError):
        writer.write_eof()


@contextmanager
def forward_proxy(places: Mapping[str, str], login: str = "") -> Iterator[ForwardProxy]:
    """A proxy on a free port of 127.0.0.1, on a loop of its own; `login` is `user:password`."""
    proxy = ForwardProxy(places, login)
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def run() -> None:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=_MAX_HEAD)
        proxy.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        with suppress(asyncio.CancelledError):
            await server.serve_forever()

    task = loop.create_task(run())
    thread = threading.Thread(target=lambda: loop.run_until_complete(task))
    thread.start()
    try:
        ready.wait(HANGS_AFTER)
        yield proxy
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.run_until_complete(proxy.close())
        loop.close()
