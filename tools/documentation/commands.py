"""The `blobflow …` lines of a text, and what the command line's own parser makes of them.

Nothing is run: a verb's parameters are parsed, converted and checked, and the verb is not called.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from blobflow.cli import cli
from tools.documentation.documents import Block, blocks_of, name_of, spans_of

SHELLS = ("sh", "bash", "console")
PROMPT = "$ "
# What ends a simple command; `<` and `>` begin a redirection, which takes one more word.
_ENDS = ("|", "||", "&&", ";", "&", "|&")
_REDIRECTIONS = ("<", ">", ">>", ">&", "<<<")
_PREFIXES = ("exec", "nice", "sudo", "time")
_ASSIGNMENT = re.compile(r"\w+=")
# In a block that does not say what it is.
_OURS = re.compile(r"(?:\$ )?(?:\w+=\S+ )*(?:\S*/)?blobflow .*")
_UNIT_LINE = re.compile(r"Exec\w+=(.*)")


class Command(msgspec.Struct, frozen=True):
    """A `blobflow` command of a document: what follows the word `blobflow`.

    `mentioned`: it stands in a sentence or a table, where arguments may be left out.
    """

    document: Path
    line: int
    arguments: tuple[str, ...]
    mentioned: bool = False

    @property
    def place(self) -> str:
        return f"{name_of(self.document)}:{self.line}"

    @property
    def is_typed(self) -> bool:
        """Whether it is meant to be typed: a sentence may only name a verb (`blobflow copy`)."""
        return not (self.mentioned and is_a_name(self.arguments))

    @property
    def text(self) -> str:
        return shlex.join(("blobflow", *self.arguments))


class Parsed(msgspec.Struct, frozen=True):
    """What the parser found: the verb, and its parameters; none for `--help` and the like."""

    verb: tuple[str, ...]
    parameters: dict[str, object]


def commands_of(document: Path) -> Iterator[Command]:
    """The commands of its blocks, of the units that it shows, and within its sentences."""
    for block in blocks_of(document):
        for line, text in _lines_of(block):
            for arguments in commands_in(text):
                yield Command(document, line, arguments)
    for span in spans_of(document):
        if span.text.startswith("blobflow "):
            for arguments in commands_in(span.text):
                yield Command(document, span.line, arguments, mentioned=True)


def shell_lines(block: Block) -> Iterator[tuple[int, str]]:
    """The lines that a shell would be given, continued ones joined; without prompts, and without output."""
    joined, began = "", 0
    for number, raw in enumerate(block.text.splitlines(), block.line):
        line = raw
        if block.language == "console" and not joined:
            if not line.startswith(PROMPT):
                continue
            line = line.removeprefix(PROMPT)
        began = began if joined else number
        joined += line.strip() if joined else line
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        yield began, joined
        joined = ""


def _lines_of(block: Block) -> Iterator[tuple[int, str]]:
    if block.language in SHELLS:
        yield from shell_lines(block)
    elif not block.language:
        yield from ((number, line) for number, line in shell_lines(block) if _OURS.fullmatch(line))
    elif block.language in ("ini", "systemd"):
        for number, line in enumerate(block.text.splitlines(), block.line):
            if found := _UNIT_LINE.fullmatch(line):
                yield number, found[1]


def commands_in(text: str) -> Iterator[tuple[str, ...]]:
    """The arguments of each `blobflow` command in a line of shell."""
    for words in simple_commands(text):
        while words and (words[0] in _PREFIXES or _ASSIGNMENT.match(words[0])):
            words = words[1:]
        if words and words[0].rpartition("/")[2] == "blobflow":
            yield tuple(words[1:])


def simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a line of shell, without redirections and comments.

    Raises ValueError for a quote that is not closed.
    """
    words: list[str] = []
    skip = False
    for word in _words(text):
        if word in _ENDS:
            yield words
            words = []
        elif word in _REDIRECTIONS:
            if words and words[-1].isdigit():
                words.pop()
            skip = True
        elif skip:
            skip = False
        else:
            words.append(word)
    yield words


def _words(text: str) -> Iterator[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    for word in lexer:
        if word.startswith("#"):
            return
        yield word


def parse(arguments: Sequence[str]) -> Parsed:
    """What the real parser makes of the arguments of `blobflow`.

    Raises click's UsageError where it refuses them.
    """
    command: click.Command = cli
    try:
        context = command.make_context("blobflow", list(arguments))
        verb: list[str] = []
        while isinstance(command, click.Group):
            name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            if found is None:
                raise click.UsageError(f"no such verb: {name}")
            command, context = found, found.make_context(name, rest, parent=context)
            verb.append(name or "")
    except click.exceptions.Exit as ended:  # as --help ends
        if ended.exit_code:
            raise click.UsageError(f"ends with {ended.exit_code}") from None
        return Parsed((), {})
    return Parsed(tuple(verb), dict(context.params))


def refusal(command: Command) -> str:
    """What the parser has against a command, with its place; "" if nothing."""
    if not command.is_typed:
        return ""
    try:
        parse(command.arguments)
    except click.MissingParameter as error:
        return "" if command.mentioned else f"{command.place}: {command.text}: {error.format_message()}"
    except click.ClickException as error:
        return f"{command.place}: {command.text}: {error.format_message()}"
    return ""


def is_a_name(arguments: Sequence[str]) -> bool:
    """Whether it only names a verb, as sentences do (`blobflow copy`), and is not meant to be typed."""
    command: click.Command = cli
    for word in arguments:
        if not isinstance(command, click.Group):
            return False
        found = command.get_command(click.Context(command), word)
        if found is None:
            return False
        command = found
    return True
