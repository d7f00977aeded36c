"""The origin rule: where a registry may send us, and what it gets there."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from blobflow.errors import ProtocolViolation
from blobflow.transports.registry.origins import METADATA, Guard, address_of, follow, may_visit, origin_of

HOME = origin_of("r.example", "https")
AT = URL("https://r.example/v2/app/blobs/uploads/", encoded=True)


def test_docker_io_is_asked_at_its_api_s_name() -> None:
    assert str(origin_of("docker.io", "https")) == "https://registry-1.docker.io"


def test_an_ipv6_literal_is_a_host() -> None:
    home = origin_of("[::1]:5000", "http")
    assert (home.host, home.port) == ("::1", 5000)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/v2/app/blobs/uploads/1?_state=a%3D%3D+b&x=%2f", "https://r.example/v2/app/blobs/uploads/1?_state=a%3D%3D+b&x=%2f"),
        ("https://r.example/up?s=%2B", "https://r.example/up?s=%2B"),
        ("https://cdn.example/x%2Fy?sig=a/b%3D", "https://cdn.example/x%2Fy?sig=a/b%3D"),
        ("17?x=1", "https://r.example/v2/app/blobs/uploads/17?x=1"),
        ("//cdn.example/x", "https://cdn.example/x"),
        ("http://r.example/up/1?s=%3D", "https://r.example/up/1?s=%3D"),
        ("http://r.example:80/up", "https://r.example/up"),
    ],
)  # fmt: skip
def test_locations_are_followed_with_their_bytes_kept(location: str, url: str) -> None:
    assert str(follow(HOME, AT, location, "an upload")) == url


def test_a_tls_proxy_s_http_location_keeps_the_registry_s_own_port() -> None:
    home = origin_of("r.example:5443", "https")
    assert str(follow(home, home, "http://r.example:5443/up?a=b", "x")) == "https://r.example:5443/up?a=b"


@pytest.mark.parametrize(
    "location",
    [
        "http://cdn.example/x",
        "http://r.example:8080/x",
        "ftp://r.example/x",
        "file:///etc/passwd",
        "https://user:secret@r.example/x",
        "https://r.example:99999/x",
        "https://[::1/x",
    ],
)
def test_a_location_that_the_rule_forbids_is_refused(location: str) -> None:
    with pytest.raises(ProtocolViolation, match=r"r\.example") as raised:
        follow(HOME, AT, location, "an upload")
    assert "secret" not in raised.value.message


def test_a_plain_http_registry_may_lead_to_http_and_https() -> None:
    home = origin_of("127.0.0.1:5000", "http")
    for location in ("http://127.0.0.1:9000/x", "https://cdn.example/x"):
        assert str(follow(home, home, location, "x")) == location


def test_signed_queries_never_get_into_the_sentence() -> None:
    with pytest.raises(ProtocolViolation) as raised:
        follow(HOME, AT, "http://cdn.example/x?X-Amz-Signature=secret", "blob")
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("address", sorted(METADATA, key=str))
def test_metadata_addresses_are_never_visited(address: ipaddress.IPv4Address) -> None:
    assert not may_visit(address, home_is_public=True)
    assert not may_visit(address, home_is_public=False)


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "::1", "fe80::1", "fd00::1", "0.0.0.0"]
)
def test_a_public_registry_may_not_send_us_inside_and_a_private_one_may(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not may_visit(address, home_is_public=True)
    assert may_visit(address, home_is_public=False)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0251.0376.0251.0376", "169.254.169.254"),
        ("localhost.", "127.0.0.1"),
        ("a.LOCALHOST", "127.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("r.example", ""),
        ("face.beef", ""),
        ("1.2.3.4.5", ""),
        ("abc", ""),
    ],
)
def test_an_address_is_seen_in_every_form_that_resolvers_take(host: str, address: str) -> None:
    assert str(address_of(host) or "") == address


async def test_the_user_s_proxy_may_be_anywhere_and_is_resolved() -> None:
    guard = Guard(HOME, Names(proxy_corp="10.0.0.9"), proxies=frozenset({"proxy.corp"}))
    assert [each["host"] for each in await guard.resolve("proxy.corp")] == ["10.0.0.9"]
    with pytest.raises(ProtocolViolation, match="sent us to"):
        guard.check(URL("http://proxy.corp:3128/"))


class Names(AbstractResolver):
    """A resolver over a table."""

    def __init__(self, **names: str) -> None:
        self.names = {name.replace("_", "."): address for name, address in names.items()}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.names[host].split()
        ]

    async def close(self) -> None:
        return None


async def test_names_are_judged_by_what_they_resolve_to() -> None:
    guard = Guard(HOME, Names(r_example="8.8.8.8", cdn_example="9.9.9.9 10.0.0.1", evil_example="127.0.0.1"))
    assert [each["host"] for each in await guard.resolve("r.example")] == ["8.8.8.8"]
    assert [each["host"] for each in await guard.resolve("cdn.example")] == ["9.9.9.9"]
    with pytest.raises(OSError, match="may not send us"):
        await guard.resolve("evil.example")


async def test_a_private_registry_s_names_may_be_private_but_not_metadata() -> None:
    guard = Guard(HOME, Names(r_example="10.0.0.5", s3_example="10.0.0.6", evil_example="169.254.169.254"))
    await guard.resolve("r.example")
    assert [each["host"] for each in await guard.resolve("s3.example")] == ["10.0.0.6"]
    with pytest.raises(OSError, match="may not send us"):
        await guard.resolve("evil.example")


@pytest.mark.parametrize(
    "literal", ["127.0.0.1", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "[fe80::1]"]
)
def test_addresses_in_urls_are_judged_without_a_resolver(literal: str) -> None:
    with pytest.raises(ProtocolViolation, match="sent us to"):
        Guard(HOME, Names()).check(URL(f"https://{literal}/x"))


def test_a_registry_at_a_loopback_address_may_name_another_one_there() -> None:
    Guard(origin_of("127.0.0.1:5000", "http"), Names()).check(URL("http://127.0.0.1:9000/x"))
