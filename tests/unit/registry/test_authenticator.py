"""Getting into a registry, over HTTP: Basic, Bearer, their tokens and who may see them."""

from __future__ import annotations

import asyncio
import base64
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from yarl import URL

from blobflow.content import Site
from blobflow.errors import ProtocolViolation, Unauthorized
from blobflow.transports.registry import Credentials
from blobflow.transports.registry.auth import authenticator
from blobflow.transports.registry.auth.tokens import token_requests
from tests.fakes.guarded_registry import BLOB, guarded
from tests.fakes.registry import Bytes, answers, scripted_server, world

JOE = Credentials("joe", "secret")
BASIC = "Basic " + base64.b64encode(b"joe:secret").decode()


def head(path: str = "app") -> str:
    return f"/v2/{path}/blobs/{BLOB.digest}"


async def test_an_anonymous_token_is_fetched_once_and_serves_what_follows() -> None:
    async with guarded() as (_, server), world() as w:
        source = w.source(server.host)
        assert await source.has(BLOB)
        assert await source.has(BLOB)
    assert server.asked() == [
        f"HEAD {head()}",
        "GET /token?service=svc&scope=repository%3Aapp%3Apull",
        f"HEAD {head()}",
        f"HEAD {head()}",
    ]
    assert "Authorization" not in server.seen[1].headers


async def test_another_repository_costs_one_token_and_no_401() -> None:
    async with guarded() as (_, server), world() as w:
        await w.source(server.host).has(BLOB)
        await w.source(server.host, "other/app").has(BLOB)
    # What the challenge of one repository named is not asked for another.
    assert server.asked()[3:] == [
        "GET /token?service=svc&scope=repository%3Aother%2Fapp%3Apull",
        f"HEAD {head('other/app')}",
    ]


async def test_tokens_of_no_end_of_repositories_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticator, "_ENTRIES", 3)
    async with guarded() as (_, server), world() as w:
        for n in (*range(6), 5, 0):
            await w.source(server.host, f"team/r{n}").has(BLOB)
        asked = [each for each in server.asked() if "/token" in each]
    assert len(asked) == 6 + 1, "the newest is kept, the oldest is asked for again"


async def test_many_requests_at_once_share_one_fetch() -> None:
    async with guarded() as (registry, server), world() as w:
        registry.held.clear()
        tasks = [asyncio.create_task(w.source(server.host).has(BLOB)) for _ in range(10)]
        await registry.asked.wait()
        tasks[0].cancel()  # whoever began the fetch may go
        registry.held.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(server.asked("GET")) == 1
    assert [result for result in results if result is not True] in ([], [results[0]])
    assert isinstance(results[0], asyncio.CancelledError)


async def test_a_token_is_renewed_before_it_ends_and_costs_no_401() -> None:
    async with guarded(lifetime=60) as (registry, server), world() as w:
        await w.source(server.host).has(BLOB)
        w.clock.now += 49.0
        await w.source(server.host).has(BLOB)
        assert registry.given == 1
        w.clock.now += 2.0
        await w.source(server.host).has(BLOB)
    assert registry.given == 2
    assert len(server.asked("HEAD")) == 4


async def test_a_token_that_ended_too_early_is_renewed_once() -> None:
    async with guarded() as (registry, server), world() as w:
        await w.source(server.host).has(BLOB)
        registry.valid.clear()
        await w.source(server.host).has(BLOB)
    assert registry.given == 2


async def test_a_token_that_opens_nothing_ends_in_a_sentence() -> None:
    async with guarded() as (registry, server), world() as w:
        registry.deaf = True
        with pytest.raises(Unauthorized, match="check the credentials"):
            await w.source(server.host).has(BLOB)
        assert (len(server.asked("HEAD")), len(server.asked("GET"))) == (2, 5), "three are for tokens"
        with pytest.raises(Unauthorized, match="check the credentials"):
            await w.source(server.host).has(BLOB)
    assert len(server.asked("HEAD")) == 4, "that GET fares no better is known by now"


async def test_a_token_that_ends_under_an_upload_is_a_retry_and_not_an_end() -> None:
    body = Bytes(b"content")
    async with guarded() as (registry, server), world() as w:
        registry.expire_on = "PUT"
        await w.sink(server.host).push(BLOB, body)
    assert len(server.asked("PUT")) == 2
    assert body.opened == [0, 0]
    assert registry.given == 2


async def test_a_mount_asks_for_both_scopes_the_target_s_first() -> None:
    async with guarded() as (_, server), world() as w:
        await w.sink(server.host, "app").mount(BLOB, Site(server.host, "origin/app"))
    assert parse_qs(server.asked("GET")[0].partition("?")[2])["scope"] == [
        "repository:app:pull,push",
        "repository:origin/app:pull",
    ]


async def test_a_login_goes_to_the_realm_as_basic_and_never_to_the_registry() -> None:
    async with guarded() as (_, server), world(JOE) as w:
        await w.source(server.host).has(BLOB)
    assert [each.headers.get("Authorization") for each in server.seen] == [None, BASIC, "Bearer t1"]


async def test_an_identity_token_is_changed_for_a_token_by_the_oauth2_form() -> None:
    async with guarded() as (_, server), world(Credentials(identity_token="idtok")) as w:
        await w.source(server.host).has(BLOB)
    form = server.seen[1]
    assert (form.method, form.target) == ("POST", "/token")
    assert {key: value[0] for key, value in parse_qs(form.body.decode()).items()} == {
        "grant_type": "refresh_token",
        "service": "svc",
        "client_id": "blobflow",
        "scope": "repository:app:pull",
        "refresh_token": "idtok",
    }


@pytest.mark.parametrize(
    ("login", "ways"),
    [
        (None, [("GET", None)]),
        (JOE, [("GET", BASIC)]),
        (Credentials(identity_token="idtok"), [("POST", None)]),
        (Credentials("joe", "secret", identity_token="idtok"), [("POST", None), ("GET", BASIC)]),
    ],
)
def test_a_login_says_in_which_ways_a_token_is_asked_for(
    login: Credentials | None, ways: list[tuple[str, str | None]]
) -> None:
    asked = token_requests(URL("https://auth.example/token"), "svc", ["repository:app:pull"], login)
    assert [("POST" if each.form else "GET", each.authorization) for each in asked] == ways
    assert "secret" not in repr(asked) and "idtok" not in repr(asked)


def test_a_service_of_bytes_that_are_no_text_is_given_back_as_it_came() -> None:
    service = b"caf\xe9".decode("utf-8", "surrogateescape")  # as headers are read
    login = Credentials("joe", "secret", identity_token="idtok")
    form, basic = token_requests(URL("https://auth.example/token"), service, [], login)
    assert form.form is not None and b"service=caf%E9&" in form.form
    assert basic.url.raw_query_string == "service=caf%E9"


async def test_a_registry_that_wants_basic_gets_the_login_with_each_request() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Authorization") == BASIC:
            return web.Response()
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    async with scripted_server(handler) as server, world(JOE) as w:
        assert await w.source(server.host).has(BLOB)
        assert await w.source(server.host, "b").has(BLOB)
    assert [each.headers.get("Authorization") for each in server.seen] == [None, BASIC, BASIC]


@pytest.mark.parametrize(
    ("challenge", "credentials", "words", "requests"),
    [
        ('Basic realm="r"', None, "wants a login, and there is none; run `blobflow login", 1),
        ('Basic realm="r"', JOE, "does not accept the login of 'joe'", 2),
        ("Negotiate", JOE, r"of a kind that blobflow does not know \(negotiate\)", 1),
        ("", JOE, "check the credentials", 1),
        ("Bearer service=x", None, "of a kind that blobflow does not know", 1),
    ],
)
async def test_no_way_in_is_one_sentence_and_few_requests(
    challenge: str, credentials: Credentials | None, words: str, requests: int
) -> None:
    handler = answers(lambda: web.Response(status=401, headers={"WWW-Authenticate": challenge}))
    async with scripted_server(handler) as server, world(credentials) as w:
        with pytest.raises(Unauthorized, match=words):
            await w.source(server.host).has(BLOB)
    assert len(server.seen) == requests


async def test_each_repository_is_entered_with_its_own_login() -> None:
    async def login(repository: str) -> Credentials | None:
        return Credentials(repository, "secret") if repository != "open" else None

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        repository = request.path.split("/")[2]
        expected = "Basic " + base64.b64encode(f"{repository}:secret".encode()).decode()
        if request.headers.get("Authorization") == expected:
            return web.Response(headers={"Content-Length": str(BLOB.size)})
        return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})

    async with scripted_server(handler) as server, world(login) as w:
        assert await w.source(server.host, "one").has(BLOB)
        assert await w.source(server.host, "two").has(BLOB)
        with pytest.raises(Unauthorized, match="there is none"):
            await w.source(server.host, "open").has(BLOB)
    assert len(server.seen) == 2 + 1 + 1  # one 401 for all that have a login


async def test_a_token_is_asked_for_with_the_login_of_the_repository_that_is_written_to() -> None:
    async def login(repository: str) -> Credentials | None:
        return Credentials(repository, "secret")

    async with guarded() as (_, server), world(login) as w:
        await w.sink(server.host, "team/app").mount(BLOB, Site(server.host, "other"))
    tokens = [seen for seen in server.seen if seen.target.startswith("/token")]
    assert "scope=repository%3Aother%3Apull" in tokens[0].target
    assert {each.headers["Authorization"] for each in tokens} == {Credentials("team/app", "secret").basic}


@pytest.mark.parametrize(("password", "gets"), [("secret", 1), ("", 0)])
async def test_a_token_server_that_knows_no_post_is_asked_by_get_where_there_is_a_password(
    password: str, gets: int
) -> None:
    login = Credentials("joe", password, identity_token="refresh")
    async with guarded() as (registry, server), world(login) as w:
        registry.stumbles = [404]
        if gets:
            assert await w.source(server.host).has(BLOB)
        else:
            with pytest.raises(Unauthorized, match="for a token, which has none there"):
                await w.source(server.host).has(BLOB)
    assert [len(server.asked("POST")), len(server.asked("GET"))] == [1, gets]


@pytest.mark.parametrize(
    ("login", "words"),
    [
        (JOE, "does not accept the login of 'joe'"),
        (Credentials(identity_token="refresh"), "does not accept the identity token kept for it"),
        (Credentials("<token>", identity_token="refresh"), "does not accept the identity token kept for it"),
        (None, "wants a valid login for a token"),
    ],
)
async def test_a_token_server_that_refuses_a_login_is_told_of_as_a_registry_that_does(
    login: Credentials | None, words: str
) -> None:
    async with guarded() as (registry, server), world(login) as w:
        registry.stumbles = [401]
        with pytest.raises(Unauthorized, match=f"^{server.host} {words}") as caught:
            await w.source(server.host).has(BLOB)
    assert (caught.value.status, len(server.seen)) == (401, 2)
    assert "refresh" not in str(caught.value) and "secret" not in str(caught.value)


async def test_a_token_server_that_stumbles_is_asked_again() -> None:
    async with guarded() as (registry, server), world() as w:
        registry.stumbles = [500, 503]
        assert await w.source(server.host).has(BLOB)
    assert len(server.asked("GET")) == 3
    assert len(w.clock.slept) == 2


async def test_a_realm_may_not_be_a_metadata_address() -> None:
    async with guarded(realm="http://169.254.169.254/token") as (_, server), world(JOE) as w:
        with pytest.raises(ProtocolViolation, match="no registry"):
            await w.source(server.host).has(BLOB)
    assert len(server.seen) == 1


async def test_secrets_are_in_no_event_and_no_error() -> None:
    async with guarded() as (registry, server), world(JOE) as w:
        await w.source(server.host).has(BLOB)
        registry.valid.clear()
        await w.source(server.host).has(BLOB)
        told = repr(w.events)
    for secret in ("secret", "t1", BASIC, "scope="):
        assert secret not in told
