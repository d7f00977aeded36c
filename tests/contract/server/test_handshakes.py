"""The embedded registry over TLS: handshakes that end well, badly or never, under both event loops."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import pytest
import uvloop
from aiohttp import ClientSession, TCPConnector

from blobflow.events import Event
from blobflow.oci import digest_of
from blobflow.server import Server, make_app, tls_context
from blobflow.transports.store import Store
from tests.contract.server.client import push

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
CONTENT = random.Random(3).randbytes(3_000_000)
Work = Callable[[Server, Store, list[Event]], Awaitable[None]]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, tmp_path: Path, certificate: Path) -> Callable[..., None]:
    """Does some work with a registry that has room for `most` connections."""

    async def serve(work: Work, most: int | None) -> None:
        told: list[Event] = []
        store = Store.open(tmp_path)
        app, tls = make_app(store), tls_context(certificate)
        async with Server(app, tls=tls, most=most, grace=0.2, observer=told.append) as server:
            await work(server, store, told)
        store.close()

    def run(work: Work, most: int | None = None) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(serve(work, most))

    return run


@cache
def trusting(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


async def one_request(server: Server) -> None:
    connector = TCPConnector(ssl=trusting(ssl.TLSVersion.TLSv1_3))
    async with ClientSession(server.url, connector=connector) as client:
        assert (await client.get("/v2/")).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_comes_with_the_end_of_the_handshake_is_a_request(
    run: Callable[..., None], version: ssl.TLSVersion
) -> None:
    async def work(server: Server, store: Store, told: list[Event]) -> None:
        async def ask() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting(version))
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()

        for _ in range(10):
            await asyncio.gather(*(ask() for _ in range(8)))
        connector = TCPConnector(ssl=trusting(version))
        async with ClientSession(server.url, connector=connector) as client:
            await push(client, CONTENT)
            async with client.get(f"/v2/team/app/blobs/{digest_of(CONTENT)}") as answer:
                assert await answer.read() == CONTENT

    run(work)


def test_handshakes_that_never_end_make_room_for_others(run: Callable[..., None]) -> None:
    async def work(server: Server, store: Store, told: list[Event]) -> None:
        silent = []
        for number in range(40):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\x16\x03\x01"[: number % 4])
            silent.append(writer)
            if not number % 4:
                await one_request(server)
        assert [str(event).count("connections are open") for event in told] == [1]
        for writer in silent:
            writer.transport.abort()

    run(work, most=16)


def test_what_is_no_handshake_is_cut_off_and_no_failure(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def work(server: Server, store: Store, told: list[Event]) -> None:
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 5000):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(junk)
            try:
                await reader.read()
            except ConnectionError:
                pass
            writer.transport.abort()
        for junk in (b"", b"\x16\x03\x01\x02\x00"):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", server.port)) as gone:
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    gone.sendall(junk)
        await one_request(server)
        _, waiting = await asyncio.open_connection("127.0.0.1", server.port)
        await server.stop()
        waiting.transport.abort()

    run(work)
    assert not caplog.records


def test_clients_that_are_gone_before_tls_begins_leave_no_handshake(run: Callable[..., None]) -> None:
    """As those that only look whether a port is open; some go in each turn that it takes to begin."""

    async def work(server: Server, store: Store, told: list[Event]) -> None:
        handshakes = server._handshakes
        assert handshakes is not None
        for turns in range(8):
            for linger in (struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)):
                with socket.create_connection(("127.0.0.1", server.port)) as gone:
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    for _ in range(turns):
                        await asyncio.sleep(0)
        async with asyncio.timeout(10):  # far less than a handshake may take
            await one_request(server)
            while len(handshakes):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert not told

    run(work)
