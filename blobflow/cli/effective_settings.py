"""What holds on this machine where no option says otherwise, and where each value comes from. Pure, but for
the files that it looks for. Secrets are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from blobflow.environment import AUTH_CONTENT, auth_content, auth_files, certificate_folders, config_file
from blobflow.oci.reference import check_host
from blobflow.printable import printable
from blobflow.settings import CONCURRENCY, FAR_CONCURRENCY, Settings
from blobflow.transports.registry.http.proxies import without_login
from blobflow.variables import places_of, read_variables, xdg_folder

_DEFAULT = "default"
_SECRET = "given, not shown"
_ABSENT = "absent"


class EffectiveSetting(msgspec.Struct, frozen=True):
    """One setting. `origin`: the variable or the file that it comes from, or `default`."""

    name: str
    value: str
    origin: str


def effective_settings(environ: Mapping[str, str], config: Path | None = None) -> list[EffectiveSetting]:
    """All settings, the general ones first; `config` is the file that was named.

    Raises UsageError and InvalidConfig for what can't be used.
    """
    return [
        *_general(environ, config),
        *_files(environ),
        *_proxies(environ),
        *_runs(environ),
        *_hosts(environ, config),
    ]


def _general(environ: Mapping[str, str], config: Path | None) -> Iterator[EffectiveSetting]:
    given = read_variables(environ)
    file = config or config_file(environ)
    if config or given.config:
        origin = "--config" if config else "BLOBFLOW_CONFIG"
        yield EffectiveSetting("config", str(file), origin)
    else:
        yield EffectiveSetting("config", str(file or "none"), _DEFAULT)
    hosts = " ".join(sorted(given.plain_http))
    yield _of("plain-http", hosts or "loopback hosts", bool(hosts), "BLOBFLOW_PLAIN_HTTP")
    speaks_tls = " ".join(sorted(given.tls))
    yield _of("tls", speaks_tls or "all but loopback hosts", bool(speaks_tls), "BLOBFLOW_TLS")
    said = given.tls_verify is not None
    yield _of("tls-verify", "false" if given.tls_verify is False else "true", said, "BLOBFLOW_TLS_VERIFY")
    files = " ".join(map(str, given.ca))
    yield _of("ca", files or "the system's", bool(files), "BLOBFLOW_CA")
    yield _of("cert", str(given.cert or "none"), given.cert is not None, "BLOBFLOW_CERT")
    yield _of("key", str(given.key or "none"), given.key is not None, "BLOBFLOW_KEY")
    for side in ("source", "target"):
        variable = f"BLOBFLOW_{side.upper()}_CREDS"
        there = bool(environ.get(variable))
        yield _of(f"{side}-creds", _SECRET if there else "none", there, variable)
    yield from _engine(environ, file)


def _engine(environ: Mapping[str, str], file: Path | None) -> Iterator[EffectiveSetting]:
    """Who carries blobs: a variable says it before the configuration file."""
    said = {key: setting for host, key, setting in _configured(file) if host == "engine"}
    for name, key in (
        ("engine", "address"),
        ("engine-ca", "ca"),
        ("engine-cert", "cert"),
        ("engine-key", "key"),
    ):
        variable = f"BLOBFLOW_{name.upper().replace('-', '_')}"
        if (value := environ.get(variable)) or key not in said:
            yield _of(name, value or "none", bool(value), variable)
        else:
            yield EffectiveSetting(name, said[key].value or "none", said[key].origin)


def _of(name: str, value: str, given: bool, variable: str) -> EffectiveSetting:
    return EffectiveSetting(name, printable(value), variable if given else _DEFAULT)


def _files(environ: Mapping[str, str]) -> Iterator[EffectiveSetting]:
    """The files of logins and the folders of certificates that are looked into, in this order."""
    named = environ.get("REGISTRY_AUTH_FILE")
    docker, _ = places_of(environ)
    config = xdg_folder(environ, "XDG_CONFIG_HOME", ".config")
    origin = "DOCKER_CONFIG" if environ.get("DOCKER_CONFIG") else _DEFAULT
    if named:
        yield EffectiveSetting("logins", _there(Path(named)), "REGISTRY_AUTH_FILE")
    else:
        if auth_content(environ):
            yield EffectiveSetting("logins", _SECRET, AUTH_CONTENT)
        if docker:
            yield EffectiveSetting("logins", _there(docker / "config.json"), origin)
        for file in auth_files(environ, config):
            yield EffectiveSetting("logins", _there(file), _DEFAULT)
    for folder in certificate_folders(environ, config):
        yield EffectiveSetting("certificates", _there(folder), _DEFAULT)


def _there(path: Path) -> str:
    try:
        exists = path.exists()
    except OSError:
        exists = False
    return str(path) if exists else f"{path} ({_ABSENT})"


def _proxies(environ: Mapping[str, str]) -> Iterator[EffectiveSetting]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        variable = name if environ.get(name) else name.lower()
        value = environ.get(variable, "")
        shown = value if name == "NO_PROXY" else without_login(value)
        yield _of(name.lower().replace("_", "-"), shown or "none", bool(value), variable)


def _runs(environ: Mapping[str, str]) -> Iterator[EffectiveSetting]:
    """What a run may use, by the names of its options, which alone say otherwise where no variable does."""
    _, cache = places_of(environ)
    said = xdg_folder({**environ, "HOME": ""}, "XDG_CACHE_HOME", "") is not None
    yield _of("cache-dir", str(cache or "none"), said, "XDG_CACHE_HOME")
    worker = environ.get("BLOBFLOW_WORKER_STORE")
    yield _of("worker-store", worker or "none", bool(worker), "BLOBFLOW_WORKER_STORE")
    plain = Settings()
    for name, value in (
        ("cache", plain.cache),
        ("max-size", "what it holds, and half of what is free on its disk"),
        ("concurrency", f"{CONCURRENCY}, up to {FAR_CONCURRENCY} at a host far away"),
        ("limit-rate", "none"),
        ("retry-times", "2 to 9, as the failure suggests"),
        ("compress", plain.compress),
        ("verbose", str(plain.trace).lower()),
    ):
        yield _of(name, value, False, "")


def _hosts(environ: Mapping[str, str], config: Path | None) -> Iterator[EffectiveSetting]:
    """What the configuration file says of each host, where no variable goes before it."""
    given = read_variables(environ)
    for host, key, setting in _configured(config or config_file(environ)):
        name, value = setting.name, setting.value
        if key == "insecure" and given.tls_verify is not None:
            yield EffectiveSetting(name, str(not given.tls_verify).lower(), "BLOBFLOW_TLS_VERIFY")
        elif key == "http" and value == "true" and check_host(host) in given.tls:
            yield EffectiveSetting(name, "false", "BLOBFLOW_TLS")
        elif key == "http" and value == "false" and check_host(host) in given.plain_http:
            yield EffectiveSetting(name, "true", "BLOBFLOW_PLAIN_HTTP")
        elif host != "engine":
            yield setting


def _configured(file: Path | None) -> Iterator[tuple[str, str, EffectiveSetting]]:
    """What the configuration file says, by table and key, with the line that says it."""
    if file is None:
        return
    from blobflow.config_file import read_values

    for each in read_values(file):
        origin = f"{file} line {each.line}"
        shown = EffectiveSetting(f"{each.host} {each.key}", _shown(each.key, each.value), origin)
        yield each.host, each.key, shown


def _shown(key: str, value: object) -> str:
    if key == "proxy" and isinstance(value, str):
        return without_login(value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(_shown(key, each) for each in value) or "none"
    if isinstance(value, dict):
        return printable(" ".join(f"{name}={_shown(name, each)}" for name, each in value.items()))
    return printable(str(value))
