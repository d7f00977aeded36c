"""Where logins come from and are kept: several files, parts of a host, programs asked again after a while."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import InvalidConfig, StorageError
from blobflow.transports.registry import (
    AuthContent,
    Credentials,
    CredentialStore,
    find_credentials,
    read_docker_config,
)
from blobflow.transports.registry.auth.credential_helpers import ProcessResult
from blobflow.transports.registry.auth.credential_store import KEEP_SECONDS, erase_login, store_login
from tests.fakes.credential_helpers import Helpers, b64
from tests.fakes.registry import Clock

JOE = Credentials("joe", "hush")
HUB = "https://index.docker.io/v1/"


def written(file: Path, **auths: str) -> Path:
    """A file with a login, as user:password, for each key."""
    file.write_text(json.dumps({"auths": {key: {"auth": b64(login)} for key, login in auths.items()}}))
    return file


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("", "host"),
        ("app", "host"),
        ("team", "team"),
        ("team/app", "team"),
        ("team/app/api", "app"),
        ("team/application", "team"),
        ("teams/app", "host"),
    ],
)
async def test_of_the_logins_that_fit_a_repository_the_longest_is_taken(
    tmp_path: Path, repository: str, user: str
) -> None:
    auths = {"r.example": "host:x", "r.example/team": "team:x", "r.example/team/app/api": "app:x"}
    found = await CredentialStore([written(tmp_path / "auth.json", **auths)]).find("r.example", repository)
    assert found == Credentials(user, "x")


async def test_a_part_of_docker_io_may_have_a_login(tmp_path: Path) -> None:
    file = written(tmp_path / "auth.json", **{"docker.io/team": "team:x", HUB: "hub:x"})
    logins = CredentialStore([file])
    assert await logins.find("docker.io", "team/app") == Credentials("team", "x")
    assert await logins.find("docker.io", "library/alpine") == Credentials("hub", "x")


async def test_a_login_for_a_part_of_a_host_is_none_for_the_rest(tmp_path: Path) -> None:
    assert (
        await CredentialStore([written(tmp_path / "a", **{"r.example/team": "t:x"})]).find("r.example", "app")
        is None
    )


async def test_the_first_file_with_a_login_decides_and_absent_files_are_nothing(tmp_path: Path) -> None:
    first = written(tmp_path / "first", **{"r.example": "first:x"})
    second = written(tmp_path / "second", **{"r.example/app": "second:x", "s.example": "second:y"})
    logins = CredentialStore([tmp_path / "absent", first, second])
    assert await logins.find("r.example", "app") == Credentials("first", "x")
    assert await logins.find("s.example", "app") == Credentials("second", "y")
    assert await logins.find("t.example") is None


@given(
    key=st.text("https:/v12.example[]@ ", max_size=30),
    auth=st.none()
    | st.text(max_size=12)
    | st.binary(max_size=12).map(lambda raw: base64.b64encode(raw).decode()),
)
async def test_whatever_a_file_holds_it_is_a_login_none_or_one_sentence(key: str, auth: str | None) -> None:
    config = read_docker_config(json.dumps({"auths": {key: {"auth": auth}}}).encode(), "c.json")
    try:
        found = await find_credentials(config, "r.example", repository="team/app")
    except InvalidConfig:
        return
    assert found is None or isinstance(found, Credentials)


async def test_a_login_that_can_t_be_used_is_told_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    file.write_text('{"auths": {"r.example": {"auth": "am9l"}}}')
    with pytest.raises(InvalidConfig, match=r"auth\.json: the login for 'r\.example' has no password"):
        await CredentialStore([tmp_path / "absent", file]).find("r.example")


async def test_files_are_read_once(tmp_path: Path) -> None:
    file = written(tmp_path / "auth.json", **{"r.example": "joe:hush"})
    logins = CredentialStore([file])
    await logins.find("x.example")
    file.unlink()
    assert await logins.find("r.example") == JOE


async def test_a_program_is_asked_once_and_again_after_a_while(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"credsStore": "x"}')
    clock, run = Clock(), Helpers(0, b'{"Username": "joe", "Secret": "hush"}')
    logins = CredentialStore([file], run, clock)
    for repository in ("a", "b", "c"):
        assert await logins.find("r.example", repository) == JOE
    assert len(run.asked) == 1
    await logins.find("s.example")
    assert [given for _, _, given in run.asked] == [b"r.example", b"s.example"]
    run.answer = ProcessResult(0, b'{"Username": "joe", "Secret": "new"}')
    clock.now += KEEP_SECONDS
    assert await logins.find("r.example", "a") == Credentials("joe", "new")


# keep and forget


async def test_a_login_is_kept_for_its_owner_alone_and_the_rest_stays(tmp_path: Path) -> None:
    file = tmp_path / "docker" / "config.json"
    assert await store_login(file, "r.example:5000", JOE) == str(file)
    assert file.stat().st_mode & 0o777 == 0o600
    kept = json.loads(file.read_text())
    file.write_text(json.dumps(kept | {"theme": {"dark": [1, None]}, "HttpHeaders": {"X": "é"}}))
    await store_login(file, "docker.io", Credentials("dora", "p:w"))
    content = json.loads(file.read_text())
    assert content == {
        "auths": {"r.example:5000": {"auth": b64("joe:hush")}, HUB: {"auth": b64("dora:p:w")}},
        "theme": {"dark": [1, None]},
        "HttpHeaders": {"X": "é"},
    }
    assert await CredentialStore([file]).find("docker.io") == Credentials("dora", "p:w")
    assert [each.name for each in file.parent.iterdir()] == ["config.json"]


async def test_a_new_login_replaces_every_spelling_of_the_host_but_no_part_of_it(tmp_path: Path) -> None:
    spelt = {"https://r.example/v2/": "old:x", "r.example": "older:x", "r.example/team": "team:x"}
    file = written(tmp_path / "config.json", **spelt)
    await store_login(file, "r.example", JOE)
    assert json.loads(file.read_text())["auths"].keys() == {"r.example", "r.example/team"}
    assert await erase_login(file, "r.example")
    assert json.loads(file.read_text())["auths"].keys() == {"r.example/team"}
    assert not await erase_login(file, "r.example")
    assert not await erase_login(tmp_path / "absent", "r.example")


async def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    link = tmp_path / "config.json"
    link.symlink_to(tmp_path / "dotfiles.json")
    await store_login(link, "r.example", JOE)
    assert link.is_symlink()
    assert "r.example" in (tmp_path / "dotfiles.json").read_text()


async def test_a_program_that_the_file_names_keeps_and_drops_the_login(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"credsStore": "general", "credHelpers": {"r.example": "own"}}')
    before, run = file.read_bytes(), Helpers(0, b'{"Username": "joe", "Secret": "hush"}')
    assert await store_login(file, "r.example", JOE, run) == "docker-credential-own"
    assert await store_login(file, "docker.io", JOE, run) == "docker-credential-general"
    (own, verb, given), (general, _, hub) = run.asked
    assert (own, verb, general) == ("docker-credential-own", "store", "docker-credential-general")
    assert json.loads(given) == {"ServerURL": "r.example", "Username": "joe", "Secret": "hush"}
    assert json.loads(hub)["ServerURL"] == HUB
    assert await erase_login(file, "r.example", run)
    assert run.asked[-1] == ("docker-credential-own", "erase", b"r.example")
    assert file.read_bytes() == before


async def test_a_program_that_does_not_take_the_login_is_named_and_the_login_is_not(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"credsStore": "x"}')
    with pytest.raises(
        InvalidConfig, match=r"docker-credential-x did not store .* r\.example: .* 2"
    ) as raised:
        await store_login(file, "r.example", JOE, Helpers(2, b"hush"))
    assert "hush" not in str(raised.value)


async def test_a_place_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "docker").touch()
    with pytest.raises((StorageError, InvalidConfig), match=r"can't (read|write) .*config\.json") as raised:
        await store_login(tmp_path / "docker" / "config.json", "r.example", JOE)
    assert base64.b64encode(b"joe:hush").decode() not in str(raised.value)


async def test_a_broken_file_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"auths": ')
    with pytest.raises(InvalidConfig, match=r"config\.json is not a docker config\.json"):
        await store_login(file, "r.example", JOE)
    assert file.read_text() == '{"auths": '


def content(text: str) -> AuthContent:
    return AuthContent("DOCKER_AUTH_CONFIG", text)


async def test_content_without_a_file_is_looked_into_before_the_files(tmp_path: Path) -> None:
    file = written(tmp_path / "auth.json", **{"r.example": "file:x", "s.example": "file:x"})
    given = content(json.dumps({"auths": {"r.example": {"auth": b64("joe:hush")}}}))
    logins = CredentialStore([file], content=given)
    assert await logins.find("r.example") == JOE
    assert await logins.find("s.example") == Credentials("file", "x")
    assert "hush" not in repr(given)
    assert b64("joe:hush") not in repr(given)


@pytest.mark.parametrize(
    "text", ['{"auths": {"r.example": {"auth": "hush"}}}', "hush", '{"auths": ["hush"]}']
)
async def test_content_that_is_none_is_told_by_its_name_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        await CredentialStore([], content=content(text)).find("r.example")
    assert str(caught.value).startswith("DOCKER_AUTH_CONFIG")
    assert "hush" not in str(caught.value)


async def test_a_file_may_begin_with_a_mark_of_its_byte_order(tmp_path: Path) -> None:
    file = written(tmp_path / "auth.json", **{"r.example": "joe:hush"})
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert await CredentialStore([file]).find("r.example") == JOE
    await store_login(file, "s.example", JOE)
    assert await CredentialStore([file]).find("s.example") == JOE
