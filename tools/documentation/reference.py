"""The pages of docs/reference: every verb, its arguments and options, generated from the verbs themselves.

    tools/reference [--check]

writes them, or says which are not what the verbs say.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from blobflow.cli import VERBS, cli
from blobflow.cli.options.option_group import shelf_of
from tools.documentation.documents import DOCS, name_of

REFERENCE = DOCS / "reference"
_NOTE = "<!-- Generated from the verbs by tools/reference. -->\n"


def pages() -> dict[Path, str]:
    """Each page's file and text: one a verb, and the list of them."""
    found = {REFERENCE / "README.md": "\n\n".join(_list()) + "\n"}
    for verb in VERBS:
        command = _command(cli, verb)
        found[page_of(verb)] = "\n\n".join([_NOTE + f"# blobflow {verb}", *_verb(command, verb)]) + "\n"
    return found


def page_of(verb: str) -> Path:
    """The page's file. `index.md` alone would be the folder's own page to those who build sites."""
    return REFERENCE / f"blobflow-{verb}.md"


def _list() -> Iterator[str]:
    yield _NOTE + "# The verbs"
    yield (
        "What `--help` of each verb says, as pages. `blobflow help TOPIC` explains what several verbs share. "
        "The exit codes are [the same for all](../exit-codes.md)."
    )
    rows = [f"| [`{verb}`]({page_of(verb).name}) | {_prose(line)} |" for verb, line in VERBS.items()]
    yield "\n".join(["| verb | |", "|---|---|", *rows])


def _verb(command: click.Command, name: str) -> Iterator[str]:
    """The parts of a verb's page; a group's verbs have a part each."""
    yield from _description(command, name)
    if isinstance(command, click.Group):
        for word in command.list_commands(click.Context(command)):
            below = _command(command, word)
            yield f"## blobflow {name} {word}"
            yield from _description(below, f"{name} {word}")


def _description(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\nblobflow {name} {usage}\n```"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            lines = paragraph.removeprefix("\b\n").splitlines()
            indent = min(len(line) - len(line.lstrip()) for line in lines)
            yield "\n".join(["```sh", *(line[indent:] for line in lines), "```"])
        else:
            yield _prose(" ".join(paragraph.split()))
    yield from _options(command, context)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """A table of the verb's own options, and one for each group of those that verbs share."""
    groups: dict[str, list[str]] = {}
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden and option.name != "help_all":
            groups.setdefault(shelf_of(option).title, []).append(_row(option, context))
    for title in sorted(groups, key=bool):
        if title:
            yield f"**{title}**"
        yield "\n".join(["| option | |", "|---|---|", *groups[title]])


def _row(option: click.Option, context: click.Context) -> str:
    names = [*sorted(option.opts, key=lambda name: name.startswith("--")), *option.secondary_opts]
    value = "" if option.is_flag or option.count else _metavar(option, context)
    said = ", ".join(f"`{name}{value}`" for name in names).replace("|", "\\|")
    text = _prose(option.help or "")
    default = _default(option, context)
    return f"| {said} | {text}{f' Default: `{default}`.' if default else ''} |"


def _metavar(option: click.Option, context: click.Context) -> str:
    value = option.make_metavar(context)
    return value if value.startswith("[=") else f" {value}"


def _default(option: click.Option, context: click.Context) -> str:
    """The default, where the help shows it."""
    if not option.show_default:
        return ""
    value = option.get_default(context)
    return "" if value is None or value == () else str(value).removesuffix(".0")


def _prose(text: str) -> str:
    """A sentence of a help text as Markdown, which takes some characters for its own."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts)).replace(
        "|", "\\|"
    )


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>\[\]])", r"\\\1", text)


def _command(group: click.Group, name: str) -> click.Command:
    found = group.get_command(click.Context(group), name)
    assert found is not None, name
    return found


def differences(wanted: Mapping[Path, str]) -> list[Path]:
    """The pages that are not as `wanted`, are missing, or belong to no verb."""
    there = set(REFERENCE.glob("*.md"))
    wrong = {path for path, text in wanted.items() if path not in there or path.read_text() != text}
    return sorted(wrong | (there - wanted.keys()))


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with --check only compare; returns the exit code."""
    wanted = pages()
    wrong = differences(wanted)
    if "--check" in arguments:
        for path in wrong:
            print(f"{name_of(path)} is not what the verbs say; run tools/reference")
        return 1 if wrong else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for path in wrong:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
        print(name_of(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
