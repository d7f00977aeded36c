"""IP addresses in the hosts of references and URLs, and which networks they belong to. Pure.

Two questions are asked of an address, and they want opposite care. *May somebody lead us there?*
(`is_public`) looks through every form that carries an IPv4 address: a gateway on the way, of which we know
nothing, would unpack it. *Is this our own machine?* (`is_loopback`) believes only the forms that the system
itself takes for loopback: what a gateway would unpack is another machine.

What is public is said here and not asked of `ipaddress`, whose releases differ in it (and count multicast as
global): the IANA registries of special-purpose addresses, and of IPv6 only global unicast (RFC 4291, 2.4).
"""

from __future__ import annotations

import ipaddress
import re
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_OLD_FORM = re.compile(r"[0-9a-fx]+(?:\.[0-9a-fx]+){0,3}\Z")

_INSIDE_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_UNICAST = ipaddress.IPv6Network("2000::/3")
_INSIDE_6 = tuple(ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))

_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1; :: and ::1 are in it, and are themselves
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291, 2.5.5.2
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")  # RFC 2765 (SIIT)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, 2.1
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215
_6TO4 = ipaddress.IPv6Network("2002::/16")  # RFC 3056
_TEREDO = ipaddress.IPv6Network("2001::/32")  # RFC 4380
_WRAPPING = (_COMPATIBLE, _MAPPED, _TRANSLATED, _NAT64)  # nothing but a wrap: the last 32 bits
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214, 6.1: the upper half of an interface's identifier


def parse_ip(host: str) -> Address | None:
    """The address that a host (without brackets or port) spells out, None for a name.

    In every form that resolvers take: with a zone (`fe80::1%eth0`) or a final dot, IPv4 in one to four parts,
    decimal, octal or hex (127.1, 0x7f000001). IPv4 mapped into IPv6 is IPv4: the system sends it as that.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _old_form(host.lower().rstrip("."))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _old_form(host: str) -> Address | None:
    """inet_aton(3)'s reading, which is that of resolvers."""
    if not _OLD_FORM.match(host):
        return None
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its very form: localhost, 127.0.0.0/8 however it is spelled, ::1."""
    address = parse_ip(host)
    return host == "localhost" if address is None else address.is_loopback


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may have this address, and all that it carries."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _INSIDE_4)
    inner = embedded_ipv4(address)
    if not all(is_public(each) for each in inner):
        return False
    if any(address in network for network in _WRAPPING):
        return bool(inner)
    return address in _UNICAST and not any(address in network for network in _INSIDE_6)


def embedded_ipv4(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    """The IPv4 addresses to which a gateway may send what is sent to `address`; none of IPv4."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    bits = int(address)
    if any(address in network for network in _WRAPPING):
        return (ipaddress.IPv4Address(bits & 0xFFFFFFFF),) if bits > 1 else ()
    if address in _LOCAL_NAT64:
        return _translated(bits)
    if address in _6TO4:
        return (ipaddress.IPv4Address(bits >> 80 & 0xFFFFFFFF),)
    if address in _TEREDO and address.teredo is not None:
        return address.teredo
    if bits >> 32 & 0xFFFFFFFF in _ISATAP:
        return (ipaddress.IPv4Address(bits & 0xFFFFFFFF),)
    return ()


def _translated(bits: int) -> tuple[ipaddress.IPv4Address, ...]:
    """Where RFC 6052, 2.2 puts the address behind prefixes of 48, 56, 64 and 96 bits; which of them a network
    uses, only its operator knows. Bits 64 to 71 are left out of all but the last."""
    packed = bits.to_bytes(16, "big")
    places = (packed[6:8] + packed[9:11], packed[7:8] + packed[9:12], packed[9:13], packed[12:16])
    return tuple(ipaddress.IPv4Address(place) for place in places)


def client_network(address: Address) -> str:
    """What counts as one peer: an IPv4 address, also one that comes translated or through a tunnel, and of
    IPv6 the /64 network, which is what one subscriber has at least.

    The forms that a peer could choose freely in a network of its own are not looked through. Of a local
    translator's prefix every address is a peer, since all of IPv4 may lie in one /64.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _LOCAL_NAT64:
            return str(address)
        if any(address in network for network in (_MAPPED, _TRANSLATED, _NAT64, _6TO4, _TEREDO)):
            return str(embedded_ipv4(address)[-1])
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
