"""The origin rule: where a registry may send us by redirects and Locations, and at which addresses.

An origin is scheme, host and port. Credentials and tokens go to the registry's own origin (and credentials to
the realm that it names); a redirect or an upload Location elsewhere gets neither. Locations come from an
untrusted peer, so:

- never from https down to http, unless the registry itself is spoken to by plain http;
- never with user names or passwords in them;
- a registry at a public address may not send us to a loopback, private, link-local, multicast or reserved
  address, nor to one that carries such an IPv4 address (`oci.ip_address`); one that is itself private may;
- addresses that serve cloud credentials are never asked, whoever names them.

Names are judged by what they resolve to, at the moment of connecting (`GuardedResolver`), so that a name
that changes its address in between gains nothing. The registry's own name is what the user asked for, at its
own port; at others it is judged as any other name, and a registry that has been public stays so. Behind a
forward proxy the proxy resolves names, and judges by its own rules; what a URL spells out, an address in any
of its forms or a name that has but one meaning, is judged here all the same.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import quote

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from blobflow.errors import ProtocolViolation
from blobflow.lazy_pattern import LazyPattern
from blobflow.oci.ip_address import Address, embedded_ipv4, is_public, parse_ip
from blobflow.printable import one_line

DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"

# Instance metadata: AWS, Google, Azure, OpenStack (169.254.169.254, fd00:ec2::254, fd20:ce::254,
# fe80::a9fe:a9fe), ECS tasks and EKS pods (169.254.170.2 and .23, fd00:ec2::23), Alibaba (100.100.100.200),
# Azure's wire server (168.63.129.16), Oracle (192.0.0.192), Scaleway (169.254.42.42, fd00:42::42).
METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fe80::a9fe:a9fe",
        "192.0.0.192",
        "169.254.42.42",
        "fd00:42::42",
    )
)

# Names that stand for such an address on any machine; a proxy resolves them to its own.
_METADATA_NAMES = frozenset(
    {"metadata.google.internal", "metadata", "instance-data", "instance-data.ec2.internal"}
)
_LOOPBACK = ipaddress.ip_address("127.0.0.1")

_USERINFO = LazyPattern("//[^/]*@")
_SENDABLE = LazyPattern(r"[!-~]*")
_PRINTABLE = "".join(map(chr, range(ord("!"), ord("~") + 1)))
# Hosts as they are on the wire: what is outside of this, two readers of a URL could read differently.
_HOST = LazyPattern(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?")


def origin_of(host: str, scheme: str) -> URL:
    """The origin of a registry named `host[:port]`; docker.io's API lives at another name."""
    return URL(f"{scheme}://{DOCKER_HUB_API if host == DOCKER_HUB else host}", encoded=True)


def name_of(url: URL) -> str:
    """`host[:port]` of a URL, for sentences."""
    return str(url.origin()).partition("//")[2]


def address_of(host: str) -> Address | None:
    """The address that a URL's host spells out, None for a name; names of localhost mean loopback."""
    name = host.lower().rstrip(".")
    return _LOOPBACK if name == "localhost" or name.endswith(".localhost") else parse_ip(host)


def may_visit(address: Address, *, home_is_public: bool) -> bool:
    """Whether a registry that is (or is not) at a public address may send us to `address`."""
    if not METADATA.isdisjoint((address, *embedded_ipv4(address))):
        return False
    return not home_is_public or is_public(address)


def follow_location(home: URL, at: URL, location: str, description: str) -> URL:
    """The URL that a Location or realm, met at URL `at`, leads to; its bytes are kept as they are, but for
    those that no URL may have (RFC 3986, 2): they are escaped.

    An http Location at the https registry's own host is what a registry behind a TLS proxy says: it is taken
    to mean its own origin. Raises ProtocolViolation for what the origin rule forbids.
    """
    shown = one_line(_USERINFO.sub("//…@", location.partition("?")[0]), 200)
    try:
        url = at.join(URL(location, encoded=True))
        host, port = url.host, url.port
    except (ValueError, IndexError):  # yarl raises both
        raise ProtocolViolation(
            f"{name_of(home)} answered {description} with an unusable address {shown!r}"
        ) from None
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(host or "") or url.user or url.password:
        raise ProtocolViolation(f"{name_of(home)} answered {description} with an unusable address {shown!r}")
    if home.scheme == "https" and url.scheme == "http":
        if host != home.host or port not in (80, home.port):
            raise ProtocolViolation(
                f"{name_of(home)} sent {description} from https down to {shown!r}; refused, "
                "since the connection would no longer be private"
            )
        tail = location[location.index("://") + 3 :] if "://" in location else ""
        path = tail[tail.find("/") :] if "/" in tail else "/"
        url = URL(f"{home.origin()}{path}", encoded=True)
    return escaped(url.with_fragment(None) if "#" in location else url)


def escaped(url: URL) -> URL:
    """A URL without spaces, control characters and bytes beyond ASCII, which can't be sent, or only as they
    came: each is escaped. What is escaped already stays as it is."""
    text = str(url)
    if _SENDABLE.fullmatch(text):
        return url
    return URL(quote(text.encode("utf-8", "surrogateescape"), safe=_PRINTABLE), encoded=True)


class GuardedResolver(AbstractResolver):
    """Resolves names for one registry's connections, leaving out addresses that it may not send us to.

    The user named `proxies`, so they may be anywhere; but no registry may send us to them.
    """

    def __init__(
        self, home: URL, inner: AbstractResolver | None = None, *, proxies: frozenset[str] = frozenset()
    ) -> None:
        self._home = home
        self._proxies = proxies
        self._inner = inner or DefaultResolver()
        literal = address_of(home.host or "")
        # Until the registry's own name has been resolved it counts as public, the stricter case.
        self.home_is_public = literal is None or is_public(literal)
        self._resolved = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        addresses = [(entry, address_of(entry["host"])) for entry in found]
        if host == self._home.host and port == self._home.port:
            public = any(address is None or is_public(address) for _, address in addresses)
            # Who has been public stays so: else its name could turn inwards, and open all that is there.
            self.home_is_public = public or (self._resolved and self.home_is_public)
            self._resolved = True
            return found
        if host in self._proxies:
            return found
        allowed = [
            entry
            for entry, address in addresses
            if address is not None and may_visit(address, home_is_public=self.home_is_public)
        ]
        if found and not allowed:
            raise OSError(None, f"{self._home.host} may not send us to the address of {host}")
        return allowed

    def check(self, url: URL) -> None:
        """Judge a URL by what its host spells out, which no resolver of ours may see. Raises
        ProtocolViolation."""
        host = url.host or ""
        if host == self._home.host:
            return
        address = address_of(host)
        forbidden = host in self._proxies and self.home_is_public
        if address is not None:
            forbidden = forbidden or not may_visit(address, home_is_public=self.home_is_public)
        if forbidden or host.lower().rstrip(".") in _METADATA_NAMES:
            raise ProtocolViolation(
                f"{name_of(self._home)} sent us to {name_of(url)}, which no registry at its address may do"
            )

    async def close(self) -> None:
        await self._inner.close()
