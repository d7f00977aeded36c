"""How clients reach the registry: the URLs in its answers (Location, Link).

A path alone is right for every client that resolves it (RFC 9110, 10.2.2), whatever stands before this
registry, but below a path prefix that it does not know of. Some clients send what they get as it is, though,
and need a whole URL. So there are three ways, and the first that applies is taken:

- the operator says how the registry is reached: `--public-url`;
- a reverse proxy that the operator trusts says it with each request: RFC 7239's `Forwarded`, or
  `X-Forwarded-Proto`, `-Host` and `-Prefix`;
- nobody says so. Then only an upload's Location, which is what clients must go on with, is a whole URL, and
  only where it can't be wrong: over plain HTTP, where the client names the very socket that it is connected
  to, and no proxy has left its mark. What is behind TLS, or another name, gets paths.

A trusted proxy also says who asks (`for=`, or `X-Forwarded-For`), so that a client behind it which guesses at
passwords is held back alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec
from aiohttp import HttpVersion11, web

from blobflow.errors import InvalidConfig, InvalidReference
from blobflow.oci.ip_address import parse_ip
from blobflow.oci.reference import check_host

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What proxies add to the requests that they pass on.
_MARKS = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Real-IP",
)
_SCHEMES = ("http", "https")
_WRITE = "write https://HOST[:PORT][/PREFIX]"
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Segments of a prefix: what needs no quoting in a path (RFC 3986, 3.3), no empty one, and no `.` or `..`.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+\Z")
_MAX_PREFIX = 255
# One parameter of a `Forwarded` element (RFC 7239, section 4); its value may be quoted.
_PARAMETER = re.compile(r'\s*([A-Za-z0-9-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*\Z')

# `[IPv6]` or `IPv4`, each maybe with a port behind it.
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9]{1,5})?\Z")


class PublicUrl(msgspec.Struct, frozen=True):
    """What stands before a path of the registry: `origin` is `scheme://host[:port]`, or "" where only the
    path is known; `prefix` the path below which the registry is, "" or beginning with a slash."""

    origin: str = ""
    prefix: str = ""

    def of(self, path: str) -> str:
        return f"{self.origin}{self.prefix}{path}"


_PATHS = PublicUrl()


def parse_public_url(text: str) -> PublicUrl:
    """Read `http[s]://HOST[:PORT][/PREFIX]`. Raises InvalidConfig."""
    shown = f"public URL {text[:150]!r}"
    try:
        parts = urlsplit(text)
    except ValueError:  # brackets around what is no IPv6 address
        raise InvalidConfig(f"{shown} is no URL; {_WRITE}") from None
    if "@" in parts.netloc:
        raise InvalidConfig(f"a public URL is given to everybody, and has no login in it; {_WRITE}")
    host, prefix = _host(parts.netloc), parts.path.rstrip("/")
    if parts.scheme not in _SCHEMES or host is None or parts.query or parts.fragment:
        raise InvalidConfig(f"{shown} is not one that clients could ask; {_WRITE}")
    if prefix and not _is_prefix(prefix):
        raise InvalidConfig(f"{shown}: a prefix has letters, digits and any of ._~- between single slashes")
    return PublicUrl(f"{parts.scheme}://{host}", prefix)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read addresses and networks (`10.0.0.0/8`), with commas between them. Raises InvalidConfig."""
    found: list[Network] = []
    for part in text.split(","):
        try:
            found.append(ipaddress.ip_network(part.strip(), strict=False))
        except ValueError:
            raise InvalidConfig(
                f"trusted proxy {part.strip()[:100]!r} is no address or network; write 10.0.0.7 or 10.0.0.0/8"
            ) from None
    return tuple(found)


# Every peer: for a registry that nobody reaches but through its proxy.
EVERYBODY: tuple[Network, ...] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class Addressing:
    """The URLs of a registry's answers. `public`: what the operator says; `proxies`: the peers that may say
    how clients reach the registry."""

    __slots__ = ("_proxies", "public")

    def __init__(self, public: PublicUrl | None = None, proxies: Sequence[Network] = ()) -> None:
        self.public = public
        self._proxies = tuple(proxies)

    def url(self, request: web.BaseRequest, path: str) -> str:
        """Where a path of the registry is for the client; `path` is quoted, and may have a query."""
        return (self.public or self._forwarded(request) or _PATHS).of(path)

    def upload_url(self, request: web.BaseRequest, path: str) -> str:
        """As `url`, for what a client has to go on with: a whole URL wherever the registry can know it."""
        return (self.public or self._forwarded(request) or _direct(request)).of(path)

    def path(self, path: str) -> str:
        """A request's path without the public URL's prefix, which not every proxy removes."""
        prefix = self.public.prefix if self.public else ""
        return path.removeprefix(prefix) if prefix and path.startswith(f"{prefix}/") else path

    def client(self, request: web.BaseRequest) -> str:
        """The IP address that a request comes from: the peer's, or what a trusted proxy says. What is not an
        address there is the proxy's way to say nothing.

        Each proxy appends who asked it, so the last one that is not a trusted proxy is meant; what is before
        it, anybody can have made up. Where every peer is trusted, it is the last. A proxy appends to one of
        the two headers, and passes the other on as the client made it up: where they name two addresses, it
        is the peer's.
        """
        peer = request.remote or ""
        if not self._is_trusted(peer):
            return peer
        headers = request.headers
        elements = [_parameters(each) for each in _listed(headers.getall("Forwarded", ()))]
        standard = [each["for"] for each in elements if "for" in each]
        usual = _listed(headers.getall("X-Forwarded-For", ()))
        named = {self._asked_by(peer, chain) for chain in (standard, usual) if chain}
        return named.pop() if len(named) == 1 else peer

    def _asked_by(self, peer: str, chain: Sequence[str]) -> str:
        """Who asked the first of the trusted proxies of a chain, whose last one is connected to us."""
        for named in reversed(chain):
            address = _address(named)
            if address is None:
                break
            peer = address
            if self._proxies == EVERYBODY or not self._is_trusted(peer):
                break
        return peer

    def _forwarded(self, request: web.BaseRequest) -> PublicUrl | None:
        """What a trusted proxy says; None if there is none or it says nothing. Of several proxies the first
        counts, which the client asked; what makes no sense is left out."""
        if not self._is_trusted(request.remote or ""):
            return None
        headers = request.headers
        listed = _listed(headers.getall("Forwarded", ()))
        forwarded = _parameters(listed[0]) if listed else {}
        scheme = (forwarded.get("proto") or _first(headers.get("X-Forwarded-Proto"))).lower()
        named = forwarded.get("host") or _first(headers.get("X-Forwarded-Host"))
        prefix = _first(headers.get("X-Forwarded-Prefix")).rstrip("/")
        if not (scheme or named or prefix):
            return None
        if scheme not in _SCHEMES:
            scheme = "http" if _is_plain(request) else "https"
        host = _host(named) or _host(headers.get("Host", ""))
        return PublicUrl(f"{scheme}://{host}" if host else "", prefix if _is_prefix(prefix) else "")

    def _is_trusted(self, address: str) -> bool:
        peer = parse_ip(address) if self._proxies else None
        return peer is not None and any(peer in network for network in self._proxies)


def _direct(request: web.BaseRequest) -> PublicUrl:
    """The URL of a client that is connected to this registry directly; without an origin where that is not
    sure. A proxy in the middle speaks HTTP/1.0, leaves a mark, or names another host."""
    host = request.headers.get("Host", "")
    if not _is_plain(request) or request.version < HttpVersion11 or not _host(host):
        return _PATHS
    if any(mark in request.headers for mark in _MARKS):
        return _PATHS
    sockname = request.transport and request.transport.get_extra_info("sockname")
    return PublicUrl(f"http://{host}") if sockname and _names_socket(host, sockname) else _PATHS


def _names_socket(host: str, sockname: Sequence[object]) -> bool:
    """Whether `host[:port]` is this address and port, by its very form."""
    parts = urlsplit(f"//{host}")
    if (parts.port or _DEFAULT_PORTS["http"]) != sockname[1]:
        return False
    ours = parse_ip(str(sockname[0]))
    if parts.hostname == "localhost":
        return ours is not None and ours.is_loopback
    return ours is not None and parse_ip(parts.hostname or "") == ours


def _is_plain(request: web.BaseRequest) -> bool:
    return request.transport is not None and request.transport.get_extra_info("sslcontext") is None


def _host(text: str) -> str | None:
    """`text` if it is `host[:port]`, as it is."""
    try:
        check_host(text)
    except InvalidReference:
        return None
    return text


def _is_prefix(text: str) -> bool:
    return len(text) <= _MAX_PREFIX and _PREFIX.match(text) is not None


def _first(header: str | None) -> str:
    """The first of the values that a chain of proxies has put into a header; it is the client's side."""
    return (header or "").partition(",")[0].strip()


def _listed(headers: Sequence[str]) -> list[str]:
    """The elements of a list that may be over several header lines."""
    return [each.strip() for header in headers for each in header.split(",")]


def _parameters(element: str) -> dict[str, str]:
    """The parameters of one element of `Forwarded`; none if it breaks the grammar."""
    found: dict[str, str] = {}
    for part in element.split(";"):
        parameter = _PARAMETER.match(part)
        if parameter is None:
            return {}
        name, quoted, token = parameter.groups()
        found[name.lower()] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return found


def _address(node: str) -> str | None:
    """The IP address of RFC 7239's `node`, which may have a port; None for `unknown` and made-up names."""
    parts = _NODE.match(node)
    try:
        return str(ipaddress.ip_address((parts[1] or parts[2]) if parts else node))
    except ValueError:
        return None
