"""The embedded registry among strangers: logins, TLS, pull only, limits, and clients that stand still."""

from __future__ import annotations

import asyncio
import base64
import logging
import resource
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pytest
import uvloop
from aiohttp import ClientSession

from blobflow.errors import InvalidConfig
from blobflow.events import Event
from blobflow.oci import digest_of
from blobflow.server import (
    AccessRecord,
    Certificate,
    Logins,
    Server,
    SocketBodyTransport,
    make_app,
    tls_context,
)
from blobflow.server.http.connections import max_connections
from blobflow.server.http.listener import MAX_HEADER
from blobflow.transports.store import Store
from tests.contract.server.client import (
    BLOB,
    DIGEST,
    REPO,
    push,
    pushed_image,
    refusal,
    start,
    status_of,
)
from tests.deadlines import HANGS_AFTER
from tools.certificates import self_signed

Serving = Callable[..., AbstractAsyncContextManager[ClientSession]]


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


ANN = basic("ann", "s3cret")


def users() -> Logins:
    return Logins({"ann": bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4))})


@pytest.fixture
def serving(registry_store: Store) -> Serving:
    @asynccontextmanager
    async def serving(auth: dict[str, str] | None = None, **rules: Any) -> AsyncIterator[ClientSession]:
        async with (
            Server(make_app(registry_store, **rules)) as server,
            ClientSession(server.url, headers=auth) as client,
        ):
            yield client

    return serving


# Logins

EVERYWHERE = [
    ("GET", "/v2/"),
    ("GET", "/v2/_catalog"),
    ("GET", f"{REPO}/tags/list"),
    ("GET", f"{REPO}/manifests/1.0"),
    ("HEAD", f"{REPO}/blobs/{DIGEST}"),
    ("POST", f"{REPO}/blobs/uploads/"),
    ("PATCH", f"{REPO}/blobs/uploads/x"),
    ("PUT", f"{REPO}/manifests/1.0"),
    ("DELETE", f"{REPO}/manifests/1.0"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
@pytest.mark.parametrize("auth", [{}, basic("ann", "guess"), basic("nobody", "s3cret")])
async def test_nobody_comes_in_without_a_right_login(
    serving: Serving, method: str, path: str, auth: dict[str, str]
) -> None:
    """Nor learns what is here; the answer challenges for Basic, with the spec's error body."""
    async with serving(auth, logins=users()) as client, client.request(method, path) as answer:
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="blobflow", charset="UTF-8"'
        if method == "HEAD":
            assert answer.status == 401
        else:
            assert await refusal(answer) == (401, "UNAUTHORIZED")


async def test_a_right_login_pushes_and_pulls(serving: Serving) -> None:
    async with serving(ANN, logins=users()) as client:
        raw = await pushed_image(client)
        async with client.get(f"{REPO}/manifests/1.0") as answer:
            assert await answer.read() == raw


async def test_no_login_is_logged(registry_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    told: list[AccessRecord] = []
    caplog.set_level(logging.DEBUG)
    app = make_app(registry_store, logins=users(), observe=told.append)
    async with Server(app) as server, ClientSession(server.url, headers=ANN) as client:
        await push(client, BLOB)
        for garbled in (b"Authorization: Basic s3cret\x00\r\n", b"Authorization\x01: s3cret\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + garbled + b"\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
            writer.close()
    assert told
    assert "s3cret" not in repr(told) + caplog.text


# Pull only


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{REPO}/blobs/uploads/"),
        ("POST", f"{REPO}/blobs/uploads/?mount={DIGEST}&from=team/app"),
        ("PATCH", f"{REPO}/blobs/uploads/x"),
        ("PUT", f"{REPO}/blobs/uploads/x?digest={DIGEST}"),
        ("DELETE", f"{REPO}/blobs/uploads/x"),
        ("PUT", f"{REPO}/manifests/2.0"),
        ("DELETE", f"{REPO}/manifests/1.0"),
        ("DELETE", f"{REPO}/blobs/{DIGEST}"),
    ],
)
async def test_a_read_only_registry_changes_nothing(serving: Serving, method: str, path: str) -> None:
    async with serving() as client:
        raw = await pushed_image(client)
    async with serving(read_only=True) as client:
        async with client.request(method, path) as answer:
            assert await refusal(answer) == (405, "UNSUPPORTED")
            assert answer.headers["Allow"] == "GET, HEAD"
        async with client.get(f"{REPO}/manifests/1.0") as answer:
            assert await answer.read() == raw
        assert await status_of(client, f"{REPO}/blobs/{DIGEST}") == 200
        assert await status_of(client, f"{REPO}/tags/list", "GET") == 200


# Limits


@pytest.mark.parametrize("form", ["post", "put", "patch", "stream", "second chunk"])
async def test_a_blob_that_is_too_large_is_refused_in_every_form(
    serving: Serving, registry_store: Store, form: str
) -> None:
    params = {"digest": DIGEST}

    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(BLOB), 10_000):
            yield BLOB[at : at + 10_000]

    async with serving(max_blob_size=len(BLOB) - 1) as client:
        location = await start(client)
        match form:
            case "post":
                answer = await client.post(f"{REPO}/blobs/uploads/", params=params, data=BLOB)
            case "put":
                answer = await client.put(location, params=params, data=BLOB)
            case "patch":
                answer = await client.patch(location, data=BLOB)
            case "stream":
                answer = await client.patch(location, data=stream())
            case _:
                await (await client.patch(location, data=BLOB[:-1])).read()
                answer = await client.patch(location, data=BLOB[-1:])
        async with answer:
            assert await refusal(answer) == (413, "SIZE_INVALID")
    assert not list(registry_store.paths.partials.iterdir())
    assert registry_store.blobs.size_of(digest_of(BLOB)) is None


async def test_a_blob_of_just_the_limit_is_taken(serving: Serving) -> None:
    async with serving(max_blob_size=len(BLOB)) as client:
        assert await push(client, BLOB) == DIGEST


@pytest.mark.parametrize("head", [b"GET /v2/" + b"a" * 9000, b"GET /v2/ HTTP/1.1\r\nX: " + b"a" * MAX_HEADER])
async def test_headers_have_a_size(serving: Serving, head: bytes) -> None:
    async with serving() as client:
        url = client._build_url("/")
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(head + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
        writer.close()


# Clients that stand still


@asynccontextmanager
async def patient(store: Store, stall: float) -> AsyncIterator[tuple[Server, asyncio.StreamReader, Any]]:
    app = make_app(store, body_transport=SocketBodyTransport(stall=stall))
    async with Server(app, stall=stall, grace=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        yield server, reader, writer
        writer.close()


@pytest.mark.parametrize("head", [b"", b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET /v2/ HTT"])
@pytest.mark.parametrize("before", [b"", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_headers_that_stand_still_end(registry_store: Store, before: bytes, head: bytes) -> None:
    async with patient(registry_store, 0.1) as (_, reader, writer):
        writer.write(before)
        if before:
            assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200 ")
        writer.write(head)
        assert await reader.read() == b""


async def test_headers_that_trickle_have_so_long_in_all(registry_store: Store) -> None:
    async with patient(registry_store, 0.1) as (_, reader, writer):
        writer.write(b"GET /v2/ HTTP/1.1\r\nX-Slow: ")
        gone = asyncio.create_task(reader.read())
        while not gone.done():
            writer.write(b"a")
            await asyncio.wait((gone,), timeout=0.02)
        assert gone.exception() is not None or gone.result() == b""


async def test_a_body_that_stands_still_is_dropped_and_its_bytes_kept(registry_store: Store) -> None:
    async with patient(registry_store, 0.05) as (server, reader, writer), ClientSession(server.url) as client:
        location = await start(client)
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BLOB)}\r\n\r\n"
        writer.write(head.encode() + BLOB[:1000])
        assert await reader.read() == b""
        async with client.get(location) as answer:
            assert answer.headers["Range"] == "0-999"
        async with client.put(location, params={"digest": DIGEST}, data=BLOB[1000:]) as answer:
            assert answer.status == 201


def test_an_answer_that_nobody_takes_is_dropped(tmp_path: Path) -> None:
    """By the kernel (TCP_USER_TIMEOUT), with each of the two loops."""
    large = bytes(64 * 1024 * 1024)  # more than both sockets' buffers

    async def hold(root: Path) -> None:
        ended = asyncio.Event()
        store = Store.open(root)
        store.blobs.write_small(large, digest_of(large))
        store.repositories.add("team/app", digest_of(large))
        app = make_app(store, observe=lambda access: ended.set())
        async with Server(app, stall=0.1, grace=30) as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
            writer.write(f"GET {REPO}/blobs/{digest_of(large)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            async with asyncio.timeout(HANGS_AFTER):
                await ended.wait()
            writer.close()
        store.close()

    for name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(hold(tmp_path / name))


# TLS


async def test_blobs_go_both_ways_over_tls(registry_store: Store, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=certificate)
    connector = aiohttp.TCPConnector(ssl=trust)
    async with (
        Server(make_app(registry_store, logins=users()), tls=tls_context(certificate)) as server,
        ClientSession(server.url, connector=connector, headers=ANN) as client,
    ):
        assert server.url.startswith("https://127.0.0.1:")
        await push(client, BLOB)
        async with client.get(f"{REPO}/blobs/{DIGEST}", headers={"Range": "bytes=5-"}) as answer:
            assert await answer.read() == BLOB[5:]


async def test_a_certificate_that_is_read_again_is_shown_from_then_on(
    registry_store: Store, certificate: Path, tmp_path: Path
) -> None:
    files = tmp_path / "both.pem"
    files.write_bytes(certificate.read_bytes())
    new = self_signed(tmp_path / "new")
    kept = Certificate(files)

    async def trusted(client: ClientSession, by: Path) -> bool:
        context = ssl.create_default_context(cafile=by)
        try:
            async with client.get("/v2/", ssl=context, headers={"Connection": "close"}) as answer:
                return answer.status == 200
        except aiohttp.ClientConnectorCertificateError:
            return False

    async with (
        Server(make_app(registry_store), tls=kept.context) as server,
        ClientSession(server.url) as client,
    ):
        assert await trusted(client, certificate)
        for text in (b"no certificate", certificate.read_bytes() + new.cert.read_bytes()[:100]):
            files.write_bytes(text)
            with pytest.raises(InvalidConfig):
                kept.reread()
            assert await trusted(client, certificate)
        files.write_bytes(new.key.read_bytes() + new.cert.read_bytes())
        kept.reread()
        assert await trusted(client, new.cert)
        assert not await trusted(client, certificate)


async def test_plain_http_to_a_tls_port_is_no_answer(registry_store: Store, certificate: Path) -> None:
    async with Server(make_app(registry_store), tls=tls_context(certificate)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in await reader.read()
        writer.close()


def test_certificates_that_can_not_be_used_are_told_by_file(certificate: Path, tmp_path: Path) -> None:
    none, text, locked = tmp_path / "none.pem", tmp_path / "text.pem", tmp_path / "locked.pem"
    text.write_text("not a certificate")
    subprocess.run(
        ["openssl", "ec", "-in", certificate, "-out", locked, "-aes128", "-passout", "pass:s3cret"],
        check=True,
        capture_output=True,
    )
    for arguments, said in (
        ((none,), f"can't read {none}: No such file"),
        ((certificate, none), f"can't read {none}: No such file"),
        ((text,), f"{text} is no certificate"),
        ((certificate, text), f"with the key of {text}"),
        ((certificate.with_suffix(".crt"),), "is no certificate (PEM) with the key of"),
        ((certificate, locked), "the key may not be encrypted"),
    ):
        with pytest.raises(InvalidConfig) as caught:
            tls_context(*arguments)
        assert said in caught.value.message


# Sessions


async def test_who_opens_too_many_sessions_loses_own_empty_ones_and_nobody_elses(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.upload_sessions.MAX_SESSIONS_OF_OWNER", 3)
    logins = Logins({name: bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)) for name in ("ann", "joe")})
    async with serving(ANN, logins=logins) as ann:
        joe = basic("joe", "s3cret")
        async with ann.post(f"{REPO}/blobs/uploads/", headers=joe) as answer:
            joes = answer.headers["Location"]
        begun = await start(ann)
        async with ann.patch(begun, data=BLOB[:10]) as answer:
            assert answer.status == 202
        opened = [await start(ann) for _ in range(5)]
        found = [await status_of(ann, location, "GET") for location in (joes, begun, *opened)]
    assert found == [204, 204, 404, 404, 404, 204, 204]


async def test_a_thousand_begun_uploads_hold_no_descriptor_and_nobody_up(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.upload_sessions.MAX_SESSIONS_OF_OWNER", 20)
    async with serving() as client:
        await push(client, BLOB)
        before = len(list(Path("/dev/fd").iterdir()))
        for count in range(1, 31):
            async with client.patch(await start(client), data=b"x" * count) as answer:
                assert answer.status == 202
        assert len(list(Path("/dev/fd").iterdir())) - before < 10
        assert (await pushed_image(client)) is not None


async def test_uploads_under_way_are_never_taken_for_new_ones(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.upload_sessions.MAX_SESSIONS_OF_OWNER", 1)
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield BLOB[:10]
        await go_on.wait()
        yield BLOB[10:]

    async with serving() as client:
        location = await start(client)
        going = asyncio.create_task(client.put(location, params={"digest": DIGEST}, data=body()).__aenter__())
        while not await _arrived(client, location):
            pass
        async with client.post(f"{REPO}/blobs/uploads/") as answer:
            assert await refusal(answer) == (429, "TOOMANYREQUESTS")
        go_on.set()
        async with await going as answer:
            assert answer.status == 201


async def _arrived(client: ClientSession, location: str) -> bool:
    async with client.get(location) as answer:
        return answer.headers["Range"] == "0-9"


async def test_who_holds_most_connections_makes_room_for_others(registry_store: Store) -> None:
    told: list[Event] = []
    async with Server(make_app(registry_store), most=24, observer=told.append) as server:
        held = [
            await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
            for _ in range(8)
        ]
        async with ClientSession(server.url) as client:
            assert await status_of(client, "/v2/", "GET") == 200
            for _ in range(60):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port, local_addr=("127.0.0.2", 0)
                )
                writer.write(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
                held.append((reader, writer))
                assert await status_of(client, "/v2/", "GET") == 200
            assert (await pushed_image(client)) is not None
        for _ in range(16):  # connections of others' are made, too, however many that one has
            async with ClientSession(server.url) as client:
                assert await status_of(client, "/v2/", "GET") == 200
        for _, writer in held:
            writer.transport.abort()
    assert [str(event).count("from 127.0.0.2 are closed") for event in told] == [1]


def test_there_is_room_for_connections_that_have_a_file_open_each(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, room in ((256, 48), (1024, 192), (65_536, 12_288), (resource.RLIM_INFINITY, 60_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        assert max_connections() == room
