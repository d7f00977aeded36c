"""Pushing blobs: forms, falls, sessions, and nothing left half-done."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import (
    ConnectionLost,
    DigestMismatch,
    NotFound,
    ProtocolViolation,
    Rejected,
    SizeMismatch,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from blobflow.transports.registry import Profile
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from blobflow.transports.registry.http import host_client, upload_body
from blobflow.transports.registry.uploads.sessions import LEAST_CHUNK
from tests.fakes.registry import Bytes, blob_of, body_that, scripted_server, world
from tools.registry.faulty import Corrupt, Fault, ForgetSession, Reset, Stall, Status, journalling

CONTENT = bytes(range(256)) * 4000  # 1 MB
BLOB = blob_of(CONTENT)
PUT, PATCH, POST, DELETE = "PUT", "PATCH", "POST", "DELETE"


def only(*rungs: UploadMethod, chunk: int = 300_000) -> Profile:
    return Profile("test", rungs, chunk_bytes=chunk)


@pytest.mark.parametrize(
    ("rung", "requests"),
    [
        ("single", [POST, PUT]),
        ("stream", [POST, PATCH, PUT]),
        ("chunked", [POST, PATCH, PATCH, PATCH, PATCH, PUT]),
    ],
)
async def test_each_form_arrives_in_its_requests(
    tmp_path: Path, rung: UploadMethod, requests: list[str]
) -> None:
    body = Bytes(CONTENT)
    async with journalling(tmp_path) as registry, world(profile=only(rung)) as w:
        sink = w.sink(registry.host)
        await sink.push(BLOB, body)
        assert await sink.has(BLOB)
        assert [each.method for each in registry.journal][:-1] == requests
        assert registry.journal.bytes_in(BLOB.digest) == len(CONTENT)
        assert w.meter.bytes_written == len(CONTENT)
        ranges = [each.asked.get("Content-Range") for each in registry.journal.select(PATCH)]
    assert (body.opened, body.closed) == ([0], 1)
    if rung == "chunked":
        assert ranges == ["0-299999", "300000-599999", "600000-899999", "900000-1023999"]
    else:
        assert set(ranges) <= {None}


@pytest.mark.parametrize("rung", ["single", "stream"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_an_empty_blob_and_both_algorithms_arrive(
    tmp_path: Path, rung: UploadMethod, algorithm: str
) -> None:
    async with journalling(tmp_path) as registry, world(profile=only(rung)) as w:
        for content in (b"", CONTENT):
            blob = blob_of(content, algorithm)
            body = Bytes(content, blob=blob)
            await w.sink(registry.host).push(blob, body)
            assert await w.sink(registry.host).has(blob)
            assert body.closed == 1


@pytest.mark.parametrize("status", [400, 404, 405, 411, 413, 415, 416, 501])
async def test_a_refused_form_falls_to_the_next_and_is_not_tried_again(tmp_path: Path, status: int) -> None:
    refuse = Fault(PUT, "/uploads/.*digest=", act=Status(status))
    async with journalling(tmp_path, [refuse]) as registry, world(profile=only("single", "stream")) as w:
        body = Bytes(CONTENT)
        await w.sink(registry.host).push(BLOB, body)
        assert [
            each.method for each in registry.journal.select(pattern="uploads") if each.method != DELETE
        ] == [
            POST,
            PUT,
            POST,
            PATCH,
            PUT,
        ]
        assert body.opened == [0, 0]
        registry.journal.clear()
        other = CONTENT + b"x"
        await w.sink(registry.host).push(blob_of(other), Bytes(other))
        assert registry.journal.count(PATCH) == 1


async def test_a_refused_session_is_deleted_before_all_is_closed(tmp_path: Path) -> None:
    refuse = Fault(PUT, "digest=", act=Status(413))
    async with journalling(tmp_path, [refuse]) as registry:
        async with world(profile=only("single", "stream")) as w:
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        (deleted,) = registry.journal.select(DELETE)
        (refused,) = registry.journal.select(PUT, status=413)
        assert (deleted.path, deleted.status) == (refused.path, 204)


async def test_the_last_form_s_refusal_is_the_error(tmp_path: Path) -> None:
    faults = [Fault(PUT, "digest=", times=0, act=Status(405)), Fault(PATCH, "", times=0, act=Status(413))]
    async with journalling(tmp_path, faults) as registry, world(profile=only("single", "stream")) as w:
        with pytest.raises(Rejected, match=r"refused upload of blob .* with 413"):
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "NAME_INVALID", "DENIED"])
async def test_a_refusal_of_the_name_is_no_refusal_of_the_form(tmp_path: Path, code: str) -> None:
    body = f'{{"errors": [{{"code": "{code}"}}]}}'
    fault = Fault(PUT, "digest=", times=0, act=Status(404, body=body))
    async with journalling(tmp_path, [fault]) as registry, world() as w:
        with pytest.raises(NotFound, match=code):
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert registry.journal.count(PATCH) == 0


async def test_a_bit_that_flips_on_its_way_is_sent_again_and_nothing_is_held_against_the_form(
    tmp_path: Path,
) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        sink, body = w.sink(registry.host), Bytes(CONTENT)
        await sink.push(blob_of(b"first"), Bytes(b"first"))  # the form is proven now
        registry.faults.add(Fault(PUT, "digest=", act=Corrupt(at=1000)))
        await sink.push(BLOB, body)
        assert body.opened == [0, 0]
        assert registry.journal.count(PATCH) == 0
        assert registry.journal.uploads_of(BLOB.digest) == 1


async def test_an_early_refusal_ends_the_sending() -> None:
    """413 comes at once, and the body is never read: less than the blob is taken from the source."""
    big = bytes(64 * 1024 * 1024)
    sessions = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sessions
        if request.method == POST:
            sessions += 1
            return web.Response(status=202, headers={"Location": f"/up/{sessions}"})
        if request.method == DELETE:
            return web.Response(status=204)
        return web.Response(status=413, headers={"Connection": "close"})

    async with scripted_server(handler, reads=False) as server, world(profile=only("single")) as w:
        with pytest.raises((Rejected, ConnectionLost)):
            await w.sink(server.host).push(blob_of(big), Bytes(big))
        assert w.meter.bytes_written < len(big)


async def test_a_peer_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_client, "PROGRESS_SECONDS", 0.01)
    monkeypatch.setattr(upload_body, "SLOWEST", 1024**3)
    big = bytes(64 * 1024 * 1024)
    held = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == POST:
            return web.Response(status=202, headers={"Location": "/up"})
        await held.wait()
        return web.Response(status=201)

    body = Bytes(big)
    async with scripted_server(handler, reads=False) as server, world(profile=only("single")) as w:
        with pytest.raises(TimedOut, match="took no byte of upload"):
            await w.sink(server.host).push(blob_of(big), body)
        assert body.closed == 1
        held.set()


async def test_a_connection_that_breaks_is_the_engine_s_to_mend(tmp_path: Path) -> None:
    cut = Fault(PUT, "digest=", act=Reset(after=100_000))
    async with journalling(tmp_path, [cut]) as registry, world() as w:
        body = Bytes(CONTENT)
        with pytest.raises(ConnectionLost):
            await w.sink(registry.host).push(BLOB, body)
        assert (body.opened, body.closed) == ([0], 1)
        await w.sink(registry.host).push(BLOB, body)
        assert await w.sink(registry.host).has(BLOB)


@pytest.mark.parametrize("rung", ["single", "stream", "chunked"])
@pytest.mark.parametrize(
    "error",
    [
        DigestMismatch("blob", expected="a", actual="b"),
        ConnectionLost("the source went away"),
        NotFound("gone at the source", status=404),
        Unauthorized("no more", status=401),
        Rejected("strange", status=413),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_body_raises_surfaces_as_itself_and_nothing_is_left(
    tmp_path: Path, rung: UploadMethod, error: Exception
) -> None:
    async with journalling(tmp_path) as registry:
        async with world(profile=only(rung, "single", "stream")) as w:
            sink = w.sink(registry.host)
            with pytest.raises(type(error)) as raised:
                await sink.push(BLOB, body_that(CONTENT[:500_000], error))
            assert raised.value is error
            assert not await sink.has(BLOB)
            assert registry.journal.count(POST) == 1  # a source's refusal makes no rung fall
        assert registry.journal.count(DELETE) == 1


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b""])
async def test_a_body_of_another_size_commits_nothing(tmp_path: Path, content: bytes) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        with pytest.raises(SizeMismatch):
            await w.sink(registry.host).push(BLOB, body_that(content) if content else body_that())
        assert not await w.sink(registry.host).has(BLOB)


@pytest.mark.parametrize("rung", ["single", "stream"])
async def test_a_cancelled_push_leaves_the_body_and_deletes_its_session(
    tmp_path: Path, rung: UploadMethod
) -> None:
    reached = asyncio.Event()
    stall = Fault("PUT" if rung == "single" else "PATCH", "uploads", act=Stall(after=1000, reached=reached))
    async with journalling(tmp_path, [stall]) as registry:
        body = Bytes(CONTENT * 20)
        async with world(profile=only(rung)) as w:
            push = asyncio.create_task(w.sink(registry.host).push(blob_of(body.content), body))
            await reached.wait()
            push.cancel()
            with pytest.raises(asyncio.CancelledError):
                await push
            assert body.closed == 1
        assert registry.journal.count(DELETE) == 1


async def test_a_push_that_waits_for_its_source_can_be_cancelled(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with journalling(tmp_path) as registry, world() as w:
        push = asyncio.create_task(w.sink(registry.host).push(BLOB, body_that(b"x" * 70_000, never)))
        await registry.journal.until(lambda journal: journal.count(PUT) == 1)
        push.cancel()
        with pytest.raises(asyncio.CancelledError):
            await push


async def test_a_refused_mount_becomes_an_upload_in_the_same_session(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        sink = w.sink(registry.host)
        assert not await sink.mount(BLOB, Site(registry.host, "elsewhere"))
        await sink.push(BLOB, Bytes(CONTENT))
        await registry.journal.until(lambda journal: all(each.ended for each in journal))
        assert registry.journal.count(POST) == 1
        assert registry.journal.uploads("app", BLOB.digest) == 1
    assert registry.journal.count(DELETE) == 0


async def test_the_session_of_a_refused_mount_that_nobody_used_is_cancelled_at_the_end(
    tmp_path: Path,
) -> None:
    async with journalling(tmp_path) as registry:
        async with world() as w:
            assert not await w.sink(registry.host).mount(BLOB, Site(registry.host, "elsewhere"))
            assert registry.journal.count(DELETE) == 0
        assert [each.status for each in registry.journal.select(DELETE)] == [204]


async def test_a_mount_s_session_that_is_gone_is_followed_by_a_fresh_one(tmp_path: Path) -> None:
    async with journalling(tmp_path, [Fault(PUT, "digest=", act=ForgetSession())]) as registry, world() as w:
        sink, body = w.sink(registry.host), Bytes(CONTENT)
        assert not await sink.mount(BLOB, Site(registry.host, "elsewhere"))
        await sink.push(BLOB, body)
        assert (registry.journal.count(POST), registry.journal.count(PATCH)) == (2, 0)
        assert body.opened == [0, 0]


async def test_two_pushes_of_one_blob_both_succeed(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        pushes = [w.sink(registry.host).push(BLOB, Bytes(CONTENT)) for _ in range(2)]
        await asyncio.gather(*pushes)
        assert await w.sink(registry.host).has(BLOB)


Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def uploads_at(location: Callable[[str], str], committed: Mapping[str, str] | None = None) -> Answer:
    """A registry that opens uploads wherever `location`, given its host, says."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == POST:
            return web.Response(status=202, headers={"Location": location(request.host)})
        if request.method == PATCH:
            return web.Response(status=202, headers={"Location": location(request.host) + "&patched=1"})
        return web.Response(status=201, headers=committed or {})

    return handler


@pytest.mark.parametrize(
    ("location", "put"),
    [
        (lambda host: f"http://{host}/1?s=a%3D%3D+b%2f", f"/1?s=a%3D%3D+b%2f&digest={BLOB.digest}"),
        (lambda host: "/up/1", f"/up/1?digest={BLOB.digest}"),
        (lambda host: "1?x=y", f"/v2/app/blobs/uploads/1?x=y&digest={BLOB.digest}"),
    ],
    ids=["absolute", "relative", "sibling"],
)
async def test_the_digest_is_added_to_an_opaque_location(location: Callable[[str], str], put: str) -> None:
    async with scripted_server(uploads_at(location)) as server, world(profile=only("single")) as w:
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert server.asked(PUT) == [put]


async def test_each_request_goes_to_the_newest_location() -> None:
    async with scripted_server(uploads_at(lambda _: "/up?s=1")) as server, world(profile=only("stream")) as w:
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert server.asked()[1:] == ["PATCH /up?s=1", f"PUT /up?s=1&patched=1&digest={BLOB.digest}"]


async def test_a_body_has_its_length_and_is_never_chunk_encoded() -> None:
    async with scripted_server(uploads_at(lambda _: "/up")) as server, world(profile=only("single")) as w:
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    put = server.seen[-1]
    assert put.headers["Content-Length"] == str(len(CONTENT))
    assert "Transfer-Encoding" not in put.headers
    assert put.headers["Content-Type"] == "application/octet-stream"
    assert hashlib.sha256(put.body).hexdigest() == BLOB.digest[7:]
    assert server.seen[0].headers["Content-Length"] == "0"


async def test_uploads_beside_each_other_all_learn_where_sessions_behind_a_path_are() -> None:
    """The proxy maps `hub/NAME` to NAME, which can't be reached: every session is opened before the first
    one is not found where its Location says."""
    opened = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == POST:
            if len(server.asked(POST)) == 2:
                opened.set()
            await opened.wait()
            return web.Response(status=202, headers={"Location": f"http://{request.host}{told}"})
        return web.Response(status=201 if request.path.startswith("/v2/hub/") else 405)

    told = "/v2/app/blobs/uploads/1"
    contents = [CONTENT, CONTENT + b"x"]
    async with scripted_server(handler) as server, world(profile=only("single")) as w:
        pushes = (w.sink(server.host, "hub/app").push(blob_of(each), Bytes(each)) for each in contents)
        await asyncio.gather(*pushes)
    puts = sorted(each.split("?")[0] for each in server.asked(PUT))
    assert puts == [told] * 2 + ["/v2/hub/app/blobs/uploads/1"] * 2


async def test_an_upload_elsewhere_is_followed_without_an_authorization() -> None:
    async with scripted_server(uploads_at(lambda _: "/")) as elsewhere:
        location = f"http://{elsewhere.host}/up?sig=1"
        async with (
            scripted_server(uploads_at(lambda _: location)) as server,
            world(profile=only("single")) as w,
        ):
            await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert [each.method for each in elsewhere.seen] == [PUT]
    assert "Authorization" not in elsewhere.seen[0].headers


async def test_a_registry_that_names_another_digest_has_another_blob() -> None:
    other = {"Docker-Content-Digest": blob_of(b"other").digest}
    async with scripted_server(uploads_at(lambda _: "/up", other)) as server, world() as w:
        with pytest.raises(DigestMismatch):
            await w.sink(server.host).push(BLOB, Bytes(CONTENT))


async def test_a_digest_of_another_algorithm_says_nothing() -> None:
    committed = {"Docker-Content-Digest": BLOB.digest}
    blob = blob_of(CONTENT, "sha512")
    async with scripted_server(uploads_at(lambda _: "/up", committed)) as server, world() as w:
        await w.sink(server.host).push(blob, Bytes(CONTENT, blob=blob))


async def test_an_upload_opened_nowhere_is_a_violation() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=202)

    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="without saying where"):
            await w.sink(server.host).push(BLOB, Bytes(CONTENT))


async def test_a_commit_without_an_answer_is_not_sent_again_and_one_refused_for_now_is() -> None:
    puts = [503, 201]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == PUT:
            return web.Response(status=puts.pop(0))
        return web.Response(status=202, headers={"Location": "/up"})

    body = Bytes(CONTENT)
    async with scripted_server(handler) as server, world(profile=only("stream")) as w:
        await w.sink(server.host).push(BLOB, body)
        assert body.opened == [0]
        puts[:] = [503] * 5
        with pytest.raises(Unavailable, match="503"):
            await w.sink(server.host).push(BLOB, body)


async def test_a_declared_chunk_size_is_kept_to_and_bounded(tmp_path: Path) -> None:
    locations = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal locations
        locations += 1
        headers = {"Location": f"/up/{locations}", "OCI-Chunk-Min-Length": "400000"}
        return web.Response(status=201 if request.method == PUT else 202, headers=headers)

    async with scripted_server(handler) as server, world(profile=only("chunked", chunk=1000)) as w:
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert [len(each.body) for each in server.seen if each.method == PATCH] == [400_000, 400_000, 224_000]


@pytest.mark.parametrize(
    ("most", "chunks"),
    [(400_000, [400_000, 400_000, 224_000]), (1, [LEAST_CHUNK] * 15 + [BLOB.size - 15 * LEAST_CHUNK])],
)
async def test_the_largest_chunk_that_is_taken_is_believed_as_long_as_blobs_get_through_by_it(
    most: int, chunks: list[int]
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Location": "/up", "OCI-Chunk-Max-Length": str(most)}
        return web.Response(status=201 if request.method == PUT else 202, headers=headers)

    async with scripted_server(handler) as server, world() as w:
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert [len(each.body) for each in server.seen if each.method == PATCH] == chunks


async def test_more_pushes_than_connections_wait_for_each_other(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world(connections=2) as w:
        contents = [CONTENT + bytes([each]) for each in range(8)]
        await asyncio.gather(*(w.sink(registry.host).push(blob_of(each), Bytes(each)) for each in contents))
        assert registry.journal.count(PUT, status=201) == 8
        # two whose bytes move, and half as many of which only the answer is to come
        assert registry.journal.peak(PUT) <= 3


async def test_with_one_connection_pushes_are_answered_one_by_one(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world(connections=1) as w:
        contents = [CONTENT + bytes([each]) for each in range(8)]
        await asyncio.gather(*(w.sink(registry.host).push(blob_of(each), Bytes(each)) for each in contents))
        assert registry.journal.count(PUT, status=201) == 8
        assert registry.journal.peak(PUT) == 1
