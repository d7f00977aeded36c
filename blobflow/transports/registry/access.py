"""How one host is reached: what the caller, who knows flags, files and environment, decides for it."""

from __future__ import annotations

import ssl
from typing import Literal

import msgspec

from blobflow.transports.registry.auth import CredentialsGiver
from blobflow.transports.registry.credentials import Credentials
from blobflow.transports.registry.profiles import Profile


class HostAccess(msgspec.Struct, frozen=True):
    """`tls`: True verifies by the system's trust, False not at all (and takes a host without TLS as it is), a
    context as it says.

    `connections`: blobs being read, and blobs being written, at once. `requests_per_second` and
    `bytes_per_second` (read and written, together) hold the host's whole session; 0 is no limit.
    `credentials` is a login, or finds one when the host first asks for it. `profile` overrides what is known
    of the host by its name. `proxy`: the URL of a forward proxy, "" for none.
    """

    scheme: Literal["https", "http"] = "https"
    tls: ssl.SSLContext | bool = True
    connections: int = 8
    requests_per_second: float = 0
    bytes_per_second: float = 0
    credentials: Credentials | CredentialsGiver | None = None
    profile: Profile | None = None
    proxy: str = ""
