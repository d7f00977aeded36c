"""`blobflow help` and `blobflow completion`: what is said is true, and what a shell asks is answered."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from blobflow import errors
from blobflow.cli import VERBS, cli
from blobflow.cli.exit_codes import EXIT_CODES, INTERRUPTED
from blobflow.cli.inputs.spec import parse_spec
from blobflow.cli.inputs.spec_keys import Entry, Rename, Tags
from blobflow.cli.output.help_topics import TOPICS
from blobflow.errors import BlobflowError
from blobflow.oci import parse_reference
from blobflow.signatures.policy_file import read_policy
from tests.deadlines import HANGS_AFTER
from tools.checkout import TOP

EXIT_CODES_PAGE = TOP / "docs" / "exit-codes.md"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def tree(kind: type[BlobflowError] = BlobflowError) -> Iterator[type[BlobflowError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_told_and_fits_a_terminal(name: str) -> None:
    done = run("help", name)
    assert (done.exit_code, done.output) == (0, TOPICS[name].text)
    assert max(map(len, done.output.splitlines())) <= 110


def test_without_a_topic_they_are_listed() -> None:
    assert [line.split()[0] for line in run("help").output.splitlines()[: len(TOPICS)]] == list(TOPICS)


def test_a_verb_is_explained_as_by_its_own_help() -> None:
    assert run("help", "inspect").output == run("inspect", "--help").output


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb, and every verb of a verb, with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name))


ALL = dict(commands())
SCREEN = {"COLUMNS": "80"}


def test_the_help_of_the_program_fits_a_small_terminal_and_begins_with_examples() -> None:
    lines = CliRunner(env=SCREEN).invoke(cli, ["--help"]).output.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("  blobflow copy ")
    listed = {word for line in lines for word in line.partition("  ")[2].replace(",", " ").split()}
    assert listed >= VERBS.keys()


@pytest.mark.parametrize("path", [path for path in ALL if path], ids=" ".join)
def test_the_help_of_a_verb_fits_a_screen_and_all_of_it_is_in_help_all(path: tuple[str, ...]) -> None:
    runner, command = CliRunner(env=SCREEN), ALL[path]
    brief = runner.invoke(cli, [*path, "--help"], prog_name="blobflow").output
    assert len(brief.splitlines()) <= 40
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if "more options:" not in brief:
        whole = brief
    else:
        whole = runner.invoke(cli, [*path, "--help-all"], prog_name="blobflow").output
        assert f"more options: blobflow {' '.join(path)} --help-all" in brief
    assert [each.opts[0] for each in shown if each.opts[0] not in whole] == []
    if "\n  blobflow " in brief:
        assert brief.index("\n  blobflow ") < brief.index("Options:")
        assert brief.splitlines()[2].startswith("  blobflow ")


def test_help_all_shows_options_by_what_they_are_about() -> None:
    text = CliRunner(env=SCREEN).invoke(cli, ["copy", "--help-all"]).output
    titles = re.findall(r"^([A-Z]\w*(?: options)?):$", text, re.MULTILINE)
    assert titles == ["Options", "Connection options", "Engine options", "Platform options", "Run options"]
    assert "--src-creds" not in text, "other tools' names are taken, and not shown"


def test_help_all_of_the_program_has_a_line_for_each_verb_and_the_exit_codes() -> None:
    text = CliRunner(env=SCREEN).invoke(cli, ["--help-all"]).output
    assert all(re.search(rf"^  {verb} +\S", text, re.MULTILINE) for verb in VERBS)
    assert "130 interrupted" in " ".join(text.split())


REFUSED = [
    ("save", "--dry-run"),
    ("load", "--dry-run"),
    ("export", "--dry-run"),
    ("plan", "--report"),
    ("apply", "--audit"),
]


@pytest.mark.parametrize(("verb", "option"), REFUSED)
def test_what_a_verb_refuses_is_not_offered(verb: str, option: str) -> None:
    offered = re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", run(verb, "--help-all").output, re.MULTILINE)
    assert "--verify" in offered
    assert option not in offered


@pytest.mark.parametrize(
    ("verb", "option"),
    [
        ("inspect", "--target-creds"),
        ("ls", "--dest-authfile"),
        ("save", "--target-creds"),
        ("tag", "--source-creds"),
        ("load", "--src-tls-verify"),
        ("probe", "--source-creds"),
        ("login", "--source-creds"),
        ("serve", "--target-creds"),
    ],
)
def test_a_verb_has_no_option_for_a_side_that_it_has_not(verb: str, option: str) -> None:
    names = {name for parameter in ALL[(verb,)].params for name in parameter.opts}
    assert option not in names
    assert run(verb, option, "x", "y").exit_code == 2


@pytest.mark.parametrize(
    ("verb", "side"), [("inspect", "src"), ("ls", "src"), ("save", "src"), ("tag", "dest"), ("load", "dest")]
)
def test_where_there_is_one_side_its_options_need_no_side_and_may_have_it(verb: str, side: str) -> None:
    for word in ("creds", "authfile", "tls-verify", "no-creds", "username", "password"):
        (option,) = [each for each in ALL[(verb,)].params if f"--{side}-{word}" in each.opts]
        own = {"src": "source", "dest": "target"}[side]
        assert {f"--{word}", f"--{own}-{word}"} <= set(option.opts)


def test_what_is_neither_is_an_error_that_lists_the_topics() -> None:
    done = run("help", "everything")
    assert done.exit_code == 2
    topics = "references, specs, artifacts, policies, compression, access, exit-codes"
    assert f"no topic or verb 'everything'; the topics are {topics}" in done.output


def test_the_exit_codes_are_those_of_the_errors() -> None:
    codes = {kind.exit_code for kind in tree() if kind.__module__ == errors.__name__}
    assert {0, INTERRUPTED} | codes == EXIT_CODES.keys()


def test_the_documentation_says_the_same_of_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", EXIT_CODES_PAGE.read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_the_policy_of_the_topic_is_one(tmp_path: Path) -> None:
    text = TOPICS["policies"].text
    file = tmp_path / "policy.json"
    file.write_text(text[text.index("{") : text.index("\n  }\n") + 4])
    scoped = read_policy(file).requirements("docker", parse_reference("acme/app:1.0"))
    assert scoped.scope == "docker.io/acme"


def test_the_spec_of_the_topic_is_one() -> None:
    text = TOPICS["specs"].text.partition("version: 1")[2].partition("\n\n")[0]
    spec = re.sub(r"(?m) {3,}(where|where all) .*$", "", f"  version: 1{text}\n")
    asked = parse_spec("\n".join(line[2:] for line in spec.splitlines()), "topic")
    assert [str(image.source) for image in asked.images][:3] == [
        "docker.io",
        "quay.io",
        "registry.example.com/prod",
    ]
    assert [image.backup for image in asked.images][-1] == "{tag}-old"


def test_the_topic_explains_every_key_of_an_image() -> None:
    keys = [*msgspec.structs.fields(Entry), *msgspec.structs.fields(Tags), *msgspec.structs.fields(Rename)]
    text = TOPICS["specs"].text.partition("Of an image:")[2]
    assert [key.encode_name for key in keys if not re.search(rf"\b{key.encode_name}\b", text)] == []


def test_the_references_of_the_topic_are_what_they_are_said_to_be() -> None:
    first = re.search(r"^  alpine +(\S+)$", TOPICS["references"].text, re.MULTILINE)
    assert first is not None
    assert str(parse_reference("alpine")) == first[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_asks_blobflow(shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == 0
    assert f"_BLOBFLOW_COMPLETE={shell}_complete" in done.output


@pytest.mark.parametrize(
    ("words", "fitting"),
    [
        ("wa", ["warm"]),
        ("sync --metr", ["--metrics-file", "--metrics-listen"]),
        ("copy --index pr", ["prune"]),
        ("completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_bash_is_told_what_fits(words: str, fitting: list[str], tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash (Debian: apt-get install bash)")
    (tmp_path / "blobflow").write_text(f'#!/bin/sh\nexec {sys.executable} -m blobflow "$@"\n')
    (tmp_path / "blobflow").chmod(0o755)
    script = run("completion", "bash").output
    line = f"blobflow {words}".split(" ")
    asked = (
        f"{script}\nCOMP_WORDS=({' '.join(word or chr(39) * 2 for word in line)}); "
        f"COMP_CWORD={len(line) - 1}; _blobflow_completion blobflow; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        [bash, "--norc", "-c", asked],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=True,
    )
    assert sorted(done.stdout.split()) == fitting
