"""HEAD that is refused where GET answers: found out once, and at ordinary registries for nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.errors import Denied, NotFound, RegistryError
from blobflow.oci import Descriptor, Digest, digest_of, media
from blobflow.transports.registry import Credentials
from tests.contract.implementations import blob_of, image_of
from tests.fakes.notes import Notes
from tests.fakes.registry import Bytes, Handler, scripted_server, world
from tools.registry.faulty import journalling

LAYER = b"a layer"
BLOB = blob_of(LAYER)
IMAGE, RAW = image_of(blob_of(b"{}"), BLOB)
REFUSALS = [400, 403, 404, 405, 501]
# What a TLS handshake begins with: after an answer that is none, a host is asked whether it speaks TLS.
TLS_HANDSHAKE = b"\x16"


def registry(
    refused: int, *, repositories: frozenset[str] = frozenset({"app"}), tags: tuple[str, ...] = ("1", "2")
) -> Handler:
    """A registry of one image that answers HEAD with `refused`, in these repositories."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.split("/")[2]
        if request.method == "HEAD" and name in repositories:
            return web.Response(status=refused)
        if request.path.endswith("/tags/list"):
            return web.json_response({"name": name, "tags": list(tags)})
        kind, _, which = request.path.rpartition("/")
        if kind.endswith("/manifests") and which in (*tags, IMAGE.digest):
            headers = {"Content-Type": IMAGE.media_type, "Docker-Content-Digest": IMAGE.digest}
            return web.Response(body=RAW, headers=headers)
        if kind.endswith("/blobs") and which == BLOB.digest:
            if "Range" in request.headers:
                part = {"Content-Range": f"bytes 0-0/{BLOB.size}"}
                return web.Response(status=206, body=LAYER[:1], headers=part)
            return web.Response(body=LAYER)
        code = "MANIFEST_UNKNOWN" if kind.endswith("/manifests") else "BLOB_UNKNOWN"
        return web.json_response({"errors": [{"code": code}]}, status=404)

    return handler


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_source_that_refuses_head_costs_one_request_more_in_all(status: int) -> None:
    async with scripted_server(registry(status)) as server, world() as w:
        for name in ("1", "2", IMAGE.digest, "1"):
            assert await w.source(server.host).resolve(name) == IMAGE
    assert (len(server.asked("HEAD")), len(server.asked("GET"))) == (1, 4)


@pytest.mark.parametrize("status", [400, 401, 405, 501])
async def test_a_target_that_refuses_head_is_asked_for_manifests_and_blobs_by_get(status: int) -> None:
    login = {"WWW-Authenticate": "Basic"}
    inner = registry(status)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if status == 401 and "Authorization" not in request.headers:
            return web.Response(status=401, headers=login)
        return await inner(request)

    async with scripted_server(handler) as server, world(Credentials("joe", "secret")) as w:
        sink = w.sink(server.host)
        for _ in range(2):
            assert await sink.has(BLOB)
            assert await sink.has(IMAGE)
            assert (await sink.resolve("1")).digest == IMAGE.digest
            assert not await sink.has(blob_of(b"another"))
            assert not await sink.has(Descriptor(media.OCI_MANIFEST, digest_of(b"x"), 1))
    assert len(server.asked("HEAD")) - (status == 401) == 2, "one for manifests and one for blobs"
    ranged = [each for each in server.seen if each.method == "GET" and "/blobs/" in each.target]
    assert all(each.headers.get("Range") == "bytes=0-0" for each in ranged)


async def test_a_head_that_no_token_opens_is_left_for_gets_that_one_opens() -> None:
    inner, given = registry(401), list[str]()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            given.append(f"t{len(given)}")
            return web.json_response({"token": given[-1]})
        if request.method == "HEAD" or "Authorization" not in request.headers:
            way = f'Bearer realm="http://{request.host}/token",service="r"'
            return web.Response(status=401, headers={"WWW-Authenticate": way})
        return await inner(request)

    async with scripted_server(handler) as server, world() as w:
        for name in ("1", "2", IMAGE.digest):
            assert await w.source(server.host).resolve(name) == IMAGE
    assert len(server.asked("HEAD")) == 2, "without a token and with one"
    assert len(given) == 2


@pytest.mark.parametrize("size", [BLOB.size, BLOB.size + 1])
async def test_a_blob_of_another_size_is_not_there_by_get_either(size: int) -> None:
    async with scripted_server(registry(405)) as server, world() as w:
        found = await w.sink(server.host).has(Descriptor(BLOB.media_type, BLOB.digest, size))
    assert found == (size == BLOB.size)


async def test_a_registry_without_ranges_is_left_after_the_head_of_its_answer() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=501) if request.method == "HEAD" else web.Response(body=LAYER)

    async with scripted_server(handler) as server, world() as w:
        assert await w.sink(server.host).has(BLOB)
        assert w.meter.bytes_read == 0


async def test_what_is_missing_at_a_target_costs_one_head(tmp_path: Path) -> None:
    async with journalling(tmp_path) as there, world() as w:
        sink = w.sink(there.host)
        for name in ("1", "2"):
            with pytest.raises(NotFound):
                await sink.resolve(name)
        assert not await sink.has(BLOB)
        assert not await sink.has(IMAGE)
        assert [each.method for each in there.journal] == ["HEAD"] * 4


async def test_a_missing_tag_of_a_source_where_head_works_costs_one_head(tmp_path: Path) -> None:
    async with journalling(tmp_path) as there, world() as w:
        await w.sink(there.host).push(blob_of(b"{}"), Bytes(b"{}"))
        await w.sink(there.host).push(BLOB, Bytes(LAYER))
        await w.sink(there.host).put(IMAGE, RAW, ["1"])
        there.journal.clear()
        source = w.source(there.host)
        await source.resolve("1")
        for name in ("2", "3"):
            with pytest.raises(NotFound):
                await source.resolve(name)
        assert [each.method for each in there.journal] == ["HEAD"] * 3


async def test_a_refusal_that_get_shares_is_asked_about_once_a_repository() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"errors": [{"code": "DENIED", "message": "not for you"}]}, status=403)

    async with scripted_server(handler) as server, world() as w:
        for _ in range(3):
            with pytest.raises(Denied, match="denies"):
                await w.source(server.host).resolve("1")
    assert (len(server.asked("HEAD")), len(server.asked("GET"))) == (3, 1)


async def test_one_repository_that_refuses_leaves_the_others_their_heads() -> None:
    async with scripted_server(registry(403, repositories=frozenset({"closed"}))) as server, world() as w:
        for name in ("open", "closed", "open", "closed"):
            assert await w.source(server.host, name).resolve("1") == IMAGE
    assert server.asked() == [
        "HEAD /v2/open/manifests/1",
        "HEAD /v2/closed/manifests/1",
        "GET /v2/closed/manifests/1",
        "HEAD /v2/open/manifests/1",
        "GET /v2/closed/manifests/1",
    ]


async def test_a_target_that_denies_what_is_not_there_and_every_head_is_not_believed_of_what_it_took() -> (
    None
):
    held: set[str] = set()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        if request.method == "PUT":
            held.update((name, IMAGE.digest))
            return web.Response(status=201)
        if request.method == "HEAD" or name not in held:
            return web.Response(status=403)
        return web.Response(body=RAW, headers={"Content-Type": IMAGE.media_type})

    async with scripted_server(handler) as server, world() as w:
        sink = w.sink(server.host)
        assert not await sink.has(IMAGE)
        await sink.put(IMAGE, RAW, ["1"])
        assert await sink.has(IMAGE)
        assert (await sink.resolve("1")).digest == IMAGE.digest


async def test_a_target_s_403_for_a_tag_is_settled_by_its_list() -> None:
    async with scripted_server(registry(403)) as server, world() as w:
        assert (await w.sink(server.host).resolve("1")).digest == IMAGE.digest
        with pytest.raises(NotFound):
            await w.sink(server.host).resolve("3")


async def test_a_target_that_says_404_of_what_it_took_is_not_believed_then_nor_in_the_next_run() -> None:
    held: dict[str, bytes] = {}

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        if request.method == "PUT":
            held[name] = held[IMAGE.digest] = await request.read()
            return web.Response(status=201)
        if request.method == "HEAD" or name not in held:
            return web.Response(status=404)
        return web.Response(body=held[name], headers={"Content-Type": IMAGE.media_type})

    notes = Notes()
    async with scripted_server(handler) as server:
        async with world(journal=notes) as w:
            sink = w.sink(server.host)
            with pytest.raises(NotFound):
                await sink.resolve("1")
            await sink.put(IMAGE, RAW, ["1"])
            assert (await sink.resolve("1")).digest == IMAGE.digest
            assert await sink.has(IMAGE)
        server.seen.clear()
        async with world(journal=notes) as w:
            assert (await w.sink(server.host).resolve("1")).digest == IMAGE.digest
        assert server.asked("HEAD") == []


@pytest.mark.parametrize("status", [400, 405, 501])
async def test_that_nothing_is_there_is_an_answer_of_get_s(status: int) -> None:
    """The survey of a target asks for what is not there yet, and the end of the run for the same."""
    async with scripted_server(registry(status, tags=())) as server, world() as w:
        for _ in range(2):
            with pytest.raises(NotFound):
                await w.sink(server.host).resolve("1")
        assert (await w.sink(server.host).resolve(IMAGE.digest)).digest == IMAGE.digest
        assert (len(server.asked("HEAD")), len(server.asked("GET"))) == (1, 3)


async def test_what_get_says_is_what_is_told() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=405)
        body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "gone since"}]})
        return web.Response(status=404, text=body, content_type="application/json")

    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(RegistryError, match="gone since"):
            await w.source(server.host).resolve(Digest(IMAGE.digest))


async def test_a_body_behind_the_answer_to_a_head_is_why_get_is_sent() -> None:
    """Hand-made servers send one; it came as the next answer, which it is not."""
    asked: list[str] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (first := await reader.readexactly(1)) != TLS_HANDSHAKE:
                head = first + await reader.readuntil(b"\r\n\r\n")
                asked.append(head.split()[0].decode())
                answer = (
                    f"HTTP/1.1 200 OK\r\nContent-Type: {IMAGE.media_type}\r\nContent-Length: {len(RAW)}\r\n"
                    f"Docker-Content-Digest: {IMAGE.digest}\r\n\r\n"
                )
                writer.write(answer.encode() + RAW)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server, world() as w:
        host = "{}:{}".format(*server.sockets[0].getsockname())
        for name in ("1", "2"):
            assert await w.source(host).resolve(name) == IMAGE
    assert asked == ["HEAD", "GET", "GET"]
