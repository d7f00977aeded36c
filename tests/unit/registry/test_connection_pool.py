"""Kept connections: what came over one that nobody asked for is no answer to the next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from blobflow.errors import ProtocolViolation
from blobflow.oci import Descriptor, digest_of, media
from tests.contract.implementations import blob_of, index_of
from tests.fakes.registry import collect, world

INDEX, RAW = index_of(Descriptor(media.OCI_MANIFEST, digest_of(b"child"), 5))
CONTENT = bytes(200_000)
LAYER = blob_of(CONTENT)
# What a server may say to a connection on which nothing was asked for long (RFC 9110, 15.5.9).
UNASKED = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
# What a TLS handshake begins with: after an answer that is none, a host is asked whether it speaks TLS.
TLS_HANDSHAKE = b"\x16"


class Kept:
    """A server that keeps connections, and says more than it is asked at the end of its first answer.

    `asked` are the requests' methods, each with the number of its connection. `late`: only once `say` is set.
    """

    def __init__(self, more: bytes, *, late: bool) -> None:
        self.host = ""
        self.asked: list[tuple[int, str]] = []
        self.said = asyncio.Event()
        self.say = asyncio.Event()
        self._more = more
        self._late = late
        self._connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        try:
            while True:
                method, path, *_ = (await reader.readuntil(b"\r\n\r\n")).decode().split()
                self.asked.append((number, method))
                content = CONTENT if "/blobs/" in path else RAW
                answer = f"HTTP/1.1 200 OK\r\nContent-Type: {media.OCI_INDEX}\r\n"
                answer += (
                    f"Content-Length: {len(content)}\r\nDocker-Content-Digest: {digest_of(content)}\r\n\r\n"
                )
                first = len(self.asked) == 1
                writer.write(answer.encode() + (content if method == "GET" else b""))
                if first and self._late:
                    await self.say.wait()
                writer.write(self._more if first else b"")
                await writer.drain()
                self.said.set()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def keeping(more: bytes, *, late: bool) -> AsyncIterator[Kept]:
    kept = Kept(more, late=late)
    server = await asyncio.start_server(kept.connected, "127.0.0.1", 0)
    kept.host = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield kept
    finally:
        server.close()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("method", ["HEAD", "GET", "blob"])
async def test_what_comes_unasked_is_not_the_next_answer(method: str, late: bool) -> None:
    async with keeping(UNASKED, late=late) as kept, world() as w:
        source = w.source(kept.host)

        async def ask() -> bool:
            if method == "HEAD":
                return await source.resolve("1") == INDEX
            if method == "GET":
                return await source.read(INDEX) == RAW
            async with source.open(LAYER) as chunks:
                return await collect(chunks) == CONTENT

        assert await ask()
        kept.say.set()
        await kept.said.wait()
        for _ in range(20):  # it is in our buffers by then
            await asyncio.sleep(0.001)
        assert await ask()
        assert [number for number, _ in kept.asked] == [1, 2]
        assert await ask()
        assert [number for number, _ in kept.asked] == [1, 2, 2]


async def test_a_connection_is_kept_where_nothing_is_wrong() -> None:
    async with keeping(b"", late=False) as kept, world() as w:
        for _ in range(3):
            assert await w.source(kept.host).read(INDEX) == RAW
        assert {number for number, _ in kept.asked} == {1}


class Chatting:
    """A server that says `hints` times that its answer will come soon, and then answers."""

    def __init__(self, hints: int) -> None:
        self._hints = hints
        self.gone = asyncio.Event()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.read(1) == TLS_HANDSHAKE:
                return
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" * self._hints)
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(RAW)}\r\n\r\n".encode() + RAW)
            await writer.drain()
            await reader.read()
            self.gone.set()
        except ConnectionError:
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def chatting(hints: int) -> AsyncIterator[tuple[Chatting, str]]:
    chat = Chatting(hints)
    server = await asyncio.start_server(chat.connected, "127.0.0.1", 0)
    try:
        yield chat, "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()


async def test_what_is_said_before_an_answer_is_no_answer() -> None:
    async with chatting(3) as (_, host), world() as w:
        assert await w.source(host).read(INDEX) == RAW


async def test_and_is_not_listened_to_for_ever() -> None:
    """Each of them would be held until its turn."""
    async with chatting(50_000) as (chat, host), world() as w:
        with pytest.raises(ProtocolViolation, match="not HTTP"):
            await w.source(host).read(INDEX)
        await chat.gone.wait()
