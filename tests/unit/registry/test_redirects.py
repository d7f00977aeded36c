"""Pushes that are sent on: 307 and 308 keep the method and the body ("Registries MAY respond to any request
with a redirect"), and no login follows to another host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from blobflow.errors import BlobflowError, ProtocolViolation
from blobflow.oci import Descriptor, digest_of, media
from blobflow.transports.registry import Credentials, Profile
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from tests.fakes.registry import Bytes, ScriptedServer, World, blob_of, scripted_server, world

RAW = b'{"schemaVersion":2,"manifests":[]}'
CONTENT = bytes(range(256)) * 12_000  # more than goes out as a small blob
CHUNK = 1024 * 1024


async def body_of(request: web.BaseRequest) -> bytes:
    """However long it is."""
    return b"".join([chunk async for chunk in request.content.iter_any()])


class Store:
    """The other host: it takes what is sent to it, and says where an upload goes on: there, or `back` at the
    front."""

    def __init__(self, back: bool = False) -> None:
        self.back = back
        self.got = b""
        self.put: list[tuple[str, bytes]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        assert "Authorization" not in request.headers
        body = await body_of(request)
        if "/manifests/" in request.path:
            self.put.append((request.path, body))
            return web.Response(status=201)
        self.got += body
        if request.method == "PUT":
            assert request.query.getall("digest") == [digest_of(self.got)]
            return web.Response(status=201)
        where = self.front_url if self.back else ""
        return web.Response(status=202, headers={"Location": f"{where}/v2/app/blobs/uploads/1?state=2"})

    front_url = ""


@asynccontextmanager
async def sent_on(
    store: Store, status: int, rungs: tuple[UploadMethod, ...] = ("single",)
) -> AsyncIterator[tuple[World, ScriptedServer, ScriptedServer]]:
    """A registry at which everything but the opening of an upload is done by another host."""

    async def front(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/app/blobs/uploads/1?state=1"})
        return web.Response(status=status, headers={"Location": f"{elsewhere.url}{request.path_qs}"})

    profile = Profile("test", rungs, single_bytes=2**40, chunk_bytes=CHUNK)
    async with (
        scripted_server(store, reads=False) as elsewhere,
        scripted_server(front, reads=False) as server,
        world(Credentials("joe", "secret"), profile) as w,
    ):
        store.front_url = server.url
        yield w, server, elsewhere


@pytest.mark.parametrize("status", [307, 308])
async def test_a_manifest_goes_where_it_is_sent(status: int) -> None:
    store = Store()
    async with sent_on(store, status) as (w, server, _):
        await w.sink(server.host).put(Descriptor(media.OCI_INDEX, digest_of(RAW), len(RAW)), RAW, ["1"])
    assert store.put == [("/v2/app/manifests/1", RAW)]


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("back", [False, True], ids=["goes on there", "goes on here"])
@pytest.mark.parametrize("rung", ["single", "stream", "chunked"])
@pytest.mark.parametrize("size", [5, len(CONTENT)], ids=["small", "large"])
async def test_a_blob_goes_where_it_is_sent_in_every_form(
    rung: UploadMethod, size: int, back: bool, status: int
) -> None:
    store, content = Store(back), CONTENT[:size]
    async with sent_on(store, status, (rung,)) as (w, server, elsewhere):
        await w.sink(server.host).push(blob_of(content), Bytes(content))
        assert store.got == content
        assert len(server.asked("POST")) <= 2, "one for the login, one that opened the session"
        assert all("Authorization" not in seen.headers for seen in elsewhere.seen)


@pytest.mark.parametrize("rung", ["single", "stream", "chunked"])
@pytest.mark.parametrize("size", [5, len(CONTENT)], ids=["small", "large"])
async def test_a_push_that_is_sent_round_in_circles_ends(rung: UploadMethod, size: int) -> None:
    async def front(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/app/blobs/uploads/1"})
        return web.Response(status=307, headers={"Location": request.path_qs})

    profile = Profile("test", (rung,), single_bytes=2**40, chunk_bytes=CHUNK)
    async with scripted_server(front, reads=False) as server, world(profile=profile) as w:
        content = CONTENT[:size]
        with pytest.raises(ProtocolViolation, match="redirects that lead nowhere"):
            await w.sink(server.host).push(blob_of(content), Bytes(content))
        assert len(server.seen) < 50


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_push_to_what_redirects_pages_names_the_place_to_push_to(status: int) -> None:
    """As nginx's `return 301 https://$host$request_uri` does: reads go there, and nothing else can."""

    async def front(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        return web.Response(status=status, headers={"Location": f"https://r.example{request.path_qs}"})

    async with scripted_server(front, reads=False) as server, world() as w:
        words = f"with {status}, .*; name https://r.example in place of http://{server.host}"
        with pytest.raises(ProtocolViolation, match=words):
            await w.sink(server.host).push(blob_of(CONTENT), Bytes(CONTENT))
        assert len(server.seen) == 1


async def test_a_page_to_log_in_at_is_not_named_as_a_place_to_push_to() -> None:
    async def front(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        return web.Response(status=302, headers={"Location": f"https://sso.example/login?to={request.path}"})

    async with scripted_server(front, reads=False) as server, world() as w:
        with pytest.raises(ProtocolViolation) as caught:
            await w.sink(server.host).push(blob_of(CONTENT), Bytes(CONTENT))
        assert "sso.example" not in str(caught.value)


async def test_where_a_push_was_sent_is_not_deleted_as_if_it_were_a_session() -> None:
    """A redirect to a blob's own address, at which the push then fails."""
    held = f"/v2/app/blobs/{digest_of(b'held')}"

    async def front(request: web.BaseRequest) -> web.StreamResponse:
        await body_of(request)
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/app/blobs/uploads/1"})
        if request.method == "PUT" and request.path != held:
            return web.Response(status=307, headers={"Location": held})
        return web.Response(status=400 if request.method == "PUT" else 202)

    profile = Profile("test", ("single",), single_bytes=2**40, chunk_bytes=CHUNK)
    async with scripted_server(front, reads=False) as server:
        async with world(profile=profile) as w:
            with pytest.raises(BlobflowError):
                await w.sink(server.host).push(blob_of(CONTENT), Bytes(CONTENT))
        assert any(path.startswith(held) for path in server.asked("PUT"))
        assert not any(path.startswith(held) for path in server.asked("DELETE"))
