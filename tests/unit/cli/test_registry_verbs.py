"""`ls`, `ratelimit`, and `sync` of a whole repository: what is asked, and what is printed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.inputs.repositories import parse_repository, split_host
from blobflow.cli.inputs.requests import parse_registry_prefix, repository_request
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.options.images import SelectionOptions
from blobflow.errors import InvalidReference, UsageError
from blobflow.oci import digest_of, media
from tests.fakes.registry import ScriptedServer, scripted_server
from tests.scenarios.serve import served

SIGNATURE = f"sha256-{'0' * 64}.sig"
LIMITED = {
    "RateLimit-Limit": "100;w=21600",
    "RateLimit-Remaining": "76;w=21600",
    "Docker-RateLimit-Source": "192.0.2.1",
}


@contextmanager
def registry(
    answer: Callable[[web.BaseRequest], web.Response],
) -> Iterator[ScriptedServer]:
    """A registry on a loop of its own, so that a verb can have one."""
    ready, done = threading.Event(), asyncio.Event()
    servers: list[ScriptedServer] = []
    loop = asyncio.new_event_loop()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return answer(request)

    async def serve() -> None:
        async with scripted_server(handler) as server:
            servers.append(server)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    try:
        yield servers[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def with_content(request: web.BaseRequest) -> web.Response:
    """One repository with two tags, of a registry that counts what is read."""
    match request.path.removeprefix("/v2/"):
        case "_catalog":
            return web.json_response({"repositories": ["team/app", "team/web"]})
        case "team/app/tags/list":
            return web.json_response({"name": "team/app", "tags": ["1.0", "latest", SIGNATURE]})
        case "team/app/manifests/1.0":
            headers = {"Docker-Content-Digest": digest_of(b"{}"), **LIMITED}
            return web.Response(
                headers={**headers, "Content-Type": media.OCI_MANIFEST, "Content-Length": "2"}
            )
        case "":
            return web.Response()
        case _:
            return web.json_response({"errors": [{"code": "NAME_UNKNOWN"}]}, status=404)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("DOCKER_CONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "BLOBFLOW_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def blobflow(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, done.output
    return done


def test_ls_lists_tags_of_a_repository_and_repositories_of_a_host() -> None:
    with registry(with_content) as there:
        app = f"{there.host}/team/app"
        assert blobflow("ls", app).stdout.splitlines() == ["1.0", "latest", SIGNATURE]
        assert blobflow("ls", f"docker://{app}", "-O").stdout.splitlines() == ["1.0", "latest"]
        assert blobflow("ls", f"http://{app}/", "-O", "--full-ref").stdout.splitlines() == [
            f"{app}:1.0",
            f"{app}:latest",
        ]
        both = [f"{there.host}/team/app", f"{there.host}/team/web"]
        for host in (there.host, f"{there.host}/", f"http://{there.host}"):
            assert blobflow("ls", host).stdout.splitlines() == both
        assert "is one image; leave its tag" in blobflow("ls", f"{app}:1.0", code=2).stderr


def test_a_limit_is_told_where_there_is_one() -> None:
    with registry(with_content) as there:
        image = f"{there.host}/team/app:1.0"
        limited = blobflow("ratelimit", image)
        assert limited.stdout == f"{there.host}: 76 of 100 in 6 h left, counted for 192.0.2.1\n"
        assert {each.method for each in there.seen if "manifests" in each.target} == {"HEAD"}, "which is free"
        told = json.loads(blobflow("ratelimit", image, "--json").stdout)
        assert told == {"limit": 100, "remaining": 76, "window": 21600, "source": "192.0.2.1"}
        assert blobflow("ratelimit", there.host).stdout == f"{there.host} tells of no limit on what is read\n"
        assert blobflow("ratelimit", there.host, "--json").stdout == "null\n"
        assert blobflow("ratelimit", f"{there.host}/team/gone:1", code=5)


def test_how_often_a_request_is_sent_again_can_be_said() -> None:
    with registry(lambda _: web.Response(status=503, headers={"Retry-After": "0"})) as there:
        for times in (0, 1, 6):
            there.seen.clear()
            blobflow("ls", there.host, "--retry-times", str(times), code=5)
            assert len(there.seen) == times + 1


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("quay.io", "quay.io"),
        ("docker://quay.io/", "quay.io"),
        ("localhost", "localhost"),
        ("mirror:5000", "mirror:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("index.docker.io", "docker.io"),
        ("alpine", ""),
        ("alpine:3.20", ""),
        ("quay.io/org/app", ""),
    ],
)
def test_what_names_a_registry_alone_is_one(text: str, host: str) -> None:
    assert split_host(text) == host


def test_a_repository_is_named_without_a_tag() -> None:
    assert str(parse_repository("alpine")) == "docker.io/library/alpine"
    with pytest.raises(UsageError):
        parse_repository("alpine:3")


@pytest.mark.parametrize(
    ("text", "scoped", "path", "goal"),
    [
        ("docker://docker.io/alpine", False, "library/alpine", "t.example/m/alpine:1"),
        ("docker.io/library/alpine", True, "library/alpine", "t.example/m/docker.io/library/alpine:1"),
        ("quay.io/org/team/app", False, "org/team/app", "t.example/m/app:1"),
        ("quay.io/org/team/app/", True, "org/team/app", "t.example/m/quay.io/org/team/app:1"),
        ("127.0.0.1:5000/team/app", True, "team/app", "t.example/m/127.0.0.1_5000/team/app:1"),
    ],
)
def test_a_repository_without_a_list_is_all_its_tags(text: str, scoped: bool, path: str, goal: str) -> None:
    from blobflow.cli.inputs.expansion import expand
    from blobflow.operations.tags.search import ChosenTags

    selection = SelectionOptions(source=text, targets=("t.example/m",), scoped=scoped)
    request = read_request(selection)
    (image,) = request.images
    assert image.path == path
    assert image.rules is not None
    (search,) = request.searches
    (pair,) = expand(request, {search: [ChosenTags(path, ("1",))]}).pairs
    assert str(pair.target) == goal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "quay.io",
            r"quay\.io is a registry; give one of its repositories, as quay\.io/REPOSITORY, or .*--images",
        ),
        ("oci:folder", "is no registry; say with --images LIST"),
    ],
)
def test_what_is_no_repository_needs_a_list(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        repository_request(text, scoped=False)
    with pytest.raises(UsageError, match=words):
        read_request(SelectionOptions(source=text, targets=("t.example",)))


def test_a_tag_is_no_part_of_a_place() -> None:
    with pytest.raises(InvalidReference):
        parse_registry_prefix("quay.io/org/app:1")


def test_a_probe_is_kept_in_a_configuration_that_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "new" / "c.toml"
    with served(tmp_path / "registry") as url:
        host = url.partition("://")[2]
        words = ["probe", host, "--up-to", "1KiB", "--retry-times", "0", "--save", "--config", str(file)]
        done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"the profile of {host} is kept in {file}\n"
    assert f'[registry."{host}".profile]' in file.read_text()
    shown = CliRunner().invoke(cli, ["config", "show", "--config", str(file)])
    assert f"{host} profile" in shown.stdout


def test_a_configuration_that_is_not_there_and_not_to_be_made_is_told(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    done = CliRunner().invoke(cli, ["probe", "127.0.0.1:9", "--config", str(file)])
    assert done.exit_code == 2
    assert done.stderr == f"blobflow: can't read the configuration {file}: No such file or directory\n"


@pytest.mark.parametrize("verb", ["ls", "tags"])
def test_standard_input_is_no_registry(verb: str) -> None:
    result = CliRunner().invoke(cli, [verb, "-"])
    assert result.exit_code == 2
    assert result.stderr == (
        "blobflow: '-' is standard input, and no registry or repository; the images of an archive are shown "
        "by `blobflow bundle ls -`\n"
    )
