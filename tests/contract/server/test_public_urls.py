"""The embedded registry, the URLs in its answers: for clients that take them as they are."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import UUID

import bcrypt
import pytest
from aiohttp import ClientSession, encode_basic_auth
from yarl import URL

from blobflow.oci import digest_of
from blobflow.server import AccessRecord, Logins, Server, make_app, tls_context
from blobflow.server.http.public_url import EVERYBODY, Addressing, parse_networks, parse_public_url
from blobflow.transports.store import Store
from tests.contract.server.client import (
    BLOB,
    DIGEST,
    REPO,
    image,
    push,
    put,
    refusal,
    start,
    status_of,
)

Serving = Callable[[Addressing], AbstractAsyncContextManager[ClientSession]]
PUBLIC = Addressing(parse_public_url("https://registry.example:8443/team/mirror/"))
ANY_PROXY = Addressing(proxies=EVERYBODY)


@pytest.fixture
def serving(registry_store: Store) -> Serving:
    @asynccontextmanager
    async def serve(addressing: Addressing) -> AsyncIterator[ClientSession]:
        app = make_app(registry_store, addressing=addressing)
        async with Server(app) as server, ClientSession(server.url) as client:
            yield client

    return serve


async def upload_location(client: ClientSession, headers: Mapping[str, str] | None = None) -> str:
    async with client.post(f"{REPO}/blobs/uploads/", headers=headers) as answer:
        assert answer.status == 202
        return answer.headers["Location"]


async def finish(client: ClientSession, target: str) -> int:
    """PUT to a target that goes out as it is written."""
    async with client.put(client._build_url("/").join(URL(target, encoded=True)), data=BLOB) as answer:
        return answer.status


@pytest.mark.parametrize(
    "appended",
    [
        "&digest={}",  # as where there is a query already
        "?digest={}",  # as the spec writes it
        "&digest={}&more=1",
    ],
)
async def test_a_digest_may_be_appended_to_an_uploads_location(
    registry: ClientSession, appended: str
) -> None:
    assert await finish(registry, await start(registry) + appended.format(DIGEST)) == 201
    async with registry.get(f"{REPO}/blobs/{DIGEST}") as answer:
        assert await answer.read() == BLOB


async def test_an_uploads_location_works_without_its_query_too(registry: ClientSession) -> None:
    bare, _, query = (await start(registry)).partition("?")
    assert query
    for form in (bare, f"{bare}?{query}", f"{bare}?other=1"):
        async with registry.get(form) as answer:
            assert answer.status == 204
        async with registry.patch(form, data=b"a part") as answer:
            assert answer.status == 202
    async with registry.delete(bare) as answer:
        assert answer.status == 204


async def test_every_answer_about_an_upload_names_where_it_goes_on(registry: ClientSession) -> None:
    """And the session's name is a UUID ("Pushing a blob monolithically")."""
    location = await start(registry)
    UUID(URL(location).name)
    async with registry.patch(location, data=BLOB[:10]) as answer:
        location = answer.headers["Location"]
    async with registry.get(location) as answer:
        location = answer.headers["Location"]
    async with registry.patch(location, data=BLOB, headers={"Content-Range": "99-120"}) as answer:
        assert answer.status == 416
        location = answer.headers["Location"]
    async with registry.patch(location + "&x=1", data=BLOB[10:]) as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    async with registry.put(f"{location}&digest={DIGEST}") as answer:
        assert answer.status == 201


async def test_a_public_url_is_in_front_of_every_path(serving: Serving) -> None:
    async with serving(PUBLIC) as client:
        base = f"https://registry.example:8443/team/mirror{REPO}"
        location = await upload_location(client)
        assert location.startswith(f"{base}/blobs/uploads/")
        assert "?" in location
        digest = await push(client, b"a config")
        async with client.post(f"{REPO}/blobs/uploads/", params={"digest": DIGEST}, data=BLOB) as answer:
            assert answer.headers["Location"] == f"{base}/blobs/{DIGEST}"
        async with client.post(
            f"{REPO}/blobs/uploads/", params={"mount": digest, "from": "team/app"}
        ) as answer:
            assert answer.headers["Location"] == f"{base}/blobs/{digest}"
        raw = image()
        for tag in ("a", "b", "c"):
            answer = await put(client, raw, tag)
            assert answer.headers["Location"] == f"{base}/manifests/{digest_of(raw)}"
        async with client.get(f"{REPO}/tags/list", params={"n": "1"}) as answer:
            assert answer.headers["Link"] == f'<{base}/tags/list?n=1&last=a>; rel="next"'
        async with client.get("/v2/_catalog", params={"n": "1"}) as answer:
            assert "Link" not in answer.headers


async def test_a_proxy_may_leave_the_prefix_in_the_path(serving: Serving) -> None:
    async with serving(PUBLIC) as client:
        base = f"/team/mirror{REPO}"
        async with client.post(f"{base}/blobs/uploads/", params={"digest": DIGEST}, data=BLOB) as answer:
            assert answer.status == 201
        await put(client, image(config=BLOB), "a")
        await put(client, image(config=BLOB), "b")
        async with client.get(f"{base}/tags/list", params={"n": "1"}) as answer:
            assert answer.headers["Link"].startswith(f"<https://registry.example:8443{base}/tags/list?")
        async with client.get("/team/mirror/healthz") as answer:
            assert answer.status == 200
        async with client.get("/team/mirrors/v2/") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("headers", "begins"),
    [
        ({"X-Forwarded-Proto": "https", "Host": "reg.example"}, "https://reg.example/v2/"),
        (
            {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "reg.example:444", "Host": "10.0.0.1:5000"},
            "https://reg.example:444/v2/",
        ),
        (
            {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "outer.example, inner.example"},
            "https://outer.example/v2/",
        ),
        (
            {"X-Forwarded-Prefix": "/mirror/", "X-Forwarded-Host": "reg.example"},
            "http://reg.example/mirror/v2/",
        ),
        ({"Forwarded": "for=192.0.2.1;proto=https;host=reg.example"}, "https://reg.example/v2/"),
        ({"Forwarded": 'Host="reg.example:8443";Proto=HTTPS, proto=http'}, "https://reg.example:8443/v2/"),
        (
            {"Forwarded": "proto=https;host=reg.example", "X-Forwarded-Host": "x.example"},
            "https://reg.example/",
        ),
        # What no proxy means to say is not said on.
        ({"X-Forwarded-Proto": "javascript", "X-Forwarded-Host": "reg.example"}, "http://reg.example/v2/"),
        (
            {"X-Forwarded-Prefix": "//evil.example", "X-Forwarded-Host": "reg.example"},
            "http://reg.example/v2/",
        ),
        ({"X-Forwarded-Prefix": "/a/../b", "X-Forwarded-Host": "reg.example"}, "http://reg.example/v2/"),
        ({"X-Forwarded-Host": "a b@c", "Host": "reg.example"}, "http://reg.example/v2/"),
        ({"X-Forwarded-Proto": "https", "Host": "a_b c"}, "/v2/"),
        ({"Forwarded": "proto=https;;host", "Host": "reg.example"}, "/v2/"),
    ],
)
async def test_a_trusted_proxy_says_how_clients_reach_us(
    serving: Serving, headers: dict[str, str], begins: str
) -> None:
    async with serving(ANY_PROXY) as client:
        location = await upload_location(client, headers)
        assert location.startswith(begins)
        path = begins[: -len("/v2/")] if begins.endswith("/v2/") else begins.rstrip("/")
        async with client.post(
            f"{REPO}/blobs/uploads/", params={"digest": DIGEST}, data=BLOB, headers=headers
        ) as answer:
            assert answer.headers["Location"] == f"{path}{REPO}/blobs/{DIGEST}"


@pytest.mark.parametrize(
    ("addressing", "believed"),
    [
        (Addressing(), False),
        (Addressing(proxies=parse_networks("192.0.2.0/24, 2001:db8::1")), False),
        (Addressing(proxies=parse_networks("192.0.2.7,127.0.0.0/8")), True),
    ],
)
async def test_nobody_else_is_believed(serving: Serving, addressing: Addressing, believed: bool) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "reg.example", "X-Forwarded-Prefix": "/p"}
    async with serving(addressing) as client:
        location = await upload_location(client, headers)
        assert location.startswith("https://reg.example/p/v2/" if believed else "/v2/")


async def test_a_client_on_our_own_socket_gets_a_whole_url_for_its_upload(serving: Serving) -> None:
    """Some can't resolve a path; a blob's Location they never follow."""
    async with serving(Addressing()) as client:
        port = client._build_url("/").port
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            location = await upload_location(client, {"Host": host})
            assert location.startswith(f"http://{host}{REPO}/blobs/uploads/")
        assert await finish(client, f"{location}&digest={DIGEST}") == 201
        async with client.post(f"{REPO}/blobs/uploads/", params={"digest": DIGEST}, data=BLOB) as answer:
            assert answer.headers["Location"] == f"{REPO}/blobs/{DIGEST}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "registry.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.2:{port}"},
        {"Host": "user@127.0.0.1:{port}"},
        {"Host": "127.0.0.1:{port}/x"},
        {"Host": "127.0.0.1:{port}", "Via": "1.1 proxy"},
        {"Host": "127.0.0.1:{port}", "X-Forwarded-For": "192.0.2.1"},
        {"Host": "127.0.0.1:{port}", "Forwarded": "for=192.0.2.1"},
    ],
)
async def test_who_may_have_come_through_a_proxy_gets_a_path(
    serving: Serving, headers: dict[str, str]
) -> None:
    async with serving(Addressing()) as client:
        port = client._build_url("/").port
        sent = {name: value.format(port=port) for name, value in headers.items()}
        assert (await upload_location(client, sent)).startswith(f"{REPO}/blobs/uploads/")


async def test_over_tls_a_path_is_given(registry_store: Store, certificate: Path) -> None:
    """What ends TLS before us would be named wrongly, and some clients want a path there (appendlayer)."""
    trusting = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    tls = tls_context(certificate)
    async with (
        Server(make_app(registry_store), tls=tls) as server,
        ClientSession(server.url) as client,
        client.post(f"{REPO}/blobs/uploads/", ssl=trusting) as answer,
    ):
        assert answer.headers["Location"].startswith(f"{REPO}/blobs/uploads/")


NEAR = Addressing(proxies=parse_networks("127.0.0.1, 10.0.0.0/8"))


@pytest.mark.parametrize(
    ("addressing", "headers", "client"),
    [
        (NEAR, {}, "127.0.0.1"),
        (NEAR, {"X-Forwarded-For": "192.0.2.7"}, "192.0.2.7"),
        (NEAR, {"X-Forwarded-For": "203.0.113.9, 192.0.2.7, 10.1.2.3"}, "192.0.2.7"),
        (NEAR, {"X-Forwarded-For": "10.9.9.9, 10.1.2.3"}, "10.9.9.9"),
        (NEAR, {"X-Forwarded-For": "192.0.2.7, unknown"}, "127.0.0.1"),
        (NEAR, {"X-Forwarded-For": "192.0.2.7, 10.1.2.3, <b>, 10.1.2.4"}, "10.1.2.4"),
        (NEAR, {"X-Forwarded-For": "192.0.2.7:4711"}, "192.0.2.7"),
        (NEAR, {"Forwarded": 'for="[2001:db8::7]:4711";proto=https'}, "2001:db8::7"),
        (NEAR, {"Forwarded": "for=203.0.113.9, for=192.0.2.7;by=10.0.0.1"}, "192.0.2.7"),
        (NEAR, {"Forwarded": "for=_hidden", "X-Forwarded-For": "192.0.2.7"}, "127.0.0.1"),
        (NEAR, {"Forwarded": "for=192.0.2.7", "X-Forwarded-For": "203.0.113.9, 192.0.2.7"}, "192.0.2.7"),
        # One of the two is the client's own, and a proxy that knows the other only passes it on.
        (NEAR, {"Forwarded": "for=203.0.113.9", "X-Forwarded-For": "192.0.2.7"}, "127.0.0.1"),
        (ANY_PROXY, {"Forwarded": "for=192.0.2.7", "X-Forwarded-For": "203.0.113.9"}, "127.0.0.1"),
        (ANY_PROXY, {"X-Forwarded-For": "203.0.113.9, 192.0.2.7"}, "192.0.2.7"),
        (Addressing(), {"X-Forwarded-For": "192.0.2.7", "Forwarded": "for=192.0.2.7"}, "127.0.0.1"),
        (PUBLIC, {"X-Forwarded-For": "192.0.2.7"}, "127.0.0.1"),
        (Addressing(proxies=parse_networks("10.0.0.0/8")), {"X-Forwarded-For": "192.0.2.7"}, "127.0.0.1"),
    ],
)
async def test_who_asks_is_what_trusted_proxies_have_appended(
    registry_store: Store, addressing: Addressing, headers: dict[str, str], client: str
) -> None:
    """What is before the last that they have not added, anybody can have made up."""
    seen: list[AccessRecord] = []
    app = make_app(registry_store, addressing=addressing, observe=seen.append)
    async with Server(app) as server, ClientSession(server.url, headers=headers) as asking:
        assert await status_of(asking, "/v2/", "GET") == 200
    assert [access.remote for access in seen] == [client]


async def test_one_clients_wrong_logins_hold_up_no_other_behind_the_same_proxy(
    registry_store: Store,
) -> None:
    logins = Logins({"ann": bcrypt.hashpw(b"right", bcrypt.gensalt(4))})
    wrong = {"Authorization": encode_basic_auth("ann", "wrong"), "X-Forwarded-For": "192.0.2.66"}
    right = {"Authorization": encode_basic_auth("ann", "right"), "X-Forwarded-For": "192.0.2.7"}
    app = make_app(registry_store, addressing=NEAR, logins=logins)
    async with Server(app) as server, ClientSession(server.url) as proxy:  # one connection
        async with proxy.get("/v2/", headers=wrong) as answer:
            assert answer.status == 401
        assert logins._refusals.has_failed("192.0.2.66")
        async with proxy.get("/v2/", headers=right) as answer:
            assert answer.status == 200
        assert not logins._refusals.has_failed("192.0.2.7")
        assert not logins._failed_connections


async def test_a_chunk_whose_last_byte_is_counted_one_too_high_is_taken(registry: ClientSession) -> None:
    """dockertarpusher's: `0-N` for N bytes. Only this form, and only where the chunk goes on in order."""
    location = await start(registry)
    cuts = [0, 100_000, 200_000, len(BLOB)]
    for number, end in enumerate(cuts[1:]):
        begin = cuts[number]
        last = end == len(BLOB)
        for wrong in (f"{begin + 1}-{end}", f"{begin}-{end + 1}", f"{begin}-{end - 2}"):
            async with registry.patch(
                location, data=BLOB[begin:end], headers={"Content-Range": wrong}
            ) as answer:
                assert (await refusal(answer))[0] in (400, 416)
        headers = {"Content-Range": f"{begin}-{end}"}
        async with registry.request(
            "PUT" if last else "PATCH",
            f"{location}&digest={DIGEST}" if last else location,
            data=BLOB[begin:end],
            headers=headers,
        ) as answer:
            assert answer.status == (201 if last else 202)
            if not last:
                assert answer.headers["Range"] == f"0-{end - 1}"
                location = answer.headers["Location"]
