"""The credential store: finds and keeps logins, in files of docker's format and the helpers they name.

Files are looked into in order; the first that has a login for a place decides. Each is read once, when the
first login is wanted. A helper is asked again after a while, since what it gives may end (ECR's after 12
hours) and a run may last longer.

A helper that fails is no reason to fail what needs no login: then there is none, and the reason goes with it.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from blobflow.bounded_file import read_bounded
from blobflow.errors import InvalidConfig, StorageError, own_copy, without_frames
from blobflow.transports.registry.auth.credential_helpers import (
    CredentialHelperFailed,
    ProcessResult,
    Runner,
    run_program,
)
from blobflow.transports.registry.auth.credentials import (
    AuthContent,
    Credentials,
    DockerConfig,
    credential_helper_of,
    find_credentials,
    host_and_path,
    read_docker_config,
    server_of,
    update_credential_helper_login,
)

# Seconds for which a helper's answer, or its failure, holds: one run of it serves the tokens of all
# repositories of a set, and a login that ended is noticed soon.
KEEP_SECONDS = 60.0
# One that never answered is not waited for again so soon, whichever host it is asked for.
_SILENT_SECONDS = 600.0


class CredentialStore:
    """What the files hold or find, and `content` before them. Used from one event loop."""

    def __init__(
        self,
        files: Sequence[Path],
        run: Runner = run_program,
        clock: Callable[[], float] = time.monotonic,
        *,
        content: AuthContent | None = None,
    ) -> None:
        self._files = tuple(files)
        self._content = content
        self._run = run
        self._clock = clock
        self._configs: dict[str, DockerConfig] | None = None
        self._answers: dict[tuple[str, bytes], tuple[float, ProcessResult | CredentialHelperFailed]] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def find(self, host: str, repository: str = "") -> Credentials | None:
        """The login for a repository at `host[:port]`, None for anonymous access.

        Where helpers fail and no other file has a login, it is one that has a `lack` and nothing else. Raises
        InvalidConfig for a file, or an entry of it, that can't be used.
        """
        if self._configs is None:
            self._configs = self._read_all()
        lack = ""
        for file, config in self._configs.items():
            try:
                found = await find_credentials(config, host, self._ask, repository=repository)
            except CredentialHelperFailed as error:
                lack = lack or f"{file}: {error.message}"
                continue
            except InvalidConfig as error:
                raise InvalidConfig(f"{file}: {error.message}") from None
            if found:
                return found
        return Credentials(lack=lack) if lack else None

    def _read_all(self) -> dict[str, DockerConfig]:
        """All that there is, by what it is called in errors."""
        content = self._content
        first = {content.named: read_docker_config(content.text.encode(), content.named)} if content else {}
        return first | {str(file): config for file in self._files if (config := read_file(file))}

    async def _ask(self, program: str, verb: str, given: bytes) -> ProcessResult:
        async with self._asking[program]:
            answer = self._kept(program, given) or self._kept(program, b"")
            if answer is None:
                keep = KEEP_SECONDS
                try:
                    answer = await self._run(program, verb, given)
                except CredentialHelperFailed as error:
                    answer = without_frames(error)
                    if error.silent:
                        given, keep = b"", _SILENT_SECONDS
                self._answers[program, given] = self._clock() + keep, answer
            if isinstance(answer, CredentialHelperFailed):
                raise own_copy(answer)
            return answer

    def _kept(self, program: str, given: bytes) -> ProcessResult | CredentialHelperFailed | None:
        """What a program answered for a server; for b"": that it never answers."""
        until, answer = self._answers.get((program, given), (0.0, None))
        return answer if self._clock() < until else None


def read_file(file: Path) -> DockerConfig | None:
    """A file in docker's format; None where there is none. Raises InvalidConfig."""
    raw = _read(file)
    return read_docker_config(raw, str(file)) if raw is not None else None


async def store_login(file: Path, host: str, login: Credentials, run: Runner = run_program) -> str:
    """Keep a login for `host` as `file` says: with its helper, or in it. Returns where, for a sentence.

    The file is made, or replaced whole, and is for its owner alone; what else it says stays. Raises
    InvalidConfig, StorageError.
    """
    config = read_file(file) or DockerConfig()
    if helper := credential_helper_of(config, host):
        await update_credential_helper_login(helper, "store", host, login, run)
        return f"docker-credential-{helper}"
    pair = f"{login.username}:{login.password}".encode()
    content = _document(file)
    auths = _without(content, host)
    auths[server_of(host)] = {"auth": base64.b64encode(pair).decode("ascii")}
    _write(file, content | {"auths": auths})
    return str(file)


async def erase_login(file: Path, host: str, run: Runner = run_program) -> bool:
    """Drop the login for `host` from `file` and its helper; False if there was none in either.

    Logins for a part of the host stay. Raises InvalidConfig, StorageError.
    """
    config = read_file(file)
    if config is None:
        return False
    known = False
    if helper := credential_helper_of(config, host):
        only = DockerConfig(creds_store=helper)
        known = await find_credentials(only, host, run) is not None
        await update_credential_helper_login(helper, "erase", host, None, run)
    content = _document(file)
    auths = _without(content, host)
    if auths != (content.get("auths") or {}):
        _write(file, content | {"auths": auths})
        return True
    return known


def logins_in(file: Path, host: str) -> tuple[str, ...]:
    """The keys of the entries in `file` that are logins for `host`, or a part of it. Raises InvalidConfig."""
    config = read_file(file) or DockerConfig()
    return tuple(key for key, entry in config.auths.items() if entry and host_and_path(key)[0] == host)


def _document(file: Path) -> dict[str, Any]:
    """The whole file, which `read_file` has found to be docker's, with what we don't know of."""
    raw = (_read(file) or b"").removeprefix(codecs.BOM_UTF8)
    document: dict[str, Any] = msgspec.json.decode(raw) if raw.strip() else {}
    return document


def _without(content: dict[str, Any], host: str) -> dict[str, Any]:
    """The `auths` of a document but for those of the host as a whole."""
    auths: dict[str, Any] = content.get("auths") or {}
    return {key: entry for key, entry in auths.items() if host_and_path(key) != (host, "")}


def _read(file: Path) -> bytes | None:
    try:
        return read_bounded(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidConfig(f"can't read {file}: {error.strerror}") from None


def _write(file: Path, content: dict[str, Any]) -> None:
    """Replace a file whole; a link to it stays one. mkstemp's files are for their owner alone."""
    raw = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    try:
        file = file.resolve()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as new:
                new.write(raw)
                new.flush()
                os.fsync(new.fileno())
            Path(name).replace(file)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise StorageError(f"can't write {file}: {error.strerror or error}") from None
