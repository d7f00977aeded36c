"""Every command of README and docs gets to where it would ask a registry.

What a verb itself refuses, as two options that exclude each other, is refused before that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from tools.documentation.commands import Command, commands_in, commands_of
from tools.documentation.documents import DOCS, blocks_of, documents, name_of

# What a reader has and this test has not: archives and other files, a terminal, a staged index, a group.
EXPECTED = (
    "can't read",
    "there is no archive",
    "there is no file or folder",
    "there is no configuration file in use",
    "there is no group",
    "there is no terminal",
    "is not staged",
    "nothing to drop",
)
FILES = {
    "images.txt": "library/alpine:3.22\n",
    "source-login": "joe:secret",
    "target-login": "joe:secret",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files of the documentation are, and no registry is ever asked."""
    for document in sorted(DOCS.rglob("*.md")):
        write_files(document, tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in (
        "HOME",
        "XDG_CACHE_HOME",
        "XDG_STATE_HOME",
        "XDG_DATA_HOME",
        "XDG_CONFIG_HOME",
        "DOCKER_CONFIG",
    ):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("REGISTRY_PASSWORD", "secret")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)

    async def reached(work: Coroutine[Any, Any, object]) -> None:
        work.close()
        raise click.exceptions.Exit(0)

    def waits(*_: object) -> None:
        raise click.exceptions.Exit(0)

    monkeypatch.setattr("blobflow.cli.runtime.event_loop._interruptible", reached)
    monkeypatch.setattr("blobflow.cli.runtime.scheduler.WakeSignals.wait", waits)
    return tmp_path


def write_files(document: Path, folder: Path) -> None:
    """The files that a page shows."""
    for block in blocks_of(document):
        if block.title and "/" not in block.title:
            (folder / block.title).write_text(block.text)


def whole_commands(document: Path) -> Iterator[Command]:
    """The commands that are meant to be typed: in blocks, and in tables of what others' are here."""
    whole_in_tables = document.parent.name == "coming-from"
    for command in commands_of(document):
        if command.is_typed and (whole_in_tables or not command.mentioned):
            yield command


def refused(command: Command) -> str:
    """What the verb says against it; "" if it would begin."""
    arguments = [_tried(each) for each in command.arguments]
    done = CliRunner().invoke(cli, arguments, input="secret\n", prog_name="blobflow")
    asyncio.set_event_loop(None)
    if done.exit_code != 2 or any(words in done.output for words in EXPECTED):
        return ""
    return f"{command.place}: {command.text}: {done.output}"


def _tried(argument: str) -> str:
    """The argument with a host for HOST, a port that is free, and no folder of this machine's."""
    text = re.sub(r"\bHOST\b", "registry.example.com", argument).replace("127.0.0.1:9464", "127.0.0.1:0")
    return text.removeprefix("/srv/")


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_command_would_begin(document: Path, folder: Path) -> None:
    write_files(document, folder)
    assert [wrong for command in whole_commands(document) if (wrong := refused(command))] == []


@pytest.mark.parametrize(
    "line",
    [
        "blobflow copy --index keep alpine:3 registry.example.com/alpine:3",
        "blobflow inspect --raw --json alpine:3",
        "blobflow sync --from docker.io --images images.txt",
        "blobflow copy alpine:3 'registry.example.com/UPPER'",
        "blobflow save --from docker.io --images images.txt -o - --split-size 4GB",
    ],
)
def test_what_a_verb_refuses_is_found(line: str, folder: Path) -> None:
    (arguments,) = commands_in(line)
    assert refused(Command(folder / "page.md", 1, arguments))
