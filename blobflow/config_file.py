"""The configuration file: TOML → typed values → settings by host. Pure, but for `read_config`.

    [registry."docker.io"]
    mirrors = ["mirror.example.com", "cache.example.com:5000/hub"]

    [registry."registry.example.com:5000"]
    ca = ["private-ca.pem"]
    keypair = [{key = "client.key", cert = "client.pem"}]
    connections = 16
    requests_per_second = 50
    bytes_per_second = "20MB"
    profile = "ecr"
    proxy = "http://proxy.example.com:3128"
    parallel_ranges = false

The registries' tables have the shape of buildkitd.toml's: `http`, `insecure`, `ca`, `keypair` and `mirrors`
mean what they mean there. `profile` is a name or a table of a profile's fields; `proxy` replaces the
environment's for this host, "" with none. File names are relative to the file's own folder. Keys that are
not known are errors: a typing mistake must not quietly leave a registry untrusted, or trusted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from blobflow.byte_size import parse_size
from blobflow.errors import InvalidConfig, InvalidReference
from blobflow.oci.reference import check_host
from blobflow.printable import printable
from blobflow.transports.registry import ClientCertificate, HostSettings, Profile, TlsSettings
from blobflow.transports.registry.capabilities.profiles import profiles_by_name
from blobflow.transports.registry.http.proxies import Proxies, single_proxy
from blobflow.transports.registry.mirrors import parse_mirror
from blobflow.validation_messages import reworded, split_message, suggestion

_Kind = TypeVar("_Kind", bound=msgspec.Struct)
# Above these a number is a typing mistake; `inf` and `nan` are TOML too.
_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_Rate = Annotated[float, msgspec.Meta(gt=0, le=1e15)]


class _Pair(msgspec.Struct, frozen=True):
    key: str
    cert: str


class _Host(msgspec.Struct, frozen=True):
    http: bool | None = None
    insecure: bool | None = None
    ca: tuple[str, ...] = ()
    keypair: tuple[_Pair, ...] = ()
    mirrors: tuple[str, ...] = ()
    connections: _Count | None = None
    requests_per_second: _Rate | None = None
    bytes_per_second: _Rate | str | None = None
    profile: dict[str, Any] | str | None = None
    proxy: str | None = None
    parallel_ranges: bool = True


class _File(msgspec.Struct, frozen=True):
    registry: dict[str, Any] = {}


def read_config(path: Path) -> dict[str, HostSettings]:
    """The hosts of a file. Raises InvalidConfig where it can't be read, or as `parse_config`."""
    try:
        text = path.read_text()
    except OSError as error:
        raise InvalidConfig(f"can't read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidConfig(f"{path} is not TOML: it is not UTF-8") from None
    return parse_config(text, str(path), path.parent)


def parse_config(text: str, name: str, folder: Path) -> dict[str, HostSettings]:
    """What a file says, by host. `name` is what it is called in errors; `folder` what its paths start from.

    Raises InvalidConfig with the file, the place and what to write instead.
    """
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # beside TOML's own: a number of thousands of digits
        raise InvalidConfig(f"{name} is not TOML: {error}") from None
    except RecursionError:
        raise InvalidConfig(f"{name} is nested too deeply to be a configuration") from None
    hosts: dict[str, HostSettings] = {}
    for text_host, table in _typed(document, _File, name).registry.items():
        where = f'{name}: [registry."{text_host}"]'
        try:
            host = check_host(text_host)
        except InvalidReference as error:
            raise InvalidConfig(f"{where}: {error}") from None
        if host in hosts:
            raise InvalidConfig(f"{where}: {host} has a table already")
        hosts[host] = _settings(_typed(table, _Host, where), where, folder)
    return hosts


def _settings(host: _Host, where: str, folder: Path) -> HostSettings:
    if host.http and (host.ca or host.keypair):
        raise InvalidConfig(f"{where}: `http` goes without TLS, so `ca` and `keypair` have no use; keep one")
    for mirror in host.mirrors:
        try:
            parse_mirror(mirror)
        except InvalidReference as error:
            raise InvalidConfig(f"{where} mirrors: {error}") from None
    return HostSettings(
        http=host.http,
        verify=None if host.insecure is None else not host.insecure,
        trust=TlsSettings(
            ca=tuple(folder / file for file in host.ca),
            pairs=tuple(ClientCertificate(folder / pair.cert, folder / pair.key) for pair in host.keypair),
        ),
        mirrors=host.mirrors,
        connections=host.connections,
        requests_per_second=host.requests_per_second or 0,
        bytes_per_second=_rate(host.bytes_per_second, where),
        profile=_profile(host.profile, where),
        proxies=_proxies(host.proxy, where),
        parallel_ranges=host.parallel_ranges,
    )


def _rate(value: float | str | None, where: str) -> float:
    if not isinstance(value, str):
        return value or 0
    try:
        rate = parse_size(value)
    except ValueError as error:
        raise InvalidConfig(f"{where} bytes_per_second: {error}") from None
    if not rate:
        raise InvalidConfig(f"{where} bytes_per_second: leave it out for no limit; 0 would move nothing")
    return rate


def _profile(value: Mapping[str, Any] | str | None, where: str) -> Profile | None:
    if value is None:
        return None
    where = f"{where} profile"
    if isinstance(value, str):
        known = profiles_by_name()
        if value not in known:
            raise InvalidConfig(f"{where}: there is no profile `{value}`; {suggestion(value, known)}")
        return known[value]
    profile = _typed({"name": "configured", **value}, Profile, where)
    if not profile.rungs:
        raise InvalidConfig(f"{where}: `rungs` is empty; an upload needs at least one")
    if profile.chunk_bytes < 1:
        raise InvalidConfig(f"{where}: `chunk_bytes` has to be at least 1")
    return profile


def _proxies(value: str | None, where: str) -> Proxies | None:
    return None if value is None else single_proxy(value, f"{where} proxy")


_IN_TOML = {
    " | null`": "`",
    "Object missing required": "It misses the",
    "object": "table",
    "array": "list",
    "str": "text",
    "bool": "true or false",
}


def _typed(table: object, kind: type[_Kind], where: str) -> _Kind:
    """A table as a value. Raises InvalidConfig: an unknown key with the nearest one, or what is wrong."""
    _refuse_unknown(table, kind, where)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        problem, path = split_message(str(error))
        place = f"{where} {path.lstrip('.')}".rstrip()
        raise InvalidConfig(f"{place}: {reworded(problem, _IN_TOML)}") from None


def _refuse_unknown(table: object, kind: type[msgspec.Struct], where: str) -> None:
    known = [field.name for field in msgspec.structs.fields(kind)]
    for key, value in table.items() if isinstance(table, dict) else ():
        if key not in known:
            raise InvalidConfig(f"{where}: unknown key `{printable(key)}`; {suggestion(key, known)}")
        if key == "keypair" and isinstance(value, list):
            for pair in value:
                _refuse_unknown(pair, _Pair, f"{where} keypair")
