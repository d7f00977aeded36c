"""Credentials, and docker's config.json that holds them or names the programs that do.

Pure but for `run_program`: the file's bytes are given by the caller, who knows the environment. The format is
docker's (`auths`, `credHelpers`, `credsStore`); helpers speak the docker-credential-helpers protocol: the
server's name on stdin of `docker-credential-NAME get`, JSON on stdout, `<token>` as the user's name for an
identity token.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable

import msgspec

from blobflow.errors import InvalidConfig
from blobflow.transports.registry.origins import DOCKER_HUB

# Under this key docker keeps the login of docker.io, for historical reasons.
DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS = frozenset({"index.docker.io", "registry-1.docker.io", DOCKER_HUB})

# A helper that asks a person or a cloud answers within this many seconds, or not at all.
HELPER_SECONDS = 60.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

# Runs a program with bytes on its stdin; returns its exit status and stdout.
Runner = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]


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


class _Secret(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


_config_decoder = msgspec.json.Decoder(DockerConfig)
_secret_decoder = msgspec.json.Decoder(_Secret)


def read_docker_config(raw: bytes, name: str) -> DockerConfig:
    """Decode config.json; `name` is what the user knows the file by. Raises InvalidConfig."""
    try:
        return _config_decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidConfig(f"{name} is not a docker config.json: {error}") from None


async def find_credentials(config: DockerConfig, host: str, run: Runner | None = None) -> Credentials | None:
    """The login for `host[:port]`, None for anonymous access.

    A helper named for the host wins, then the entries in the file, then the general store, as in docker.
    Raises InvalidConfig for an entry or a helper's answer that can't be used.
    """
    run = run or run_program
    key = DOCKER_HUB_KEY if host == DOCKER_HUB else host
    for named, helper in (config.cred_helpers or {}).items():
        if _host_of(named) == host:
            return await _ask_program(helper, key, run)
    for named, entry in (config.auths or {}).items():
        if _host_of(named) == host and (found := _from_entry(entry, named)):
            return found
    if config.creds_store:
        return await _ask_program(config.creds_store, key, run)
    return None


def _host_of(key: str) -> str:
    """The host that a key of `auths` is about: it may be a URL, with docker's old /v1/ or /v2/ path."""
    bare = key.removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    if path.strip("/") not in ("", "v1", "v2"):
        return ""
    host = host.lower()
    return DOCKER_HUB if host in _DOCKER_HUB_HOSTS else host


def _from_entry(entry: _Auth, key: str) -> Credentials | None:
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        try:
            pair = base64.b64decode(entry.auth.encode(), validate=True).decode()
        except (binascii.Error, ValueError):
            raise InvalidConfig(f"the login for {key!r} in docker's config.json is not base64") from None
        username, colon, password = pair.partition(":")
        if not colon:
            raise InvalidConfig(f"the login for {key!r} in docker's config.json has no password")
        password = password.rstrip("\0")
    if entry.identitytoken:
        return Credentials(username=username, identity_token=entry.identitytoken)
    return Credentials(username=username, password=password) if username or password else None


async def _ask_program(helper: str, key: str, run: Runner) -> Credentials | None:
    if not _HELPER_NAME.match(helper):
        raise InvalidConfig(f"docker's config.json names the credential helper {helper[:80]!r}")
    program = f"docker-credential-{helper}"
    status, out = await run(program, key.encode())
    if status != 0:
        if b"credentials not found" in out:
            return None
        raise InvalidConfig(f"{program} has no login for {key}: it ended with status {status}")
    try:
        secret = _secret_decoder.decode(out)
    except msgspec.DecodeError:
        raise InvalidConfig(f"{program} answered for {key} with something that is no login") from None
    if secret.username == "<token>":
        return Credentials(identity_token=secret.secret)
    return Credentials(username=secret.username, password=secret.secret)


async def run_program(program: str, given: bytes) -> tuple[int, bytes]:
    """Run `program get` with `given` on stdin. Raises InvalidConfig when it can't run or never ends."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
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
