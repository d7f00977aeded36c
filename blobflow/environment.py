"""Settings for registries from this machine's environment and files.

The command line and the library both come here, so that what works on the one works in the other. What is
given outright (flags) counts before the environment (BLOBFLOW_… of the flag's name), and that before the
configuration file. Certificates add up: those given, of the host's table in the file, and of the folders of
docker and containers.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from blobflow.errors import Side, UsageError
from blobflow.oci.local_reference import transport_of
from blobflow.settings import Settings
from blobflow.transports.registry import (
    AuthContent,
    ClientCertificate,
    CredentialStore,
    HostSettings,
    TlsSettings,
)
from blobflow.transports.registry.auth.credentials import Credentials, parse_login
from blobflow.transports.registry.http.proxies import from_variables
from blobflow.transports.registry.http.tls import ssl_context_of
from blobflow.variables import Variables, places_of, read_variables, xdg_folder

AUTH_CONTENT = "DOCKER_AUTH_CONFIG"
_SYSTEM_CERTS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


class Login(msgspec.Struct, frozen=True):
    """A login for the one registry of a side; `named` is what gave it, for messages."""

    named: str
    side: Side
    hosts: Collection[str]
    credentials: Credentials


class SideAccess(msgspec.Struct, frozen=True):
    """What is said of all registries of a side, `hosts` (layouts and archives count for nothing).

    `tls_verify`: see `Settings`. `authfile`: logins come from this file alone. `anonymous`: none is given.
    """

    side: Side
    hosts: Collection[str]
    tls_verify: bool | None = None
    authfile: Path | None = None
    anonymous: bool = False


def from_environment(
    environ: Mapping[str, str] | None = None, *, sources: Collection[str] = (), targets: Collection[str] = ()
) -> Settings:
    """The settings that the command line has, started here without options.

    Logins of docker, podman, skopeo and `blobflow login`; blobflow's configuration file; the folders of
    certificates; proxies; the BLOBFLOW_… variables; the store in the user's cache folder. Change what is to
    be different with `msgspec.structs.replace`. `environ`: in place of this process's. BLOBFLOW_SOURCE_CREDS
    and BLOBFLOW_TARGET_CREDS count where `sources` and `targets` (hosts) say whose logins they are.

    Nothing is asked for over the network, and no login is read before a registry wants one. Raises UsageError
    and InvalidConfig for what can't be used.
    """
    environ = os.environ if environ is None else environ
    ends: tuple[tuple[str, Side, Collection[str]], ...] = (
        ("BLOBFLOW_SOURCE_CREDS", "source", sources),
        ("BLOBFLOW_TARGET_CREDS", "target", targets),
    )
    logins = [
        Login(name, side, hosts, parse_login(environ[name], name))
        for name, side, hosts in ends
        if environ.get(name) and hosts
    ]
    settings = settings_from(environ, read_variables(environ))
    hosts = with_sides(settings.hosts, logins)
    return msgspec.structs.replace(settings, cache_dir=places_of(environ)[1], hosts=hosts)


def settings_from(environ: Mapping[str, str], given: Variables) -> Settings:
    """The settings that say how registries are reached: `given`, and the files that the environment leads to.

    What is said of a side is not in them yet: see `with_sides`. Raises UsageError and InvalidConfig for what
    can't be used, as far as it is known before a host is asked.
    """
    docker, _ = places_of(environ)
    config = xdg_folder(environ, "XDG_CONFIG_HOME", ".config")
    pairs = _pairs(given)
    ssl_context_of(TlsSettings(ca=given.ca, pairs=pairs))
    variable = environ.get("REGISTRY_AUTH_FILE")
    if (named := given.authfile or (Path(variable) if variable else None)) is not None:
        _check_authfile(named, "--authfile" if given.authfile else "REGISTRY_AUTH_FILE")
    return Settings(
        plain_http=given.plain_http,
        https=given.tls,
        tls_verify=given.tls_verify is not False,
        docker_config=None if named else docker,
        auth_files=(named,) if named else tuple(auth_files(environ, config)),
        auth_content=None if named else auth_content(environ),
        ca=given.ca,
        pairs=pairs,
        certs=tuple(certificate_folders(environ, config)),
        proxies=from_variables(environ),
        hosts=_hosts(given, config),
    )


def with_sides(
    hosts: Mapping[str, HostSettings], logins: Iterable[Login], sides: Iterable[SideAccess] = ()
) -> dict[str, HostSettings]:
    """The hosts' settings with what was said of the registries at one side. It never reaches the other side.

    Raises UsageError for a login that could be meant for several registries, and for a registry at both sides
    of which these say different things.
    """
    changed = dict(hosts)

    def change(host: str, **fields: Any) -> None:
        changed[host] = msgspec.structs.replace(changed.get(host, HostSettings()), **fields)

    verified: dict[str, bool] = {}
    givers: dict[str, tuple[Path | None, bool]] = {}
    for side in sides:
        giver = side.authfile, side.anonymous
        if side.authfile is not None:
            _check_authfile(side.authfile, f"--{side.side}-authfile")
        for host in (host for host in side.hosts if not transport_of(host)):
            if side.tls_verify is not None:
                if verified.setdefault(host, side.tls_verify) != side.tls_verify:
                    raise UsageError(f"{host} is source and target; verify its TLS at both or at neither")
                change(host, verify=side.tls_verify)
            if giver != (None, False):
                if givers.setdefault(host, giver) != giver:
                    raise UsageError(f"{host} is source and target; say once where its login comes from")
                store = CredentialStore([side.authfile] if side.authfile else [])
                change(host, credentials=partial(store.find, host))
    for host, login in _by_host(logins).items():
        if host in givers:
            raise UsageError(f"{host} is given a login; leave out the options that say where to look for one")
        change(host, credentials=login)
    return changed


def _check_authfile(file: Path, named: str) -> None:
    if not file.exists():
        raise UsageError(f"{named} names {file}, and there is no such file")


def config_file(environ: Mapping[str, str]) -> Path | None:
    """The configuration file that holds: the one that BLOBFLOW_CONFIG names, or the one in the user's
    folder if it is there."""
    if environ.get("BLOBFLOW_CONFIG"):
        return Path(environ["BLOBFLOW_CONFIG"])
    return _default_config(xdg_folder(environ, "XDG_CONFIG_HOME", ".config"))


def _default_config(folder: Path | None) -> Path | None:
    file = folder and folder / "blobflow" / "config.toml"
    return file if file and file.exists() else None


def worker_store(environ: Mapping[str, str] | None = None) -> Path | None:
    """The store of a worker, where BLOBFLOW_WORKER_STORE names one."""
    named = (os.environ if environ is None else environ).get("BLOBFLOW_WORKER_STORE")
    return Path(named) if named else None


def login_file(environ: Mapping[str, str], given: Path | None = None) -> Path:
    """Where a login is kept: the file `given`, or that is looked into first. Raises UsageError where there is
    no home."""
    if given is None and not environ.get("REGISTRY_AUTH_FILE") and places_of(environ)[0] is None:
        raise UsageError("there is no home to keep logins in; set DOCKER_CONFIG to a folder")
    return login_files(environ, given)[0]


def login_files(environ: Mapping[str, str], given: Path | None = None) -> tuple[Path, ...]:
    """The files that logins are looked for in, there or not: `given` alone if there is one."""
    variable = environ.get("REGISTRY_AUTH_FILE")
    if given is not None or variable:
        return (given or Path(variable or ""),)
    docker, _ = places_of(environ)
    others = auth_files(environ, xdg_folder(environ, "XDG_CONFIG_HOME", ".config"))
    return (*((docker / "config.json",) if docker else ()), *others)


def certificate_folders(environ: Mapping[str, str], config: Path | None) -> Iterable[Path]:
    """The folders of client and CA certificates; the containers tools ask the home for it, and not XDG.
    `config`: XDG's folder of configurations."""
    users = [config] if config else []
    users += [Path(environ["HOME"], ".config")] if environ.get("HOME") else []
    yield from dict.fromkeys(folder / "containers" / "certs.d" for folder in users)
    yield from _SYSTEM_CERTS


def auth_files(environ: Mapping[str, str], config: Path | None) -> Iterable[Path]:
    """The places of containers' auth.json; without a session Linux has another for it."""
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json")
    else:
        yield Path("/run", "containers", str(os.getuid()), "auth.json")
    if config:
        yield config / "containers" / "auth.json"


def auth_content(environ: Mapping[str, str]) -> AuthContent | None:
    """The logins that a variable holds itself, as CI systems hand them over, and as docker reads them before
    its file."""
    text = environ.get(AUTH_CONTENT, "")
    return AuthContent(AUTH_CONTENT, text) if text.strip() else None


def _pairs(given: Variables) -> tuple[ClientCertificate, ...]:
    if (given.cert is None) != (given.key is None):
        raise UsageError(
            "--cert and --key go together, as BLOBFLOW_CERT and BLOBFLOW_KEY do: "
            "a client certificate and its key"
        )
    return (ClientCertificate(given.cert, given.key),) if given.cert and given.key else ()


def _hosts(given: Variables, config: Path | None) -> dict[str, HostSettings]:
    """The hosts of the configuration file, as far as what was given does not go before that."""
    hosts: dict[str, HostSettings] = {}
    file = given.config or _default_config(config)
    if file is not None:
        from blobflow.config_file import read_config  # its TOML is paid for where there is some

        hosts = read_config(file)
    if given.tls_verify is not None:
        hosts = {host: msgspec.structs.replace(each, verify=None) for host, each in hosts.items()}
    return without_http(hosts, given.tls)


def without_http(hosts: Mapping[str, HostSettings], encrypted: Collection[str]) -> dict[str, HostSettings]:
    """The hosts' settings where some were said to speak TLS by what goes before these settings."""
    return {
        host: msgspec.structs.replace(each, http=None) if each.http and host in encrypted else each
        for host, each in hosts.items()
    }


def _by_host(logins: Iterable[Login]) -> dict[str, Credentials]:
    """The logins by host. A login goes to one registry, never to all that happen to be named.

    One registry at both ends has one login; layouts and archives want none. Raises UsageError.
    """
    found: dict[str, Credentials] = {}
    for login in logins:
        hosts = sorted(host for host in login.hosts if not transport_of(host))
        if len(hosts) != 1:
            there = (
                f"the {login.side}s are {', '.join(hosts)}" if hosts else f"there is no {login.side} registry"
            )
            raise UsageError(f"{login.named} is for one registry, and {there}; use `blobflow login` instead")
        host = hosts[0]
        if found.get(host, login.credentials) != login.credentials:
            raise UsageError(f"{host} is source and target; give it one login, not two")
        found[host] = login.credentials
    return found
