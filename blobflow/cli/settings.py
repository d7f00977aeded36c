"""Builds the library's settings and policy from options, the environment and the configuration file.

Outside of the command line nothing reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.options.connection import ConnectionOptions, SideOptions
from blobflow.cli.options.option_group import was_given
from blobflow.cli.options.run import RunOptions
from blobflow.cli.runtime.startup import tune_gc

if TYPE_CHECKING:
    from blobflow.engine.pairs import Pair
    from blobflow.engine.policy import Policy
    from blobflow.errors import Side
    from blobflow.settings import Settings
    from blobflow.transports.archive import CompressMode
    from blobflow.transports.registry import HostSettings


class Hosts(msgspec.Struct, frozen=True):
    """The hosts that a command reads from, and those that it writes to; also layouts and archives."""

    sources: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()


def hosts_of(pairs: Iterable[Pair]) -> Hosts:
    """The hosts of the pairs' sources and targets."""
    pairs = tuple(pairs)
    return Hosts(frozenset(pair.source.host for pair in pairs), frozenset(pair.target.host for pair in pairs))


def connection_settings(
    connection: ConnectionOptions,
    environ: Mapping[str, str],
    hosts: Hosts,
    *,
    host_defaults: Mapping[str, HostSettings] | None = None,
    connections: bool = True,
) -> Settings:
    """The settings for how registries are reached; `connection` has the environment already.

    `host_defaults`: settings of hosts that have none in the configuration file. `connections`: whether that
    file says how many there are.

    Raises UsageError and InvalidConfig for what can't be used, as far as that shows before any request.
    """
    from blobflow.environment import Login, SideAccess, settings_from, with_sides, without_http
    from blobflow.variables import Variables

    given = Variables(**{name: getattr(connection, name) for name in Variables.__struct_fields__})
    settings = settings_from(environ, given)
    defaults = without_http(host_defaults or {}, given.tls)
    if connection.tls_verify is not None:
        defaults = {host: msgspec.structs.replace(own, verify=None) for host, own in defaults.items()}
    configured = settings.hosts if connections else _without_connections(settings.hosts)
    ends: tuple[tuple[Side, frozenset[str], SideOptions], ...] = (
        ("source", hosts.sources, connection.source),
        ("target", hosts.targets, connection.target),
    )
    logins = [Login(f"--{side}-creds", side, there, own.creds) for side, there, own in ends if own.creds]
    sides = [SideAccess(side, there, own.tls_verify, own.authfile, own.no_creds) for side, there, own in ends]
    return msgspec.structs.replace(
        settings,
        hosts=with_sides(_configured_over(defaults, configured), logins, sides),
        trace=connection.output.verbose,
        retry_times=connection.retry_times,
    )


def run_settings(
    connection: ConnectionOptions,
    run: RunOptions | None = None,
    hosts: Hosts = Hosts(),  # noqa: B008  frozen
    *,
    compress: CompressMode = "gzip",
    host_defaults: Mapping[str, HostSettings] | None = None,
) -> Settings:
    """The settings of a run, from options, the environment and the configuration file. Raises as above.

    A verb that only reads (`run` None) gets no cache folder, so that it works where nothing can be written,
    and passes `compress` itself if it may read archives. `host_defaults`: settings of hosts that have none in
    the configuration file, as a spec has them.
    """
    import_module("blobflow.environment")
    tune_gc()
    connections = run is None or not was_given("concurrency")
    settings = connection_settings(
        connection, os.environ, hosts, host_defaults=host_defaults, connections=connections
    )
    if run is None:
        return msgspec.structs.replace(settings, compress=compress)
    return msgspec.structs.replace(
        settings,
        concurrency=run.concurrency,
        cache=run.cache,
        cache_dir=cache_folder(run.cache_dir),
        cache_size=run.cache_size,
        compress=run.compress,
        bytes_per_second=run.limit_rate or 0,
    )


def _configured_over(
    defaults: Mapping[str, HostSettings], configured: Mapping[str, HostSettings]
) -> dict[str, HostSettings]:
    """The configuration file's table of a host replaces a spec's, but for whether the host speaks http, if
    only the spec says that."""
    hosts = {**defaults, **configured}
    for host in defaults.keys() & configured.keys():
        if configured[host].http is None:
            hosts[host] = msgspec.structs.replace(hosts[host], http=defaults[host].http)
    return hosts


def _without_connections(hosts: Mapping[str, HostSettings]) -> dict[str, HostSettings]:
    return {host: msgspec.structs.replace(each, connections=None) for host, each in hosts.items()}


def run_policy(run: RunOptions) -> Policy:
    """The policy that the options of a run say, but for signatures: see `cli.signature_policies`."""
    from blobflow.engine.policy import Policy

    return Policy(
        keep_going=run.keep_going,
        no_overwrite=run.no_overwrite,
        trust_root=run.trust_root,
        foreign_layers=run.foreign_layers,
        referrers=run.referrers,
        verify=run.verify,
        audit=run.audit,
        wait=run.wait,
    )


def cache_folder(named: Path | None) -> Path | None:
    """The store's root: `named`, else the one of this user; None without a home folder."""
    from blobflow.variables import places_of

    return named or places_of(os.environ)[1]
