"""Settings: how registries are reached, and what a run may use. A value; nothing here reads the
environment."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from blobflow.engine.policy import Judged
from blobflow.engine.services import CacheMode
from blobflow.errors import UsageError
from blobflow.oci.media import CompressMode
from blobflow.oci.reference import is_loopback
from blobflow.transports.registry import (
    DIRECT,
    AuthContent,
    ClientCertificate,
    CredentialStore,
    HostAccess,
    HostSettings,
    Proxies,
    TlsSettings,
)
from blobflow.transports.registry.http.tls import ssl_context_of, tls_settings_in

# Blobs whose bytes move at once at a host, where nothing was set: what registries take without complaint.
# Over a long way each is slow, and twice as many are no more load.
CONCURRENCY = 8
FAR_CONCURRENCY = 16


class Settings(msgspec.Struct, frozen=True):
    """How the world is reached, and what a run may use.

    `Settings()` has nothing from this machine: no logins, no proxies, a store that is gone after the run.
    `blobflow.from_environment()` gives the settings that the command line has.

    `plain_http`: hosts (`host[:port]`) that speak http; loopback hosts do anyway unless in `https`, whose
    hosts are never spoken to without TLS. `tls_verify`: False accepts any certificate, and http from a host
    that has no TLS. `concurrency`: blobs whose bytes move at once at a host; None: CONCURRENCY, and up to
    FAR_CONCURRENCY at a host that is some milliseconds away, as long as more of them move more. `cache`: see
    `engine.services.CacheMode`. `cache_dir`: the store's root; None: a temporary one that is gone after the
    run. `cache_size`: bytes of blobs that the store may hold; None: what it holds, and half of what is free
    on its disk. In mode `auto` blobs go through the store while it has room, and past it otherwise; in mode
    `all` a run that would keep more than there is room for is not begun (StorageError). What is over it after
    a run goes, the least recently used first. `docker_config`: the folder of docker's config.json, for
    credentials; `auth_files`: files of that format to look into after it; `auth_content`: what such a file
    would say, looked into before them. `ca` and `pairs`: certificates that
    are trusted, and shown, everywhere; `certs`: folders in the shape of docker's certs.d. `hosts`: what is to
    be different at one host. `bytes_per_second`: so many are read, and as many written, at most; 0: no limit.
    `trace`: every HTTP exchange becomes an event. `retry_times`: how often what failed for a while is tried
    again, requests and blobs alike; None: 2 to 9 times, as the failure suggests. `compress`: how bare layers
    of docker archives are compressed; with "gzip" their digests depend on this machine's processor.
    """

    plain_http: frozenset[str] = frozenset()
    https: frozenset[str] = frozenset()
    tls_verify: bool = True
    concurrency: int | None = None
    cache: CacheMode = "auto"
    cache_dir: Path | None = None
    cache_size: int | None = None
    docker_config: Path | None = None
    auth_files: tuple[Path, ...] = ()
    auth_content: AuthContent | None = None
    ca: tuple[Path, ...] = ()
    pairs: tuple[ClientCertificate, ...] = ()
    certs: tuple[Path, ...] = ()
    proxies: Proxies = DIRECT
    hosts: dict[str, HostSettings] = {}
    bytes_per_second: float = 0
    trace: bool = False
    retry_times: int | None = None
    compress: CompressMode = "gzip"

    @property
    def blobs_at_once(self) -> int:
        """Blobs whose bytes move at once at a host that is near."""
        return self.concurrency or CONCURRENCY


class SignatureSettings(msgspec.Struct, frozen=True):
    """Which signature policy judges images where nothing else is said, with the roots for its certificates,
    and of which manifests it is asked (see `engine.policy.Policy`)."""

    policy: Path | None = None
    trusted_root: Path | None = None
    judged: Judged = "root"


def logins_of(settings: Settings) -> CredentialStore:
    """Where the logins of a run come from."""
    docker = (settings.docker_config / "config.json",) if settings.docker_config else ()
    return CredentialStore((*docker, *settings.auth_files), content=settings.auth_content)


def host_access(host: str, settings: Settings, logins: CredentialStore) -> HostAccess:
    """How `host[:port]` is reached. Raises InvalidConfig for a certificate that can't be used.

    Loopback hosts speak plain HTTP, unless TLS was spoken of: for the host itself, which then speaks it, or
    for every host, and then it is tried. Raises UsageError for a host that is said to speak both.
    """
    own = settings.hosts.get(host, HostSettings())
    verify = settings.tls_verify if own.verify is None else own.verify
    named = tls_settings_in(settings.certs, host)
    trust = TlsSettings(
        verify,
        ca=(*own.trust.ca, *settings.ca, *named.ca),
        pairs=(*settings.pairs, *own.trust.pairs, *named.pairs),
    )
    encrypted = host in settings.https
    if encrypted and (own.http or host in settings.plain_http):
        where = (
            "--plain-http" if host in settings.plain_http else "its settings, as in config.toml or a spec,"
        )
        raise UsageError(
            f"{host} is to be spoken to by TLS, and {where} says plain HTTP; leave one of them out"
        )
    local = is_loopback(host) and not (encrypted or own.trust or named)
    plain = host in settings.plain_http or (local and not trust if own.http is None else own.http)
    return HostAccess(
        scheme="http" if plain else "https",
        tls=ssl_context_of(trust),
        tls_optional=not encrypted and (not verify or (local and own.http is None)),
        connections=own.connections or settings.blobs_at_once,
        far_connections=0 if own.connections or settings.concurrency else FAR_CONCURRENCY,
        requests_per_second=own.requests_per_second,
        bytes_per_second=own.bytes_per_second,
        credentials=own.credentials or partial(logins.find, host),
        profile=own.profile,
        proxies=settings.proxies if own.proxies is None else own.proxies,
        mirrors=own.mirrors,
        parallel_ranges=own.parallel_ranges,
        retry_times=settings.retry_times,
    )
