"""docker's config.json and credential helpers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from blobflow.errors import InvalidConfig
from blobflow.transports.registry import Credentials, find_credentials, read_docker_config
from blobflow.transports.registry.credentials import run_program


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Helpers:
    """A runner of helpers over a table; remembers what it was asked."""

    def __init__(self, status: int = 0, out: bytes = b"") -> None:
        self.answer = status, out
        self.asked: list[tuple[str, str, bytes]] = []

    async def __call__(self, program: str, verb: str, given: bytes) -> tuple[int, bytes]:
        self.asked.append((program, verb, given))
        return self.answer


async def login(config: dict[str, object], host: str, run: Helpers | None = None) -> Credentials | None:
    read = read_docker_config(json.dumps(config).encode(), "config.json")
    return await find_credentials(read, host, run or Helpers(1, b"not expected"))


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("r.example", "r.example"),
        ("https://r.example", "r.example"),
        ("http://r.example/v2/", "r.example"),
        ("R.example:5000", "r.example:5000"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
async def test_a_login_is_found_under_each_form_of_its_host(key: str, host: str) -> None:
    assert await login(
        {"auths": {"x.example": {}, key: {"auth": b64("joe:pass:word")}}}, host
    ) == Credentials("joe", "pass:word")


@pytest.mark.parametrize("key", ["r.example:5000", "r.example/team", "xr.example", "example"])
async def test_a_login_for_another_place_is_not_taken(key: str) -> None:
    assert await login({"auths": {key: {"auth": b64("joe:secret")}}}, "r.example") is None


async def test_plain_fields_and_identity_tokens_are_read() -> None:
    assert await login({"auths": {"r.example": {"username": "joe", "password": "p"}}}, "r.example") == (
        Credentials("joe", "p")
    )
    token = {"auth": b64("joe:"), "identitytoken": "tok"}
    assert await login({"auths": {"r.example": token}}, "r.example") == Credentials("joe", "", "tok")


async def test_without_an_entry_access_is_anonymous() -> None:
    assert await login({}, "r.example") is None
    assert await login({"auths": {"r.example": {}}}, "r.example") is None


async def test_a_host_s_helper_wins_over_the_file_and_the_store() -> None:
    run = Helpers(0, b'{"ServerURL": "x", "Username": "joe", "Secret": "s"}')
    config: dict[str, object] = {
        "credHelpers": {"r.example": "own"},
        "credsStore": "general",
        "auths": {"r.example": {"auth": b64("other:x")}},
    }
    assert await login(config, "r.example", run) == Credentials("joe", "s")
    assert run.asked == [("docker-credential-own", "get", b"r.example")]


async def test_the_store_is_asked_for_docker_io_by_its_old_name() -> None:
    run = Helpers(0, b'{"Username": "<token>", "Secret": "tok"}')
    config: dict[str, object] = {"credsStore": "desktop", "auths": {"https://index.docker.io/v1/": {}}}
    assert await login(config, "docker.io", run) == Credentials(identity_token="tok")
    assert run.asked == [("docker-credential-desktop", "get", b"https://index.docker.io/v1/")]


async def test_a_helper_that_knows_nothing_means_anonymous() -> None:
    run = Helpers(1, b"credentials not found in native keychain\n")
    assert await login({"credsStore": "x"}, "r.example", run) is None


@pytest.mark.parametrize(
    ("config", "run", "words"),
    [
        ({"credsStore": "x"}, Helpers(3, b""), "docker-credential-x has no login .* status 3"),
        ({"credsStore": "x"}, Helpers(0, b"hello"), "docker-credential-x answered"),
        ({"credsStore": "../evil"}, Helpers(0, b""), "names the credential helper"),
        ({"credHelpers": {"r.example": "a b"}}, Helpers(0, b""), "names the credential helper"),
        ({"auths": {"r.example": {"auth": "%%%"}}}, Helpers(), "'r.example' is not base64"),
        ({"auths": {"r.example": {"auth": b64("joe")}}}, Helpers(), "'r.example' has no password"),
    ],
)
async def test_what_can_t_be_used_is_one_sentence(
    config: dict[str, object], run: Helpers, words: str
) -> None:
    with pytest.raises(InvalidConfig, match=words):
        await login(config, "r.example", run)


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"auths": 3}', b"\xff", b"[" * 100_000])
def test_a_broken_file_is_named(raw: bytes) -> None:
    with pytest.raises(InvalidConfig, match=r"the file is not a docker config\.json"):
        read_docker_config(raw, "the file")


def test_a_login_does_not_show_its_secrets() -> None:
    assert "hush" not in repr(Credentials("joe", "hush", "hush"))


async def test_helpers_are_run_as_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "docker-credential-fake"
    program.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"$1\\", \\"Secret\\": \\"$host\\"}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    config = read_docker_config(b'{"credsStore": "fake"}', "config.json")
    assert await find_credentials(config, "r.example") == Credentials("get", "r.example")


async def test_a_helper_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidConfig, match=r"can't run .* docker-credential-absent: No such file"):
        await run_program("docker-credential-absent", "get", b"x")
