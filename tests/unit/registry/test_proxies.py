"""Which forward proxy a URL is asked through, and that its login is never shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from blobflow.content import Site
from blobflow.errors import BlobflowError, ConnectFailed, InvalidConfig, ProxyRefused
from blobflow.transports.registry import DIRECT, HostAccess, Proxies, Registries
from blobflow.transports.registry.http.aiohttp_errors import translate_error
from blobflow.transports.registry.http.proxies import (
    check_proxy,
    from_variables,
    name_of_proxy,
    single_proxy,
    without_login,
)
from tests.fakes.registry import Clock, blob_of, scripted_server

# A connection to the proxy, as aiohttp's errors have it.
KEY = aiohttp.client_reqrep.ConnectionKey("p", 3128, False, True, None, None, None)

BLOB = blob_of(b"content")
BOTH = {"HTTP_PROXY": "http://plain.corp:3128", "HTTPS_PROXY": "tls.corp:3129"}


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxy"),
    [
        ("https://r.example/v2/", "", "http://tls.corp:3129"),
        ("http://r.example/v2/", "", "http://plain.corp:3128"),
        ("https://r.example/v2/", "*", ""),
        ("https://r.example/v2/", "x.example, r.example", ""),
        ("https://R.EXAMPLE./v2/", "r.example", ""),
        ("https://cdn.r.example/v2/", "r.example", ""),
        ("https://cdn.r.example/v2/", ".r.example", ""),
        ("https://cdn.r.example/v2/", "*.r.example", ""),
        ("https://r.example/v2/", ".r.example", "http://tls.corp:3129"),
        ("https://other.example/v2/", "r.example", "http://tls.corp:3129"),
        ("https://notr.example/v2/", "r.example", "http://tls.corp:3129"),
        ("https://r.example:5000/v2/", "r.example:5000", ""),
        ("https://r.example/v2/", "r.example:443", ""),
        ("https://r.example:5001/v2/", "r.example:5000", "http://tls.corp:3129"),
        ("https://10.1.2.3/v2/", "10.0.0.0/8", ""),
        ("https://10.1.2.3:5000/v2/", "10.1.2.3", ""),
        ("https://10.1.2.3:5000/v2/", "10.1.2.3:5000", ""),
        ("https://[::ffff:10.1.2.3]/v2/", "10.0.0.0/8", ""),
        ("https://[::ffff:11.1.2.3]/v2/", "10.0.0.0/8", "http://tls.corp:3129"),
        ("https://[::ffff:127.0.0.1]:5000/v2/", "", ""),
        ("https://[::127.0.0.1]:5000/v2/", "", "http://tls.corp:3129"),
        ("https://11.1.2.3/v2/", "10.0.0.0/8", "http://tls.corp:3129"),
        ("https://[fd00::1]/v2/", "fd00::/8", ""),
        ("https://[fd00::1]:5000/v2/", "[fd00::1]:5000", ""),
        ("https://127.0.0.1:5000/v2/", "", ""),
        ("https://[::1]:5000/v2/", "", ""),
        ("http://localhost:5000/v2/", "", ""),
    ],
)
def test_a_url_is_asked_through_the_proxy_of_its_scheme_unless_exempt(
    url: str, no_proxy: str, proxy: str
) -> None:
    assert from_variables(BOTH | {"NO_PROXY": no_proxy}).of(URL(url)) == proxy


def test_lower_case_variables_count_where_there_are_no_upper_case_ones() -> None:
    lower = {"https_proxy": "http://low.corp:1", "no_proxy": "r.example"}
    assert from_variables(lower).https == "http://low.corp:1"
    assert from_variables(lower | BOTH).https == "http://tls.corp:3129"
    assert from_variables(lower).of(URL("https://r.example/")) == ""
    assert from_variables({}) == DIRECT


@given(st.text("0123456789abcdef.:/[]*,- \x00é", max_size=60))
def test_no_list_of_exempt_hosts_is_too_odd_to_be_read(no_proxy: str) -> None:
    proxies = from_variables(BOTH | {"NO_PROXY": no_proxy})
    for url in ("https://r.example/", "https://10.1.2.3:5000/", "https://[fd00::1]/"):
        assert proxies.of(URL(url)) in ("", proxies.https)


def test_a_proxy_named_for_a_host_is_used_for_loopback_too() -> None:
    assert single_proxy("http://p.corp:1", "proxy").of(URL("https://127.0.0.1:5000/")) == "http://p.corp:1"
    assert single_proxy("", "proxy").of(URL("https://r.example/")) == ""


@pytest.mark.parametrize(
    "proxy",
    ["socks5://joe:hush@p.corp:1", "http://joe:hush@", "http://joe:hush@p.corp:99999", "joe:hu@sh@:x"],
)
def test_an_unusable_proxy_is_named_without_its_login(proxy: str) -> None:
    with pytest.raises(InvalidConfig, match=r"HTTPS_PROXY is .* write http://HOST:PORT") as raised:
        check_proxy(proxy, "HTTPS_PROXY")
    assert "hu" not in raised.value.message.replace("http", "")


def test_a_proxy_s_login_is_not_shown() -> None:
    assert without_login("http://joe:hu@sh@p.corp:3128") == "http://p.corp:3128"
    assert "hush" not in repr(Proxies(https="http://joe:hush@p.corp:3128"))


@asynccontextmanager
async def registries(proxies: Proxies, scheme: str = "http") -> AsyncIterator[Registries]:
    clock = Clock()
    access = HostAccess(scheme="https" if scheme == "https" else "http", proxies=proxies)
    made = Registries(lambda host: access, sleep=clock.sleep, clock=clock, jitter=lambda: 0.5)
    try:
        yield made
    finally:
        await made.close()


async def test_a_registry_whose_name_only_the_proxy_knows_is_reached() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"Content-Length": str(BLOB.size)})

    async with (
        scripted_server(handler) as proxy,
        registries(single_proxy(f"joe:hush@{proxy.host}", "x")) as made,
    ):
        assert await made.sink(Site("registry.invalid:5000", "app")).has(BLOB)
    assert proxy.seen[0].target.startswith("http://registry.invalid:5000/v2/app/blobs/")
    assert proxy.seen[0].headers["Proxy-Authorization"].startswith("Basic ")


async def test_a_redirect_to_what_is_exempt_goes_directly() -> None:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"Content-Length": str(BLOB.size)})

    async with scripted_server(serve) as store:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": f"http://{store.host}/there"})

        async with scripted_server(forward) as proxy:
            url = f"http://{proxy.host}"
            async with registries(Proxies(http=url)) as made:
                with pytest.raises(BlobflowError, match="which no registry at its address may do"):
                    await made.sink(Site("registry.invalid", "app")).has(BLOB)
                assert await made.sink(Site("10.1.2.3:5000", "app")).has(BLOB)
    assert store.asked() == ["HEAD /there"]
    assert len(proxy.seen) == 2


@pytest.mark.parametrize(
    ("target", "public_too"),
    [
        ("http://169.254.169.254/latest", True),
        ("http://metadata.google.internal/", True),
        ("http://127.1/", False),
        ("http://2130706433/", False),
        ("http://0x7f000001/", False),
        ("http://localhost:9000/", False),
        ("http://x.localhost/", False),
    ],
)
async def test_behind_a_proxy_a_registry_sends_us_no_further_inside_than_without(
    target: str, public_too: bool
) -> None:
    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": target})

    async with (
        scripted_server(forward) as proxy,
        registries(single_proxy(f"http://{proxy.host}", "x")) as made,
    ):
        for host in ("registry.invalid", *(("10.1.2.3",) if public_too else ())):
            with pytest.raises(BlobflowError, match="which no registry at its address may do"):
                await made.sink(Site(host, "app")).has(BLOB)
        assert len(proxy.seen) == (2 if public_too else 1)


async def test_no_registry_may_send_us_to_our_proxy() -> None:
    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": f"http://{proxy.host}/admin"})

    async with (
        scripted_server(forward) as proxy,
        registries(single_proxy(f"http://{proxy.host}", "x")) as made,
    ):
        with pytest.raises(BlobflowError, match="which no registry at its address may do"):
            await made.sink(Site("registry.invalid", "app")).has(BLOB)
    assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("status", "kind", "words", "asked"),
    [
        (407, ProxyRefused, r"the proxy wants a login \(407\)", 1),
        (403, ProxyRefused, "the proxy answered 403", 1),
        (502, ConnectFailed, "the proxy answered 502", 4),
    ],
)
async def test_a_tunnel_that_is_refused_is_told(
    status: int, kind: type[ConnectFailed], words: str, asked: int
) -> None:
    connects = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connects
        connects += (await reader.readuntil(b"\r\n\r\n")).startswith(b"CONNECT r.example:443 ")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        proxy = f"http://joe:hush@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with registries(single_proxy(proxy, "x"), "https") as made:
            with pytest.raises(kind, match=words) as raised:
                await made.sink(Site("r.example", "app")).has(BLOB)
    assert connects == asked
    assert "hush" not in str(raised.value)


async def test_a_proxy_that_is_not_there_is_named_as_the_proxy() -> None:
    async with registries(single_proxy("http://joe:hush@127.0.0.1:1", "x")) as made:
        with pytest.raises(
            ConnectFailed, match=r"can't reach the proxy 127\.0\.0\.1:1 of r\.example"
        ) as raised:
            await made.sink(Site("r.example", "app")).has(BLOB)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "Name or service not known")),
            "can't reach the proxy p:3128 of r.example: Name or service not known; check the proxy's name",
        ),
        (
            aiohttp.ConnectionTimeoutError(),
            "can't connect to r.example: no answer from the proxy p:3128, or through it; check the proxy",
        ),
        (
            aiohttp.ClientProxyConnectionError(KEY, ConnectionRefusedError(111, "no")),
            "can't reach the proxy p:3128 of r.example: Connection refused",
        ),
    ],
    ids=["unknown", "silent", "closed"],
)
def test_what_a_proxy_lacks_is_not_said_of_the_host_behind_it(error: Exception, words: str) -> None:
    said = translate_error(error, "r.example", "a blob", proxy=name_of_proxy("http://joe:hush@p:3128"))
    assert str(said) == words


@pytest.mark.parametrize(
    ("proxy", "name"),
    [
        ("", ""),
        ("http://[::1]:3128", "[::1]:3128"),
        ("http://p.corp", "p.corp"),
        ("https://p.corp", "p.corp"),
    ],
)
def test_the_name_of_a_proxy(proxy: str, name: str) -> None:
    assert name_of_proxy(proxy) == name
