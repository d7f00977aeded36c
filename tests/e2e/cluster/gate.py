"""A relay between one worker and one registry, that stands still in mid-blob when the test wants it to.

A worker's config.toml names a gate as its HTTP proxy for a registry: Dask hands every worker the same names of
registries, and so each has a way of its own to them. docker-registry takes what is asked of a proxy (a request
line with a whole URL) as it takes any other, so that a gate passes bytes on and reads none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.deadlines import HANGS_AFTER

_PIECE = 16 * 1024


class Gate:
    """A running relay. `down`: bytes that passed from the registry so far."""

    def __init__(self, to: str) -> None:
        self.host = ""
        self.down = 0
        self._to = to
        self._holds_at: int | None = None
        self._held = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hold_after(self, more: int) -> None:
        """Let so many further bytes come from the registry, and then none until `release`."""
        self._holds_at = self.down + more
        self._held.clear()
        self._open.clear()

    async def until_held(self) -> None:
        """Wait until bytes stand before the closed gate."""
        async with asyncio.timeout(HANGS_AFTER):
            await self._held.wait()

    @property
    def holds(self) -> bool:
        return self._held.is_set() and not self._open.is_set()

    def release(self) -> None:
        """Let everything pass from now on."""
        self._holds_at = None
        self._open.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        place, _, port = self._to.rpartition(":")
        try:
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(place, int(port))
                up = asyncio.create_task(_pump(reader, back))
                try:
                    await self._pump_down(there, writer)
                finally:
                    up.cancel()
                    await asyncio.gather(up, return_exceptions=True)
                    back.transport.abort()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pump_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what the registry says, piece by piece; ends early if the worker is gone meanwhile."""
        while piece := await reader.read(_PIECE):
            if self._holds_at is not None and self.down + len(piece) > self._holds_at:
                self._held.set()
                await self._open.wait()
            self.down += len(piece)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        await writer.drain()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def gate(to: str) -> AsyncIterator[Gate]:
    """An open gate to `to` (`address:port`)."""
    made = Gate(to)
    server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
    made.host = "{}:{}".format(*server.sockets[0].getsockname()[:2])
    try:
        yield made
    finally:
        server.close()
        made.release()
        await made.close()
