"""Uploads that go on: what broke is asked about, and only what is missing is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import ConnectionLost, DigestMismatch, Unauthorized
from blobflow.transports.registry import Profile
from blobflow.transports.registry.uploads.sessions import RESUMED_FROM, parse_progress
from blobflow.transports.store import Store, StoreJournal
from tests.fakes.registry import Bytes, ScriptedServer, World, blob_of, body_that, scripted_server, world
from tools.registry.faulty import (
    Fault,
    ForgetSession,
    JournallingRegistry,
    LoseAnswer,
    Reset,
    SetHeader,
    Stall,
    Status,
    journalling,
)

MIB = 1024 * 1024
CONTENT = bytes(range(256)) * (8 * MIB // 256)
BLOB = blob_of(CONTENT)
SINGLE = Profile("test", ("single", "chunked"), chunk_bytes=2 * MIB)
STREAM = Profile("test", ("stream", "chunked"), chunk_bytes=2 * MIB)
CHUNKED = Profile("test", ("chunked",), chunk_bytes=2 * MIB)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[StoreJournal]:
    with closing(Store.open(tmp_path / "store")) as store:
        yield StoreJournal(store)


async def breaks(w: World, registry: JournallingRegistry, body: Bytes) -> None:
    sink = w.sink(registry.host)
    await sink.push(blob_of(b"first"), Bytes(b"first"))  # the form is proven now
    with pytest.raises(ConnectionLost) as raised:
        await sink.push(BLOB, body)
    assert raised.value.received >= RESUMED_FROM, "the engine is told that it was not in vain"
    await registry.journal.until(lambda journal: all(each.ended is not None for each in journal))


async def arrives(w: World, registry: JournallingRegistry, body: Bytes) -> list[str]:
    """Push it; the methods that it took."""
    registry.journal.clear()
    await w.sink(registry.host).push(BLOB, body)
    assert await w.sink(registry.host).has(BLOB)
    return [each.method for each in registry.journal.select(pattern="/uploads/")]


@pytest.mark.parametrize(
    ("profile", "method", "after"),
    [(SINGLE, "PUT", 5 * MIB), (STREAM, "PATCH", 5 * MIB), (CHUNKED, "PATCH", 1 * MIB)],
    ids=["single", "stream", "chunked"],
)
async def test_a_broken_upload_goes_on_from_what_the_registry_confirms(
    tmp_path: Path, profile: Profile, method: str, after: int
) -> None:
    nth = 4 if profile is CHUNKED else 2  # the first is of the blob that proves the form
    cut = Fault(method, "/uploads/", nth=nth, act=Reset(after=after))
    async with journalling(tmp_path / "registry", [cut]) as registry, world(profile=profile) as w:
        body = Bytes(CONTENT)
        await breaks(w, registry, body)
        methods = await arrives(w, registry, body)
        assert methods[0] == "GET" and methods[-1] == "PUT" and set(methods[1:-1]) == {"PATCH"}
        first, second = body.opened
        assert first == 0 and second >= 5 * MIB
        assert registry.journal.bytes_in(BLOB.digest) == len(CONTENT) - second
        assert registry.journal.count("DELETE") == 0


async def test_a_line_that_keeps_breaking_moves_on_every_time(tmp_path: Path) -> None:
    async with journalling(tmp_path / "registry") as registry, world(profile=SINGLE) as w:
        registry.faults.add(Fault("PUT", BLOB.digest, times=1, act=Reset(after=3 * MIB)))
        registry.faults.add(Fault("PATCH", "/uploads/", times=2, act=Reset(after=MIB + 1)))
        body = Bytes(CONTENT)
        for _ in range(3):
            await breaks(w, registry, body)
        await arrives(w, registry, body)
        assert body.opened == sorted(set(body.opened)) and len(body.opened) == 4


async def test_a_registry_that_forgets_is_asked_once_and_then_no_more(tmp_path: Path) -> None:
    """distribution 2.8.2: after a break every request to the session is answered by 404."""
    faults = [
        Fault("PUT", BLOB.digest, times=2, act=Reset(after=3 * MIB)),
        Fault("GET", "/uploads/", times=0, act=ForgetSession()),
    ]
    async with journalling(tmp_path / "registry", faults) as registry, world(profile=SINGLE) as w:
        body = Bytes(CONTENT)
        await breaks(w, registry, body)
        registry.journal.clear()
        await breaks(w, registry, body)
        assert registry.journal.count("GET", "/uploads/") == 1
        assert "GET" not in await arrives(w, registry, body)
        assert body.opened == [0, 0, 0]


async def test_a_registry_of_which_it_is_known_is_asked_every_time_or_never(tmp_path: Path) -> None:
    faults = [
        Fault("PUT", BLOB.digest, times=2, act=Reset(after=3 * MIB)),
        Fault("GET", "/uploads/", times=0, act=ForgetSession()),
    ]
    for keeps, asked in ((True, 2), (False, 0)):
        profile = Profile("test", SINGLE.rungs, chunk_bytes=2 * MIB, keeps_broken_sessions=keeps)
        async with journalling(tmp_path / f"{keeps}", faults) as registry, world(profile=profile) as w:
            for _ in range(2):
                await breaks(w, registry, Bytes(CONTENT))
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
            assert registry.journal.count("GET", "/uploads/") == asked


async def test_the_next_process_goes_on_by_the_journal(tmp_path: Path, journal: StoreJournal) -> None:
    async with journalling(
        tmp_path / "registry", [Fault("PUT", BLOB.digest, act=Reset(after=5 * MIB))]
    ) as registry:
        async with world(profile=SINGLE, journal=journal) as w:
            await breaks(w, registry, Bytes(CONTENT))
        assert registry.journal.count("DELETE") == 0, "what is journaled is left open"
        async with world(profile=SINGLE, journal=journal) as w:
            body = Bytes(CONTENT)
            assert (await arrives(w, registry, body))[0] == "GET"
            assert body.opened[0] >= 5 * MIB
        assert journal.take_upload(registry.host, "app", BLOB.digest) is None, "it ended as a blob"


async def test_a_process_that_was_killed_has_its_session_in_the_journal(
    tmp_path: Path, journal: StoreJournal
) -> None:
    """The journal is written while the bytes are on their way, chunk by chunk."""
    reached = asyncio.Event()
    stall = Fault("PATCH", "/uploads/", nth=3, act=Stall(after=MIB, reached=reached))
    async with (
        journalling(tmp_path / "registry", [stall]) as registry,
        world(profile=CHUNKED, journal=journal) as w,
    ):
        push = asyncio.create_task(w.sink(registry.host).push(BLOB, Bytes(CONTENT)))
        await reached.wait()
        upload = StoreJournal(Store.open(tmp_path / "store")).take_upload(registry.host, "app", BLOB.digest)
        assert upload is not None and upload.offset == 4 * MIB
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push


@pytest.mark.parametrize("journaled", [True, False])
async def test_a_cancelled_upload_is_journaled_or_deleted(
    tmp_path: Path, journal: StoreJournal, journaled: bool
) -> None:
    reached = asyncio.Event()
    stall = Fault("PUT", BLOB.digest, act=Stall(after=3 * MIB, reached=reached))
    async with journalling(tmp_path / "registry", [stall]) as registry:
        async with world(profile=SINGLE, journal=journal if journaled else None) as w:
            push = asyncio.create_task(w.sink(registry.host).push(BLOB, Bytes(CONTENT)))
            await reached.wait()
            push.cancel()
            with pytest.raises(asyncio.CancelledError):
                await push
        assert registry.journal.count("DELETE") == (0 if journaled else 1)
        left = journal.take_upload(registry.host, "app", BLOB.digest)
        assert (left is not None) == journaled


async def test_bytes_that_were_wrong_are_not_gone_on_from(tmp_path: Path, journal: StoreJournal) -> None:
    wrong = DigestMismatch("blob", expected="a", actual="b")
    async with journalling(tmp_path / "registry") as registry:
        async with world(profile=SINGLE, journal=journal) as w:
            with pytest.raises(DigestMismatch):
                await w.sink(registry.host).push(BLOB, body_that(CONTENT[: 5 * MIB], wrong))
        assert registry.journal.count("DELETE") == 1
        assert journal.take_upload(registry.host, "app", BLOB.digest) is None


async def test_a_source_that_breaks_leaves_the_upload_to_go_on_from(tmp_path: Path) -> None:
    async with journalling(tmp_path / "registry") as registry, world(profile=STREAM) as w:
        with pytest.raises(ConnectionLost):
            await w.sink(registry.host).push(BLOB, body_that(CONTENT[: 5 * MIB], ConnectionLost("source")))
        await registry.journal.until(lambda journal: all(each.ended is not None for each in journal))
        body = Bytes(CONTENT)
        assert (await arrives(w, registry, body))[0] == "GET"
        assert body.opened[0] > MIB


async def test_a_blob_that_arrived_whole_before_the_answer_was_lost_is_only_committed(tmp_path: Path) -> None:
    lost = Fault("PATCH", "/uploads/", nth=2, act=LoseAnswer())
    async with journalling(tmp_path / "registry", [lost]) as registry, world(profile=STREAM) as w:
        body = Bytes(CONTENT)
        await breaks(w, registry, body)
        assert await arrives(w, registry, body) == ["GET", "PUT"]
        assert body.opened == [0, len(CONTENT)] and body.closed == 2


@pytest.mark.parametrize("told", ["0-0", "0-99999999999", "nonsense", ""])
async def test_a_session_that_confirms_nothing_of_use_is_deleted(tmp_path: Path, told: str) -> None:
    """`0-0` is told for no byte as well as for one; more than the blob has is nonsense."""
    faults = [
        Fault("PUT", BLOB.digest, act=Reset(after=3 * MIB)),
        Fault("GET", "/uploads/", act=SetHeader("Range", told)),
    ]
    async with journalling(tmp_path / "registry", faults) as registry:
        async with world(profile=SINGLE) as w:
            body = Bytes(CONTENT)
            await breaks(w, registry, body)
            methods = await arrives(w, registry, body)
            assert [each for each in methods if each != "DELETE"] == ["GET", "POST", "PUT"]
            assert body.opened == [0, 0]
        assert registry.journal.count("DELETE") == 1


async def test_an_offset_that_the_registry_disagrees_on_is_asked_again(tmp_path: Path) -> None:
    """What was still on its way when the status was asked can arrive in between."""
    faults = [
        Fault("PUT", BLOB.digest, act=Reset(after=5 * MIB)),
        Fault("GET", "/uploads/", act=SetHeader("Range", f"0-{2 * MIB - 1}")),
    ]
    async with journalling(tmp_path / "registry", faults) as registry, world(profile=SINGLE) as w:
        body = Bytes(CONTENT)
        await breaks(w, registry, body)
        methods = await arrives(w, registry, body)
        assert methods[:3] == ["GET", "PATCH", "GET"] and "POST" not in methods
        assert body.opened[1] == 2 * MIB and body.opened[2] >= 5 * MIB


async def test_an_offset_that_stays_in_doubt_ends_in_a_fresh_session(tmp_path: Path) -> None:
    """ECR: the Range answer can get stuck (containers-roadmap#2831)."""
    faults = [
        Fault("PUT", BLOB.digest, act=Reset(after=5 * MIB)),
        Fault("GET", "/uploads/", times=0, act=SetHeader("Range", f"0-{2 * MIB - 1}")),
    ]
    async with journalling(tmp_path / "registry", faults) as registry, world(profile=SINGLE) as w:
        body = Bytes(CONTENT)
        await breaks(w, registry, body)
        methods = [each for each in await arrives(w, registry, body) if each != "DELETE"]
        assert methods == ["GET", "PATCH", "GET", "PATCH", "POST", "PUT"]


async def test_a_token_that_ends_between_chunks_costs_no_byte_twice(tmp_path: Path) -> None:
    faults = [Fault("PATCH", "/uploads/", nth=3, act=Status(401))]
    async with journalling(tmp_path / "registry", faults) as registry, world(profile=CHUNKED) as w:
        body = Bytes(CONTENT)
        try:
            await w.sink(registry.host).push(BLOB, body)
        except Unauthorized:
            pytest.fail("a token that ended is no end")
        assert registry.journal.count("POST") == 1
        assert body.opened == [0, 4 * MIB]


async def test_chunks_get_shorter_on_a_line_that_lets_none_through(tmp_path: Path) -> None:
    """A registry that counts only whole chunks, on a line that cuts every two MiB."""
    profile = Profile("test", ("chunked",), chunk_bytes=4 * MIB, least_chunk_bytes=MIB)
    lengths: list[int] = []
    arrived = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal arrived
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/up"})
        if request.method == "GET":
            return web.Response(status=204, headers={"Location": "/up", "Range": f"0-{arrived - 1}"})
        if request.method == "PATCH":
            length = request.content_length or 0
            lengths.append(length)
            if arrived and length > MIB:
                await request.content.readexactly(length - 1000)
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            await request.content.readexactly(length)
            arrived += length
            return web.Response(status=202, headers={"Location": "/up"})
        return web.Response(status=201)

    async with scripted_server(handler, reads=False) as server, world(profile=profile) as w:
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await w.sink(server.host).push(BLOB, Bytes(CONTENT))
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert [length // MIB for length in lengths] == [4, 4, 2, 1, 1, 1, 1]
    assert arrived == len(CONTENT)


@asynccontextmanager
async def slow_to_open(asked: asyncio.Event, says: asyncio.Event) -> AsyncIterator[ScriptedServer]:
    """A registry whose answer to POST sets one event and waits for the other."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            asked.set()
            await says.wait()
            return web.Response(status=202, headers={"Location": "/up/1"})
        return web.Response(status=204)

    async with scripted_server(handler) as server:
        yield server
        assert server.asked("DELETE") == ["/up/1"]


@pytest.mark.parametrize("mount", [True, False])
async def test_a_session_that_opens_after_the_cancel_is_deleted_too(mount: bool) -> None:
    asked, says = asyncio.Event(), asyncio.Event()
    async with slow_to_open(asked, says) as server, world() as w:
        sink = w.sink(server.host)
        asking = asyncio.ensure_future(
            sink.mount(BLOB, Site(server.host, "other")) if mount else sink.push(BLOB, Bytes(CONTENT))
        )
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        says.set()


@pytest.mark.parametrize(
    ("header", "offset"),
    [
        ("0-1048575", MIB),
        ("bytes=0-9", 10),
        ("bytes 0-9", 10),
        ("0-0", 0),
        ("1-9", None),
        ("0-", None),
        ("-9", None),
        ("0-9/10", None),
        ("0-99999999999999999999", None),
        ("\u0660-\u0669", None),
        (None, None),
    ],
)
def test_the_progress_of_an_upload(header: str | None, offset: int | None) -> None:
    assert parse_progress(header) == offset
