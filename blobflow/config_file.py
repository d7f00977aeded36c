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

    [signatures]
    policy = "policy.json"
    trusted_root = "trusted_root.json"
    policy_for = "all"

    [engine]        # or engine = "local:4", before all tables
    address = "tls://scheduler.example.com:8786"
    ca = "engine-ca.pem"
    cert = "engine.pem"
    key = "engine.key"

The registries' tables have the shape of buildkitd.toml's: `http`, `insecure`, `ca`, `keypair` and `mirrors`
mean what they mean there. `profile` is a name or a table of a profile's fields; `proxy` replaces the
environment's for this host, "" with none. File names are relative to the file's own folder. Keys that are
not known are errors: a typing mistake must not quietly leave a registry untrusted, or trusted. All that is
wrong is told at once. The descriptions of the types are those of the JSON schema.
"""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from blobflow.bounded_file import read_bounded
from blobflow.byte_size import parse_size
from blobflow.config_tables import ConfigFile, EngineTable, HostTable, SignaturesTable
from blobflow.errors import InvalidConfig, UsageError
from blobflow.file_errors import FileErrors
from blobflow.oci.reference import check_host
from blobflow.printable import printable
from blobflow.settings import SignatureSettings
from blobflow.toml_lines import TomlLines, parse_toml
from blobflow.transports.registry import ClientCertificate, HostSettings, Profile, TlsSettings
from blobflow.transports.registry.capabilities.profiles import profiles_by_name
from blobflow.transports.registry.http.proxies import single_proxy
from blobflow.transports.registry.mirrors import parse_mirror
from blobflow.typed_values import Mistake, check_value, path_text
from blobflow.validation_messages import reworded, suggestion

_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_Path = tuple[str | int, ...]


class EngineSettings(msgspec.Struct, frozen=True):
    """What a file says of the engine; None where it says nothing."""

    address: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class ConfiguredValue(msgspec.Struct, frozen=True):
    """What a file says of a host under a key, as TOML has it, and in which line; `host`: "signatures" or
    "engine" for what it says of those."""

    host: str
    key: str
    value: object
    line: int


# The text of a file, what that says, and the hosts in it.
_ReadFile = tuple[str, dict[str, Any], dict[str, HostSettings]]


def read_config(path: Path) -> dict[str, HostSettings]:
    """The hosts of a file. Raises InvalidConfig where it can't be read, or as `parse_config`."""
    return dict(_read(path)[2])


def read_signatures(path: Path) -> SignatureSettings:
    """What a file says of signatures. Raises as `read_config`."""
    table = msgspec.convert(_read(path)[1].get("signatures", {}), SignaturesTable)
    return SignatureSettings(
        None if table.policy is None else path.parent / table.policy,
        None if table.trusted_root is None else path.parent / table.trusted_root,
        table.policy_for,
    )


def read_engine(path: Path) -> EngineSettings:
    """What a file says of the engine. Raises as `read_config`."""
    said = msgspec.convert(_read(path)[1].get("engine", {}), EngineTable | str)
    table = EngineTable(said) if isinstance(said, str) else said
    files = (None if name is None else path.parent / name for name in (table.ca, table.cert, table.key))
    return EngineSettings(table.address, *files)


def read_values(path: Path) -> list[ConfiguredValue]:
    """What a file says, value by value. Raises as `read_config`."""
    text, document, _ = _read(path)
    lines = TomlLines(text)
    found = [
        ConfiguredValue(check_host(host), key, value, lines.line(("registry", host, key)))
        for host, table in document.get("registry", {}).items()
        for key, value in table.items()
    ]
    if isinstance(address := document.get("engine"), str):
        found.append(ConfiguredValue("engine", "address", address, lines.line(("engine",))))
        del document["engine"]
    for table in ("signatures", "engine"):
        for key, value in document.get(table, {}).items():
            found.append(ConfiguredValue(table, key, value, lines.line((table, key))))
    return found


def _read(path: Path) -> _ReadFile:
    """A file, read once as long as it stays the same: verbs ask it for one thing after the other, and a pipe
    (`--config <(...)`) says what it has to say once."""
    try:
        found = path.stat()
        changed = (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else ()
        return _read_once(path, (found.st_dev, found.st_ino, *changed))
    except OSError as error:
        raise InvalidConfig(f"can't read the configuration {path}: {error.strerror}") from None


@lru_cache(maxsize=4)
def _read_once(path: Path, identity: tuple[int, ...]) -> _ReadFile:
    """Raises OSError, and InvalidConfig. `identity`: what tells it from what was there before."""
    try:
        text = read_bounded(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidConfig(f"{path} is not TOML: it is not UTF-8") from None
    hosts = parse_config(text, str(path), path.parent)
    return text, tomllib.loads(text), hosts


def parse_config(text: str, name: str, folder: Path) -> dict[str, HostSettings]:
    """What a file says, by host. `name` is what it is called in errors; `folder` what its paths start from.

    Raises InvalidConfig with the file, the line and what to write instead; for several errors InvalidFile
    with all of them.
    """
    document = parse_toml(text, name, "a configuration")
    reader = _Reader(text, name, folder)
    hosts = reader.hosts(document)
    reader.errors.check()
    return hosts


class _Reader:
    """Reads one file; what is wrong goes to `errors`."""

    def __init__(self, text: str, name: str, folder: Path) -> None:
        self.errors = FileErrors()
        self._lines = TomlLines(text)
        self._name = name
        self._folder = folder
        self._document: dict[str, Any] = {}

    def hosts(self, document: dict[str, Any]) -> dict[str, HostSettings]:
        self._document = document
        file = self._typed(document, ConfigFile, ())
        hosts: dict[str, HostSettings] = {}
        for written, table in file.registry.items() if file else ():
            path: _Path = ("registry", written)
            with self._at(path):
                host = check_host(written)
                if host in hosts:
                    raise InvalidConfig(f"{host} has a table already")
                hosts[host] = self._settings(table, path)
        return hosts

    def _settings(self, host: HostTable, path: _Path) -> HostSettings:
        if host.http and (host.ca or host.keypair):
            with self._at((*path, "http")):
                raise InvalidConfig("`http` goes without TLS, so `ca` and `keypair` have no use; keep one")
        for number, mirror in enumerate(host.mirrors):
            with self._at((*path, "mirrors", number), "mirrors"):
                parse_mirror(mirror)
        rate, profile, proxies = 0.0, None, None
        with self._at((*path, "bytes_per_second"), "bytes_per_second"):
            rate = _rate(host.bytes_per_second)
        with self._at((*path, "profile"), "profile"):
            profile = self._profile(host.profile, (*path, "profile"))
        with self._at((*path, "proxy"), colon=""):
            proxies = None if host.proxy is None else single_proxy(host.proxy, "proxy")
        return HostSettings(
            http=host.http,
            verify=None if host.insecure is None else not host.insecure,
            trust=TlsSettings(
                ca=tuple(self._folder / file for file in host.ca),
                pairs=tuple(
                    ClientCertificate(self._folder / pair.cert, self._folder / pair.key)
                    for pair in host.keypair
                ),
            ),
            mirrors=host.mirrors,
            connections=host.connections,
            requests_per_second=host.requests_per_second or 0,
            bytes_per_second=rate,
            profile=profile,
            proxies=proxies,
            parallel_ranges=host.parallel_ranges,
        )

    def _profile(self, value: Mapping[str, Any] | str | None, path: _Path) -> Profile | None:
        if value is None:
            return None
        if isinstance(value, str):
            known = profiles_by_name()
            if value not in known:
                raise InvalidConfig(f"there is no profile `{printable(value)}`; {suggestion(value, known)}")
            return known[value]
        profile = self._typed({"name": "configured", **value}, Profile, path)
        if profile is not None and not profile.rungs:
            raise InvalidConfig("`rungs` is empty; an upload needs at least one")
        if profile is not None and profile.chunk_bytes < 1:
            raise InvalidConfig("`chunk_bytes` has to be at least 1")
        return profile

    def _typed(self, table: object, kind: type[_Kind], path: _Path) -> _Kind | None:
        """What of a table is right, as a value."""
        checked = check_value(table, kind)
        for mistake in checked.mistakes:
            self._add(mistake, (*path, *mistake.path))
        value: _Kind | None = checked.value
        return value

    def _add(self, mistake: Mistake, path: _Path) -> None:
        if mistake.unknown:
            meant = suggestion(mistake.unknown, mistake.known, mistake.below)
            told = self._unquoted_host((*path, mistake.unknown))
            told = told or f"unknown key `{printable(mistake.unknown)}`; {meant}"
            path, place = (*path, mistake.unknown), self._place(path)
            if mistake.meant:
                self._lines.rename(path, mistake.meant)
        else:
            told, place = reworded(mistake.problem, _IN_TOML), self._place(path)
        line = self._lines.line(path)
        sentence = f"{self._file(line)}{f': {place}' if place else ''}: {told}"
        self.errors.add(InvalidConfig(sentence), line=line, typo=bool(mistake.unknown))

    def _unquoted_host(self, path: _Path) -> str:
        """What is wrong with a table at `path` that TOML made of a host's name without quotes; else ""."""
        _, *words = path
        value = self._document.get("registry", {}).get(words[0]) if len(words) == 2 else None
        value = value.get(words[1]) if isinstance(value, dict) else None
        while isinstance(value, dict) and len(value) == 1 and "profile" not in value:
            key, inner = next(iter(value.items()))
            if not isinstance(inner, dict):
                break
            words, value = [*words, key], inner
        host = ".".join(map(str, words))
        return f'a host is quoted; write [registry."{printable(host)}"]' if isinstance(value, dict) else ""

    @contextmanager
    def _at(self, path: _Path, key: str = "", *, colon: str = ":") -> Iterator[None]:
        """Keep the error that is raised inside, with the place of what is at `path`, and the key's name;
        `colon`: nothing where the error begins with that."""
        try:
            yield
        except UsageError as error:
            line = self._lines.line(path)
            place = " ".join(filter(None, (self._place(path[:2]), key)))
            sentence = f"{self._file(line)}: {place}{colon} {error.message}"
            self.errors.add(InvalidConfig(sentence), line=line)

    def _file(self, line: int) -> str:
        return f"{self._name} line {line}" if line else self._name

    def _place(self, path: _Path) -> str:
        """A path as people write it: [registry."host"] key[0]."""
        if len(path) < 2 or path[0] != "registry":
            return printable(".".join(map(str, path)))
        return printable(f'[registry."{path[1]}"] {path_text(path[2:])}'.rstrip())


def _rate(value: float | str | None) -> float:
    if not isinstance(value, str):
        return value or 0
    try:
        rate = parse_size(value)
    except ValueError as error:
        raise InvalidConfig(str(error)) from None
    if not rate:
        raise InvalidConfig("leave it out for no limit; 0 would move nothing")
    return rate


_IN_TOML = {
    " | null`": "`",
    "Object missing required": "It misses the",
    "object": "table",
    "array": "list",
    "str": "text",
    "bool": "true or false",
}


def config_schema() -> dict[str, object]:
    """The JSON schema of configuration files, for editors and checkers."""
    (root,), parts = msgspec.json.schema_components([ConfigFile], ref_template="#/$defs/{name}")
    (profile,), more = msgspec.json.schema_components([Profile], ref_template="#/$defs/{name}")
    parts = {**parts, **more}
    for part in parts.values():
        part["description"] = cleandoc(part["description"])
    fields = parts["Profile"]
    parts["Profile"] = {**fields, "required": [], "additionalProperties": False}
    known = parts["HostTable"]["properties"]["profile"]
    known["anyOf"] = [{"enum": [*profiles_by_name()]}, profile]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "blobflow configuration",
        **root,
        "$defs": dict(sorted(parts.items())),
    }
