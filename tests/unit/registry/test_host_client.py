"""One host's session: retries, the shared back-off, redirects, and foreign errors translated."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    Rejected,
    Throttled,
    Unauthorized,
    UntrustedPeer,
)
from blobflow.events import Meter, Retrying, Traced, Warned
from blobflow.transports.registry import Credentials, HostAccess, Registries
from tests.fakes.registry import Bytes, answers, blob_of, collect, scripted_server, world
from tools.certificates import self_signed
from tools.ports import reserve_port
from tools.registry.faulty import Fault, Hangup, LoseAnswer, RedirectTo, Status, journalling

CONTENT = b"content" * 1000
BLOB = blob_of(CONTENT)
HERE = {"Content-Length": str(BLOB.size)}
# What a TLS handshake begins with: after an answer that is none, a host is asked whether it speaks TLS.
TLS_HANDSHAKE = b"\x16"


async def test_a_lost_request_is_sent_again_and_told(tmp_path: Path) -> None:
    faults = [Fault("HEAD", "/blobs/", act=Hangup()), Fault("HEAD", "/blobs/", nth=2, act=LoseAnswer())]
    async with journalling(tmp_path, faults) as registry, world() as w:
        assert not await w.source(registry.host).has(BLOB)
        # aiohttp itself sends an idempotent request once more when a kept connection turns out closed.
        assert len(registry.journal) == 3
        retries = [event for event in w.events if isinstance(event, Retrying)]
        assert len(retries) == len(w.clock.slept) >= 1
        assert BLOB.digest in retries[0].what


async def test_attempts_are_counted_in_the_error() -> None:
    async with scripted_server(answers(lambda: web.Response(status=502))) as server, world() as w:
        with pytest.raises(BlobflowError, match=r"failed with 502 on .* \(after 5 attempts\)"):
            await w.source(server.host).has(BLOB)
    assert w.clock.slept == [0.375, 0.75, 1.5, 3.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
async def test_an_answer_that_time_does_not_mend_is_asked_for_once(status: int) -> None:
    async with scripted_server(answers(lambda: web.Response(status=status))) as server, world() as w:
        with pytest.raises(BlobflowError, match=server.host):
            await w.source(server.host).resolve(BLOB.digest)
    assert len([each for each in server.seen if each.method == "HEAD"]) == 1
    assert w.clock.slept == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_an_answer_that_time_may_mend_is_asked_for_again(status: int) -> None:
    handler = answers(lambda: web.Response(status=status), lambda: web.Response(headers=HERE))
    async with scripted_server(handler) as server, world() as w:
        assert await w.sink(server.host).has(BLOB)
    assert len(server.seen) == 2
    assert len(w.clock.slept) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_after_that_is_a_date_is_waited_for(status: int) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    handler = answers(
        lambda: web.Response(status=status, headers={"Retry-After": at}), lambda: web.Response(headers=HERE)
    )
    async with scripted_server(handler) as server, world() as w:
        assert await w.sink(server.host).has(BLOB)
    assert w.clock.slept == [pytest.approx(100, abs=10)]


async def test_requests_that_wait_for_a_place_while_the_host_is_held_are_held_too() -> None:
    """Ten at once at a host that takes four, of which the first is told to wait."""
    handler = answers(
        lambda: web.Response(status=429, headers={"Retry-After": "30"}), lambda: web.Response(headers=HERE)
    )
    arrived: list[float] = []

    async def timed(request: web.BaseRequest) -> web.StreamResponse:
        arrived.append(w.clock())
        return await handler(request)

    async with scripted_server(timed) as server, world(connections=2) as w:
        assert all(await asyncio.gather(*(w.sink(server.host).has(BLOB) for _ in range(10))))
    assert len(arrived) == 11
    assert sum(time >= 1030 for time in arrived) >= 11 - 4


async def test_one_429_holds_every_request_of_the_host_for_as_long_as_it_says() -> None:
    handler = answers(
        lambda: web.Response(status=429, headers={"Retry-After": "30"}), lambda: web.Response(headers=HERE)
    )
    async with (
        scripted_server(handler) as server,
        scripted_server(answers(lambda: web.Response(headers=HERE))) as other,
        world() as w,
    ):
        assert await w.source(server.host).has(BLOB)
        assert w.clock.slept == [30.0]
        await asyncio.gather(*(w.source(server.host).has(BLOB) for _ in range(3)))
        assert w.clock.slept == [30.0]
        assert await w.source(other.host).has(BLOB)


async def test_an_upload_that_is_throttled_holds_the_host_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.content.streams.SMALL_BLOB", 0)
    slow = Fault("PUT", "digest=", act=Status(429, headers={"Retry-After": "40"}))
    async with journalling(tmp_path, [slow]) as registry, world() as w:
        with pytest.raises(Throttled):
            await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        assert w.clock.slept and max(w.clock.slept) == 40.0


async def test_a_registry_that_wants_an_hour_gets_no_retry() -> None:
    handler = answers(lambda: web.Response(status=429, headers={"Retry-After": "3600"}))
    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(Throttled, match="in 3600 s"):
            await w.source(server.host).has(BLOB)
    assert len(server.seen) == 1


# redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_with_its_range_and_without_the_login(status: int) -> None:
    cdn = answers(
        lambda: web.Response(
            status=206, body=CONTENT[5:], headers={"Content-Range": f"bytes 5-{BLOB.size - 1}/{BLOB.size}"}
        )
    )
    async with scripted_server(cdn) as elsewhere:

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            if "Authorization" not in request.headers:
                return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
            return web.Response(status=status, headers={"Location": f"{elsewhere.url}/x%2Fy?sig=a%3D"})

        async with scripted_server(handler) as server, world(Credentials("joe", "secret")) as w:
            async with w.source(server.host).open(BLOB, 5) as chunks:
                assert await collect(chunks) == CONTENT[5:]
            assert not any("sig" in event.url for event in w.events if isinstance(event, Traced))
    assert elsewhere.asked() == ["GET /x%2Fy?sig=a%3D"]
    assert "Authorization" not in elsewhere.seen[0].headers
    assert elsewhere.seen[0].headers["Range"] == f"bytes=5-{BLOB.size - 1}"


async def test_a_redirect_within_the_origin_keeps_the_login() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        if request.path != "/there":
            return web.Response(status=307, headers={"Location": "/there"})
        return web.Response(headers=HERE)

    async with scripted_server(handler) as server, world(Credentials("joe", "secret")) as w:
        assert await w.source(server.host).has(BLOB)
    assert server.asked()[-1] == "HEAD /there"


async def test_a_401_from_elsewhere_is_not_answered_with_a_login() -> None:
    async with scripted_server(
        answers(lambda: web.Response(status=401, headers={"WWW-Authenticate": "Basic"}))
    ) as elsewhere:
        there = {"Location": f"{elsewhere.url}/x"}
        async with (
            scripted_server(answers(lambda: web.Response(status=307, headers=there))) as server,
            world(Credentials("joe", "secret")) as w,
        ):
            with pytest.raises(Unauthorized, match=f"{elsewhere.host} wants a valid login"):
                await w.source(server.host).has(BLOB)
    assert len(elsewhere.seen) == 1


async def test_redirects_without_end_are_left(tmp_path: Path) -> None:
    around = Fault("*", "", times=0, act=RedirectTo("{path}"))
    async with journalling(tmp_path, [around]) as registry, world() as w:
        with pytest.raises(ProtocolViolation, match="lead nowhere"):
            await w.source(registry.host).has(BLOB)
        assert len(registry.journal) == 6


@pytest.mark.parametrize("where", ["http://169.254.169.254/latest/meta-data", "http://[fd00:ec2::254]/"])
async def test_a_redirect_to_a_metadata_address_is_refused(where: str) -> None:
    handler = answers(lambda: web.Response(status=307, headers={"Location": where}))
    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="no registry"):
            await w.source(server.host).has(BLOB)


async def test_a_put_is_not_turned_into_a_get_by_a_redirect() -> None:
    handler = answers(lambda: web.Response(status=302, headers={"Location": "/x"}))
    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(ProtocolViolation):
            await w.sink(server.host).push(BLOB, Bytes(CONTENT))
    assert server.asked() == ["POST /v2/app/blobs/uploads/"]


# the wire


async def test_requests_say_who_we_are_and_want_bytes_as_they_are() -> None:
    async with scripted_server(answers(lambda: web.Response(headers=HERE))) as server, world() as w:
        await w.source(server.host).has(BLOB)
    headers = server.seen[0].headers
    assert headers["User-Agent"].startswith("blobflow")
    assert headers["Accept-Encoding"] == "identity"


async def test_cookies_are_not_kept() -> None:
    handler = answers(lambda: web.Response(headers={"Set-Cookie": "a=b", **HERE}))
    async with scripted_server(handler) as server, world() as w:
        await w.source(server.host).has(BLOB)
        await w.source(server.host).has(BLOB)
    assert all("Cookie" not in each.headers for each in server.seen)


async def test_a_warning_is_shown_once() -> None:
    headers = {"Warning": '299 - "this registry closes soon"', **HERE}
    async with scripted_server(answers(lambda: web.Response(headers=headers))) as server, world() as w:
        await w.source(server.host).has(BLOB)
        await w.source(server.host).has(BLOB)
        warnings = [event.message for event in w.events if isinstance(event, Warned)]
    assert warnings == [f"{server.host} says: this registry closes soon"]


async def test_traces_have_no_query() -> None:
    async with scripted_server(answers(lambda: web.Response(status=404))) as server, world() as w:
        await w.sink(server.host).is_empty()
        (traced,) = [event for event in w.events if isinstance(event, Traced)]
    assert (traced.method, traced.url, traced.status) == ("GET", f"{server.url}/v2/app/tags/list", 404)


async def test_an_ipv6_literal_works() -> None:
    try:
        async with (
            scripted_server(answers(lambda: web.Response(headers=HERE)), host="::1") as server,
            world() as w,
        ):
            assert await w.source(server.host).has(BLOB)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")


# what goes wrong on the way


async def test_a_host_that_refuses_is_one_sentence_after_some_tries() -> None:
    host = f"127.0.0.1:{reserve_port()}"
    async with world() as w:
        with pytest.raises(ConnectFailed, match=f"can't connect to {host}: Connection refused") as raised:
            await w.source(host).resolve("1")
    assert raised.value.attempts == 4


async def test_a_name_that_is_none_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with world() as w:
        with pytest.raises(
            ConnectFailed, match=r"can't connect to none\.invalid: Name .* check the host's name"
        ):
            await w.source("none.invalid").resolve("1")


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) != TLS_HANDSHAKE:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "127.0.0.1:" + str(server.sockets[0].getsockname()[1])


async def test_something_that_is_not_http_is_a_violation() -> None:
    async with raw_server(b"SSH-2.0-OpenSSH_9.2\r\n") as host, world() as w:
        with pytest.raises(ProtocolViolation, match=f"{host} answered .* not HTTP"):
            await w.source(host).resolve("1")


async def test_a_hang_up_without_an_answer_is_a_lost_connection() -> None:
    async with raw_server(b"") as host, world() as w:
        with pytest.raises(ConnectionLost, match=f"connection to {host} lost"):
            await w.source(host).resolve("1")


async def test_a_wrong_content_length_of_an_error_does_not_hide_it() -> None:
    """distribution 2.8 does this with 416."""
    body = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 900\r\n\r\n{"errors":[{"code":"UNSUPPORTED"}]}'
    async with raw_server(body) as host, world() as w:
        with pytest.raises(Rejected, match=r"400 \(UNSUPPORTED\)"):
            await w.source(host).read(BLOB)


async def test_tls_to_a_plain_registry_is_a_sentence_that_says_what_to_do() -> None:
    async with scripted_server(answers(web.Response)) as server, over_tls(True) as (r, _):
        with pytest.raises(
            UntrustedPeer, match=r"does not speak TLS, but most likely plain HTTP; .* --plain-http"
        ) as raised:
            await r.source(Site(server.host, "app")).resolve("1")
    assert raised.value.attempts == 1


@asynccontextmanager
async def over_tls(tls: ssl.SSLContext | bool) -> AsyncIterator[tuple[Registries, Meter]]:
    meter = Meter()
    registries = Registries(lambda host: HostAccess(scheme="https", tls=tls), meter=meter)
    try:
        yield registries, meter
    finally:
        await registries.close()


async def test_a_host_that_need_not_be_trusted_may_speak_no_tls_and_is_found_out_once() -> None:
    async with (
        scripted_server(answers(lambda: web.Response(headers=HERE))) as server,
        over_tls(False) as (r, meter),
    ):
        source = r.sink(Site(server.host, "app"))
        assert await asyncio.gather(*(source.has(BLOB) for _ in range(3))) == [True] * 3
        assert await r.sink(Site(server.host, "b")).has(BLOB)
        assert meter.requests == len(server.seen)  # a handshake that failed is no request
    assert server.asked()[0] == "GET /v2/"
    assert server.asked("GET") == ["/v2/"]
    assert len(server.seen) == 5


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
async def test_a_certificate_is_trusted_by_its_ca_or_not_at_all_or_refused_by_a_sentence(
    tmp_path: Path,
) -> None:
    pair = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    async with scripted_server(answers(lambda: web.Response(headers=HERE)), tls=context) as server:
        site = Site(server.host, "app")
        for tls in (trusting, False):
            async with over_tls(tls) as (r, _):
                assert await r.sink(site).has(BLOB)
        async with over_tls(True) as (r, _):
            with pytest.raises(
                UntrustedPeer, match=f"{server.host} shows a certificate .* not trusted"
            ) as raised:
                await r.sink(site).has(BLOB)
    assert raised.value.attempts == 1


async def test_closing_twice_and_without_use_is_fine() -> None:
    async with world() as w:
        w.source("127.0.0.1:1")
        await w.registries.close()
