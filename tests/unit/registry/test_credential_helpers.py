"""Credential helpers as programs: what they need not do, how they fail, and what goes on without them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import Denied, RegistryError, Unauthorized
from blobflow.events import Event, Warned
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import Credentials, CredentialStore, Registries
from blobflow.transports.registry.auth import credential_helpers
from blobflow.transports.registry.auth.credential_helpers import (
    CredentialHelperFailed,
    ProcessResult,
    run_program,
)
from tests.deadlines import HANGS_AFTER
from tests.fakes.registry import Clock, ScriptedServer, blob_of, scripted_server

BLOB = blob_of(b"content")
GOOD = """echo '{"Username": "joe", "Secret": "hush"}'\n"""

Write = Callable[[str], Path]


Get = Callable[[bytes], ProcessResult]


@pytest.fixture(params=["asyncio", "uvloop"])
def get(request: pytest.FixtureRequest) -> Iterator[Get]:
    """Runs docker-credential-x, on both kinds of loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
        yield lambda given: runner.run(run_program("docker-credential-x", "get", given))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes docker-credential-x, a shell script, and a config.json that names it; returns its folder."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "config.json").write_text('{"credsStore": "x"}')

    def write(script: str) -> Path:
        program = tmp_path / "docker-credential-x"
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        return tmp_path

    return write


def test_a_helper_gets_its_verb_and_the_server_on_its_stdin(get: Get, helper: Write) -> None:
    helper('read host\necho "{\\"Username\\": \\"$1\\", \\"Secret\\": \\"$host\\"}"\n')
    ended = get(b"r.example")
    assert json.loads(ended.out) == {"Username": "get", "Secret": "r.example"}


def test_a_helper_need_not_read_what_it_is_given(get: Get, helper: Write) -> None:
    helper(GOOD)
    for _ in range(20):
        ended = get(b"r.example" * 1000)
        assert (ended.status, json.loads(ended.out)["Username"]) == (0, "joe")
    helper("exit 3\n")
    for _ in range(20):
        assert get(b"r.example" * 1000) == ProcessResult(3, b"", b"")


def test_a_helper_s_child_that_holds_its_outputs_is_not_waited_for(get: Get, helper: Write) -> None:
    began = time.monotonic()
    folder = helper(f"sleep 1000 &\necho $! >$(dirname $0)/pid\n{GOOD}")
    ended = get(b"r.example")
    os.kill(int((folder / "pid").read_text()), 9)
    assert json.loads(ended.out)["Secret"] == "hush"
    assert time.monotonic() - began < HANGS_AFTER


def test_what_a_helper_says_is_bounded(get: Get, helper: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    helper("yes something | head -c 1000000 >&2; exit 1\n")
    ended = get(b"r.example")
    assert ended.status == 1
    assert len(ended.err) == 4096
    monkeypatch.setattr(credential_helpers, "MAX_OUTPUT", 1000)
    helper("exec yes something\n")
    with pytest.raises(CredentialHelperFailed, match="answered with more than 1000 bytes"):
        get(b"r.example")


def test_a_helper_that_never_answers_is_ended(
    get: Get, helper: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = helper("echo $$ >$(dirname $0)/pid\nexec sleep 1000\n")
    pid = folder / "pid"
    for seconds in (0.5, 5.0, 50.0):  # on a busy machine it is not even running before it is ended
        monkeypatch.setattr(credential_helpers, "HELPER_SECONDS", seconds)
        with pytest.raises(CredentialHelperFailed, match="gave no answer in") as raised:
            get(b"r.example")
        assert raised.value.silent
        if pid.exists() and pid.read_text():
            break
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_cancelled_it_ends_the_helper_and_leaves_nothing_open(helper: Write) -> None:
    folder = helper("echo $$ >$(dirname $0)/pid\nexec sleep 1000\n")
    await run_program("true", "", b"")  # what the loop itself opens once
    before = len(list(Path("/dev/fd").iterdir()))
    task = asyncio.create_task(run_program("docker-credential-x", "get", b"r.example"))
    while not (folder / "pid").exists() or not (folder / "pid").read_text():  # noqa: ASYNC110  a program's
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)
    await asyncio.sleep(0)
    assert len(list(Path("/dev/fd").iterdir())) == before


async def test_what_a_pipe_does_not_hold_is_refused() -> None:
    with pytest.raises(CredentialHelperFailed, match="more than a pipe holds"):
        await run_program("docker-credential-x", "store", bytes(10_000_000))


async def test_a_helper_that_is_not_there_is_named() -> None:
    with pytest.raises(CredentialHelperFailed, match=r"can't run .* docker-credential-absent: No such file"):
        await run_program("docker-credential-absent", "get", b"x")


async def test_a_process_without_files_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(
        CredentialHelperFailed, match=r"can't run .* docker-credential-x: Too many open files"
    ):
        await run_program("docker-credential-x", "get", b"x")


# What of a failure is shown, and how long it holds

FAILURES = {
    "cat >/dev/null; echo 'libsecret.so: cannot open' >&2; echo hush; exit 127": (
        "docker-credential-x has no login for r.example: it ended with status 127: libsecret.so: cannot open"
    ),
    "printf 'a\\nb\\033[2Jc\\n' >&2; exit 1": "it ended with status 1: a b\\x1b[2Jc",
    "head -c 5000 /dev/zero | tr '\\0' a >&2; exit 1": f"it ended with status 1: {'a' * 299}…",
    "kill -9 $$": "it was ended by signal 9",
    "echo hush": "answered for r.example with something that is no login",
    'echo \'{"Username": 3, "Secret": "hush"}\'': "answered for r.example with something that is no login",
    ":": "answered for r.example with something that is no login",
}


@pytest.mark.parametrize(("script", "sentence"), FAILURES.items(), ids=FAILURES)
async def test_a_failure_is_one_sentence_without_secrets(helper: Write, script: str, sentence: str) -> None:
    folder = helper(f"{script}\n")
    found = await CredentialStore([folder / "config.json"]).find("r.example")
    assert found is not None
    assert found == Credentials(lack=found.lack)
    assert found.lack.startswith(f"{folder}/config.json: docker-credential-x ")
    assert found.lack.endswith(sentence)
    assert "hush" not in found.lack


async def test_where_a_helper_fails_another_file_may_have_the_login(helper: Write, tmp_path: Path) -> None:
    folder = helper("exit 1\n")
    (tmp_path / "auth.json").write_text('{"auths": {"r.example": {"username": "joe", "password": "p"}}}')
    logins = CredentialStore([folder / "config.json", tmp_path / "auth.json"])
    assert await logins.find("r.example") == Credentials("joe", "p")


async def test_a_helper_that_fails_is_not_asked_for_each_repository(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"credsStore": "x"}')
    asked: list[bytes] = []
    silent = False

    async def run(program: str, verb: str, given: bytes) -> ProcessResult:
        asked.append(given)
        failure = CredentialHelperFailed(f"{program} fails")
        failure.silent = silent
        raise failure

    clock = Clock()
    logins = CredentialStore([tmp_path / "config.json"], run, clock)
    for host in ("r.example", "r.example", "s.example"):
        await logins.find(host, "a")
    assert asked == [b"r.example", b"s.example"]
    clock.now += 60
    silent = True
    for host in ("r.example", "s.example", "t.example"):
        assert await logins.find(host) == Credentials(
            lack=f"{tmp_path}/config.json: docker-credential-x fails"
        )
    assert asked[2:] == [b"r.example"], "one that never answers is not waited for again for another host"


# What goes on without a login


class Guarded:
    """A registry with a token server that lets anybody pull from `open`, and nobody do anything else; or
    with Basic, or with a token of its own that it wants to see."""

    def __init__(self) -> None:
        self.host = ""
        self.scheme = "bearer"
        self.token = "Bearer anonymous"

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            public = request.query.get("scope") == "repository:open:pull"
            return web.json_response({"token": "anonymous"}) if public else web.Response(status=403)
        if request.headers.get("Authorization") == self.token:
            return web.Response()
        way = f'Bearer realm="http://{self.host}/token"' if self.scheme == "bearer" else "Basic realm=x"
        return web.Response(status=401, headers={"WWW-Authenticate": way})


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[tuple[Guarded, ScriptedServer, Registries, list[Event]]]:
    events: list[Event] = []
    handler = Guarded()
    async with scripted_server(handler) as server:
        handler.host = server.host
        settings = Settings(docker_config=folder)
        logins = logins_of(settings)
        registries = Registries(lambda host: host_access(host, settings, logins), observer=events.append)
        try:
            yield handler, server, registries, events
        finally:
            await registries.close()


async def test_what_anybody_may_read_is_read_without_a_login_and_it_is_told_once(helper: Write) -> None:
    folder = helper("echo broken >&2; exit 1\n")
    async with guarded(folder) as (_, server, registries, events):
        for _ in range(3):
            assert await registries.repository(Site(server.host, "open")).has(BLOB)
    told = [event.message for event in events if isinstance(event, Warned)]
    assert told == [
        f"{server.host} is asked without a login: {folder}/config.json: docker-credential-x has no login for"
        f" {server.host}: it ended with status 1: broken"
    ]


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_what_wants_a_login_is_refused_with_the_helper_s_failure(helper: Write, scheme: str) -> None:
    async with guarded(helper("echo broken >&2; exit 1\n")) as (handler, server, registries, _):
        handler.scheme = scheme
        with pytest.raises((Unauthorized, Denied), match="it ended with status 1: broken") as raised:
            await registries.repository(Site(server.host, "closed")).has(BLOB)
    assert isinstance(raised.value, RegistryError)
    assert raised.value.exit_code == 5


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_a_registry_token_is_sent_as_it_is(tmp_path: Path, scheme: str) -> None:
    async with guarded(tmp_path) as (handler, server, registries, _):
        handler.scheme, handler.token = scheme, "Bearer abc.def"
        entries = {server.host: {"registrytoken": "abc.def"}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": entries}))
        for repository in ("a", "a", "b"):
            assert await registries.repository(Site(server.host, repository)).has(BLOB)
        assert not [each for each in server.asked() if "/token" in each]


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_a_registry_token_that_is_not_taken_is_told(tmp_path: Path, scheme: str) -> None:
    async with guarded(tmp_path) as (handler, server, registries, _):
        handler.scheme = scheme
        entries = {server.host: {"registrytoken": "abc.def"}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": entries}))
        with pytest.raises(Unauthorized, match="does not accept the registry token") as raised:
            await registries.repository(Site(server.host, "a")).has(BLOB)
        assert "abc.def" not in str(raised.value)
        assert len(server.asked()) == 2
