"""Runs the credential helpers that docker's config.json names.

It is a program `docker-credential-NAME`, which takes a verb, reads stdin and writes stdout (the protocol is
that of docker-credential-helpers): `get` reads the server's name and writes JSON, with `<token>` as the
user's name for an identity token; `store` reads such JSON, `erase` the name. What it writes to stdout may
hold secrets, so that is never shown; what it writes to stderr is meant for people, and is part of the error
where it fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec

from blobflow.errors import InvalidConfig
from blobflow.lazy_pattern import LazyPattern
from blobflow.printable import printable

# Seconds that a helper has. One that asks a person may need some; one that never answers holds up the run.
HELPER_SECONDS = 30.0
# Seconds that its outputs are read on after it ended: an agent that it started may hold them open for ever.
_AFTER_END = 1.0
# Bytes of an answer, and of what it says on stderr. Tokens have some thousand.
MAX_OUTPUT = 256 * 1024
_MOST_SAID = 4096
_MOST_SHOWN = 300  # characters
_NAME = LazyPattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_NOT_FOUND = b"credentials not found"


class CredentialHelperFailed(InvalidConfig):
    """A helper that is missing, breaks, never answers, or answers with what is no login. The message is a
    sentence of its own. `silent`: it never answered, and took its whole time for that."""

    silent = False


class ProcessResult(NamedTuple):
    """How a program ended: its status (negative: the signal that ended it) and what it wrote."""

    status: int
    out: bytes
    err: bytes = b""


# Runs a program with one argument and bytes on its stdin. Raises CredentialHelperFailed where it can't.
Runner = Callable[[str, str, bytes], Awaitable[ProcessResult]]


class Secret(msgspec.Struct, rename={"server": "ServerURL", "username": "Username", "secret": "Secret"}):
    """What helpers give and take."""

    server: str = ""
    username: str = ""
    secret: str = ""


async def ask_credential_helper(helper: str, server: str, run: Runner) -> Secret | None:
    """The login that a helper has for a server; None if it has none. Raises
    CredentialHelperFailed; InvalidConfig for the name of a helper that no program can have."""
    program = _program(helper)
    ended = await run(program, "get", server.encode())
    if ended.status != 0:
        if _NOT_FOUND in ended.out:
            return None
        raise CredentialHelperFailed(f"{program} has no login for {server}: it {_how(ended)}")
    try:
        document = msgspec.json.decode(ended.out)
        # As Go's decoders, which helpers are written for, take the names of fields in any case.
        fields = {key.lower(): value for key, value in document.items() if value is not None}
        known = {name: fields[name.lower()] for name in ("Username", "Secret") if name.lower() in fields}
        secret = msgspec.convert(known, Secret)
    except (msgspec.DecodeError, ValueError, AttributeError, RecursionError):
        raise CredentialHelperFailed(
            f"{program} answered for {server} with something that is no login"
        ) from None
    return secret if secret.username or secret.secret else None


async def update_credential_helper(helper: str, verb: str, server: str, given: bytes, run: Runner) -> None:
    """Have a helper `store` a login, or `erase` one, of which there need be none. Raises InvalidConfig."""
    program = _program(helper)
    ended = await run(program, verb, given)
    if ended.status != 0 and not (verb == "erase" and _NOT_FOUND in ended.out):
        raise CredentialHelperFailed(f"{program} did not {verb} the login for {server}: it {_how(ended)}")


def _program(helper: str) -> str:
    if not _NAME.match(helper):
        raise InvalidConfig(
            f"the file names the credential helper {helper[:80]!r}, which no program is called"
        )
    return f"docker-credential-{helper}"


def _how(ended: ProcessResult) -> str:
    status = ended.status
    how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
    said = " ".join(ended.err.decode("utf-8", "replace").split())
    return f"{how}: {printable(said, _MOST_SHOWN)}" if said else how


async def run_program(program: str, verb: str, given: bytes) -> ProcessResult:
    """Run `program verb` with `given` on its stdin, which it need not read.

    Its outputs are read to their end, or until a second after its own. Raises
    CredentialHelperFailed when it can't run, does not end in time, or answers without end; cancelled, it ends
    the program.
    """
    try:
        return await _run(program, verb, given)
    except OSError as error:
        raise CredentialHelperFailed(f"can't run the credential helper {program}: {error.strerror}") from None


async def _run(program: str, verb: str, given: bytes) -> ProcessResult:
    with _Stdin(given, program) as stdin, _Output(MAX_OUTPUT) as out, _Output(_MOST_SAID) as err:
        process = await asyncio.create_subprocess_exec(
            program, verb, stdin=stdin.end, stdout=out.end, stderr=err.end
        )
        stdin.leave()
        out.listen()
        err.listen()
        waiting = asyncio.ensure_future(_ended(process, out, err))
        try:
            async with asyncio.timeout(HELPER_SECONDS):
                await asyncio.wait((waiting, out.over), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            failure = CredentialHelperFailed(f"{program} gave no answer in {HELPER_SECONDS:.0f} s")
            failure.silent = True
            raise failure from None
        finally:
            waiting.cancel()
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if out.over.done():
            raise CredentialHelperFailed(
                f"{program} answered with more than {MAX_OUTPUT} bytes, which is no login"
            )
        return ProcessResult(process.returncode or 0, bytes(out.taken), bytes(err.taken))


async def _ended(process: asyncio.subprocess.Process, *outputs: _Output) -> None:
    await process.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(_AFTER_END):
            for output in outputs:
                await output.closed.wait()


class _Stdin:
    """A pipe with all that a program is given in it already.

    So it does not matter whether the program reads: no write to it can fail when the program has ended.
    """

    def __init__(self, given: bytes, program: str) -> None:
        self.end, write = os.pipe()
        try:
            os.set_blocking(write, False)
            fits = os.write(write, given) == len(given) if given else True
        except BlockingIOError:
            fits = False
        finally:
            os.close(write)
        if not fits:
            self.leave()
            raise CredentialHelperFailed(
                f"{program} can't be given {len(given)} bytes: they are more than a pipe holds"
            )

    def __enter__(self) -> _Stdin:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        if self.end >= 0:
            os.close(self.end)
            self.end = -1


class _Output:
    """A pipe that a program writes to. `taken`: what it wrote, in at most `most` bytes; `over` is done once
    there was more; `closed` is set when nobody can write to it any more.

    Not asyncio's own pipes, which wait for all that hold the other end, also after the program itself ended.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._read, self.end = os.pipe()
        os.set_blocking(self._read, False)
        self._loop = asyncio.get_running_loop()
        self.taken = bytearray()
        self.over = self._loop.create_future()
        self.closed = asyncio.Event()

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        self._loop.remove_reader(self._read)
        os.close(self._read)
        self.over.cancel()

    def listen(self) -> None:
        """Begin to read; the program has its own copy of the other end by now."""
        self._leave()
        self._loop.add_reader(self._read, self._take)

    def _leave(self) -> None:
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    def _take(self) -> None:
        try:
            chunk = os.read(self._read, 64 * 1024)
        except BlockingIOError:
            return
        if not chunk:
            self._loop.remove_reader(self._read)
            self.closed.set()
        room = self._most - len(self.taken)
        self.taken += chunk[:room]
        if len(chunk) > room and not self.over.done():
            self.over.set_result(None)
