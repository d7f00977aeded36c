"""The origin rule: where a registry may send us, and what it gets there."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from blobflow.errors import ProtocolViolation
from blobflow.transports.registry.origins import (
    METADATA,
    GuardedResolver,
    address_of,
    follow_location,
    may_visit,
    origin_of,
)

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
    assert str(follow_location(HOME, AT, location, "an upload")) == url


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ('https://cdn.example/a b?f=x y&d="z"', 'https://cdn.example/a%20b?f=x%20y&d="z"'),
        ("up 1?f=x\u00a0y", "https://r.example/v2/app/blobs/uploads/up%201?f=x%C2%A0y"),
        ("https://cdn.example/\u00fc?n=\u65e5", "https://cdn.example/%C3%BC?n=%E6%97%A5"),
        ("https://cdn.example/\udcfc", "https://cdn.example/%FC"),
        ("https://cdn.example/x%20y%2f%zz", "https://cdn.example/x%20y%2f%zz"),
        ("https://cdn.example/x\x7f\x01", "https://cdn.example/x%7F%01"),
    ],
)
def test_what_no_request_line_can_hold_is_escaped_and_nothing_else(location: str, url: str) -> None:
    assert str(follow_location(HOME, AT, location, "a blob")) == url


@pytest.mark.parametrize(
    "location",
    [
        "https://cdn exa.mple/x",
        "https://cdn.example /x",
        "https://\u00fc.example/x",
    ],
)
def test_a_host_is_never_mended(location: str) -> None:
    with pytest.raises(ProtocolViolation, match="unusable address"):
        follow_location(HOME, AT, location, "a blob")


def test_a_tls_proxy_s_http_location_keeps_the_registry_s_own_port() -> None:
    home = origin_of("r.example:5443", "https")
    assert (
        str(follow_location(home, home, "http://r.example:5443/up?a=b", "x"))
        == "https://r.example:5443/up?a=b"
    )


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
        "https://127\u30020\u30020\u30021/x",
        "https://\uff11\uff12\uff17.0.0.1/x",
        "https://%31%32%37.0.0.1/x",
        "https://cdn.example%00.r.example/x",
        "https://cdn.example\\@r.example/x",
        "https://cdn example/x",
    ],
)
def test_a_location_that_the_rule_forbids_is_refused(location: str) -> None:
    with pytest.raises(ProtocolViolation, match=r"r\.example") as raised:
        follow_location(HOME, AT, location, "an upload")
    assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        ("/up/1?state=a b", "/up/1?state=a%20b"),
        ("/up/\u00e9?state=\u4e2d", "/up/%C3%A9?state=%E4%B8%AD"),
        ("/up/1?state=\udce9\udcff", "/up/1?state=%E9%FF"),  # as aiohttp reads bytes that are no UTF-8
        ("/up/1?state=%zz%2B%", "/up/1?state=%zz%2B%"),
        ("/up/1?state=\"<>[]{}|^`'", "/up/1?state=\"<>[]{}|^`'"),
    ],
)
def test_what_no_address_can_have_is_escaped_and_all_else_is_as_it_came(location: str, sent: str) -> None:
    for given in (location, f"https://cdn.example{location}"):
        url = follow_location(HOME, AT, given, "an upload")
        assert str(url).removeprefix(str(url.origin())) == sent


def test_a_plain_http_registry_may_lead_to_http_and_https() -> None:
    home = origin_of("127.0.0.1:5000", "http")
    for location in ("http://127.0.0.1:9000/x", "https://cdn.example/x"):
        assert str(follow_location(home, home, location, "x")) == location


def test_signed_queries_never_get_into_the_sentence() -> None:
    with pytest.raises(ProtocolViolation) as raised:
        follow_location(HOME, AT, "http://cdn.example/x?X-Amz-Signature=secret", "blob")
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("address", sorted(METADATA, key=str))
def test_metadata_addresses_are_never_visited(address: ipaddress.IPv4Address) -> None:
    assert not may_visit(address, home_is_public=True)
    assert not may_visit(address, home_is_public=False)


INSIDE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.1.1", "198.18.0.1"),
    *("0.0.0.0", "0.1.2.3", "192.0.2.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fec0::1", "fd00::1", "ff02::1", "ff0e::1", "100::1", "2001:db8::1", "4000::1"),
    *("::127.0.0.1", "::10.0.0.1", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b::169.254.1.1", "64:ff9b::224.0.0.1", "64:ff9b::"),
    *("64:ff9b:1::1", "64:ff9b:1:808:8:800::", "2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::"),
    *("2001:0:808:808::1", "2a00:1::5efe:127.0.0.1", "2a00:1::200:5efe:10.0.0.1"),
]
OUTSIDE = [
    *("8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "223.255.255.254"),
    *("2001:4860:4860::8888", "2a00:1450:4001:82a::200e", "2606:4700::1", "::ffff:8.8.8.8", "::8.8.8.8"),
    *("64:ff9b::8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2a00:1::5efe:8.8.8.8", "::ffff:0:8.8.8.8"),
]


@pytest.mark.parametrize("text", INSIDE)
def test_a_public_registry_may_not_send_us_inside_and_a_private_one_may(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not may_visit(address, home_is_public=True)
    assert may_visit(address, home_is_public=False)


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_public_registry_may_send_us_anywhere_outside(text: str) -> None:
    """Behind DNS64 every host that has only IPv4 is at an address that carries it."""
    assert may_visit(ipaddress.ip_address(text), home_is_public=True)


CLOUD = "169.254.169.254"
CARRIERS = [
    *(f"::{CLOUD}", f"::ffff:{CLOUD}", f"::ffff:0:{CLOUD}", f"64:ff9b::{CLOUD}", "64:ff9b::a9fe:a9fe"),
    *("2002:a9fe:a9fe::1", f"2a00:1::5efe:{CLOUD}", f"fe80::200:5efe:{CLOUD}", "2001:0:a9fe:a9fe::1"),
    "2001:0:808:808:0:0:5601:5601",  # a Teredo client's own address is turned over
    *("64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1::a9:fea9:fe00:0"),
    f"64:ff9b:1::{CLOUD}",
]


@pytest.mark.parametrize("text", CARRIERS)
@pytest.mark.parametrize("public", [True, False])
def test_metadata_addresses_are_seen_in_all_that_carries_them(text: str, public: bool) -> None:
    assert not may_visit(ipaddress.ip_address(text), home_is_public=public)


@pytest.mark.parametrize("text", [each for each in CARRIERS if not each.startswith("2001:")])
def test_an_address_that_carries_another_is_judged_in_a_url_too(text: str) -> None:
    guard = GuardedResolver(origin_of("10.0.0.5:5000", "http"), Names())
    with pytest.raises(ProtocolViolation, match="sent us to"):
        guard.check(URL(f"http://[{text}]/latest/meta-data/", encoded=True))


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
        ("127.0.0.1.", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("127.0x0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("FE80::A9FE:A9FE%25eth0", "fe80::a9fe:a9fe"),
        ("::ffff:7f00:1", "127.0.0.1"),
        ("r.example", ""),
        ("face.beef", ""),
        ("1.2.3.4.5", ""),
        ("abc", ""),
    ],
)
def test_an_address_is_seen_in_every_form_that_resolvers_take(host: str, address: str) -> None:
    assert str(address_of(host) or "") == address


async def test_the_user_s_proxy_may_be_anywhere_and_is_resolved() -> None:
    guard = GuardedResolver(HOME, Names(proxy_corp="10.0.0.9"), proxies=frozenset({"proxy.corp"}))
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
    guard = GuardedResolver(
        HOME, Names(r_example="8.8.8.8", cdn_example="9.9.9.9 10.0.0.1", evil_example="127.0.0.1")
    )
    assert [each["host"] for each in await guard.resolve("r.example", 443)] == ["8.8.8.8"]
    assert [each["host"] for each in await guard.resolve("cdn.example")] == ["9.9.9.9"]
    with pytest.raises(OSError, match="may not send us"):
        await guard.resolve("evil.example")


async def test_a_private_registry_s_names_may_be_private_but_not_metadata() -> None:
    guard = GuardedResolver(
        HOME, Names(r_example="10.0.0.5", s3_example="10.0.0.6", evil_example="169.254.169.254")
    )
    await guard.resolve("r.example", 443)
    assert [each["host"] for each in await guard.resolve("s3.example")] == ["10.0.0.6"]
    with pytest.raises(OSError, match="may not send us"):
        await guard.resolve("evil.example")


async def test_a_public_name_that_turns_inwards_opens_nothing() -> None:
    """The registry's own name may change its address, at any time: that is no leave to send us inside."""
    names = Names(r_example="8.8.8.8", cdn_example="10.0.0.1")
    guard = GuardedResolver(HOME, names)
    await guard.resolve("r.example", 443)
    names.names["r.example"] = "127.0.0.1"
    await guard.resolve("r.example", 443)
    for host, port in (("cdn.example", 443), ("r.example", 2375)):
        with pytest.raises(OSError, match="may not send us"):
            await guard.resolve(host, port)


async def test_a_private_registry_is_found_at_its_other_ports() -> None:
    """Its token server may well be there."""
    guard = GuardedResolver(HOME, Names(r_example="10.0.0.5"))
    await guard.resolve("r.example", 443)
    assert [each["host"] for each in await guard.resolve("r.example", 5001)] == ["10.0.0.5"]


@pytest.mark.parametrize("address", ["64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2002:808:808::1"])
async def test_a_registry_is_as_public_as_what_its_address_carries(address: str) -> None:
    guard = GuardedResolver(HOME, Names(r_example=address, cdn_example="64:ff9b::9.9.9.9 64:ff9b::10.0.0.1"))
    await guard.resolve("r.example", 443)
    assert [each["host"] for each in await guard.resolve("cdn.example", 443)] == ["64:ff9b::9.9.9.9"]
    guard = GuardedResolver(origin_of(f"[{address}]", "https"), Names(inside_example="10.0.0.1"))
    with pytest.raises(OSError, match="may not send us"):
        await guard.resolve("inside.example", 443)


@pytest.mark.parametrize(
    "literal",
    [
        *("127.0.0.1", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "[fe80::1]", "[fe80::1%25eth0]"),
        *(
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[ff02::1]",
            "224.0.0.1",
            "127.1",
            "0x7f.1",
        ),
        *("2130706433", "127.0.0.1.", "LOCALHOST", "a.localhost.", "0.0.0.0", "0", "[::]"),
        *("METADATA.google.internal", "metadata.google.internal."),
    ],
)
def test_addresses_in_urls_are_judged_without_a_resolver(literal: str) -> None:
    with pytest.raises(ProtocolViolation, match="sent us to"):
        GuardedResolver(HOME, Names()).check(URL(f"https://{literal}/x", encoded=True))


def test_a_registry_at_a_loopback_address_may_name_another_one_there() -> None:
    GuardedResolver(origin_of("127.0.0.1:5000", "http"), Names()).check(URL("http://127.0.0.1:9000/x"))
