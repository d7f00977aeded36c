"""Small blobs: read whole, sent as one small request beside the streams; bodies opened beside a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.content import SMALL_BLOB, BlobStream
from blobflow.errors import (
    BlobflowError,
    ConnectionLost,
    Denied,
    DigestMismatch,
    NotFound,
    SizeMismatch,
    Unauthorized,
)
from blobflow.oci import digest_of
from blobflow.transports.registry import Profile
from tests.fakes.registry import Bytes, blob_of, body_that, scripted_server, world
from tools.registry.faulty import (
    Corrupt,
    Fault,
    ForgetSession,
    Hangup,
    LoseAnswer,
    Reset,
    Stall,
    Status,
    journalling,
)
from tools.registry.journal import Exchange

SMALL = bytes(range(256)) * 40
LARGE = bytes(range(256)) * 4000
FIRST = b"the first blob of the repository"
POST, PUT, PATCH, DELETE = "POST", "PUT", "PATCH", "DELETE"


def methods(journal: list[Exchange]) -> list[str]:
    return [each.method for each in journal]


async def test_a_small_blob_is_read_once_and_sent_by_one_request(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        for content in (SMALL, b""):
            body = Bytes(content)
            await w.sink(registry.host).push(blob_of(content), body)
            assert await w.sink(registry.host).has(blob_of(content))
            assert (body.opened, body.closed) == ([0], 1)
        assert methods(list(registry.journal)) == [POST, PUT, "HEAD"] * 2
        assert w.meter.bytes_written == len(SMALL)


async def test_a_small_blob_does_not_wait_for_streams(tmp_path: Path) -> None:
    go = asyncio.Event()
    reached = asyncio.Event()
    stall = Fault(PUT, digest_of(LARGE), act=Stall(after=1000, until=go, reached=reached))
    async with journalling(tmp_path, [stall]) as registry, world(connections=1) as w:
        sink = w.sink(registry.host)
        streaming = asyncio.create_task(sink.push(blob_of(LARGE), Bytes(LARGE)))
        await reached.wait()
        await sink.push(blob_of(SMALL), Bytes(SMALL))
        assert not streaming.done()
        go.set()
        await streaming


async def test_a_small_blob_is_read_beside_streams(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world(connections=1) as w:
        sink, source = w.sink(registry.host), w.source(registry.host)
        for content in (SMALL, LARGE):
            await sink.push(blob_of(content), Bytes(content))
        async with source.open(blob_of(LARGE)) as streaming:
            await anext(streaming)
            async with source.open(blob_of(SMALL)) as chunks:
                assert b"".join([bytes(chunk) async for chunk in chunks]) == SMALL


@pytest.mark.parametrize(
    ("act", "pushed"),
    [
        (Status(503), [POST, PUT, PUT]),
        (Status(429, headers={"Retry-After": "3"}), [POST, PUT, PUT]),
        (ForgetSession(), [POST, PUT, POST, PATCH, PUT]),
        (Status(405), [POST, PUT, POST, PATCH, PUT]),
        (Corrupt(at=5), [POST, PUT, POST, PATCH, PUT]),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)
async def test_what_is_refused_is_mended_as_for_a_large_one(
    tmp_path: Path, act: Status | ForgetSession | Corrupt, pushed: list[str]
) -> None:
    async with journalling(tmp_path, [Fault(PUT, "digest=", act=act)]) as registry, world() as w:
        await w.sink(registry.host).push(blob_of(SMALL), Bytes(SMALL))
        assert await w.sink(registry.host).has(blob_of(SMALL))
        assert [each.method for each in registry.journal if each.method not in (DELETE, "HEAD")] == pushed


async def test_a_request_that_breaks_does_no_harm_when_it_is_sent_again(tmp_path: Path) -> None:
    """aiohttp does so by itself on a connection that it had kept; else the engine does."""
    for act in (Reset(after=100), Hangup(), LoseAnswer()):
        async with journalling(tmp_path, [Fault(PUT, "digest=", act=act)]) as registry, world() as w:
            sink, blob = w.sink(registry.host), blob_of(SMALL)
            with suppress(ConnectionLost):
                await sink.push(blob, Bytes(SMALL))
            await sink.push(blob, Bytes(SMALL))
            assert await sink.has(blob)
            assert registry.journal.count(PUT) <= 4


@pytest.mark.parametrize("opened", [False, True], ids=["the first", "a later one"])
@pytest.mark.parametrize(
    "error",
    [
        DigestMismatch("blob", expected="a", actual="b"),
        ConnectionLost("the source went away"),
        NotFound("gone at the source", status=404),
        Unauthorized("no more", status=401),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "streamed"])
async def test_what_the_body_raises_surfaces_as_itself_and_nothing_is_left(
    tmp_path: Path, content: bytes, error: BlobflowError, *, opened: bool
) -> None:
    """Also where the session was being opened meanwhile."""
    async with journalling(tmp_path) as registry:
        async with world() as w:
            sink = w.sink(registry.host)
            if opened:
                await sink.push(blob_of(FIRST), Bytes(FIRST))
            with pytest.raises(type(error)) as raised:
                await sink.push(blob_of(content), body_that(content[:5000], error))
            assert raised.value is error
            assert not await sink.has(blob_of(content))
        assert registry.journal.count(DELETE) == registry.journal.count(POST, status=202) - opened


@pytest.mark.parametrize("content", [SMALL[:-1], SMALL + b"x"])
async def test_a_body_of_another_size_commits_nothing(tmp_path: Path, content: bytes) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        with pytest.raises(SizeMismatch):
            await w.sink(registry.host).push(blob_of(SMALL), body_that(content))
        assert not await w.sink(registry.host).has(blob_of(SMALL))
        assert not registry.journal.count(PUT)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "streamed"])
async def test_a_repository_that_never_opened_a_session_is_asked_before_anything_is_read(
    tmp_path: Path, content: bytes
) -> None:
    shut = Fault(POST, "/uploads/", times=0, act=Status(403))
    async with journalling(tmp_path, [shut]) as registry, world() as w:
        for _ in range(2):
            body = Bytes(content)
            with pytest.raises(Denied):
                await w.sink(registry.host).push(blob_of(content), body)
            assert body.opened == []


class Waiting:
    """A body that says when it is opened, and then waits to be let go on."""

    def __init__(self, content: bytes) -> None:
        self.opened, self.go = asyncio.Event(), asyncio.Event()
        self._body = Bytes(content)

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self.opened.set()
        await self.go.wait()
        async with self._body.open(offset) as chunks:
            yield chunks


class Sessions:
    """A registry whose second session is opened when `go` is set; `asked` is set when it is asked for."""

    def __init__(self) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self._posts = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        if request.method == PUT:
            return web.Response(status=201)
        if request.method == DELETE:
            return web.Response(status=204)
        self._posts += 1
        if self._posts == 2:
            self.asked.set()
            await self.go.wait()
        return web.Response(status=202, headers={"Location": f"/up/{self._posts}"})


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "streamed"])
async def test_the_body_is_opened_while_the_session_is(content: bytes) -> None:
    sessions = Sessions()
    async with scripted_server(sessions) as server, world() as w:
        sink = w.sink(server.host)
        await sink.push(blob_of(FIRST), Bytes(FIRST))
        body = Waiting(content)
        pushing = asyncio.create_task(sink.push(blob_of(content), body))
        await sessions.asked.wait()
        await body.opened.wait()
        body.go.set()
        sessions.go.set()
        await pushing
    assert [each.body for each in server.seen if each.method == PUT] == [FIRST, content]


async def test_a_session_that_is_refused_beside_a_body_leaves_the_body(tmp_path: Path) -> None:
    shut = Fault(POST, "/uploads/", nth=2, times=0, act=Status(403))
    async with journalling(tmp_path, [shut]) as registry, world() as w:
        sink = w.sink(registry.host)
        await sink.push(blob_of(FIRST), Bytes(FIRST))
        body = Bytes(SMALL)
        with pytest.raises(Denied):
            await sink.push(blob_of(SMALL), body)
        assert (body.opened, body.closed) == ([0], 1)


@pytest.mark.parametrize("at", ["body", "session"])
@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "streamed"])
async def test_a_cancelled_push_leaves_no_session(content: bytes, at: str) -> None:
    sessions = Sessions()
    async with scripted_server(sessions) as server:
        async with world() as w:
            sink = w.sink(server.host)
            await sink.push(blob_of(FIRST), Bytes(FIRST))
            body = Waiting(content)
            pushing = asyncio.create_task(sink.push(blob_of(content), body))
            await sessions.asked.wait()
            await body.opened.wait()
            if at == "session":
                body.go.set()
                for _ in range(10):
                    await asyncio.sleep(0)
            pushing.cancel()
            sessions.go.set()
            with pytest.raises(asyncio.CancelledError):
                await pushing
        assert [each.method for each in server.seen] == [POST, PUT, POST, DELETE]


async def test_after_a_break_the_session_is_opened_first(tmp_path: Path) -> None:
    """What had come of a body that breaks while it waits is lost: it does not happen to a blob twice."""
    async with journalling(tmp_path) as registry, world() as w:
        sink = w.sink(registry.host)
        await sink.push(blob_of(FIRST), Bytes(FIRST))
        with pytest.raises(ConnectionLost):
            await sink.push(blob_of(SMALL), body_that(ConnectionLost("gone")))
        shut = Fault(POST, "/uploads/", act=Status(403))
        registry.faults.add(shut)
        body = Bytes(SMALL)
        with pytest.raises(Denied):
            await sink.push(blob_of(SMALL), body)
        assert body.opened == []


async def test_a_profile_without_single_puts_streams_small_blobs_too(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world(profile=Profile("test", ("stream",))) as w:
        await w.sink(registry.host).push(blob_of(SMALL), Bytes(SMALL))
        assert methods(list(registry.journal)) == [POST, PATCH, PUT]


def test_small_is_what_a_request_may_be() -> None:
    assert len(SMALL) <= SMALL_BLOB < len(LARGE)
