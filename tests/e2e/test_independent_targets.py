"""A target that takes connections and says nothing, one that refuses, and one that is well."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.e2e.conftest import StartsRegistries
from tests.scenarios.child_process import child
from tools import imageset


class Silent:
    """A server that takes every connection and answers nothing. `given_up`: those that a client ended."""

    def __init__(self) -> None:
        self.host = ""
        self.taken = 0
        self.given_up = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._open.add(writer)
        try:
            while await reader.read(65_536):
                pass
            self.given_up += 1
        except ConnectionError:
            self.given_up += 1
        finally:
            self._open.discard(writer)
            writer.close()

    def end(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()


@asynccontextmanager
async def silent() -> AsyncIterator[Silent]:
    taking = Silent()
    server = await asyncio.start_server(taking.take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    taking.host = f"127.0.0.1:{port}"
    try:
        yield taking
    finally:
        server.close()
        taking.end()


def refusing() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def test_a_healthy_target_is_done_before_a_silent_or_a_refusing_one_is_given_up(
    start_registry: StartsRegistries, tmp_path: Path, home: Path
) -> None:
    layout = imageset.synthetic(tmp_path / "set", seed=15, images=3, layer_size=200_000)
    source, healthy = start_registry("source"), start_registry("healthy")
    imageset.push(layout.path, source.host)
    source.forget()
    async with silent() as hanging:
        closed = refusing()
        targets = [f"{host}/m" for host in (hanging.host, closed, healthy.host)]
        async with child(home=home, images=[*layout.images], source=source.host, targets=targets) as run:
            await run.until(lambda _: len(run.images(healthy.host)) == len(layout.images))
            assert set(run.images(healthy.host).values()) == {"done"}
            assert hanging.taken > 0
            assert hanging.given_up == 0
            assert run.images(hanging.host) == {}
            for image in layout.images.values():
                assert healthy.digest_of(f"m/{image.repository}", image.tag) == image.digest
            run.signal(signal.SIGTERM)
            assert await run.ended() == 130
        statuses = {image["target"].partition("/")[0]: image["status"] for image in run.report()["images"]}
    assert statuses[healthy.host] == "done"
    assert statuses[hanging.host] == "skipped"
    assert statuses[closed] in ("failed", "skipped")
    assert len(source.requests().reads_of_blobs()) == len(layout.blobs)
