"""Words of other tools: each is answered with what blobflow has for it, and each such answer can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from blobflow.cli import VERBS, cli
from blobflow.cli.output import other_tools

ROWS = {**other_tools.VERBS, **other_tools.OPTIONS}
# What a sentence may name in backticks that is no line of ours.
FOREIGN = re.compile(r"docker (load|save)|timeout 1h blobflow …|rename: .*|proxy")


def blobflow(*words: str, code: int = 2) -> Result:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, done.output
    return done


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The verb that words call, and its own words."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            break
        command, words = found, words[1:]
    return command, words


def parses(command: click.Command, words: list[str]) -> str:
    """Why a verb does not take these words; "" if it does. Nothing is run."""
    try:
        command.make_context("blobflow", list(words))
    except click.exceptions.Exit:
        pass  # --version, --schema
    except click.UsageError as error:
        return error.format_message()
    return ""


def verbs() -> Iterator[click.Command]:
    for name in VERBS:
        command, _ = command_of([name])
        if not isinstance(command, click.Group):
            yield command


def taken_by_a_verb(options: list[str]) -> bool:
    """Whether any verb takes these options, with as many arguments as it wants."""
    return any(not parses(verb, [*options, *["x"] * many]) for verb in verbs() for many in range(3))


@pytest.mark.parametrize("word", ROWS)
def test_what_is_said_to_be_ours_is(word: str) -> None:
    fragments = re.findall(r"`([^`]*)`", ROWS[word])
    assert fragments or ROWS[word].startswith(("nothing: ", "the variable "))
    for fragment in fragments:
        if FOREIGN.fullmatch(fragment):
            continue
        words = shlex.split(fragment)
        if words[0] == "blobflow":
            assert parses(*command_of(words[1:])) == "", fragment
        else:
            assert words[0].startswith("-"), fragment
            assert taken_by_a_verb(words), fragment


@pytest.mark.parametrize("word", other_tools.VERBS)
def test_a_verb_of_another_tool_is_none_of_ours(word: str) -> None:
    first, *second = word.split()
    assert first not in VERBS or (first, *second) in {
        ("tag", "ls"),
        ("tag", "list"),
        ("tag", "delete"),
        ("tag", "rm"),
    }


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("cp a b", "In blobflow: `blobflow copy SOURCE TARGET`."),
        ("list-tags docker://x.example/y", "`blobflow ls HOST/REPOSITORY`"),
        ("tag ls x.example/y", "No such verb 'tag ls'. In blobflow: `blobflow ls HOST/REPOSITORY`."),
        ("manifest create a b", "`blobflow index create TARGET REF REF`"),
        ("manifest frobnicate a", "`blobflow inspect --raw REF`"),
        ("image copy a b", "`blobflow copy SOURCE TARGET`"),
        ("snyc a", "Did you mean 'sync'?"),
        ("copy --src-cert-dir d a b", "No such option '--src-cert-dir'. In blobflow: `--ca FILE`"),
        ("inspect --format {{.Digest}} a", "`blobflow digest REF`"),
        ("copy --all-tags a b", "`blobflow sync --from HOST/REPOSITORY --to HOST`"),
        ("sync --src yaml --dest docker a b", "`blobflow sync FILE.yaml --to HOST`"),
        ("--insecure-policy copy a b", "any image is accepted unless a `--policy FILE` says otherwise"),
        ("--policy p.json copy a b", "--policy goes after the verb: blobflow copy --policy"),
        ("--override-os linux copy a b", "--override-os goes after the verb: blobflow copy --override-os"),
        ("--override-os linux", "No such option"),
        ("copy --plain-htp x a b", "Did you mean '--plain-http'?"),
        ("cache gc --max-sizes 1", "--max-size"),
    ],
)
def test_who_types_it_is_told(line: str, answer: str) -> None:
    assert answer in " ".join(blobflow(*line.split()).stderr.split())
