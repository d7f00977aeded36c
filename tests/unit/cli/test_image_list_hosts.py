"""A list's names with hosts, and registries named without a repository, at every verb that takes one.

Nothing here reaches a network: what is wrong with words is said before anything is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from blobflow.cli import cli

LIST = "docker.io/library/alpine:3\n\n# ours\nquay.io/x/y:1\n"
SAID = "line 4: quay.io/x/y:1 is of quay.io, and --from is docker.io; leave --from out to take "
VERBS = {
    "sync": ["sync", "--from", "docker.io", "--to", "127.0.0.1:1/m"],
    "sync, dry": ["sync", "--from", "docker.io", "--to", "127.0.0.1:1/m", "--dry-run"],
    "plan": ["plan", "--from", "docker.io", "--to", "127.0.0.1:1/m"],
    "verify": ["verify", "--from", "docker.io", "--to", "127.0.0.1:1/m"],
    "save": ["save", "--from", "docker.io", "-o", "b.tar"],
    "warm": ["warm", "--from", "docker.io", "--edge", "127.0.0.1:1"],
    "warm the store": ["warm", "--from", "docker.io", "--into-cache"],
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield
    asyncio.set_event_loop(None)


def refused(*words: str, stdin: str = "") -> str:
    """The one sentence that is said, with exit code 2."""
    result = CliRunner().invoke(cli, words, input=stdin)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    [line] = result.stderr.splitlines()
    return line.removeprefix("blobflow: ")


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_a_name_of_another_host_is_an_error_that_names_the_line(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text(LIST)
    assert refused(*words, "--images", "images.txt").startswith(f"images.txt {SAID}")
    assert refused(*words, "--images", "-", stdin=LIST).startswith(f"stdin {SAID}")
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.parametrize("words", VERBS.values(), ids=VERBS)
def test_any_host_is_taken_where_a_list_is(words: list[str]) -> None:
    """That it drops them is in test_spec; here the next thing wrong is another one."""
    said = refused(*words, "--any-host", "--images", "-", stdin=f"{LIST}A:1\n")
    assert said.startswith("stdin line 5: 'A:1' is not a reference: repository names are lower case")


def test_a_list_of_load_from_stdin_is_called_so(tmp_path: Path) -> None:
    said = refused("load", "a.tar", "--to", "127.0.0.1:1", "--images", "-", stdin="a:1\nB:1\n")
    assert said.startswith("stdin line 2: 'B:1' is not a reference")


@pytest.mark.parametrize(
    "words", [["sync", "s.yaml"], ["plan", "s.yaml"], ["warm", "s.yaml", "--edge", "127.0.0.1:1"]]
)
def test_any_host_says_nothing_of_a_spec(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("{version: 1, defaults: {targets: ['t:1/m']}, images: [quay.io/a/b:1]}")
    assert refused(*words, "--any-host").startswith("--any-host is about the lines of --images; ")


ALONE = "127.0.0.1:1"
REFERENCES = {
    "copy, source": ["copy", ALONE, "127.0.0.1:2/a"],
    "copy, target": ["copy", "127.0.0.1:2/a", ALONE],
    "copy, second target": ["copy", "127.0.0.1:2/a", "127.0.0.1:2/b", ALONE],
    "inspect": ["inspect", ALONE],
    "tags": ["tags", ALONE],
    "tag": ["tag", ALONE, "latest"],
    "rm": ["rm", ALONE],
    "export": ["export", ALONE, "-o", "out"],
    "export to a registry": ["export", "127.0.0.1:2/a", "-o", f"type=registry,name={ALONE}"],
    "index create": ["index", "create", ALONE, "127.0.0.1:2/a"],
    "index create, image": ["index", "create", "127.0.0.1:2/a", ALONE],
    "index annotate": ["index", "annotate", ALONE, "127.0.0.1:2/a", "--os", "linux"],
    "index push": ["index", "push", ALONE],
    "index inspect": ["index", "inspect", ALONE],
    "index rm": ["index", "rm", ALONE],
}


@pytest.mark.parametrize("words", REFERENCES.values(), ids=REFERENCES)
def test_a_registry_alone_is_no_image_anywhere(words: list[str]) -> None:
    assert refused(*words) == (
        f"'{ALONE}' names a registry and no repository; add a repository, as {ALONE}/REPOSITORY:TAG"
    )


def test_files_of_other_tools_say_it_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "list.yml").write_text("image: quay.io\nmanifests: [{image: h:1/a}]\n")
    said = refused("index", "create", "--from-spec", "list.yml")
    assert said.startswith("list.yml line 1: image: 'quay.io' names a registry and no repository; add ")
    (tmp_path / "regsync.yml").write_text(
        f"version: 1\nsync:\n  - {{source: '{ALONE}', target: 'h:1/a', type: image}}\n"
    )
    said = refused("sync", "regsync.yml")
    assert said.startswith(f"regsync.yml line 3: '{ALONE}' names a registry and no repository; add ")
