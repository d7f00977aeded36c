"""Writes man pages from the command line itself: what --help says of each verb, and the topics of `help`.

    python -m tools.manpages FOLDER     # FOLDER/man1/blobflow-copy.1, FOLDER/man7/blobflow-specs.7 …

The build of a wheel calls this (setup.py), so that pages can't fall behind the verbs. The pages keep to the
few requests of man(7) that groff, mandoc and the man of macOS read alike.

click-man reads a group's `commands`, which ours does not have: its verbs are imported one by one.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from blobflow.cli import cli
from blobflow.cli.exit_codes import EXIT_CODES
from blobflow.cli.output.help_topics import TOPICS
from blobflow.version import __version__

NAME = "blobflow"
_FILES = (
    ("~/.config/blobflow/config.toml", "What is different at some registries (--config, XDG_CONFIG_HOME)."),
    ("~/.cache/blobflow", "The store (--cache-dir, XDG_CACHE_HOME)."),
    ("~/.docker/config.json", "Logins, as docker has them (DOCKER_CONFIG, REGISTRY_AUTH_FILE)."),
)
_MARKED = re.compile(r"`([^`]+)`")
_BLOCK = "\b"  # how click marks a paragraph that keeps its lines


def write_pages(folder: Path) -> list[Path]:
    """Write all pages below `folder`; returns their paths."""
    written = []
    for name, text in pages().items():
        path = folder / f"man{name[-1]}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def pages() -> dict[str, str]:
    """The text of each page by its file's name."""
    found = {
        f"{context.command_path.replace(' ', '-')}.1": "\n".join(_page(context)) + "\n"
        for context in _contexts(click.Context(cli, info_name=NAME))
    }
    for topic, each in TOPICS.items():
        lines = [
            _title(f"{NAME}-{topic}", 7),
            ".SH NAME",
            f"{escape(f'{NAME}-{topic}')} \\- {escape(each.line)}",
        ]
        lines += [".SH DESCRIPTION", *_topic(each.text), ".SH SEE ALSO", _reference(NAME)]
        found[f"{NAME}-{topic}.7"] = "\n".join(lines) + "\n"
    return found


def escape(text: str) -> str:
    """Text as roff has it: what begins a request or an escape elsewhere is a character here."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti")
    escaped = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _contexts(context: click.Context) -> Iterator[click.Context]:
    """The command and all below it."""
    yield context
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from _contexts(click.Context(below, info_name=name, parent=context))


def _page(context: click.Context) -> Iterator[str]:
    command, name = context.command, context.command_path.replace(" ", "-")
    text = cleandoc(command.help or "")
    yield _title(name, 1)
    yield ".SH NAME"
    yield f"{escape(name)} \\- {escape(command.get_short_help_str(200).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f"\\fB{escape(context.command_path)}\\fR {escape(' '.join(command.collect_usage_pieces(context)))}"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(text)
    options = [each for each in command.get_params(context) if isinstance(each, click.Option)]
    records = [record for each in options if (record := each.get_help_record(context))]
    if records:
        yield ".SH OPTIONS"
        for option, said in records:
            yield from (".TP", _option(option), *_filled(said or "\\&"))
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for below in _contexts_below(context):
            yield from (".TP", _reference(below.command_path.replace(" ", "-")))
            yield escape(below.command.get_short_help_str(200))
    if context.parent is None:
        yield from _about_all()
    yield ".SH SEE ALSO"
    yield from _see_also(context)


def _contexts_below(context: click.Context) -> list[click.Context]:
    return [each for each in _contexts(context) if each.parent is context]


def _about_all() -> Iterator[str]:
    """What holds for all verbs, on the page of the command itself."""
    yield ".SH EXIT STATUS"
    for code, meaning in EXIT_CODES.items():
        yield from (".TP", f"\\fB{code}\\fR", *_filled(meaning))
    yield from (".PP", "Verbs about one image end with that image\\(aqs own code, verbs about sets with 3.")
    yield ".SH FILES"
    for path, said in _FILES:
        yield from (".TP", f"\\fI{escape(path)}\\fR", escape(said))


def _see_also(context: click.Context) -> Iterator[str]:
    above = context.parent.command_path.replace(" ", "-") if context.parent else ""
    if above:
        yield _reference(above)
    else:
        yield ",\n".join(_reference(f"{NAME}-{topic}", 7) for topic in TOPICS)


def _title(name: str, section: int) -> str:
    made = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    return (
        f'.TH "{escape(name.upper())}" {section} "{time.strftime("%Y-%m-%d", made)}" "{NAME} {__version__}"'
    )


def _reference(name: str, section: int = 1) -> str:
    return f"\\fB{escape(name)}\\fR({section})"


def _option(record: str) -> str:
    """`-q, --quiet FILE` with the words that are typed in bold."""
    return " ".join(
        f"\\fB{escape(word.rstrip(','))}\\fR{',' * word.endswith(',')}"
        if word.startswith("-")
        else (f"\\fI{escape(word)}\\fR" if word.isalnum() or len(word) > 1 else word)
        for word in record.split()
    )


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if paragraph.startswith(_BLOCK):
            yield from (".PP", ".nf", *_as_they_are(paragraph.lstrip(_BLOCK).strip("\n").split("\n")), ".fi")
        elif paragraph.strip():
            yield from ((".PP",) if number else ())
            yield from _filled(paragraph)


def _filled(text: str) -> list[str]:
    """A paragraph on one line; what stands in backticks is bold."""
    pieces = _MARKED.split(" ".join(text.split()))
    bold = (
        f"\\fB{escape(piece)}\\fR" if number % 2 else escape(piece) for number, piece in enumerate(pieces)
    )
    line = "".join(bold)
    return [f"\\&{line}" if line.startswith(".") else line]


def _topic(text: str) -> Iterator[str]:
    """A topic is made for a terminal, and keeps its lines."""
    yield from (".nf", *_as_they_are(text.rstrip("\n").split("\n")), ".fi")


def _as_they_are(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield escape(line) or "\\&"


if __name__ == "__main__":
    print(f"{len(write_pages(Path(sys.argv[1])))} pages in {sys.argv[1]}")
