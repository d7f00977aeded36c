"""Settings for accessing one host, as the caller decides them from flags, files and environment."""

from __future__ import annotations

import ssl
from typing import Literal

import msgspec

from blobflow.transports.registry.auth.authenticator import CredentialsGiver
from blobflow.transports.registry.auth.credentials import Credentials
from blobflow.transports.registry.capabilities.profiles import Profile
from blobflow.transports.registry.http.proxies import DIRECT, Proxies
from blobflow.transports.registry.http.tls import TlsSettings


class HostSettings(msgspec.Struct, frozen=True):
    """What a user says of one host; None, 0 and empty where they say nothing.

    `http`: whether it speaks plain HTTP. `trust` adds to what holds for every host; `verify` replaces it.
    `mirrors`: `host[:port][/prefix]` of what is asked before it when something is read. `proxies` replaces
    the environment's. The rest is as in `HostAccess`.
    """

    http: bool | None = None
    verify: bool | None = None
    trust: TlsSettings = TlsSettings()
    mirrors: tuple[str, ...] = ()
    connections: int | None = None
    requests_per_second: float = 0
    bytes_per_second: float = 0
    credentials: Credentials | CredentialsGiver | None = None
    profile: Profile | None = None
    proxies: Proxies | None = None
    parallel_ranges: bool = True


class HostAccess(msgspec.Struct, frozen=True):
    """`tls`: True verifies by the system's trust, False not at all, a context as it says. `tls_optional`: the
    https host may turn out to speak plain HTTP, as it may where `tls` is False.

    `connections`: blobs being read, and blobs being written, at once; up to half as many that were written
    may wait for their answers beside them. Small requests are twice as many, and at most 16, where the host
    is near, and up to four times that where it is far (`HostLimiter`). `requests_per_second` and
    `bytes_per_second` (read and written, together) apply to all requests to the host; 0 is no limit.
    `credentials` is a login, or finds one when the host first asks for it. `profile` overrides what is known
    of the host by its name. `mirrors`: see `HostSettings`. `retry_times`: how often a request that failed is
    sent again; None: as the table of `backoff` says.
    """

    scheme: Literal["https", "http"] = "https"
    tls: ssl.SSLContext | bool = True
    tls_optional: bool = False
    connections: int = 8
    requests_per_second: float = 0
    bytes_per_second: float = 0
    credentials: Credentials | CredentialsGiver | None = None
    profile: Profile | None = None
    proxies: Proxies = DIRECT
    mirrors: tuple[str, ...] = ()
    parallel_ranges: bool = True
    retry_times: int | None = None
