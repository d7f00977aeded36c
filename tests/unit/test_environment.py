"""`from_environment` has what the command line has; logins that docker and podman keep just work."""

from __future__ import annotations

import base64
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import click
import pytest
from aiohttp import web

import blobflow
from blobflow.cli.options.connection import ConnectionOptions, connection_options
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.settings import Hosts, run_settings
from blobflow.environment import from_environment
from blobflow.errors import BlobflowError, InvalidConfig, InvalidReference, Unauthorized, UsageError
from blobflow.oci import Reference, digest_of, media
from blobflow.settings import Settings, logins_of
from blobflow.transports.registry import Credentials
from tests import library
from tests.contract.implementations import blob_of, image_of
from tests.e2e.servers.locked_registry import Authority
from tests.fakes.registry import scripted_server

ENDS = Hosts(frozenset({"s.example"}), frozenset({"t.example"}))
JOE = base64.b64encode(b"joe:secret").decode()
IMAGE, RAW = image_of(blob_of(b"{}"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, with nothing in the environment that speaks of registries."""
    for name in list(os.environ):
        if name.startswith(("BLOBFLOW_", "XDG_", "REGISTRY_", "DOCKER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def of_the_command_line() -> Settings:
    found: list[Settings] = []

    @click.command()
    @run_options
    @connection_options
    def verb(run: RunOptions, connection: ConnectionOptions) -> None:
        found.append(run_settings(connection, run, ENDS))

    verb.main([], standalone_mode=False)
    return found[0]


def of_the_library() -> Settings:
    return from_environment(sources=ENDS.sources, targets=ENDS.targets)


# Variables, with {} for the home, and the fields that they change from what an empty environment has.
SAID: list[tuple[dict[str, str], set[str]]] = [
    ({}, set()),
    ({"BLOBFLOW_PLAIN_HTTP": "a.example b.example:5000"}, {"plain_http"}),
    ({"BLOBFLOW_PLAIN_HTTP": " A.example "}, {"plain_http"}),
    ({"BLOBFLOW_TLS_VERIFY": "false"}, {"tls_verify", "hosts"}),
    ({"BLOBFLOW_TLS_VERIFY": "NO"}, {"tls_verify", "hosts"}),
    ({"BLOBFLOW_TLS_VERIFY": "1"}, {"hosts"}),
    ({"BLOBFLOW_TLS_VERIFY": ""}, set()),
    ({"BLOBFLOW_CONFIG": "{}/other.toml"}, {"hosts"}),
    ({"BLOBFLOW_CA": "{}/ca.pem"}, {"ca"}),
    ({"BLOBFLOW_CA": "{0}/ca.pem:{0}/ca2.pem"}, {"ca"}),
    ({"BLOBFLOW_CERT": "{}/client.pem", "BLOBFLOW_KEY": "{}/client.key"}, {"pairs"}),
    ({"BLOBFLOW_SOURCE_CREDS": "joe:x"}, {"hosts"}),
    ({"BLOBFLOW_TARGET_CREDS": "@{}/login"}, {"hosts"}),
    ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "a.example"}, {"proxies"}),
    ({"DOCKER_CONFIG": "{}/d"}, {"docker_config"}),
    ({"REGISTRY_AUTH_FILE": "{}/login"}, {"docker_config", "auth_files"}),
    ({"XDG_RUNTIME_DIR": "{}/run"}, {"auth_files"}),
    ({"XDG_CONFIG_HOME": "{}/c"}, {"auth_files", "certs", "hosts"}),
    ({"XDG_CONFIG_HOME": "relative"}, set()),
    ({"XDG_CACHE_HOME": "{}/cache"}, {"cache_dir"}),
    ({"HOME": ""}, {"auth_files", "cache_dir", "certs", "docker_config", "hosts"}),
]


@pytest.mark.parametrize(("said", "changed"), SAID, ids=lambda value: "+".join(sorted(value)) or "nothing")
def test_the_library_has_what_the_command_line_has(
    home: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], changed: set[str]
) -> None:
    authority = Authority(home / "authority")
    (home / "ca.pem").write_bytes(authority.pem.read_bytes())
    (home / "ca2.pem").write_bytes(authority.pem.read_bytes())
    client = authority.issue("client")
    (home / "client.pem").write_bytes(client.cert.read_bytes())
    (home / "client.key").write_bytes(client.key.read_bytes())
    (home / "login").write_text("sue:y\n")
    (home / "other.toml").write_text('[registry."r.example"]\nconnections = 2')
    config = home / ".config" / "blobflow" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[registry."r.example"]\nconnections = 1\ninsecure = true')
    before = of_the_library()
    assert before.hosts["r.example"].connections == 1
    for name, value in said.items():
        monkeypatch.setenv(name, value.format(home))
    settings = of_the_library()
    assert settings == of_the_command_line()
    fields = {name for name in Settings.__struct_fields__ if getattr(settings, name) != getattr(before, name)}
    assert fields == changed


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ({"BLOBFLOW_TLS_VERIFY": "maybe"}, UsageError, "BLOBFLOW_TLS_VERIFY is 'maybe'; set it to true or"),
        ({"BLOBFLOW_PLAIN_HTTP": "http://a"}, InvalidReference, "is not a registry host"),
        ({"BLOBFLOW_CONFIG": "/absent.toml"}, InvalidConfig, "can't read the configuration /absent.toml"),
        ({"BLOBFLOW_CA": "/absent.pem"}, UsageError, "can't read the CA certificate"),
        ({"BLOBFLOW_CERT": "/c.pem"}, UsageError, "BLOBFLOW_CERT and BLOBFLOW_KEY"),
        ({"REGISTRY_AUTH_FILE": "/absent"}, UsageError, "REGISTRY_AUTH_FILE names /absent"),
        ({"HTTPS_PROXY": "socks5://p"}, InvalidConfig, "HTTPS_PROXY is 'socks5://p'"),
    ],
)
def test_what_can_t_be_used_is_the_same_sentence_on_both(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Mapping[str, str],
    kind: type[BlobflowError],
    words: str,
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(kind, match=words) as library:
        of_the_library()
    with pytest.raises(kind) as line:
        of_the_command_line()
    assert str(library.value) == str(line.value)


def test_another_environment_can_be_given_and_logins_go_to_whom_they_are_for(home: Path) -> None:
    settings = from_environment({"HOME": "/h", "BLOBFLOW_SOURCE_CREDS": "joe:x"})
    assert (settings.cache_dir, settings.docker_config) == (Path("/h/.cache/blobflow"), Path("/h/.docker"))
    assert settings.hosts == {}
    made = from_environment({"BLOBFLOW_SOURCE_CREDS": "joe:x"}, sources=["a.example"])
    assert made.hosts["a.example"].credentials == Credentials("joe", "x")
    with pytest.raises(UsageError, match=r"BLOBFLOW_SOURCE_CREDS is for one registry, and .* a\.example, b"):
        from_environment({"BLOBFLOW_SOURCE_CREDS": "joe:x"}, sources=["a.example", "b.example"])
    with pytest.raises(UsageError, match="BLOBFLOW_TARGET_CREDS wants USER:PASSWORD, or @FILE"):
        from_environment({"BLOBFLOW_TARGET_CREDS": "joe"}, targets=["a.example"])


async def locked(request: web.BaseRequest) -> web.StreamResponse:
    """A registry with one image, which wants a login."""
    if request.headers.get("Authorization") != f"Basic {JOE}":
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    headers = {"Content-Type": media.OCI_MANIFEST, "Docker-Content-Digest": digest_of(RAW)}
    return web.Response(body=RAW, headers=headers)


def keep(file: Path, host: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"auths": {host: {"auth": JOE}}}))


# Where a login may be kept below the home, and the variables that say so.
KEPT: list[tuple[str, dict[str, str]]] = [
    (".docker/config.json", {}),
    ("d/config.json", {"DOCKER_CONFIG": "{}/d"}),
    (".config/containers/auth.json", {}),
    ("run/containers/auth.json", {"XDG_RUNTIME_DIR": "{}/run"}),
    ("mine.json", {"REGISTRY_AUTH_FILE": "{}/mine.json"}),
]


@pytest.mark.parametrize(("file", "said"), KEPT, ids=[file for file, _ in KEPT])
async def test_a_login_that_is_kept_opens_without_settings(
    home: Path, monkeypatch: pytest.MonkeyPatch, file: str, said: Mapping[str, str]
) -> None:
    async with scripted_server(locked) as server:
        reference = Reference(server.host, "app", "1")
        with pytest.raises(Unauthorized):
            await library.inspect(reference)
        keep(home / file, server.host)
        for name, value in said.items():
            monkeypatch.setenv(name, value.format(home))
        assert (await library.inspect(reference)).root.raw == RAW
        assert not (home / ".cache").exists(), "looking leaves nothing"
        with pytest.raises(Unauthorized):
            await library.inspect(reference, Settings())


def public_callables() -> Iterator[tuple[str, Any]]:
    for module in walk_packages(blobflow.__path__, "blobflow."):
        if module.name.split(".")[1] == "cli" or module.name.endswith("__main__"):
            continue
        for name, value in vars(import_module(module.name)).items():
            callable_here = inspect.isfunction(value) or inspect.isclass(value)
            if callable_here and value.__module__ == module.name and not name.startswith("_"):
                yield f"{module.name}.{name}", value


def _signature(each: Any) -> inspect.Signature:
    try:
        return inspect.signature(each)
    except ValueError:  # exceptions and protocols that Python itself gives none
        return inspect.Signature()


def test_whoever_takes_settings_and_has_a_default_has_that_of_the_environment() -> None:
    defaults = {
        name: parameter.default
        for name, each in public_callables()
        if (parameter := _signature(each).parameters.get("settings")) is not None
    }
    assert defaults["blobflow.client.Client"] is None
    assert {default for default in defaults.values() if default is not inspect.Parameter.empty} == {None}


async def test_logins_may_stand_in_a_variable(home: Path) -> None:
    (home / "mine.json").write_text("{}")
    said = json.dumps({"auths": {"s.example": {"auth": JOE}}})
    settings = from_environment({"HOME": str(home), "DOCKER_AUTH_CONFIG": said})
    assert await logins_of(settings).find("s.example") == Credentials("joe", "secret")
    assert JOE not in repr(settings)
    for nothing in ({}, {"DOCKER_AUTH_CONFIG": ""}):
        assert from_environment({"HOME": str(home), **nothing}).auth_content is None
    alone = {"DOCKER_AUTH_CONFIG": said, "REGISTRY_AUTH_FILE": str(home / "mine.json")}
    assert from_environment({"HOME": str(home), **alone}).auth_content is None
