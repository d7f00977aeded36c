"""Uploads to a registry behind something that takes no request as large, or sends them astray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.errors import BlobflowError, ConnectionLost, NotFound, Rejected, Unavailable
from blobflow.events import Warned
from blobflow.oci import Descriptor, media
from blobflow.transports.registry import Profile
from blobflow.transports.registry.capabilities.profiles import MIB, UploadMethod
from blobflow.transports.registry.http.host_client import COMMIT_SECONDS, MAX_COMMIT_SECONDS
from blobflow.transports.store import Store, StoreJournal
from tests.fakes.jumping_clock import lapsing
from tests.fakes.registry import Bytes, ScriptedServer, World, blob_of, scripted_server, world
from tools.registry.faulty import Fault, JournallingRegistry, Refuse, Reset, Status, journalling

KIB = 1024
CONTENT = bytes(range(256)) * 4 * KIB * 3  # 3 MiB
BLOB = blob_of(CONTENT)
SHORT = CONTENT[: 900 * 1024]  # servers written by hand read no more than 1 MiB at once
SHORT_BLOB = blob_of(SHORT)
# What is 32 MiB and 512 KiB with real registries; at this scale no test has to move more than some MiB.
SMALL = Profile("test", chunk_bytes=MIB, least_chunk_bytes=64 * KIB)
BOTH: tuple[UploadMethod, ...] = ("stream", "chunked")
SMALL_CHUNKS = Profile("test", ("chunked",), chunk_bytes=MIB, least_chunk_bytes=64 * KIB)
FORMS: list[tuple[UploadMethod, ...]] = [("single", "chunked"), BOTH, ("chunked",)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[StoreJournal]:
    with closing(Store.open(tmp_path / "store")) as store:
        yield StoreJournal(store)


def over(limit: int, status: int) -> Fault:
    """Every body longer than `limit` bytes is answered by that status."""
    return Fault("*", "/uploads/", times=0, act=Refuse(status, over=limit))


def sizes(registry: JournallingRegistry, method: str = "PATCH") -> list[int]:
    """The lengths that were announced, of the requests with a body."""
    lengths = [int(each.asked.get("Content-Length", "0")) for each in registry.journal.select(method)]
    return [length for length in lengths if length]


def warnings(w: World) -> list[str]:
    return [event.message for event in w.events if isinstance(event, Warned)]


@pytest.mark.parametrize("rungs", FORMS, ids="-".join)
@pytest.mark.parametrize("status", [413, 502, 504])
async def test_what_is_too_large_for_the_way_goes_by_smaller_chunks(
    tmp_path: Path, rungs: tuple[UploadMethod, ...], status: int
) -> None:
    profile = Profile("test", rungs, single_bytes=2**40, chunk_bytes=MIB, least_chunk_bytes=64 * KIB)
    async with journalling(tmp_path, [over(200 * KIB, status)]) as registry, world(profile=profile) as w:
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert await w.sink(registry.host).has(BLOB)
        arrived = [each for each in sizes(registry) if each <= 200 * KIB]
        assert sum(arrived) == len(CONTENT)
        assert max(arrived) >= 64 * KIB
        assert w.meter.bytes_written <= 3 * len(CONTENT)
        (told,) = warnings(w)
        assert f"`blobflow probe {registry.host}/app-probe`" in told and str(status) in told


async def test_the_next_blob_goes_by_the_size_that_worked_at_once_and_so_does_the_next_run(
    tmp_path: Path, journal: StoreJournal
) -> None:
    async with journalling(tmp_path / "r", [over(300 * KIB, 413)]) as registry:
        for number in range(3):
            async with world(profile=SMALL, journal=journal) as w:
                for word in (b"a", b"b"):
                    registry.journal.clear()
                    content = CONTENT + word * (number + 1)
                    await w.sink(registry.host).push(blob_of(content), Bytes(content))
                    refused = [each for each in registry.journal if each.status == 413]
                    assert bool(refused) == ((number, word) == (0, b"a"))
                assert len(warnings(w)) == (number == 0)


async def test_uploads_that_meet_a_limit_at_once_learn_from_one_another(tmp_path: Path) -> None:
    contents = [CONTENT + bytes([number]) for number in range(6)]
    async with (
        journalling(tmp_path, [over(100 * KIB, 413)]) as registry,
        world(profile=SMALL, connections=6) as w,
    ):
        sink = w.sink(registry.host)
        await asyncio.gather(*(sink.push(blob_of(each), Bytes(each)) for each in contents))
        # Alone each would be refused five times at least: whole, and by 1024, 512, 256 and 128 KiB.
        refused = sum(each.status == 413 for each in registry.journal)
        assert refused < 5 * len(contents)
        assert len(warnings(w)) == 1


@pytest.mark.parametrize("rungs", [("single",), ("stream",), ("single", "stream")], ids="-".join)
async def test_where_no_chunks_can_be_the_limit_and_the_probe_are_named(
    tmp_path: Path, rungs: tuple[UploadMethod, ...]
) -> None:
    async with (
        journalling(tmp_path, [over(MIB, 413)]) as registry,
        world(profile=Profile("test", rungs)) as w,
    ):
        with pytest.raises(
            Rejected, match=r"client_max_body_size\): `blobflow probe .*/app-probe` shows"
        ) as raised:
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert raised.value.status == 413


@pytest.mark.parametrize("status", [413, 502])
async def test_a_limit_below_the_smallest_chunk_ends_after_as_many_tries_as_there_are_halves(
    tmp_path: Path, status: int
) -> None:
    async with (
        journalling(tmp_path, [over(KIB, status)]) as registry,
        world(profile=Profile("test", BOTH, chunk_bytes=MIB, least_chunk_bytes=256 * KIB)) as w,
    ):
        with pytest.raises((Rejected, Unavailable), match="blobflow probe") as raised:
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert isinstance(raised.value, Rejected | Unavailable)
        assert raised.value.status == status
        assert len(sizes(registry)) <= 4


async def test_a_registry_s_own_least_chunk_is_kept_to_and_so_is_the_end_of_trying(tmp_path: Path) -> None:
    requests: list[int] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            headers = {"Location": "/up", "OCI-Chunk-Min-Length": str(MIB)}
            return web.Response(status=202, headers=headers)
        if request.method == "DELETE":
            return web.Response(status=204)
        requests.append(len(await request.read()))
        return web.Response(status=413)

    async with scripted_server(handler) as server, world(profile=SMALL) as w:
        with pytest.raises(Rejected):
            await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert requests.count(MIB) == 1
    assert min(requests) == MIB


async def test_a_refused_small_blob_says_nothing_of_large_ones(tmp_path: Path) -> None:
    refuse = Fault("*", "/uploads/", times=0, act=Refuse(413, over=0))
    small = CONTENT[:1000]
    async with journalling(tmp_path, [refuse]) as registry, world() as w:
        with pytest.raises(Rejected):
            await w.sink(registry.host).push(blob_of(small), Bytes(small))
        registry.faults.clear()
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert max(sizes(registry) + sizes(registry, "PUT")) == len(CONTENT)


async def test_a_registry_that_has_no_room_for_the_blob_itself_is_believed(tmp_path: Path) -> None:
    body = '{"errors": [{"code": "SIZE_INVALID", "message": "blobs of up to 1 MB"}]}'
    refuse = Fault("*", "/uploads/.", times=0, act=Refuse(413, over=MIB, body=body))
    async with journalling(tmp_path, [refuse]) as registry, world(profile=Profile("p", BOTH)) as w:
        with pytest.raises(Rejected, match="SIZE_INVALID") as raised:
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert "proxy" not in raised.value.message
        assert len(sizes(registry)) == 2  # once in each form


async def test_a_limit_behind_chunks_as_large_that_passed_is_no_limit_on_requests(tmp_path: Path) -> None:
    refuse = Fault("PATCH", "", nth=3, times=0, act=Status(413))
    async with journalling(tmp_path, [refuse]) as registry, world(profile=SMALL_CHUNKS) as w:
        with pytest.raises(Rejected):
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert sizes(registry) == [MIB] * 3


async def test_a_refused_put_alone_says_nothing_against_a_patch_as_large(tmp_path: Path) -> None:
    """As at Azure, where PUT is bounded and PATCH is not."""
    refuse = Fault("PUT", "digest=", times=0, act=Refuse(413, over=MIB))
    async with journalling(tmp_path, [refuse]) as registry, world() as w:
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert sizes(registry) == [len(CONTENT)]
        assert warnings(w) == []


async def broken(
    w: World, server: JournallingRegistry | ScriptedServer, content: bytes = CONTENT
) -> BlobflowError | None:
    """Push as the engine does: once more after each break; what the fifth ended with, None if one arrived."""
    error: BlobflowError | None = None
    for _ in range(5):
        try:
            await w.sink(server.host).push(blob_of(content), Bytes(content))
            return None
        except ConnectionLost as lost:
            error = lost
    return error


class Cutting:
    """A registry that forgets broken uploads, behind what cuts a request that is longer than `most` says."""

    def __init__(self, most: Callable[[int], int]) -> None:
        self._most = most
        self.lengths: list[int] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method:
            case "POST":
                return web.Response(status=202, headers={"Location": "/up"})
            case "PATCH":
                length = request.content_length or 0
                self.lengths.append(length)
                most = self._most(len(self.lengths))
                await request.content.readexactly(min(length, most))
                if length > most:
                    assert request.transport is not None
                    request.transport.abort()
                return web.Response(status=202, headers={"Location": "/up"})
            case "PUT":
                return web.Response(status=201)
            case _:
                return web.Response(status=404)


async def test_connections_that_close_at_about_the_same_byte_met_a_limit() -> None:
    content = bytes(24 * MIB)
    cutting = Cutting(lambda _: 3 * MIB)
    profile = Profile("test", BOTH, chunk_bytes=8 * MIB)
    receiving = scripted_server(cutting, reads=False, receive_bytes=64 * KIB)
    async with receiving as server, world(profile=profile) as w:
        assert await broken(w, server, content) is None
    tried = [length for length in cutting.lengths if length > 3 * MIB]
    assert 2 <= len(tried) <= 4
    assert sum(each for each in cutting.lengths if each not in tried) == len(content)


async def test_a_registry_that_forgets_gets_small_chunks_after_the_second_loss() -> None:
    """Breaks at random places of long requests: what is sent in all stays below three times the blob."""
    content = bytes(24 * MIB)
    # What has left us by then is up to 4 MiB more, as the system buffers it: still not the same byte.
    cutting = Cutting(lambda number: {1: 20 * MIB, 2: 8 * MIB}.get(number, MIB))
    profile = Profile("test", BOTH)
    receiving = scripted_server(cutting, reads=False, receive_bytes=64 * KIB)
    async with receiving as server, world(profile=profile) as w:
        assert await broken(w, server, content) is None
        assert w.meter.bytes_written < 3 * len(content)
        assert warnings(w) == []  # nobody has a setting to change
    assert set(cutting.lengths[2:]) == {512 * KIB}


async def test_a_break_in_a_small_chunk_tells_of_all_the_chunks_before_it() -> None:
    """By that the engine judges whether a try moved anything."""
    cutting = Cutting(lambda number: 100 * KIB if number == 7 else MIB)
    profile = Profile("test", ("chunked",), chunk_bytes=512 * KIB)
    async with scripted_server(cutting, reads=False) as server, world(profile=profile) as w:
        content = bytes(8 * MIB)
        with pytest.raises(ConnectionLost) as caught:
            await w.sink(server.host).push(blob_of(content), Bytes(content))
    assert 6 * 512 * KIB <= caught.value.received <= 7 * 512 * KIB


async def test_one_break_changes_nothing_for_the_next_upload() -> None:
    content = bytes(8 * MIB)
    cutting = Cutting(lambda number: 5 * MIB if number == 1 else 2**40)
    async with (
        scripted_server(cutting, reads=False) as server,
        world(profile=Profile("test", BOTH)) as w,
    ):
        assert await broken(w, server, content) is None
    assert cutting.lengths == [8 * MIB, 8 * MIB]


async def test_a_kept_connection_that_ended_meanwhile_says_nothing_of_sizes(tmp_path: Path) -> None:
    cut = Fault("PATCH", "", times=3, act=Reset(after=10))
    profile = Profile("test", BOTH)
    content = CONTENT[: 300 * KIB]
    async with journalling(tmp_path, [cut]) as registry, world(profile=profile) as w:
        assert await broken(w, registry, content) is None
        assert sizes(registry)[-1] == len(content)


async def test_squid_gets_no_request_larger_than_its_buffer() -> None:
    lengths: list[int] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        lengths.append(len(await request.read()))
        via = {"Via": "1.1 cache (squid/5.7)", "Location": "/up"}
        return web.Response(status=201 if request.method == "PUT" else 202, headers=via)

    async with scripted_server(handler) as server, world() as w:
        await w.sink(server.host).push(SHORT_BLOB, Bytes(SHORT))
    assert max(lengths) == 512 * KIB
    assert sum(lengths) == len(SHORT)


@lapsing
async def test_no_answer_after_the_last_byte_is_followed_by_smaller_requests() -> None:
    """What takes in a whole upload before it passes it on may answer long after its last byte."""
    never = asyncio.Event()
    lengths: list[int] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if body:
            lengths.append(len(body))
        if len(body) > 512 * KIB:
            await never.wait()
        if request.method in ("GET", "HEAD"):
            return web.Response(status=404)
        return web.Response(status=201 if request.method == "PUT" else 202, headers={"Location": "/up"})

    async with (
        scripted_server(handler) as server,
        world(profile=Profile("test", BOTH, chunk_bytes=MIB, least_chunk_bytes=64 * KIB)) as w,
    ):
        await w.sink(server.host).push(SHORT_BLOB, Bytes(SHORT))
        never.set()
    assert lengths == [len(SHORT), 256 * KIB, 256 * KIB, 256 * KIB, 132 * KIB]


@lapsing
async def test_an_upload_that_arrived_behind_a_time_out_is_not_sent_again() -> None:
    never = asyncio.Event()
    puts = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal puts
        while await request.content.read(MIB):
            pass
        if request.method == "PUT":
            puts += 1
            await never.wait()
        return web.Response(status=202 if request.method == "POST" else 200, headers={"Location": "/up"})

    profile = Profile("test", ("single", "chunked"), single_bytes=2**40)
    async with scripted_server(handler, reads=False) as server, world(profile=profile) as w:
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
        never.set()
    assert puts == 1


@pytest.mark.parametrize(
    ("seconds", "patience"),
    [(0.0, COMMIT_SECONDS), (60.0, COMMIT_SECONDS + 120.0), (10.0**6, COMMIT_SECONDS + MAX_COMMIT_SECONDS)],
)
async def test_an_answer_is_waited_for_as_the_line_has_shown_to_need(seconds: float, patience: float) -> None:
    waits: list[float] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        while await request.content.read(MIB):
            if request.content.at_eof():
                w.clock.now += seconds
        return web.Response(status=202 if request.method == "POST" else 201, headers={"Location": "/up"})

    async with (
        scripted_server(handler, reads=False) as server,
        world(profile=Profile("test", ("single",))) as w,
    ):
        of, _ = w.registries._host(server.host)
        original = of._patience
        of._patience = lambda size: waits.append(original(size)) or original(size)  # type: ignore[method-assign, func-returns-value]
        for content in (CONTENT, CONTENT[::-1]):
            await w.sink(server.host).push(blob_of(content), Bytes(content))
    assert waits[0] == pytest.approx(COMMIT_SECONDS, abs=1)
    assert waits[1] == pytest.approx(patience, abs=1)


async def test_a_manifest_that_is_too_large_is_told_to_be_one_that_can_t_be_split(tmp_path: Path) -> None:
    refuse = Fault("PUT", "/manifests/", times=0, act=Status(413))
    raw = b'{"schemaVersion": 2, "manifests": []}'
    manifest = Descriptor(media.OCI_INDEX, blob_of(raw).digest, len(raw))
    async with journalling(tmp_path, [refuse]) as registry, world() as w:
        with pytest.raises(Rejected, match=r"a manifest goes in one request.* let 37 bytes through"):
            await w.sink(registry.host).put(manifest, raw, ("1",))


# Locations


def behind(names: Callable[[str], str], knows: str) -> Callable[[web.BaseRequest], object]:
    """A registry that names the path of a session by `names`, and knows it under the path `knows`."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": names(f"{request.path}7")})
        if request.path != knows:
            return web.Response(status=404, text='{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')
        return web.Response(status=201 if request.method == "PUT" else 202)

    return handler


@pytest.mark.parametrize(
    ("names", "knows"),
    [
        (lambda path: f"http://127.0.0.1{path}", "/v2/team/app/blobs/uploads/7"),
        (lambda path: f"http://registry.invalid:5000{path}", "/v2/team/app/blobs/uploads/7"),
        (lambda path: f"https://127.0.0.1{path}", "/v2/team/app/blobs/uploads/7"),
        (lambda path: "http://registry.invalid/v2/app/blobs/uploads/7", "/v2/team/app/blobs/uploads/7"),
        (lambda path: "/v2/app/blobs/uploads/7", "/v2/team/app/blobs/uploads/7"),
        (lambda path: "/v2/app/blobs/uploads/7", "/v2/app/blobs/uploads/7"),
    ],
    ids=["no port", "inside", "https", "inside, less path", "less path", "less path, rightly"],
)
@pytest.mark.parametrize("rung", ["single", "stream"])
async def test_an_upload_is_gone_on_with_where_it_was_opened(
    names: Callable[[str], str], knows: str, rung: UploadMethod
) -> None:
    async with (
        scripted_server(behind(names, knows)) as server,  # type: ignore[arg-type]
        world(profile=Profile("test", (rung,), single_bytes=2**40)) as w,
    ):
        for content in (CONTENT[:1000], CONTENT[1:1000]):
            await w.sink(server.host, "team/app").push(blob_of(content), Bytes(content))
        opened = len(server.asked("POST"))
    assert opened <= 3, "what was found out with the first holds for the second"


async def test_a_session_that_is_nowhere_ends_in_a_sentence_about_the_proxy() -> None:
    async with (
        scripted_server(behind(lambda path: f"http://registry.invalid:5000{path}", "/nowhere")) as server,  # type: ignore[arg-type]
        world(profile=Profile("test", ("stream",))) as w,
    ):
        with pytest.raises(BlobflowError, match=r"http://registry\.invalid:5000/v2/.*has to pass on Host"):
            await w.sink(server.host).push(SHORT_BLOB, Bytes(SHORT))


async def test_once_locations_have_led_to_a_blob_a_lost_session_does_not_change_how_they_are_read() -> None:
    known = True

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            location = f"http://registry.invalid{request.path}7"
            return web.Response(status=202, headers={"Location": location})
        return web.Response(status=(201 if request.method == "PUT" else 202) if known else 404)

    async with scripted_server(handler) as server, world(profile=Profile("test", ("stream",))) as w:
        await w.sink(server.host).push(SHORT_BLOB, Bytes(SHORT))
        known = False
        with pytest.raises(NotFound):
            await w.sink(server.host).push(blob_of(b"x"), Bytes(b"x"))
        known = True
        await w.sink(server.host).push(blob_of(b"y"), Bytes(b"y"))
