"""Detects whether a host whose TLS need not be verified speaks plain HTTP instead.

A user who turns verification off for a host accepts that others on the way may read along; so plain HTTP is
no worse, and users of docker and podman expect it to work. For a loopback host there is nobody on the way.
TLS is still tried first, and only its absence, never another failure of the host, leads to HTTP.
"""

from __future__ import annotations

import aiohttp
from yarl import URL

from blobflow.transports.registry.http.aiohttp_client import ssl_for
from blobflow.transports.registry.http.host_settings import HostAccess


async def detect_scheme(client: aiohttp.ClientSession, home: URL, access: HostAccess) -> URL:
    """The origin at which the host of the https origin `home` answers; `home` itself when in doubt.

    A host without a port in its name may have nothing at the https port; then the http port is tried. A
    certificate that is not trusted is TLS, and no reason to go without.
    """
    try:
        await _ping(client, home, access)
    except aiohttp.ClientConnectorCertificateError:
        return home
    except aiohttp.ClientConnectorSSLError:
        pass
    except aiohttp.ClientConnectorError:
        if home.explicit_port is not None:
            return home
    except (aiohttp.ClientError, OSError):
        return home
    else:
        return home
    plain = home.with_scheme("http")
    try:
        await _ping(client, plain, access)
    except (aiohttp.ClientError, OSError):
        return home
    return plain


async def _ping(client: aiohttp.ClientSession, origin: URL, access: HostAccess) -> None:
    """Ask whether there is a registry [end-1]; any answer will do."""
    url = URL(f"{origin}/v2/", encoded=True)
    proxy, tls = access.proxies.of(origin) or None, ssl_for(access, url)
    async with client.get(url, allow_redirects=False, proxy=proxy, ssl=tls):
        pass
