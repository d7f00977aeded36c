"""What of a run travels to its workers: how registries are to be spoken to, as far as that is no secret and
no file of this machine. Logins, certificates and proxies are each worker's own."""

from __future__ import annotations

import sys

import msgspec

from blobflow.engine.services import CacheMode
from blobflow.oci.local_reference import transport_of
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings, Profile
from blobflow.version import __version__

# Changes with whatever coordinator and workers say to each other.
FORMAT = 2


class Versions(msgspec.Struct, frozen=True):
    """What has to be the same at both ends: the version of blobflow, Python's (3.11), and the format in which
    carriages travel."""

    blobflow: str
    python: str
    format: int = FORMAT

    def difference(self, there: Versions) -> str:
        """What differs `there`, as the end of a sentence; "": nothing."""
        if there.blobflow != self.blobflow:
            return f"has blobflow {there.blobflow}, and this is {self.blobflow}"
        if there.python != self.python:
            return f"runs Python {there.python}, and this is {self.python}"
        if there.format != self.format:
            return f"speaks format {there.format} of carriages, and this is {self.format}"
        return ""


def versions_here() -> Versions:
    """Those of this process."""
    return Versions(__version__, f"{sys.version_info.major}.{sys.version_info.minor}")


class HostTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What travels of the settings of one host; see `HostSettings`."""

    http: bool | None = None
    verify: bool | None = None
    profile: Profile | None = None
    mirrors: tuple[str, ...] = ()
    parallel_ranges: bool = True


class RunTerms(msgspec.Struct, frozen=True):
    """A run, to its workers. `sources` and `targets`: its registries, for a worker whose environment has one
    login for a side. The rest as in `Settings`."""

    run: str
    sources: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    plain_http: frozenset[str] = frozenset()
    https: frozenset[str] = frozenset()
    tls_verify: bool = True
    cache: CacheMode = "auto"
    retry_times: int | None = None
    trace: bool = False
    hosts: dict[str, HostTerms] = {}


def terms_of(run: str, settings: Settings, sources: frozenset[str], targets: frozenset[str]) -> RunTerms:
    """The terms of a run with those settings, between those hosts."""
    return RunTerms(
        run=run,
        sources=_registries(sources),
        targets=_registries(targets),
        plain_http=settings.plain_http,
        https=settings.https,
        tls_verify=settings.tls_verify,
        cache=settings.cache,
        retry_times=settings.retry_times,
        trace=settings.trace,
        hosts={host: _host_terms(own) for host, own in settings.hosts.items()},
    )


def under_terms(own: Settings, terms: RunTerms) -> Settings:
    """A worker's own settings, with what a run says in their place."""
    hosts = dict(own.hosts)
    for host, each in terms.hosts.items():
        hosts[host] = _host_under(hosts.get(host, HostSettings()), each)
    return msgspec.structs.replace(
        own,
        plain_http=own.plain_http | terms.plain_http,
        https=own.https | terms.https,
        tls_verify=own.tls_verify and terms.tls_verify,
        cache=terms.cache,
        retry_times=terms.retry_times,
        trace=terms.trace,
        hosts=hosts,
    )


def _registries(hosts: frozenset[str]) -> frozenset[str]:
    return frozenset(host for host in hosts if not transport_of(host))


def _host_terms(settings: HostSettings) -> HostTerms:
    return HostTerms(
        settings.http, settings.verify, settings.profile, settings.mirrors, settings.parallel_ranges
    )


def _host_under(own: HostSettings, terms: HostTerms) -> HostSettings:
    return msgspec.structs.replace(
        own,
        http=own.http if terms.http is None else terms.http,
        verify=own.verify if terms.verify is None else terms.verify,
        profile=terms.profile or own.profile,
        mirrors=terms.mirrors or own.mirrors,
        parallel_ranges=own.parallel_ranges and terms.parallel_ranges,
    )
