"""The embedded registry with access rules: who may do what, and that a denial tells nothing."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import bcrypt
import pytest
from aiohttp import ClientSession

from blobflow.content import SourceAt
from blobflow.oci import digest_of
from blobflow.server import (
    AccessRecord,
    AccessRules,
    Logins,
    PullThroughCache,
    Server,
    Upstreams,
    catalog,
    make_app,
    parse_access,
    parse_upstream,
)
from blobflow.transports.store import Store
from tests.contract.server.client import (
    ABSENT,
    BLOB,
    DIGEST,
    push,
    pushed_image,
    put,
    refusal,
    start,
    status_of,
)

HASH = bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4))
USERS = ("ann", "ci-1", "bob", "pusher")
RULES = """
[[allow]]
who = "ann"
repositories = "**"
do = ["pull", "push", "delete"]

[[allow]]
who = "ci-*"
repositories = ["team/**", "mine/*"]
do = ["pull", "push"]

[[allow]]
who = "pusher"
repositories = ["mine/*"]
do = "push"

[[allow]]
who = "anonymous"
repositories = "public/**"
do = "pull"
"""
PRIVATE = "/v2/secret/app"
Serving = Callable[..., AbstractAsyncContextManager[str]]


def basic(user: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:s3cret".encode()).decode()}


def as_(url: str, user: str = "") -> ClientSession:
    """A client with a login, or without."""
    return ClientSession(url, headers=basic(user) if user else {})


@pytest.fixture
def serving(registry_store: Store) -> Serving:
    @asynccontextmanager
    async def serving(
        text: str = RULES, *, users: tuple[str, ...] = USERS, **more: Any
    ) -> AsyncIterator[str]:
        logins = Logins(dict.fromkeys(users, HASH)) if users else None
        access = AccessRules(parse_access(text, "F"))
        app = make_app(registry_store, logins=logins, access=access, **more)
        async with Server(app) as server:
            yield server.url

    return serving


# What is allowed


async def test_each_does_what_the_rules_say(serving: Serving) -> None:
    async with serving() as url, as_(url, "ann") as ann, as_(url, "ci-1") as ci, as_(url) as anybody:
        for repo in ("/v2/team/app", "/v2/public/app", PRIVATE):
            await pushed_image(ann, repo=repo)
        await pushed_image(ci, "2.0", repo="/v2/team/app")
        for client, repo, expected in (
            (ci, "/v2/team/app", 200),
            (ci, "/v2/public/app", 200),
            (ci, PRIVATE, 403),
            (anybody, "/v2/public/app", 200),
            (anybody, "/v2/team/app", 401),
        ):
            for path in ("manifests/1.0", f"blobs/{DIGEST}", "tags/list", f"referrers/{DIGEST}"):
                assert await status_of(client, f"{repo}/{path}", "GET") == expected, path
        assert await status_of(ci, "/v2/team/app/manifests/2.0", "DELETE") == 403
        assert await status_of(ann, "/v2/team/app/manifests/2.0", "DELETE") == 202
        assert await status_of(ci, f"/v2/team/app/blobs/{DIGEST}", "DELETE") == 403
        assert await status_of(ann, f"/v2/team/app/blobs/{DIGEST}", "DELETE") == 202


async def test_to_push_alone_is_to_push_alone(serving: Serving) -> None:
    async with serving() as url, as_(url, "pusher") as pusher:
        await pushed_image(pusher, repo="/v2/mine/app")
        assert await status_of(pusher, "/v2/mine/app/manifests/1.0") == 403
        location = await start(pusher, "/v2/mine/app")
        assert await status_of(pusher, location, "GET") == 204
        assert await status_of(pusher, location, "DELETE") == 204


# What is denied

REQUESTS = [
    ("GET", "manifests/1.0"),
    ("HEAD", "manifests/1.0"),
    ("GET", "manifests/{manifest}"),
    ("GET", "blobs/{blob}"),
    ("HEAD", "blobs/{blob}"),
    ("GET", "tags/list"),
    ("GET", "tags/list?n=1&last=0"),
    ("GET", "referrers/{manifest}"),
    ("PUT", "manifests/1.0"),
    ("DELETE", "manifests/1.0"),
    ("DELETE", "blobs/{blob}"),
    ("POST", "blobs/uploads/"),
    ("POST", "blobs/uploads/?digest={blob}"),
    ("POST", "blobs/uploads/?mount={blob}&from=public/app"),
    ("GET", "blobs/uploads/{session}"),
    ("PATCH", "blobs/uploads/{session}"),
    ("PUT", "blobs/uploads/{session}?digest={blob}"),
    ("DELETE", "blobs/uploads/{session}"),
]


async def answered(client: ClientSession, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    async with client.request(method, path) as answer:
        headers = {key: value for key, value in answer.headers.items() if key != "Date"}
        return answer.status, headers, await answer.read()


@pytest.mark.parametrize(("method", "path"), REQUESTS)
@pytest.mark.parametrize(("user", "expected"), [("", (401, "UNAUTHORIZED")), ("bob", (403, "DENIED"))])
async def test_a_denial_is_the_same_whether_there_is_something_or_not(
    serving: Serving, user: str, expected: tuple[int, str], method: str, path: str
) -> None:
    async with serving() as url, as_(url, "ann") as ann, as_(url, user) as other:
        raw = await pushed_image(ann, repo=PRIVATE)
        session = (await start(ann, PRIVATE)).rpartition("/")[2]
        there = path.format(manifest=digest_of(raw), blob=DIGEST, session=session)
        absent = path.format(manifest=ABSENT, blob=ABSENT, session="0" * 32)
        answers = [
            await answered(other, method, f"{PRIVATE}/{there}"),
            await answered(other, method, f"{PRIVATE}/{absent}"),
            await answered(other, method, f"/v2/secret/none/{absent}"),
        ]
        assert answers[1:] == answers[:1] * 2
        status, headers, body = answers[0]
        assert status == expected[0]
        assert ("WWW-Authenticate" in headers) == (not user)
        if method != "HEAD":
            assert json.loads(body)["errors"][0]["code"] == expected[1]
        # Nothing was done, either.
        assert await status_of(ann, f"{PRIVATE}/blobs/{DIGEST}") == 200
        assert await status_of(ann, f"{PRIVATE}/manifests/1.0") == 200
        assert await status_of(ann, f"{PRIVATE}/blobs/uploads/{session}", "GET") == 204


async def test_a_session_is_of_its_repository_alone(serving: Serving) -> None:
    async with serving() as url, as_(url, "ann") as ann, as_(url, "ci-1") as ci:
        session = (await start(ann, PRIVATE)).rpartition("/")[2]
        answers = [
            await answered(ci, "GET", f"/v2/team/app/blobs/uploads/{name}") for name in (session, "0" * 32)
        ]
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


async def test_a_mount_needs_pull_at_its_origin_and_else_is_one_that_can_not_be_done(
    serving: Serving,
) -> None:
    async with serving() as url, as_(url, "ann") as ann, as_(url, "ci-1") as ci:
        for repo in ("/v2/team/app", "/v2/public/app", PRIVATE):
            await push(ann, BLOB, repo)
        for origin, status in (("team/app", 201), ("public/app", 201), ("secret/app", 202), ("none", 202)):
            name = origin.replace("/", "-")
            path = f"/v2/mine/{name}/blobs/uploads/"
            async with ci.post(path, params={"mount": DIGEST, "from": origin}) as answer:
                assert answer.status == status
            assert await status_of(ci, f"/v2/mine/{name}/blobs/{DIGEST}") == (200 if status == 201 else 404)


async def test_a_wrong_login_is_not_taken_for_none(serving: Serving) -> None:
    wrong = {"Authorization": "Basic " + base64.b64encode(b"ann:guess").decode()}
    async with serving() as url, as_(url) as anybody:
        async with anybody.get("/v2/", headers=wrong) as answer:
            assert await refusal(answer) == (401, "UNAUTHORIZED")
        assert await status_of(anybody, "/v2/") == 200


# Where there is no repository

ONLY_LOGINS = '[[allow]]\nwho = "*"\nrepositories = "team/**"\ndo = "pull"\n'
ONLY_PUSH = '[[allow]]\nwho = "anonymous"\nrepositories = "drop/**"\ndo = "push"\n'


@pytest.mark.parametrize(
    ("text", "user", "expected"),
    [
        (RULES, "", {"/v2/": 200, "/v2/_catalog": 200, "/": 200, "/metrics": 401, "/healthz": 200}),
        (RULES, "bob", {"/v2/": 200, "/v2/_catalog": 200, "/": 200, "/metrics": 200, "/healthz": 200}),
        (ONLY_LOGINS, "", {"/v2/": 401, "/v2/_catalog": 401, "/": 401, "/metrics": 401, "/healthz": 200}),
        (ONLY_LOGINS, "bob", {"/v2/": 200, "/v2/_catalog": 200, "/": 200}),
        (ONLY_PUSH, "", {"/v2/": 200, "/v2/_catalog": 401, "/": 401, "/metrics": 401, "/healthz": 200}),
        ("ask_for_login = true\n" + RULES, "", {"/v2/": 401, "/v2/_catalog": 200, "/": 200}),
        ("ask_for_login = true\n" + RULES, "bob", {"/v2/": 200}),
    ],
)
async def test_what_is_no_repository_is_open_as_far_as_the_rules_go(
    serving: Serving, text: str, user: str, expected: Mapping[str, int]
) -> None:
    async with serving(text) as url, as_(url, user) as client:
        assert {path: await status_of(client, path, "GET") for path in expected} == expected
        nowhere = 404 if expected["/v2/"] == 200 or "ask" in text else 401
        assert await status_of(client, "/nowhere", "GET") == nowhere


async def test_a_login_without_name_and_password_is_none(serving: Serving) -> None:
    """podman and skopeo send that where they have no login and /v2/ asks for one."""
    nobody = {"Authorization": "Basic " + base64.b64encode(b":").decode()}
    half = {"Authorization": "Basic " + base64.b64encode(b":s3cret").decode()}
    async with serving("ask_for_login = true\n" + RULES) as url, as_(url, "ann") as ann, as_(url) as client:
        await pushed_image(ann, repo="/v2/public/app")
        for path, expected in (
            ("/v2/", 401),
            ("/v2/public/app/manifests/1.0", 200),
            ("/v2/team/app/manifests/1.0", 401),
        ):
            async with client.get(path, headers=nobody) as answer:
                assert answer.status == expected, path
        for wrong in (half, {"Authorization": "Basic"}):
            async with client.get("/v2/public/app/manifests/1.0", headers=wrong) as answer:
                assert answer.status == 401
    async with (
        serving(ONLY_LOGINS) as url,
        as_(url) as client,
        client.get("/v2/team/app/manifests/1.0", headers=nobody) as answer,
    ):
        assert await refusal(answer) == (401, "UNAUTHORIZED")


async def test_without_logins_all_are_anonymous_and_no_login_is_asked_for(serving: Serving) -> None:
    async with serving(users=()) as url, as_(url) as anybody:
        assert await status_of(anybody, "/v2/") == 200
        assert await status_of(anybody, "/metrics", "GET") == 200
        assert await status_of(anybody, "/v2/public/app/tags/list", "GET") == 404
        async with anybody.get("/v2/team/app/tags/list") as answer:
            assert await refusal(answer) == (403, "DENIED")
            assert "WWW-Authenticate" not in answer.headers


async def test_rules_that_change_hold_for_the_next_request(registry_store: Store) -> None:
    rules = AccessRules(parse_access(RULES, "F"))
    app = make_app(registry_store, logins=Logins({"ci-1": HASH}), access=rules)
    async with Server(app) as server, as_(server.url, "ci-1") as ci:
        await push(ci, BLOB, "/v2/team/app")
        rules.replace(parse_access(ONLY_PUSH, "F"))
        assert await status_of(ci, f"/v2/team/app/blobs/{DIGEST}") == 403


async def test_the_access_log_names_who_was_let_in_also_if_denied(serving: Serving) -> None:
    told: list[AccessRecord] = []
    async with serving(observe=told.append) as url, as_(url, "bob") as bob, as_(url) as anybody:
        await status_of(bob, f"{PRIVATE}/tags/list", "GET")
        await status_of(anybody, f"{PRIVATE}/tags/list", "GET")
    assert [(access.user, access.status) for access in told] == [("bob", 403), ("", 401)]


# Lists

NAMES = [
    "a",
    "mine/x",
    "mine/y/z",
    "public",
    "public/a",
    "public/b",
    "team",
    "team/a",
    "team/b",
    "team/c/d",
    "z",
]


async def filled(url: str) -> None:
    async with as_(url, "ann") as ann:
        for name in NAMES:
            await push(ann, name.encode(), f"/v2/{name}")


async def pages(client: ClientSession, path: str) -> list[list[str]]:
    """The catalog's pages, by its Links."""
    found = []
    while path:
        async with client.get(path) as answer:
            assert answer.status == 200
            found.append((await answer.json())["repositories"])
            link = answer.headers.get("Link", "")
            path = link.partition("<")[2].partition(">")[0]
    return found


@pytest.mark.parametrize("batch", [1, 2, 500])
async def test_the_catalog_shows_what_may_be_pulled_page_by_page(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(catalog, "_BATCH", batch)
    async with serving() as url:
        await filled(url)
        mine = ["mine/x", "public/a", "public/b", "team/a", "team/b", "team/c/d"]
        for user, names in (
            ("ann", NAMES),
            ("ci-1", mine),
            ("", ["public/a", "public/b"]),
            ("bob", ["public/a", "public/b"]),
        ):
            async with as_(url, user) as client:
                assert await pages(client, "/v2/_catalog") == [names]
                by_two = [names[at : at + 2] for at in range(0, len(names), 2)]
                assert await pages(client, "/v2/_catalog?n=2") == by_two
        async with as_(url, "ci-1") as ci:
            assert await pages(ci, "/v2/_catalog?last=public/a") == [mine[2:]]
            assert await pages(ci, "/v2/_catalog?last=secret") == [mine[3:]]
            assert await pages(ci, "/v2/_catalog?last=z") == [[]]


async def test_the_page_shows_and_counts_what_may_be_pulled(serving: Serving) -> None:
    async with serving() as url, as_(url, "ann") as ann, as_(url) as anybody:
        await push(ann, b"12345", "/v2/public/app")
        await push(ann, b"12345", PRIVATE)
        await push(ann, BLOB, PRIVATE)
        async with anybody.get("/") as answer:
            text = await answer.text()
        assert "<h2>public/app</h2>" in text
        assert "secret" not in text
        assert "1 blob or manifest, 5 B</p>" in text
        assert 'id="summary"' not in text
        assert "shared" not in text
        async with ann.get("/") as answer:
            assert "<h2>secret/app</h2>" in await answer.text()


async def test_the_page_goes_on_where_it_ended_and_names_nothing_else(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.admin.overview.REPOSITORIES", 2)
    async with serving() as url, as_(url, "ci-1") as ci:
        await filled(url)
        found, path = [], "/"
        while path:
            async with ci.get(path) as answer:
                text = await answer.text()
            found.append([part.partition("</h2>")[0] for part in text.split("<h2>")[1:]])
            following = re.search(r'<a href="([^"]*)" rel="next"', text)
            path = f"/{following[1]}" if following else ""
        assert found == [["mine/x", "public/a"], ["public/b", "team/a"], ["team/b", "team/c/d"]]


# Pulled through


async def test_a_repository_that_is_pulled_through_is_named_as_it_is_here(
    serving: Serving, registry_store: Store
) -> None:
    """Also with `?ns=`, and nothing is asked of the upstream for who may not pull."""
    asked: list[object] = []

    def source_at(site: object) -> Any:
        asked.append(site)
        raise AssertionError

    source: SourceAt = source_at
    text = '[[allow]]\nwho = "*"\nrepositories = ["app", "quay/open/*"]\ndo = ["pull", "push"]\n'
    pullthrough = PullThroughCache(registry_store, Upstreams([parse_upstream("quay.io=quay")]), source)
    async with serving(text, pullthrough=pullthrough) as url, as_(url, "bob") as bob:
        for method, path in (
            ("GET", "/v2/quay/app/manifests/1"),
            ("GET", "/v2/app/manifests/1?ns=quay.io"),
            ("GET", f"/v2/app/blobs/{DIGEST}?ns=quay.io"),
            ("GET", "/v2/app/tags/list?ns=quay.io"),
            ("PUT", "/v2/quay/app/manifests/1"),
        ):
            async with bob.request(method, path) as answer:
                assert await refusal(answer) == (403, "DENIED")
        assert asked == []
        async with bob.put("/v2/open/app/manifests/1?ns=quay.io") as answer:
            assert await refusal(answer) == (405, "UNSUPPORTED")


async def test_a_subject_elsewhere_tells_nothing(serving: Serving) -> None:
    """What refers to a digest is listed by repository: not what refers to it where one may not pull."""
    async with serving() as url, as_(url, "ann") as ann, as_(url, "ci-1") as ci:
        raw = await pushed_image(ann, repo="/v2/team/app")
        await pushed_image(ann, repo=PRIVATE)
        subject = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": len(raw)}
        document = {**json.loads(raw), "subject": {**subject, "digest": digest_of(raw)}}
        assert (await put(ann, json.dumps(document).encode(), "signed", repo=PRIVATE)).status == 201
        async with ci.get(f"/v2/team/app/referrers/{digest_of(raw)}") as answer:
            assert (await answer.json(content_type=None))["manifests"] == []
        assert await status_of(ci, f"{PRIVATE}/referrers/{digest_of(raw)}", "GET") == 403
