"""The embedded registry, bodies that come in: how much of them is in memory, however slowly they come."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from blobflow.oci import digest_of
from blobflow.server import REGISTRY_KEY, Server, make_app
from blobflow.server.http.bodies import READ_BYTES, UNREAD_BYTES, SocketBodyTransport
from blobflow.server.http.ranges import ByteRange
from blobflow.server.upload_sessions import MAX_SESSIONS_OF_OWNER
from blobflow.transports.store import Store
from tests.contract.server.client import REPO, SMALL, image, push, put, status_of

BODY = bytes(4 * 1024 * 1024)


class Counting(SocketBodyTransport):
    """Counts what endpoints were given of bodies."""

    def __init__(self) -> None:
        super().__init__()
        self.came = 0
        self.changed = asyncio.Event()

    async def receive(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        async for chunk in super().receive(request):
            yield chunk
            self.came += len(chunk)
            self.changed.set()

    async def until(self, count: int) -> None:
        while self.came < count:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def connected(server: Server, head: str, body: bytes) -> AsyncIterator[asyncio.StreamWriter]:
    """A connection over which a request with a part of its body is on its way."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode())
    writer.write(body)
    yield writer
    writer.transport.abort()


async def test_a_body_that_no_endpoint_reads_stays_with_the_client() -> None:
    """As that of a request whose login is wrong, which is answered late."""
    asked: list[web.Request] = []
    read, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        await read.wait()
        got = sum([len(chunk) async for chunk in SocketBodyTransport().receive(request)])
        assert got == len(BODY)
        ended.set()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/", answer)
    async with Server(app) as server, connected(server, "PUT /", BODY):
        while not (asked and asked[0].protocol._reading_paused):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert asked[0].content.total_bytes <= 8 * UNREAD_BYTES
        read.set()
        await ended.wait()


async def test_few_bodies_may_have_as_much_in_memory_as_makes_them_fast() -> None:
    limits: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        async for _ in transport.receive(request):
            limits.append(request.content.get_read_buffer_limits()[0])
            break
        return web.Response()

    transport = SocketBodyTransport()
    app = web.Application()
    app.router.add_route("*", "/", answer)
    async with Server(app) as server, ClientSession(server.url) as client:
        await client.put("/", data=b"x" * 1000)
        transport._receiving = 32
        await client.put("/", data=b"x" * 1000)
    assert limits == [READ_BYTES, UNREAD_BYTES]


class Standing:
    """A request over TLS and its response, whose client takes nothing."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.goes_on = asyncio.Event()

    @property
    def transport(self) -> Standing:
        return self

    def get_extra_info(self, name: str) -> str:
        return name

    def set_write_buffer_limits(self, *, high: int) -> None:
        pass

    async def prepare(self, request: object) -> None:
        pass

    async def write(self, chunk: bytes) -> None:
        self.written.append(len(chunk))
        await self.goes_on.wait()


async def test_of_many_clients_that_stand_still_over_tls_each_has_less_in_memory(tmp_path: Path) -> None:
    path, transport = tmp_path / "blob", SocketBodyTransport()
    path.write_bytes(BODY)
    clients = [Standing() for _ in range(512)]
    with path.open("rb") as file:
        sends = []
        for each in clients:
            held: Any = each
            sends.append(
                asyncio.ensure_future(transport.send(held, held, file, ByteRange(0, 2 * READ_BYTES)))
            )
            while not each.written:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert clients[0].written == [READ_BYTES], "one alone is served as fast as it goes"
        assert sum(sum(each.written) for each in clients) < 128 * READ_BYTES
        for each in clients:
            each.goes_on.set()
        await asyncio.gather(*sends)
    assert all(sum(each.written) == 2 * READ_BYTES for each in clients)


async def test_manifests_that_come_slowly_are_not_in_memory(registry_store: Store) -> None:
    transport = Counting()
    part = BODY[:-1]
    count = 8
    async with Server(make_app(registry_store, body_transport=transport)) as server:
        tracemalloc.start()
        try:
            writers = [connected(server, f"PUT {REPO}/manifests/{n}", part) for n in range(count)]
            for each in writers:
                await each.__aenter__()
            await transport.until(count * len(part))
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        for each in writers:
            await each.__aexit__(None, None, None)
        assert held < count * len(part) // 4
    assert not list(registry_store.paths.partials.iterdir())


async def test_few_large_manifests_are_judged_at_once_and_small_ones_wait_for_none(
    registry_store: Store,
) -> None:
    transport = Counting()
    app = make_app(registry_store, body_transport=transport)
    async with Server(app) as server, ClientSession(server.url) as client:
        await push(client, SMALL)
        slots = app[REGISTRY_KEY].large_manifests
        while not slots.locked():
            await slots.acquire()
        raw = image(annotations={"a": "x" * 100_000})
        large = asyncio.ensure_future(put(client, raw, "large"))
        await transport.until(len(raw))
        assert (await put(client, image(), "small")).status == 201
        assert not large.done()
        slots.release()
        assert (await large).status == 201
        async with client.get(f"{REPO}/manifests/large") as answer:
            assert await answer.read() == raw


@pytest.mark.parametrize("size", [32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 200_000])
async def test_manifests_of_any_size_come_in_whole(registry_store: Store, size: int) -> None:
    async with Server(make_app(registry_store)) as server, ClientSession(server.url) as client:
        await push(client, SMALL)
        short = len(image(annotations={"a": ""}))
        raw = image(annotations={"a": "x" * (size - short)})
        assert len(raw) == size
        assert (await put(client, raw, digest_of(raw))).status == 201
        assert registry_store.blobs.read_small(digest_of(raw)) == raw
        assert await status_of(client, f"{REPO}/manifests/{digest_of(raw)}") == 200


async def test_of_many_uploads_each_has_less_in_memory(registry_store: Store) -> None:
    """One that stands still has gathered less than it takes for a write."""
    transport = Counting()
    app = make_app(registry_store, body_transport=transport)
    async with Server(app) as server:
        head = f"POST {REPO}/blobs/uploads/?digest={digest_of(BODY)}"
        async with connected(server, head, BODY[:100_000]):
            await transport.until(100_000)
            assert not list(registry_store.paths.partials.iterdir())
        sessions = app[REGISTRY_KEY].sessions
        for _ in range(MAX_SESSIONS_OF_OWNER):
            sessions.start("team/app", "somebody")
        async with connected(server, head, BODY[:100_000]):
            await transport.until(200_000)
            [partial] = registry_store.paths.partials.iterdir()
            assert partial.stat().st_size > 30_000
