"""Redirects to other registries that want a token of their own: anybody's, and never a login."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from blobflow.errors import ProtocolViolation, Unauthorized
from blobflow.transports.registry import Credentials
from tests.contract.implementations import blob_of, image_of
from tests.fakes.registry import ScriptedServer, collect, scripted_server, world

LAYER = b"a layer" * 1000
BLOB = blob_of(LAYER)
IMAGE, RAW = image_of(blob_of(b"{}"), BLOB)
JOE = Credentials("joe", "secret")


class Second:
    """A registry that lets anybody in, by a token for its own name of the repository. `tokens`: those given,
    with the scopes that were asked for; `lifetime` of each in seconds; `refuses`: its token server's status;
    `deaf`: no token opens anything; `challenge` replaces its own."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[str]] = {}
        self.lifetime = 300
        self.refuses = 0
        self.deaf = False
        self.challenge = ""
        self.expired: set[str] = set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            if self.refuses:
                return web.Response(status=self.refuses)
            token = f"t{len(self.tokens)}"
            self.tokens[token] = request.query.getall("scope", [])
            return web.json_response({"token": token, "expires_in": self.lifetime})
        repository = "/".join(request.path.split("/")[2:4])
        scope = f"repository:{repository}:pull"
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        known = scope in self.tokens.get(token, ()) and token not in self.expired
        if self.deaf or not known:
            realm = f'Bearer realm="http://{request.host}/token",service="second",scope="{scope}"'
            return web.Response(status=401, headers={"WWW-Authenticate": self.challenge or realm})
        if "/manifests/" in request.path:
            told = {"Content-Type": IMAGE.media_type, "Docker-Content-Digest": IMAGE.digest}
            return web.Response(body=RAW, headers=told)
        if "Range" in request.headers:
            first = int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
            part = {"Content-Range": f"bytes {first}-{BLOB.size - 1}/{BLOB.size}"}
            return web.Response(status=206, body=LAYER[first:], headers=part)
        return web.Response(body=LAYER)


@asynccontextmanager
async def front(second: Second, status: int = 307) -> AsyncIterator[tuple[ScriptedServer, ScriptedServer]]:
    """A registry with a login that sends all reading on, and the one that it sends to."""
    async with scripted_server(second) as there:

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
            path = request.path.replace("/v2/", "/v2/mirror/")
            return web.Response(status=status, headers={"Location": f"{there.url}{path}"})

        async with scripted_server(handler) as here:
            yield here, there


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_manifests_and_blobs_and_parts_of_them_come_with_one_token(status: int) -> None:
    second = Second()
    async with front(second, status) as (here, there), world(JOE) as w:
        source = w.source(here.host)
        assert await source.resolve("1") == IMAGE
        assert await source.read(IMAGE) == RAW
        for offset in (0, 100):
            async with source.open(BLOB, offset) as chunks:
                assert await collect(chunks) == LAYER[offset:]
        assert await source.has(BLOB)
    assert list(second.tokens.values()) == [["repository:mirror/app:pull"]]
    assert len(there.seen) == 7, "a 401 and a token for the first, and one request for each"


async def test_no_login_and_no_foreign_token_goes_anywhere_else() -> None:
    second = Second()
    async with front(second) as (here, there), world(JOE) as w:
        await w.source(here.host).read(IMAGE)
    assert {each.headers.get("Authorization") for each in there.seen} == {None, "Bearer t0"}
    assert [each.headers.get("Authorization") for each in there.seen if "/token" in each.target] == [None]
    assert {each.headers.get("Authorization") for each in here.seen} == {None, JOE.basic}


async def test_each_repository_has_a_token_of_its_own() -> None:
    second = Second()
    async with front(second) as (here, there), world(JOE) as w:
        for name in ("app", "other", "app", "other"):
            await w.source(here.host, name).resolve("1")
    assert sorted(second.tokens.values()) == [[f"repository:mirror/{name}:pull"] for name in ("app", "other")]
    assert len(there.seen) <= 4 + 2 * 2


async def test_a_token_that_ended_is_fetched_anew() -> None:
    second = Second()
    async with front(second) as (here, _), world(JOE) as w:
        await w.source(here.host).resolve("1")
        second.expired.add("t0")
        await w.source(here.host).resolve("1")
    assert len(second.tokens) == 2


@pytest.mark.parametrize("challenge", ["Basic realm=x", "Negotiate", "Bearer service=x", "nonsense, ="])
async def test_another_way_in_is_one_sentence_that_names_both(challenge: str) -> None:
    second = Second()
    second.challenge = challenge
    async with front(second) as (here, there), world(JOE) as w:
        with pytest.raises(Unauthorized, match=f"{here.host} sent us there.*name {there.host} itself"):
            await w.source(here.host).read(IMAGE)
    assert len(there.seen) == 1


@pytest.mark.parametrize(("refuses", "deaf"), [(401, False), (403, False), (404, False), (0, True)])
async def test_a_registry_that_does_not_let_everybody_in_says_so(refuses: int, deaf: bool) -> None:
    second = Second()
    second.refuses, second.deaf = refuses, deaf
    async with front(second) as (here, there), world(JOE) as w:
        with pytest.raises(Unauthorized, match=f"{here.host} sent us there.*name {there.host} itself"):
            await w.source(here.host).read(IMAGE)
    assert len(there.seen) <= 3
    assert all(JOE.basic != each.headers.get("Authorization") for each in there.seen)


async def test_who_writes_gets_no_token_there() -> None:
    second = Second()
    async with front(second) as (here, there), world(JOE) as w:
        with pytest.raises(Unauthorized, match=there.host):
            await w.sink(here.host).put(IMAGE, RAW, ["1"])
    assert second.tokens == {}


async def test_a_token_server_may_be_where_the_front_may_send_us_and_nowhere_else() -> None:
    second = Second()
    second.challenge = 'Bearer realm="http://169.254.169.254/token",service="x"'
    async with front(second) as (here, _), world(JOE) as w:
        with pytest.raises(ProtocolViolation, match=r"sent us to 169\.254\.169\.254"):
            await w.source(here.host).read(IMAGE)


async def test_redirects_to_and_fro_end() -> None:
    async with scripted_server(Second()) as there:

        async def around(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"http://{request.host}{request.path}x"})

        async with scripted_server(around) as here, world() as w:
            with pytest.raises(ProtocolViolation, match="lead nowhere"):
                await w.source(here.host).read(IMAGE)
    assert len(here.seen) == 6
    assert there.seen == []
