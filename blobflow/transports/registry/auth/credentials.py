"""Credentials, and docker's config.json that holds them or names the programs that do.

Pure but for `parse_login`: the file's bytes are given by the caller, who knows the environment, and who runs
the helpers. The format is docker's (`auths`, `credHelpers`, `credsStore`), which containers' auth.json shares
and extends: a key may be about the part of a host below a path (`host/team`), and the longest that fits wins.

Files are written by many programs, and by hand. So they are read as docker's own decoder reads them: null is
an absent field, names of fields are taken in any case, an empty file says nothing. And beyond that base64 may
lack its padding, be wrapped, or have the characters of URLs.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from blobflow.errors import InvalidConfig, UsageError
from blobflow.transports.registry.auth.credential_helpers import (
    Runner,
    Secret,
    ask_credential_helper,
    run_program,
    update_credential_helper,
)
from blobflow.transports.registry.origins import DOCKER_HUB

# Under this key docker keeps the login of docker.io, for historical reasons.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS = frozenset({"index.docker.io", "registry-1.docker.io", DOCKER_HUB})

_MAX_LINE = 65536  # characters of a file with a login
_BLANKS = str.maketrans("", "", " \t\r\n\f\v")
_FROM_URLS = str.maketrans("-_", "+/")
# What a header can carry as a token (RFC 6750, 2.1, and beyond it what registries really give).
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")
# What stands for the name where a helper gives an identity token.
_NAMELESS = "<token>"
# The fields of an entry that are text.
_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")


class Credentials(msgspec.Struct, frozen=True):
    """A login. `identity_token`, where there is one, stands in for the password at token servers;
    `registry_token` is sent to the registry itself, as it is. `lack`: why there is none at all, where the
    helper that should know failed; it says of whom, and how."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    lack: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header of scheme Basic (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")

    @property
    def header(self) -> str:
        """The Authorization for the registry itself, without a token server; "" where there is none."""
        if self.registry_token:
            return f"Bearer {self.registry_token}"
        return self.basic if self.username else ""

    @property
    def shown(self) -> str:
        """What the login is, for messages, without its secrets."""
        if self.registry_token:
            return "the registry token kept for it"
        if self.username in ("", _NAMELESS):
            return "the identity token kept for it"
        return f"the login of {self.username!r}"

    @property
    def identity(self) -> str:
        """A hash that tells logins apart, "" for anybody: of the name, since passwords and tokens change; of
        the token where there is no name."""
        name = "" if self.username == _NAMELESS else self.username
        known = name or self.identity_token or self.registry_token
        return hashlib.sha256(known.encode()).hexdigest()[:16] if known else ""


def parse_login(text: str, named: str, ask: Callable[[str], str] | None = None) -> Credentials:
    """`USER:PASSWORD`, `@FILE` whose first line is that, or `USER` alone, whose password `ask` finds out.

    `named` is what gave it, for messages. Raises UsageError, which says nothing of what it was given.
    """
    if text.startswith("@"):
        text = _first_line(Path(text[1:]), named)
        if ":" not in text:
            raise UsageError(f"{named}: the file's first line is not USER:PASSWORD")
    username, colon, password = text.partition(":")
    if not username or not (colon or ask):
        user = "USER, " if ask else ""
        raise UsageError(f"{named} wants USER:PASSWORD, {user}or @FILE with USER:PASSWORD in it")
    return Credentials(username, password if colon or ask is None else ask(username))


def _first_line(file: Path, named: str) -> str:
    try:
        with file.open(encoding="utf-8-sig") as lines:  # an editor of Windows may have begun it with a mark
            return lines.readline(_MAX_LINE).rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{named}: can't read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{named}: {file} is not UTF-8") from None


class DockerConfig(msgspec.Struct, frozen=True):
    """The parts of docker's config.json that are about logins: the fields of each entry that have a value."""

    auths: dict[str, dict[str, str | None] | None] = {}
    cred_helpers: dict[str, str | None] = {}
    creds_store: str = ""


class AuthContent(msgspec.Struct, frozen=True):
    """What an auth file says, without a file: the value of the variable `named`, which is shown nowhere."""

    named: str
    text: str

    def __repr__(self) -> str:
        return f"AuthContent({self.named!r}, …)"


_NAMES = {"auths": "auths", "credhelpers": "cred_helpers", "credsstore": "creds_store"}


def read_docker_config(raw: bytes, name: str) -> DockerConfig:
    """Decode config.json; `name` is what the user knows the file by. Raises InvalidConfig."""
    raw = raw.removeprefix(codecs.BOM_UTF8)  # as editors of Windows begin a file
    if not raw.strip():
        return DockerConfig()
    try:
        document = _lower(msgspec.json.decode(raw, type=dict[str, object]))
        known = {_NAMES[key]: value for key, value in document.items() if key in _NAMES and value is not None}
        if isinstance(entries := known.get("auths"), dict):
            known["auths"] = {key: _known_fields(entry) for key, entry in entries.items()}
        return msgspec.convert(known, DockerConfig)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{name} is not a docker config.json: {error}") from None


def _lower(document: dict[str, object]) -> dict[str, object]:
    return {key.lower(): value for key, value in document.items()}


def _known_fields(entry: object) -> object:
    if not isinstance(entry, dict):
        return entry
    return {key: value for key, value in _lower(entry).items() if key in _FIELDS}


async def find_credentials(
    config: DockerConfig, host: str, run: Runner | None = None, *, repository: str = ""
) -> Credentials | None:
    """The login for a repository at `host[:port]` ("": for the host as a whole); None for anonymous access.

    A helper named for the host wins, then the entries in the file, then the general store, as in docker; one
    named "" says that there is none, not even the general store. Raises InvalidConfig for an entry that can't
    be used, CredentialHelperFailed for a helper.
    """
    run, server, helper = run or run_program, server_of(host), credential_helper_of(config, host)
    own = helper if _own_credential_helper(config, host) else ""
    if own:
        return await _ask(own, server, run)

    def rank(key: str) -> tuple[int, bool, bool]:
        return -len(host_and_path(key)[1]), key != server, key != host

    for key in sorted(config.auths, key=rank):
        if _covers(key, host, repository) and (found := _from_entry(config.auths[key] or {}, key)):
            return found
    return await _ask(helper, server, run) if helper else None


async def _ask(helper: str, server: str, run: Runner) -> Credentials | None:
    secret = await ask_credential_helper(helper, server, run)
    if secret is None:
        return None
    if secret.username == _NAMELESS:
        return Credentials(identity_token=secret.secret)
    return Credentials(username=secret.username, password=secret.secret)


def credential_helper_of(config: DockerConfig, host: str) -> str:
    """The helper that keeps a host's login, "" where the file itself does."""
    own = _own_credential_helper(config, host)
    return config.creds_store if own is None else own


def _own_credential_helper(config: DockerConfig, host: str) -> str | None:
    """The helper that is named for the host; None if it is not named at all."""
    named = {host_and_path(key): helper or "" for key, helper in config.cred_helpers.items()}
    return named.get((host, ""))


def server_of(host: str) -> str:
    """The name by which docker's file and its helpers know a host."""
    return DOCKER_HUB_KEY if host == DOCKER_HUB else host


def host_and_path(key: str) -> tuple[str, str]:
    """The host that a key of `auths` is about, and the path below it ("" for the whole host).

    The key may be a URL, with docker's old /v1/ or /v2/ for a path.
    """
    bare = key.strip().removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    path, host = path.strip("/"), host.lower()
    return DOCKER_HUB if host in _DOCKER_HUB_HOSTS else host, "" if path in ("v1", "v2") else path


def _covers(key: str, host: str, repository: str) -> bool:
    named, path = host_and_path(key)
    return named == host and (not path or f"{repository}/".startswith(f"{path}/"))


def _from_entry(entry: dict[str, str | None], key: str) -> Credentials | None:
    auth, username, password, identity, token = (entry.get(field) or "" for field in _FIELDS)
    if token and not _TOKEN.match(token):
        raise InvalidConfig(f"the registrytoken for {key!r} has characters that no token has")
    if auth.strip():
        username, colon, password = _decoded(auth, key).partition(":")
        if not colon:
            raise InvalidConfig(f"the login for {key!r} has no password")
        password = password.strip("\0")
    found = Credentials(username, password, identity, token)
    return found if found != Credentials() else None


def _decoded(auth: str, key: str) -> str:
    text = auth.translate(_BLANKS).translate(_FROM_URLS).rstrip("=")
    try:
        raw = base64.b64decode((text + "=" * (-len(text) % 4)).encode(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidConfig(f"the login for {key!r} is not base64") from None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidConfig(f"the login for {key!r} is not UTF-8 behind its base64") from None


async def update_credential_helper_login(
    helper: str, verb: str, host: str, login: Credentials | None, run: Runner
) -> None:
    """Have a helper `store` a login, or `erase` that of a host. Raises InvalidConfig where it does not."""
    given = server_of(host).encode()
    if login is not None:
        given = msgspec.json.encode(Secret(server_of(host), login.username, login.password))
    await update_credential_helper(helper, verb, host, given, run)
