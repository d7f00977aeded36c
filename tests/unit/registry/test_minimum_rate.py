"""The least rate: what drips ends, what is slow goes on. With real figures, on a loop whose clock jumps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from blobflow.errors import BlobflowError, TimedOut
from blobflow.oci import Descriptor, digest_of, media
from blobflow.transports.registry import Profile
from blobflow.transports.registry.http import socket_body
from blobflow.transports.registry.http.aiohttp_client import HEAD_SECONDS
from blobflow.transports.registry.http.minimum_rate import (
    MINIMUM_BYTES,
    MINIMUM_SECONDS,
    MinimumRate,
    TooSlow,
)
from tests.contract.implementations import blob_of, index_of
from tests.fakes.jumping_clock import lapse
from tests.fakes.registry import Bytes, World, collect, world

INDEX, RAW = index_of(Descriptor(media.OCI_MANIFEST, digest_of(b"child"), 5))
LAYER = blob_of(bytes(5 * 1024 * 1024))
SMALL = blob_of(bytes(1000))
MODEM = 7000.0  # bytes a second: 56 kbit/s

Way = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that answers each request line by a function of it. `sent` are the bytes that left it."""

    def __init__(self) -> None:
        self.host = ""
        self.requests: list[str] = []
        self.sent = 0

    async def slowly(self, writer: asyncio.StreamWriter, data: bytes, rate: float, piece: int = 10) -> None:
        """Send bytes at so many a second, in pieces."""
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            writer.write(part)
            self.sent += len(part)
            await asyncio.sleep(len(part) / rate)


def head(size: int, kind: str = media.OCI_INDEX, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n\r\n".encode()


@asynccontextmanager
async def peer(answer: Callable[[Peer, str, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Peer]:
    made = Peer()
    tasks: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                made.requests.append(lines[0])
                length = next((int(x[15:]) for x in lines if x.lower().startswith("content-length:")), 0)
                await reader.readexactly(length)
                await answer(made, lines[0], writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.host = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)


async def drips_the_body(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
    writer.write(head(100_000))
    await there.slowly(writer, RAW.ljust(100_000), 1)


async def drips_the_head(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
    await there.slowly(writer, b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 5000, 1)


async def drips_a_length(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
    """Of a chunk: nothing of the body comes, and there is never silence."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await there.slowly(writer, b"1;" + b"x" * 5000, 1)


async def drips_news(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
    """Of an answer that is to come (RFC 9110, 15.2)."""
    for _ in range(5000):
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(10)


ASKED: dict[str, Callable[[World, str], Awaitable[object]]] = {
    "a manifest": lambda w, host: w.source(host).read(INDEX),
    "a tag without a digest": lambda w, host: w.source(host).fetch("1"),
    "tags": lambda w, host: w.source(host).tags(),
    "repositories": lambda w, host: w.registries.repositories(host),
    "referrers": lambda w, host: w.source(host).referrers(INDEX.digest),
    "an answer to a put": lambda w, host: w.sink(host).put(INDEX, RAW, ["1"]),
}
WAYS = [drips_the_body, drips_the_head, drips_a_length, drips_news]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asked", ASKED)
def test_a_small_answer_that_drips_ends(
    asked: str, way: Callable[[Peer, str, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    async def run() -> None:
        async with peer(way) as there, world() as w:
            began = asyncio.get_running_loop().time()
            with pytest.raises(TimedOut, match=there.host) as raised:
                await ASKED[asked](w, there.host)
            assert raised.value.attempts == 3  # the table's
            assert len(there.requests) == 3
            assert asyncio.get_running_loop().time() - began < 3 * 200
            assert "slow" in raised.value.message

    lapse(run())


def test_the_sentence_says_how_much_came_in_how_long() -> None:
    async def run() -> None:
        async with peer(drips_the_body) as there, world() as w:
            with pytest.raises(TimedOut) as raised:
                await w.source(there.host).read(INDEX)
            said = raised.value.message
            assert f"{there.host} sends too slowly: " in said
            assert "bytes of manifest app@sha256:" in said
            assert " seconds" in said

    lapse(run())


def test_a_head_that_is_asked_for_alone_ends_too() -> None:
    async def run() -> None:
        async with peer(drips_the_head) as there, world() as w:
            with pytest.raises(TimedOut, match="does not end"):
                await w.source(there.host).resolve("1")
            with pytest.raises(TimedOut, match="does not end"):
                await w.sink(there.host).has(LAYER)

    lapse(run())


def test_a_token_that_drips_ends() -> None:
    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            if "/token" in line:
                writer.write(head(5000, "application/json"))
                await there.slowly(writer, b'{"token":"' + b"x" * 4990, 1)
            else:
                challenge = f'WWW-Authenticate: Bearer realm="http://{there.host}/token"\r\n'
                writer.write(f"HTTP/1.1 401 No\r\n{challenge}Content-Length: 0\r\n\r\n".encode())

        async with peer(answer) as there, world() as w:
            with pytest.raises(TimedOut, match=f"too slowly: .* a token for {there.host}"):
                await w.source(there.host).resolve("1")

    lapse(run())


def test_a_refusal_that_drips_is_a_refusal_all_the_same() -> None:
    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            writer.write(head(5000, "application/json", "403 Forbidden"))
            await there.slowly(writer, b" " * 5000, 1)

        async with peer(answer) as there, world() as w:
            with pytest.raises(BlobflowError, match="denies"):
                await w.source(there.host).read(INDEX)
            assert there.sent <= 10

    lapse(run())


@pytest.mark.parametrize("taken_over", [True, False])
@pytest.mark.parametrize("blob", [LAYER, SMALL])
def test_a_blob_that_drips_ends(blob: Descriptor, taken_over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones past aiohttp, and all as it brings them: also one that begins well."""
    monkeypatch.setattr(socket_body, "SOCKET_FROM", 1 if taken_over else 2**60)
    monkeypatch.setattr(socket_body, "SOCKET_LEFT", 1)

    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            writer.write(head(blob.size))
            writer.write(bytes(blob.size // 2))
            await there.slowly(writer, bytes(blob.size // 2), 1)

        async with peer(answer) as there, world() as w:
            with pytest.raises(TimedOut, match="sends too slowly"):
                async with w.source(there.host).open(blob) as chunks:
                    await collect(chunks)
            assert there.sent < 3 * MINIMUM_SECONDS

    lapse(run())


@pytest.mark.parametrize("piece", [14_000, 60_000])
def test_four_megabytes_over_a_modem_come(piece: int) -> None:
    """Ten minutes, with nothing for seconds at times, and then much."""
    raw = RAW.ljust(4 * 1024 * 1024)
    manifest = Descriptor(INDEX.media_type, digest_of(raw), len(raw))

    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            writer.write(head(len(raw)))
            await there.slowly(writer, raw, MODEM, piece)

        async with peer(answer) as there, world() as w:
            began = asyncio.get_running_loop().time()
            assert await w.source(there.host).read(manifest) == raw
            assert asyncio.get_running_loop().time() - began > 590
            assert len(there.requests) == 1

    lapse(run())


@pytest.mark.parametrize("taken_over", [True, False])
def test_twenty_four_at_once_over_a_modem_come(taken_over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_body, "SOCKET_FROM", 1 if taken_over else 2**60)
    monkeypatch.setattr(socket_body, "SOCKET_LEFT", 1)
    raw = RAW.ljust(100_000)
    manifest = Descriptor(INDEX.media_type, digest_of(raw), len(raw))
    blob = blob_of(bytes(300_000))

    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            content = bytes(300_000) if "/blobs/" in line else raw
            writer.write(head(len(content)))
            await there.slowly(writer, content, MODEM / 24, 5000)

        async with peer(answer) as there, world(connections=8) as w:

            async def stream() -> bytes:
                async with w.source(there.host).open(blob) as chunks:
                    return await collect(chunks)

            found = await asyncio.gather(
                *(w.source(there.host).read(manifest) for _ in range(16)), *(stream() for _ in range(8))
            )
            assert found == [raw] * 16 + [bytes(300_000)] * 8
            assert len(there.requests) == 24

    lapse(run())


def test_a_long_path_is_not_a_slow_one() -> None:
    """A satellite's round trips, and a registry that thinks for most of a minute before it answers."""

    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(55)
            writer.write(head(len(RAW)))
            await asyncio.sleep(0.7)
            await there.slowly(writer, RAW, 200 / 0.7, 200)

        async with peer(answer) as there, world() as w:
            assert await w.source(there.host).read(INDEX) == RAW

    lapse(run())


def test_a_reader_s_own_time_is_not_the_peer_s(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            writer.write(head(LAYER.size) + bytes(LAYER.size))

        async with peer(answer) as there, world() as w, w.source(there.host).open(LAYER) as chunks:
            size = 0
            async for chunk in chunks:
                size += len(chunk)
                await asyncio.sleep(600)
            assert size == LAYER.size

    lapse(run())


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST"])
def test_an_upload_whose_answer_drips_ends(method: str) -> None:
    """Also where its bytes went by a stream: what comes after the last of them has its time."""

    async def run() -> None:
        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            if line.startswith(method):
                await drips_the_head(there, line, writer)
            status = "202 Accepted\r\nLocation: /up" if line.startswith(("POST", "PATCH")) else "201 Created"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

        profile = Profile("test", ("stream",) if method == "PATCH" else ("single",))
        async with peer(answer) as there, world(profile=profile) as w:
            with pytest.raises(TimedOut, match="does not end"):
                await w.sink(there.host).push(LAYER, Bytes(bytes(LAYER.size), blob=LAYER))

    lapse(run())


# The rule itself


def test_the_rule_counts_waiting_and_nothing_else() -> None:
    async def run() -> None:
        found: list[TooSlow] = []
        rate = MinimumRate(found.append)
        for _ in range(10):  # enough, just so
            rate.waiting()
            await asyncio.sleep(MINIMUM_SECONDS - 1)
            rate.came(MINIMUM_BYTES)
            await asyncio.sleep(10 * MINIMUM_SECONDS)
        assert not found
        rate.waiting()
        await asyncio.sleep(MINIMUM_SECONDS - 1)
        rate.came(MINIMUM_BYTES - 1)
        await asyncio.sleep(10 * MINIMUM_SECONDS)
        assert not found
        rate.waiting()
        await asyncio.sleep(MINIMUM_SECONDS / 2)
        assert [each.brought for each in found] == [MINIMUM_BYTES - 1]
        assert MINIMUM_SECONDS <= found[0].waited < 1.5 * MINIMUM_SECONDS
        await asyncio.sleep(10 * MINIMUM_SECONDS)
        assert len(found) == 1  # only once

    lapse(run())


def test_nothing_is_owed_after_the_end() -> None:
    async def run() -> None:
        found: list[TooSlow] = []
        rate = MinimumRate(found.append)
        rate.waiting()
        rate.stop()
        await asyncio.sleep(10 * MINIMUM_SECONDS)
        assert not found

    lapse(run())


def test_the_head_s_limit_follows_all_that_goes_before() -> None:
    """A large manifest leaves, the registry thinks for most of a minute, and the line is slow."""

    async def run() -> None:
        raw = RAW.ljust(1024 * 1024)
        manifest = Descriptor(INDEX.media_type, digest_of(raw), len(raw))

        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(50)
            await there.slowly(
                writer, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 50 / HEAD_SECONDS
            )

        async with peer(answer) as there, world() as w:
            await w.sink(there.host).put(manifest, raw, ["1"])
            assert len(there.requests) == 1

    lapse(run())


def test_a_page_in_good_order_is_not_touched() -> None:
    async def run() -> None:
        page = json.dumps({"name": "app", "tags": ["1", "2"]}).encode()

        async def answer(there: Peer, line: str, writer: asyncio.StreamWriter) -> None:
            writer.write(head(len(page), "application/json") + page)

        async with peer(answer) as there, world() as w:
            assert await w.source(there.host).tags() == ["1", "2"]

    lapse(run())
