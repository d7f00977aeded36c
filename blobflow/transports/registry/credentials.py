"""Credentials, and docker's config.json that holds them or names the programs that do.

Pure but for `run_program` and `parse_login`: the file's bytes are given by the caller, who knows the
environment. The format is
docker's (`auths`, `credHelpers`, `credsStore`), which containers' auth.json shares and extends: a key may be
about the part of a host below a path (`host/team`), and the longest that fits wins. Helpers speak the
docker-credential-helpers protocol: `docker-credential-NAME get` takes the server's name on stdin and gives
JSON, with `<token>` as the user's name for an identity token; `store` takes such JSON, `erase` the name.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci.decoding import decode
from blobflow.transports.registry.origins import DOCKER_HUB

# Under this key docker keeps the login of docker.io, for historical reasons.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS = frozenset({"index.docker.io", "registry-1.docker.io", DOCKER_HUB})

# A helper that asks a person or a cloud answers within this many seconds, or not at all.
HELPER_SECONDS = 60.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

# Runs a program with one argument and bytes on its stdin; returns its exit status and stdout.
Runner = Callable[[str, str, bytes], Awaitable[tuple[int, bytes]]]


class Credentials(msgspec.Struct, frozen=True):
    """A login. `identity_token`, where there is one, stands in for the password at token servers."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header of scheme Basic (RFC 7617)."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


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
        with file.open() as lines:
            return lines.readline().rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{named}: can't read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{named}: {file} is not UTF-8") from None


class _Auth(msgspec.Struct):
    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None


class DockerConfig(msgspec.Struct, frozen=True, rename="camel"):
    """The parts of docker's config.json that are about logins."""

    auths: dict[str, _Auth] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str | None = None


class _Secret(msgspec.Struct, rename={"server": "ServerURL", "username": "Username", "secret": "Secret"}):
    """What helpers give and take."""

    server: str = ""
    username: str = ""
    secret: str = ""


_config_decoder = msgspec.json.Decoder(DockerConfig)
_secret_decoder = msgspec.json.Decoder(_Secret)


def read_docker_config(raw: bytes, name: str) -> DockerConfig:
    """Decode config.json; `name` is what the user knows the file by. Raises InvalidConfig."""
    try:
        return decode(raw, _config_decoder)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{name} is not a docker config.json: {error}") from None


async def find_credentials(
    config: DockerConfig, host: str, run: Runner | None = None, *, repository: str = ""
) -> Credentials | None:
    """The login for a repository at `host[:port]` ("": for the host as a whole); None for anonymous access.

    A helper named for the host wins, then the entries in the file, then the general store, as in docker.
    Raises InvalidConfig for an entry or a helper's answer that can't be used.
    """
    run = run or run_program
    if named := _own_keeper(config, host):
        return await _ask_program(named, server_of(host), run)
    entries = config.auths or {}
    for key in sorted(entries, key=lambda key: len(place_of(key)[1]), reverse=True):
        fits = _covers(key, host, repository)
        if fits and (found := _from_entry(entries[key], key)):
            return found
    return await _ask_program(config.creds_store, server_of(host), run) if config.creds_store else None


def keeper_of(config: DockerConfig, host: str) -> str:
    """The helper that keeps a host's login, "" where the file itself does."""
    return _own_keeper(config, host) or config.creds_store or ""


def _own_keeper(config: DockerConfig, host: str) -> str:
    named = {place_of(key): helper for key, helper in (config.cred_helpers or {}).items()}
    return named.get((host, ""), "")


def server_of(host: str) -> str:
    """The name by which docker's file and its helpers know a host."""
    return DOCKER_HUB_KEY if host == DOCKER_HUB else host


def place_of(key: str) -> tuple[str, str]:
    """The host that a key of `auths` is about, and the path below it ("" for the whole host).

    The key may be a URL, with docker's old /v1/ or /v2/ for a path.
    """
    bare = key.removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    path, host = path.strip("/"), host.lower()
    return DOCKER_HUB if host in _DOCKER_HUB_HOSTS else host, "" if path in ("v1", "v2") else path


def _covers(key: str, host: str, repository: str) -> bool:
    named, path = place_of(key)
    return named == host and (not path or f"{repository}/".startswith(f"{path}/"))


def _from_entry(entry: _Auth, key: str) -> Credentials | None:
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        try:
            pair = base64.b64decode(entry.auth.encode(), validate=True).decode()
        except (binascii.Error, ValueError):
            raise InvalidConfig(f"the login for {key!r} is not base64") from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise InvalidConfig(f"the login for {key!r} has no password")
        password = password.rstrip("\0")
    if entry.identitytoken:
        return Credentials(username, password, entry.identitytoken)
    return Credentials(username=username, password=password) if username or password else None


async def tell_program(helper: str, verb: str, host: str, login: Credentials | None, run: Runner) -> None:
    """Have a helper `store` a login, or `erase` that of a host. Raises InvalidConfig where it does not."""
    program, given = _program(helper), server_of(host).encode()
    if login is not None:
        given = msgspec.json.encode(_Secret(server_of(host), login.username, login.password))
    status, out = await run(program, verb, given)
    if status != 0 and not (verb == "erase" and b"credentials not found" in out):
        raise InvalidConfig(f"{program} did not {verb} the login for {host}: it ended with status {status}")


def _program(helper: str) -> str:
    if not _HELPER_NAME.match(helper):
        raise InvalidConfig(
            f"the file names the credential helper {helper[:80]!r}, which no program is called"
        )
    return f"docker-credential-{helper}"


async def _ask_program(helper: str, key: str, run: Runner) -> Credentials | None:
    program = _program(helper)
    status, out = await run(program, "get", key.encode())
    if status != 0:
        if b"credentials not found" in out:
            return None
        raise InvalidConfig(f"{program} has no login for {key}: it ended with status {status}")
    try:
        secret = decode(out, _secret_decoder)
    except (msgspec.DecodeError, ValueError):
        raise InvalidConfig(f"{program} answered for {key} with something that is no login") from None
    if secret.username == "<token>":
        return Credentials(identity_token=secret.secret)
    return Credentials(username=secret.username, password=secret.secret)


async def run_program(program: str, verb: str, given: bytes) -> tuple[int, bytes]:
    """Run `program verb` with `given` on stdin. Raises InvalidConfig when it can't run or never ends."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            verb,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise InvalidConfig(f"can't run the credential helper {program}: {error.strerror}") from None
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            out, _ = await process.communicate(given)
    except TimeoutError:
        raise InvalidConfig(f"{program} gave no answer in {HELPER_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out
