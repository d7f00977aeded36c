"""blobflow's own environment variables: the BLOBFLOW_ ones, and the folders of the XDG Base
Directory specification and of docker. Light, and told which environment: nothing here looks for itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from blobflow.errors import UsageError
from blobflow.oci.reference import check_host
from blobflow.printable import printable

_TRUTHS: Final = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class Variables(msgspec.Struct, frozen=True):
    """How registries are spoken to, as far as variables say it; each is an option of the command line.

    BLOBFLOW_PLAIN_HTTP and BLOBFLOW_TLS have hosts with spaces between them, BLOBFLOW_CA files as PATH has
    folders. An empty variable says nothing. `authfile` has none of ours: REGISTRY_AUTH_FILE is containers'.
    """

    plain_http: frozenset[str] = frozenset()
    tls: frozenset[str] = frozenset()
    authfile: Path | None = None
    tls_verify: bool | None = None
    config: Path | None = None
    ca: tuple[Path, ...] = ()
    cert: Path | None = None
    key: Path | None = None


def read_variables(environ: Mapping[str, str]) -> Variables:
    """Raises UsageError and InvalidReference."""
    return Variables(
        plain_http=_hosts(environ, "BLOBFLOW_PLAIN_HTTP"),
        tls=_hosts(environ, "BLOBFLOW_TLS"),
        tls_verify=_truth(environ, "BLOBFLOW_TLS_VERIFY"),
        config=_file(environ, "BLOBFLOW_CONFIG"),
        ca=tuple(Path(name) for name in environ.get("BLOBFLOW_CA", "").split(os.pathsep) if name),
        cert=_file(environ, "BLOBFLOW_CERT"),
        key=_file(environ, "BLOBFLOW_KEY"),
    )


def _hosts(environ: Mapping[str, str], name: str) -> frozenset[str]:
    return frozenset(check_host(host) for host in environ.get(name, "").split())


def _truth(environ: Mapping[str, str], name: str) -> bool | None:
    said = environ.get(name, "").strip()
    if not said:
        return None
    if said.lower() not in _TRUTHS:
        raise UsageError(f"{name} is {printable(said)!r}; set it to true or false")
    return _TRUTHS[said.lower()]


def _file(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def places_of(environ: Mapping[str, str]) -> tuple[Path | None, Path | None]:
    """The folders of docker's configuration and of our cache; None where there is no home."""
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    docker = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home and home / ".docker"
    cache = xdg_folder(environ, "XDG_CACHE_HOME", ".cache")
    return docker, cache and cache / "blobflow"


def xdg_folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """A folder of the XDG Base Directory specification; a relative value is ignored, as it says."""
    named = Path(environ.get(variable, ""))
    if named.is_absolute():
        return named
    return Path(environ["HOME"]) / below_home if environ.get("HOME") else None
