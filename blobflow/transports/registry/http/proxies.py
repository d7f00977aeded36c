"""Which forward proxy a URL is requested through. Pure; the rules are Go net/http's, and so docker's.

The caller reads the variables (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) and gives them as `Proxies`. It is decided
for each URL, not for each registry: a registry behind the proxy may lead to blobs that are not.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

import msgspec
from yarl import URL

from blobflow.errors import InvalidConfig
from blobflow.oci.ip_address import is_loopback, parse_ip
from blobflow.printable import one_line


class Proxies(msgspec.Struct, frozen=True):
    """`http`, `https`: the proxy's URL for URLs of that scheme, "" for none.

    `exempt`: the entries of NO_PROXY: `*`, a name (with all below it), `.name` (only those), an address or
    network, each but `*` and networks with an optional port. Loopback hosts are asked directly unless
    `loopback`.
    """

    http: str = ""
    https: str = ""
    exempt: tuple[str, ...] = ()
    loopback: bool = False

    def __repr__(self) -> str:
        http, https = without_login(self.http), without_login(self.https)
        return f"Proxies(http={http!r}, https={https!r}, exempt={self.exempt!r})"

    def of(self, url: URL) -> str:
        """The proxy for an absolute URL, "" for a direct connection."""
        proxy = self.https if url.scheme == "https" else self.http
        host = (url.host or "").lower().rstrip(".")
        if not proxy or (not self.loopback and is_loopback(host)):
            return ""
        return "" if any(_is_exempt(entry, host, url.port) for entry in self.exempt) else proxy

    @property
    def hosts(self) -> frozenset[str]:
        """The proxies' own hosts, as a resolver is asked for them."""
        return frozenset(URL(proxy).host or "" for proxy in (self.http, self.https) if proxy)


DIRECT = Proxies()


def name_of_proxy(proxy: str) -> str:
    """`host:port` of a proxy's URL, for messages; "" of none."""
    return (URL(proxy).host_port_subcomponent or "") if proxy else ""


def single_proxy(proxy: str, name: str) -> Proxies:
    """Everything through one proxy ("" for none), loopback hosts too. Raises InvalidConfig as
    `check_proxy`."""
    url = check_proxy(proxy, name)
    return Proxies(http=url, https=url, loopback=True)


def from_variables(variables: Mapping[str, str]) -> Proxies:
    """The proxies that environment variables name, in upper case before lower. Raises InvalidConfig."""

    def value(name: str) -> str:
        return variables.get(name) or variables.get(name.lower()) or ""

    exempt = tuple(entry.strip().lower() for entry in value("NO_PROXY").split(",") if entry.strip())
    return Proxies(
        http=check_proxy(value("HTTP_PROXY"), "HTTP_PROXY"),
        https=check_proxy(value("HTTPS_PROXY"), "HTTPS_PROXY"),
        exempt=exempt,
    )


def check_proxy(proxy: str, name: str) -> str:
    """A proxy's URL; http:// may be left out.

    Raises InvalidConfig that calls it `name`, without its login.
    """
    if not proxy:
        return ""
    text = proxy if "://" in proxy else f"http://{proxy}"
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise InvalidConfig(
            f"{name} is {without_login(text)!r}, and no URL of a proxy that can be used; write http://HOST:PORT"
        )
    return text


def without_login(proxy: str) -> str:
    """A proxy's URL without its login, which may hold an @ and is part of no message."""
    scheme, separator, rest = proxy.rpartition("://")
    return one_line(f"{scheme}{separator}{rest.rpartition('@')[2]}", 200)


def _is_exempt(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY, in lower case, is about `host` at `port`."""
    if entry == "*":
        return True
    address = parse_ip(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass
    name, wanted = _split(entry)
    if wanted and wanted != str(port):
        return False
    name = name.strip("[]").removeprefix("*")
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _split(entry: str) -> tuple[str, str]:
    """`host:port` in two; the port is "" where there is none. An IPv6 address has a port behind brackets."""
    host, colon, port = entry.rpartition(":")
    return (host, port) if colon and port.isdigit() and (":" not in host or "]" in host) else (entry, "")
