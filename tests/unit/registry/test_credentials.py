"""docker's config.json and credential helpers."""

from __future__ import annotations

import json

import pytest

from blobflow.errors import InvalidConfig
from blobflow.transports.registry import Credentials, find_credentials, read_docker_config
from tests.fakes.credential_helpers import Helpers, b64

HUB = "https://index.docker.io/v1/"


async def login(config: dict[str, object], host: str, run: Helpers | None = None) -> Credentials | None:
    read = read_docker_config(json.dumps(config).encode(), "config.json")
    return await find_credentials(read, host, run or Helpers(1, b"not expected"))


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("http://docker.io/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io"),
        ("r.example/", "r.example"),
        (" r.example", "r.example"),
        ("https://r.example/v1/", "r.example"),
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
    registry = {"registrytoken": "abc.def"}
    assert await login({"auths": {"r.example": registry}}, "r.example") == Credentials(
        registry_token="abc.def"
    )


PAIR = "robot:" + "p?>" * 30
SPELLINGS = {
    "as docker writes it": b64(PAIR),
    "without padding": b64(PAIR + "x").rstrip("="),
    "wrapped at 76": "\n".join(b64(PAIR)[at : at + 76] for at in range(0, len(b64(PAIR)), 76)) + "\n",
    "wrapped by Windows": b64(PAIR).replace("c", "c\r\n"),
    "blanks around it": f"  {b64(PAIR)}\t",
    "of URLs": b64(PAIR).replace("+", "-").replace("/", "_"),
    "of URLs, without padding": b64(PAIR + "x").replace("+", "-").replace("/", "_").rstrip("="),
    "too much padding": b64(PAIR) + "==",
    "zeros behind the password": b64(PAIR + "\0\0"),
}


@pytest.mark.parametrize("auth", SPELLINGS.values(), ids=SPELLINGS)
async def test_base64_is_read_in_each_of_its_spellings(auth: str) -> None:
    found = await login({"auths": {"r.example": {"auth": auth}}}, "r.example")
    assert found is not None
    assert (found.username, found.password.removesuffix("x")) == tuple(PAIR.split(":"))


async def test_what_auth_says_goes_before_plain_fields_and_blanks_are_nothing() -> None:
    both = {"auth": b64("joe:p"), "username": "ann", "password": "q"}
    assert await login({"auths": {"r.example": both}}, "r.example") == Credentials("joe", "p")
    assert await login({"auths": {"r.example": {**both, "auth": " \n"}}}, "r.example") == Credentials(
        "ann", "q"
    )


async def test_null_is_an_absent_field_wherever_it_stands() -> None:
    assert await login({"auths": None, "credHelpers": None, "credsStore": None}, "r.example") is None
    entries = {"x.example": None, "r.example": {"auth": b64("joe:p"), "identitytoken": None}}
    config: dict[str, object] = {"auths": entries, "credHelpers": {"x.example": None}}
    assert await login(config, "r.example") == Credentials("joe", "p")
    assert await login(config, "x.example") is None


async def test_names_of_fields_are_taken_in_any_case() -> None:
    config: dict[str, object] = {"Auths": {"r.example": {"Auth": b64("joe:p"), "identityToken": "tok"}}}
    assert await login(config, "r.example") == Credentials("joe", "p", "tok")
    run = Helpers(0, b'{"username": "joe", "secret": "s", "serverurl": "x", "more": [1]}')
    assert await login({"credsstore": "x"}, "r.example", run) == Credentials("joe", "s")


async def test_docker_s_own_key_goes_before_the_other_spellings_of_a_host() -> None:
    entries = {
        key: {"auth": b64(f"{n}:p")} for n, key in enumerate(("registry-1.docker.io", "docker.io", HUB))
    }
    assert await login({"auths": entries}, "docker.io") == Credentials("2", "p")
    del entries[HUB]
    assert await login({"auths": entries}, "docker.io") == Credentials("1", "p")


@pytest.mark.parametrize("raw", [b"", b" \n"])
async def test_an_empty_file_says_nothing(raw: bytes) -> None:
    assert await find_credentials(read_docker_config(raw, "config.json"), "r.example") is None


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


async def test_a_host_without_a_helper_of_its_own_by_name_is_kept_in_the_file() -> None:
    config: dict[str, object] = {"credsStore": "x", "credHelpers": {"r.example": ""}}
    assert await login(config, "r.example") is None
    config["auths"] = {"r.example": {"auth": b64("joe:p")}}
    assert await login(config, "r.example") == Credentials("joe", "p")


async def test_a_helper_that_answers_with_nothing_knows_nothing() -> None:
    assert (
        await login({"credsStore": "x"}, "r.example", Helpers(0, b'{"Username": "", "Secret": ""}')) is None
    )


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
        ({"auths": {"r.example": {"auth": "/////w=="}}}, Helpers(), "'r.example' is not UTF-8"),
        ({"auths": {"r.example": {"registrytoken": "a\nb"}}}, Helpers(), "registrytoken for 'r.example'"),
    ],
)
async def test_what_can_t_be_used_is_one_sentence(
    config: dict[str, object], run: Helpers, words: str
) -> None:
    with pytest.raises(InvalidConfig, match=words):
        await login(config, "r.example", run)


@pytest.mark.parametrize("raw", [b"[]", b"null x", b'{"auths": 3}', b"\xff", b"[" * 100_000])
def test_a_broken_file_is_named(raw: bytes) -> None:
    with pytest.raises(InvalidConfig, match=r"the file is not a docker config\.json"):
        read_docker_config(raw, "the file")


def test_a_login_does_not_show_its_secrets() -> None:
    assert "hush" not in repr(Credentials("joe", "hush", "hush", "hush"))
