"""How registries are reached from here: the configuration file, the environment and the flags, as settings.

Flags count before the environment (BLOBFLOW_… of the flag's name), and that before the file. Certificates add
up: those of the flags, of the host's table in the file, and of the folders of docker and containers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from blobflow.cli.options import Ends, Link, places_of, xdg_folder
from blobflow.errors import UsageError
from blobflow.mirror import Settings
from blobflow.oci.location import transport_of
from blobflow.transports.registry import HostSettings, KeyPair, Trust
from blobflow.transports.registry.credentials import Credentials
from blobflow.transports.registry.proxies import from_variables
from blobflow.transports.registry.trust import context_of

_SYSTEM_CERTS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


def reach(link: Link, environ: Mapping[str, str], ends: Ends) -> Settings:
    """The settings that say how registries are reached.

    Raises UsageError and InvalidConfig for what can't be used, as far as it is known before a host is asked.
    """
    docker, _ = places_of(environ)
    config = xdg_folder(environ, "XDG_CONFIG_HOME", ".config")
    pairs = _pairs(link)
    context_of(Trust(ca=link.ca, pairs=pairs))
    given = environ.get("REGISTRY_AUTH_FILE")
    if given and not Path(given).exists():
        raise UsageError(f"REGISTRY_AUTH_FILE names {given}, and there is no such file")
    return Settings(
        plain_http=link.plain_http,
        tls_verify=link.tls_verify is not False,
        docker_config=None if given else docker,
        auth_files=(Path(given),) if given else tuple(_auth_files(environ, config)),
        ca=link.ca,
        pairs=pairs,
        certs=tuple(_certs(environ, config)),
        proxies=from_variables(environ),
        hosts=_hosts(link, config, ends),
        trace=link.look.verbose,
    )


def login_file(environ: Mapping[str, str]) -> Path:
    """Where a login is kept: the file that is looked into first. Raises UsageError where there is no home."""
    if given := environ.get("REGISTRY_AUTH_FILE"):
        return Path(given)
    docker, _ = places_of(environ)
    if docker is None:
        raise UsageError("there is no home to keep logins in; set DOCKER_CONFIG to a folder")
    return docker / "config.json"


def _certs(environ: Mapping[str, str], config: Path | None) -> Iterable[Path]:
    """The folders of client and CA certificates; the containers tools ask the home for it, and not XDG."""
    users = [config] if config else []
    users += [Path(environ["HOME"], ".config")] if environ.get("HOME") else []
    yield from dict.fromkeys(folder / "containers" / "certs.d" for folder in users)
    yield from _SYSTEM_CERTS


def _auth_files(environ: Mapping[str, str], config: Path | None) -> Iterable[Path]:
    """The places of containers' auth.json; without a session Linux has another for it."""
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json")
    else:
        yield Path("/run", "containers", str(os.getuid()), "auth.json")
    if config:
        yield config / "containers" / "auth.json"


def _pairs(link: Link) -> tuple[KeyPair, ...]:
    if (link.cert is None) != (link.key is None):
        raise UsageError("--cert and --key go together: a client certificate and its key")
    return (KeyPair(link.cert, link.key),) if link.cert and link.key else ()


def _hosts(link: Link, config: Path | None, ends: Ends) -> dict[str, HostSettings]:
    """The hosts of the configuration file, with what the flags say about each."""
    hosts: dict[str, HostSettings] = {}
    file = link.config
    if file is None and config and (config / "blobflow" / "config.toml").exists():
        file = config / "blobflow" / "config.toml"
    if file is not None:
        from blobflow.cli.config import read_config  # its TOML is paid for where there is some

        hosts = read_config(file)
    if link.tls_verify is not None:
        hosts = {host: msgspec.structs.replace(each, verify=None) for host, each in hosts.items()}
    for host, login in _logins(link, ends).items():
        hosts[host] = msgspec.structs.replace(hosts.get(host, HostSettings()), credentials=login)
    return hosts


def _registries(hosts: Iterable[str]) -> list[str]:
    """The registries among places; layouts and archives want no login."""
    return sorted(host for host in hosts if not transport_of(host))


def _logins(link: Link, ends: Ends) -> dict[str, Credentials]:
    """The logins given by flags, by host. A login goes to one registry, never to all that happen to be named.

    One registry at both ends has one login. Raises UsageError.
    """
    logins: dict[str, Credentials] = {}
    given = (
        ("--source-creds", link.source_creds, "source", _registries(ends.sources)),
        ("--target-creds", link.target_creds, "target", _registries(ends.targets)),
    )
    for option, login, side, hosts in given:
        if login is None:
            continue
        if len(hosts) != 1:
            found = f"the {side}s are {', '.join(hosts)}" if hosts else f"there is no {side} registry"
            raise UsageError(f"{option} is for one registry, and {found}; use `blobflow login` instead")
        host = hosts[0]
        if logins.get(host, login) != login:
            raise UsageError(f"{host} is source and target; give it one login, not two")
        logins[host] = login
    return logins
