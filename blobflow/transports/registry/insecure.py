"""Hosts whose TLS need not be trusted: they may speak none at all.

Who turns verification off for a host accepts that anybody on the way may read along; so plain HTTP is no
worse, and users of docker and podman expect it to work. TLS is still tried first, and only its absence,
never another failure of the host, leads to HTTP.
"""

from __future__ import annotations

import aiohttp
from yarl import URL


async def settle(client: aiohttp.ClientSession, home: URL) -> URL:
    """The origin at which the host of the https origin `home` answers; `home` itself when in doubt.

    A host without a port in its name may have nothing at the https port; then the http port is tried.
    """
    try:
        await _knock(client, home)
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
        await _knock(client, plain)
    except (aiohttp.ClientError, OSError):
        return home
    return plain


async def _knock(client: aiohttp.ClientSession, origin: URL) -> None:
    """Ask whether there is a registry [end-1]; any answer will do."""
    async with client.get(URL(f"{origin}/v2/", encoded=True), allow_redirects=False):
        pass
