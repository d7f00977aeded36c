"""Mounts at a registry: what its profile says of them, who asks, and what a denial costs."""

from __future__ import annotations

import pytest
from aiohttp import web

from blobflow.content import Mounts, Site
from blobflow.errors import InvalidConfig, Throttled, Unavailable
from blobflow.transports.registry.auth.credentials import Credentials
from blobflow.transports.registry.capabilities.profiles import Profile, profile_of
from blobflow.transports.registry.http.backoff import attempts_of
from tests.fakes.registry import Bytes, ScriptedServer, blob_of, scripted_server, world

CONTENT = b"content"
BLOB = blob_of(CONTENT)
JOE = Credentials("joe", "secret")


class Denying:
    """A registry whose token server gives `joe` tokens for app, and for nothing of the secret project: it
    refuses, or leaves that out of the token, as the distribution specification has it."""

    def __init__(self, *, refuses: bool) -> None:
        self.refuses = refuses
        self.host = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            secret = any("secret" in scope for scope in request.query.getall("scope", []))
            if secret and self.refuses:
                return web.Response(status=403)
            return web.json_response({"token": "lesser" if secret else "good", "expires_in": 300})
        token = request.headers.get("Authorization")
        if token is None or (token == "Bearer lesser" and "from" in request.query):
            challenge = f'Bearer realm="http://{self.host}/token",service="svc"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/up"})
        return web.Response(status=201 if request.method == "PUT" else 404)


def posts(server: ScriptedServer) -> list[str]:
    return [each for each in server.asked("POST") if "mount" in each]


@pytest.mark.parametrize("refuses", [True, False])
async def test_an_origin_that_may_not_be_read_fails_no_push_and_is_not_named_a_third_time(
    *, refuses: bool
) -> None:
    handler = Denying(refuses=refuses)
    async with scripted_server(handler) as server, world(JOE, Profile("spec")) as w:
        handler.host = server.host
        sink, secret = w.sink(server.host, "app"), Site(server.host, "secret/project")
        for _ in range(2):
            assert not await sink.mount(BLOB, secret)
        asked = len(server.seen)
        for _ in range(50):
            assert not await w.sink(server.host, "app").mount(BLOB, secret)
        assert len(server.seen) == asked
        reader = Bytes(CONTENT)
        await sink.push(BLOB, reader)
        assert reader.opened == [0]
        assert not await sink.mount(BLOB, Site(server.host, "open/project"))
        assert "open/project" in posts(server)[-1], "another origin is another question"


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_mounts_that_only_fail_are_uploads_and_are_not_tried_for_ever(status: int) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if "mount" in request.query:
            return web.Response(status=status)
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/up"})
        return web.Response(status=201 if request.method == "PUT" else 404)

    async with scripted_server(handler) as server, world(profile=Profile("spec")) as w:
        sink, origin = w.sink(server.host, "app"), Site(server.host, "origin")
        for _ in range(2):
            assert not await sink.mount(BLOB, origin)
        asked = len(posts(server))
        assert asked == 2 * attempts_of(Unavailable("")), "a storm that passes costs no upload"
        for _ in range(50):
            assert not await w.sink(server.host, "app").mount(BLOB, origin)
        assert len(posts(server)) == asked
        await sink.push(BLOB, Bytes(CONTENT))


@pytest.mark.parametrize("status", [429, 503])
async def test_a_registry_that_wants_time_is_not_taken_for_one_whose_mounts_fail(status: int) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status)

    async with scripted_server(handler) as server, world(profile=Profile("spec")) as w:
        with pytest.raises((Throttled, Unavailable)):
            await w.sink(server.host, "app").mount(BLOB, Site(server.host, "origin"))


@pytest.mark.parametrize(
    ("profile", "rule"),
    [
        (Profile("spec"), "any"),
        (Profile("none", mounts=False), "nothing"),
        (profile_of("1234.dkr.ecr.eu-west-1.amazonaws.com"), "named"),
        (profile_of("public.ecr.aws"), "named"),
    ],
)
async def test_a_profile_says_what_is_mounted(profile: Profile, rule: str) -> None:
    async with world(profile=profile) as w:
        sink = w.sink("registry.example", "app")
        assert isinstance(sink, Mounts)
        assert sink.mount_rule == rule


async def test_who_asks_is_told_as_a_hash_of_the_name_alone() -> None:
    async def login_of(credentials: Credentials | None) -> str | None:
        async with world(credentials) as w:
            return await w.sink("registry.example", "app").login()

    joe = await login_of(JOE)
    assert joe and "joe" not in joe
    assert await login_of(Credentials("joe", "another secret")) == joe, "passwords change"
    assert await login_of(Credentials("ann", "secret")) != joe
    assert await login_of(None) == "" == await login_of(Credentials())
    by_token = {await login_of(Credentials(name, identity_token=t)) for name in ("", "<token>") for t in "ab"}
    assert len(by_token) == 2 and "" not in by_token, "where there is no name the token tells"
    assert await login_of(Credentials(lack="the helper failed")) is None


async def test_logins_may_be_of_repositories_and_may_not_be_found() -> None:
    async def login(repository: str) -> Credentials | None:
        if repository == "broken":
            raise InvalidConfig("the file has no sense")
        return Credentials(repository, "secret")

    async with world(login) as w:
        one, two, broken = [await w.sink("registry.example", n).login() for n in ("one", "two", "broken")]
        assert one != two
        assert broken is None
