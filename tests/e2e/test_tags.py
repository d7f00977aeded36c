"""tags, repos, tag and rm at Debian's docker-registry, which removes no tag by itself, and at `serve`, which
does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from tests.e2e.pushed_images import put_image, put_index, tags_of
from tools.processes import Registry, blobflow_serve, docker_registry

KINDS = ("docker-registry", "serve")


@pytest.fixture(scope="module")
def registries(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Registry]]:
    folder = tmp_path_factory.mktemp("tending")
    with docker_registry(folder / "docker") as debian, blobflow_serve(folder / "serve") as ours:
        yield dict(zip(KINDS, (debian, ours), strict=True))


@pytest.fixture(params=KINDS)
def registry(request: pytest.FixtureRequest, registries: dict[str, Registry]) -> Registry:
    return registries[request.param]


@pytest.fixture
def docker(registries: dict[str, Registry]) -> Registry:
    return registries["docker-registry"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def lines(*arguments: str) -> list[str]:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_tags_and_repositories_are_listed(registry: Registry) -> None:
    put_image(registry, "list/a", "1", "2")
    put_image(registry, "list/b", "3")
    assert sorted(lines("tags", f"{registry.host}/list/a")) == ["1", "2"]
    listed = lines("repos", registry.host)
    assert {f"{registry.host}/list/a", f"{registry.host}/list/b"} <= set(listed)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tags", "{host}/nobody"), "has no tags of nobody"),
        (("tags", "{host}/app:1"), "is one image; leave its tag and digest out"),
        (("tags", "oci:/tmp/x"), "is no registry"),
        (("repos", "{host}/app"), "is more than a host"),
        (("tag", "{host}/nobody:1", "2"), "has no manifest nobody:1"),
        (("tag", "{host}/app:1", "other/place:2"), "is no tag; write bare tags of"),
        (("rm", "{host}/nobody:1"), "has no manifest nobody:1"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_a_sentence(
    docker: Registry, arguments: tuple[str, ...], sentence: str
) -> None:
    done = run(*(text.format(host=docker.host) for text in arguments))
    assert done.exit_code in (2, 5)
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_image_and_an_index_get_more_tags_and_nothing_else_is_sent(registry: Registry) -> None:
    image = put_image(registry, "more", "1.2.3")
    index = put_index(registry, "more", [image], "2.0.0")
    assert lines("tag", f"{registry.host}/more:1.2.3", "1.2", "1") == [
        f"{registry.host}/more:{tag} {image}" for tag in ("1.2", "1")
    ]
    lines("tag", f"{registry.host}/more@{index}", "2", "1")
    named = {tag: registry.digest_of("more", tag) for tag in ("1.2.3", "1.2", "1", "2", "2.0.0")}
    assert named == {"1.2.3": image, "1.2": image, "1": index, "2": index, "2.0.0": index}


def test_three_requests_make_a_tag(docker: Registry) -> None:
    put_index(docker, "few", [put_image(docker, "few", "x")], "1")
    docker.forget()
    lines("tag", f"{docker.host}/few:1", "2")
    asked = [request.method for request in docker.requests()]
    assert sorted(asked) == ["GET", "HEAD", "PUT"]


def test_a_tag_goes_where_tags_go_and_what_it_named_stays(registries: dict[str, Registry]) -> None:
    registry = registries["serve"]
    image = put_image(registry, "gone", "1", "2")
    assert lines("rm", f"{registry.host}/gone:1", "--dry-run") == [f"would remove {registry.host}/gone:1"]
    assert tags_of(registry, "gone") == ["1", "2"]
    assert lines("rm", f"{registry.host}/gone:1") == [f"removed {registry.host}/gone:1"]
    assert tags_of(registry, "gone") == ["2"]
    assert registry.digest_of("gone", image) == image


def test_a_registry_that_removes_no_tags_is_told_with_the_way_on(docker: Registry) -> None:
    image = put_image(docker, "stays", "1", "2")
    done = run("rm", f"{docker.host}/stays:1")
    assert done.exit_code == 5
    assert f"{docker.host} removes no tag by itself; --digest removes {image}" in done.stderr
    assert tags_of(docker, "stays") == ["1", "2"]


def test_an_image_that_others_name_goes_only_with_all_of_them(registry: Registry) -> None:
    image = put_image(registry, "all", "1", "2", "3", text="all")
    other = put_image(registry, "all", "4", text="other")
    done = run("rm", "--digest", f"{registry.host}/all:2")
    assert (done.exit_code, "would go 1, 3, which name it too; --all-tags if so" in done.stderr) == (5, True)
    assert len(tags_of(registry, "all")) == 4
    gone = lines("rm", "--digest", "--all-tags", f"{registry.host}/all:2")
    assert gone == [f"removed {registry.host}/all:{tag}" for tag in "123"] + [
        f"removed {registry.host}/all@{image}"
    ]
    assert tags_of(registry, "all") == ["4"]
    assert registry.digest_of("all", image) is None
    lines("rm", f"{registry.host}/all@{other}", "--all-tags")
    assert tags_of(registry, "all") == []


def test_an_image_that_an_index_lists_stays(registry: Registry) -> None:
    image = put_image(registry, "listed", "1-amd64", text="listed")
    put_index(registry, "listed", [image], "1")
    done = run("rm", "--digest", "--all-tags", f"{registry.host}/listed:1-amd64")
    assert (done.exit_code, "the index 1 lists it" in done.stderr) == (5, True)
    assert registry.digest_of("listed", image) == image
    lines("rm", "--digest", f"{registry.host}/listed:1")
    lines("rm", "--digest", f"{registry.host}/listed:1-amd64")
    assert tags_of(registry, "listed") == []


def test_a_tag_with_a_digest_goes_only_if_it_names_that(registry: Registry) -> None:
    first = put_image(registry, "moved", "1", text="first")
    now = put_image(registry, "moved", "1", text="second")
    done = run("rm", f"{registry.host}/moved:1@{first}")
    assert (done.exit_code, f"names {now} now" in done.stderr) == (5, True)
