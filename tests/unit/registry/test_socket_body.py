"""Large bodies past aiohttp: the same bytes, the same errors, and nothing of one body in another."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
import uvloop

from blobflow.errors import BlobflowError, ConnectionLost, TimedOut
from blobflow.oci import Descriptor
from blobflow.transports.registry.http import downloads, socket_body
from tests.deadlines import HANGS_AFTER
from tests.fakes.jumping_clock import lapse
from tests.fakes.registry import World, blob_of, world

CONTENT = random.Random(1).randbytes(3 * socket_body.BUFFER + 12_345)
BLOB = blob_of(CONTENT)
Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=["socket", "aiohttp's own"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways that a body can come."""
    monkeypatch.setattr(socket_body, "SOCKET_FROM", 1 if request.param == "socket" else 2**60)
    return str(request.param)


@asynccontextmanager
async def serving(serve: Serve, *, answers: int = 1) -> AsyncIterator[str]:
    """A server that answers each request by what `serve` writes, so many on a connection; its host."""
    writers: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            for _ in range(answers):
                await reader.readuntil(b"\r\n\r\n")
                await serve(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        for writer in writers:
            if not writer.transport.is_closing():
                writer.transport.abort()


def answering(body: bytes, *pieces: int, length: int | None = None) -> Serve:
    """Sends a body in pieces that end at these places."""

    async def serve(writer: asyncio.StreamWriter) -> None:
        size = len(body) if length is None else length
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for start, end in zip((0, *pieces), (*pieces, len(body)), strict=True):
            writer.write(body[start:end])
            await writer.drain()
            await asyncio.sleep(0)

    return serve


async def read(w: World, host: str, blob: Descriptor = BLOB) -> bytes:
    got = bytearray()
    async with w.source(host).open(blob) as chunks:
        async for chunk in chunks:
            got += chunk
            await asyncio.sleep(0)
    return bytes(got)


PIECES = [
    (),
    (1,),
    (100, 65_000),
    (socket_body.BUFFER,),
    (socket_body.BUFFER - 1, 2 * socket_body.BUFFER + 1),
    (len(CONTENT) - 1,),
]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("pieces", PIECES, ids=str)
def test_the_bytes_come_as_they_were_sent(
    way: str, loop: Callable[[], asyncio.AbstractEventLoop], pieces: tuple[int, ...]
) -> None:
    async def run() -> bytes:
        async with serving(answering(CONTENT, *pieces)) as host, world() as w:
            return await read(w, host)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(run()) == CONTENT


async def test_a_body_is_taken_over_also_where_aiohttp_has_paused_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[socket_body.SocketBodyReader | None] = []

    async def take_over(response: aiohttp.ClientResponse, size: int) -> socket_body.SocketBodyReader | None:
        protocol = response.connection.protocol if response.connection else None
        assert getattr(protocol, "_reading_paused", False)
        taken.append(await socket_body.take_over(response, size))
        return taken[-1]

    monkeypatch.setattr(socket_body, "SOCKET_FROM", 1)
    monkeypatch.setattr("blobflow.transports.registry.http.aiohttp_client.READ_AHEAD", 1)
    monkeypatch.setattr(downloads, "take_over", take_over)
    async with serving(answering(CONTENT)) as host, world() as w, w.source(host).open(BLOB) as chunks:
        got = b"".join([bytes(chunk) async for chunk in chunks])
    assert got == CONTENT
    assert taken[0] is not None


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_body_still_being_read_does_not_disturb_the_next_on_its_connection(
    way: str, loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp gives a connection back once a body has come whole, read or not. What is read of it then starts
    the connection's reading again, whoever has paused it: bytes came for which there was no room."""
    first, second = random.Random(2).randbytes(60_000), CONTENT * 2
    whole = asyncio.Event()
    writers: set[asyncio.StreamWriter] = set()
    served = iter([first, second])

    async def turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def serve(writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        body = next(served)
        await answering(b"", length=len(body))(writer)
        for start in range(0, len(body), 20_000):
            writer.write(body[start : start + 20_000])
            await writer.drain()
            if body is first:
                await turns()
        whole.set()

    async def run() -> None:
        async with serving(serve, answers=2) as host, world(connections=1) as w, AsyncExitStack() as opened:
            source = w.source(host)
            slow = await opened.enter_async_context(source.open(blob_of(first)))
            got = [bytes(await anext(slow))]
            await whole.wait()
            chunks = await opened.enter_async_context(source.open(blob_of(second)))
            others = [bytes(await anext(chunks))]
            for _ in range(2):
                await asyncio.sleep(0.02)  # so all buffers are full, and reading is paused
                got += [bytes(await anext(slow))]
            others += [bytes(chunk) async for chunk in chunks]
            got += [bytes(chunk) async for chunk in slow]
        assert len(writers) == 1
        assert b"".join(got) == first
        assert b"".join(others) == second

    if way == "socket":
        monkeypatch.setattr(socket_body, "SOCKET_FROM", 2 * len(first))
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_bodies_at_once_and_one_after_another_do_not_mix(way: str) -> None:
    """Buffers are used again; every body is another, and every reader has another pace."""
    bodies = [random.Random(number).randbytes(socket_body.BUFFER + number * 100_000) for number in range(12)]
    asked = iter(bodies * 2)

    async def serve(writer: asyncio.StreamWriter) -> None:
        await answering(next(asked))(writer)

    async def hash_of(w: World, host: str, size: int, pause: int) -> str:
        hashed = hashlib.sha256()
        blob = Descriptor("x/y", BLOB.digest, size)
        async with w.source(host).open(blob) as chunks:
            async for chunk in chunks:
                for _ in range(pause):
                    await asyncio.sleep(0)
                hashed.update(chunk)
        return hashed.hexdigest()

    async with serving(serve) as host, world(connections=1) as w:
        for number, body in enumerate(bodies):
            assert await hash_of(w, host, len(body), number % 3) == hashlib.sha256(body).hexdigest()
    async with serving(answering(CONTENT)) as host, world(connections=8) as w:
        found = await asyncio.gather(*(hash_of(w, host, len(CONTENT), n % 5) for n in range(8)))
    assert set(found) == {hashlib.sha256(CONTENT).hexdigest()}


@pytest.mark.parametrize("sent", [0, 1, socket_body.BUFFER, len(CONTENT) - 1])
async def test_a_body_that_breaks_off_is_a_lost_connection_that_says_how_far(way: str, sent: int) -> None:
    async with serving(answering(CONTENT[:sent], length=len(CONTENT))) as host, world() as w:
        with pytest.raises(ConnectionLost) as raised:
            await read(w, host)
    assert (raised.value.received, raised.value.expected) == (sent, len(CONTENT))


async def test_a_reset_is_a_lost_connection(way: str) -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        await answering(CONTENT[: socket_body.BUFFER], length=len(CONTENT))(writer)
        writer.transport.abort()

    async with serving(serve) as host, world() as w:
        with pytest.raises(ConnectionLost):
            await read(w, host)


def test_a_body_that_stands_still_is_given_up(way: str) -> None:
    async def run() -> None:
        held = asyncio.Event()

        async def serve(writer: asyncio.StreamWriter) -> None:
            await answering(CONTENT[:1000], length=len(CONTENT))(writer)
            await held.wait()

        async with serving(serve) as host, world() as w:
            with pytest.raises(TimedOut):
                await read(w, host)
            held.set()

    lapse(run())


async def test_more_than_was_announced_is_not_read(way: str) -> None:
    async with serving(answering(CONTENT + b"more", length=len(CONTENT))) as host, world() as w:
        assert await read(w, host) == CONTENT


async def test_a_reader_that_leaves_or_is_cancelled_ends_the_connection(way: str) -> None:
    gone = asyncio.Event()

    async def serve(writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await answering(CONTENT, length=2**40)(writer)
        except ConnectionError:
            gone.set()
            raise

    async with serving(serve) as host, world() as w:
        blob = Descriptor("x/y", BLOB.digest, 2**40)

        begun = asyncio.Event()

        async def take(*, leave: bool) -> None:
            async with w.source(host).open(blob) as chunks:
                await anext(chunks)
                begun.set()
                if not leave:
                    await asyncio.Event().wait()

        await take(leave=True)
        await asyncio.wait_for(gone.wait(), HANGS_AFTER)
        gone.clear()
        begun.clear()
        taking = asyncio.create_task(take(leave=False))
        await begun.wait()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        await asyncio.wait_for(gone.wait(), HANGS_AFTER)


async def test_what_is_read_is_asked_for_again_on_a_connection_that_is_whole(way: str) -> None:
    async with serving(answering(CONTENT)) as host, world() as w:
        for _ in range(3):
            assert await read(w, host) == CONTENT
        with pytest.raises(BlobflowError):
            await read(w, host, Descriptor("x/y", BLOB.digest, 1))
