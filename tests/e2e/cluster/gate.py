"""A relay between one worker and one registry, that stands still in mid-blob when a test wants it to.

A worker's config.toml names a gate as its HTTP proxy for a registry: Dask hands every worker the same names
of registries, and so each has a way of its own to them. docker-registry takes what is asked of a proxy (a
request line with a whole URL) as it takes any other, so that a gate passes bytes on and reads none of them.

Gates run on a loop in a thread of their own, and are told from any other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.deadlines import HANGS_AFTER

_PIECE = 16 * 1024


class Gate:
    """A running relay. `down`: bytes that came from the registry and passed; `recorded`: everything that
    passed, both ways, since `record`."""

    def __init__(self, to: str, loop: asyncio.AbstractEventLoop) -> None:
        self.host = ""
        self.down = 0
        self.recorded = bytearray()
        self._records = False
        self._to = to
        self._loop = loop
        self._holds_at: int | None = None
        self._held = threading.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.host = "{}:{}".format(*self._server.sockets[0].getsockname()[:2])

    def hold_after(self, more: int) -> None:
        """Let so many further bytes come from the registry, and then none until `release`."""
        self._held.clear()
        self._call(self._hold, more)

    def _hold(self, more: int) -> None:
        self._holds_at = self.down + more
        self._open.clear()

    def record(self) -> None:
        """Keep what passes."""
        self._records = True

    async def until_held(self) -> None:
        """Wait until bytes stand before the closed gate."""
        assert await asyncio.to_thread(self._held.wait, HANGS_AFTER), "nothing comes to the gate"

    def release(self) -> None:
        """Let everything pass from now on."""
        self._call(self._release)

    def _release(self) -> None:
        self._holds_at = None
        self._open.set()

    def _call(self, *call: Any) -> None:
        """Have the loop do it, and wait until it has."""
        done = threading.Event()

        def do() -> None:
            call[0](*call[1:])
            done.set()

        self._loop.call_soon_threadsafe(do)
        done.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        place, _, port = self._to.rpartition(":")
        try:
            with suppress(OSError, asyncio.CancelledError):  # `close` cancels, and nobody else
                there, back = await asyncio.open_connection(place, int(port))
                up = asyncio.create_task(self._pump_up(reader, back))
                try:
                    await self._pump_down(there, writer)
                finally:
                    up.cancel()
                    await asyncio.gather(up, return_exceptions=True)
                    back.transport.abort()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pump_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                self._keep(piece)
                writer.write(piece)
                await writer.drain()
            writer.write_eof()

    def _keep(self, piece: bytes) -> None:
        if self._records:
            self.recorded += piece

    async def _pump_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what the registry says, piece by piece, until its end or the worker's."""
        while piece := await reader.read(_PIECE):
            if self._holds_at is not None and self.down + len(piece) > self._holds_at:
                self._held.set()
                await self._open.wait()
            self.down += len(piece)
            self._keep(piece)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        await writer.drain()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Gates:
    """Makes gates, which end with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._gates: list[Gate] = []

    def __iter__(self) -> Iterator[Gate]:
        return iter(self._gates)

    def to(self, host: str) -> Gate:
        """A new gate, open, to `host` (`address:port`)."""
        return asyncio.run_coroutine_threadsafe(self._start(host), self._loop).result(HANGS_AFTER)

    async def _start(self, host: str) -> Gate:
        gate = Gate(host, self._loop)
        await gate.listen()
        self._gates.append(gate)
        return gate

    async def close(self) -> None:
        for gate in self._gates:
            await gate.close()


@contextmanager
def gates() -> Iterator[Gates]:
    """A thread for gates."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="gates")
    thread.start()
    made = Gates(loop)
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(made.close(), loop).result(HANGS_AFTER)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
