"""Every `blobflow …` line of README and docs is one that the command line takes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from blobflow.cli import VERBS
from tools.checkout import TOP
from tools.documentation.commands import Command, commands_in, commands_of, refusal
from tools.documentation.documents import blocks_of, documents, name_of

DOCUMENTS = documents()


@pytest.fixture(autouse=True)
def no_login_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--source-creds @FILE` names a file of the reader's."""
    monkeypatch.setattr("blobflow.cli.options.credentials.parse_login", lambda text, option: text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_is_taken(document: Path) -> None:
    assert [wrong for command in commands_of(document) if (wrong := refusal(command))] == []


def test_the_commands_are_found() -> None:
    """Else the test above would be content with none."""
    found = Counter(
        next(iter(command.arguments), "") for document in DOCUMENTS for command in _typed(document)
    )
    assert found.total() > 200
    assert set(VERBS) - found.keys() == set(), "a verb that no page shows"


def _typed(document: Path) -> list[Command]:
    return [command for command in commands_of(document) if command.is_typed]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_tool_is_there(document: Path) -> None:
    named = re.findall(r"(?m)^(?:\$ )?(tools/[\w-]+)", "".join(block.text for block in blocks_of(document)))
    assert [tool for tool in named if not (TOP / tool).is_file()] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("blobflow ls HOST  # it's there", [("ls", "HOST")]),
        ("A=1 blobflow copy a b | docker load", [("copy", "a", "b")]),
        ("blobflow probe H >> ~/config.toml 2> log", [("probe", "H")]),
        ("cd x && sudo /usr/local/bin/blobflow tags 'a b'; blobflow demo", [("tags", "a b"), ("demo",)]),
        ("echo blobflow", []),
    ],
)
def test_commands_are_told_from_what_stands_around_them(line: str, found: list[tuple[str, ...]]) -> None:
    assert list(commands_in(line)) == found


@pytest.mark.parametrize(
    "line",
    [
        "blobflow sink x",
        "blobflow sync --imagez x",
        "blobflow copy only-one",
        "blobflow sync m.yaml --index sparse",
        "blobflow cache gc --max-size lots",
        "blobflow index make x",
        "blobflow sync m.yaml --concurrency 0",
    ],
)
def test_a_line_that_fails_as_typed_is_refused(line: str) -> None:
    (arguments,) = commands_in(line)
    assert refusal(Command(TOP / "README.md", 1, arguments))
