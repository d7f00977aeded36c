"""Verbs as click has them, with a --help that fits a screen: examples, a text, and the options used most.

`--help-all` shows every option, under the title of its group.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import click

from blobflow.cli import help_all_option, shows_all
from blobflow.cli.options.option_group import LabelOption, TruthOption, shelf_of

_EXAMPLES = "\b\n"  # click's mark of a paragraph that stays as it is: in help texts these are the examples


class Verb(click.Command):
    """A verb. What --help shows of its options at first is said where they are: see `option_group`."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        if any(not shelf_of(each).common for each in self.params if not getattr(each, "hidden", False)):
            self.params.append(help_all_option("Show every option and exit."))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not (ctx.resilient_parsing or isinstance(self, click.Group)):
            _refuse_empty_values(self.params, args, ctx)
        return super().parse_args(ctx, _join_truths(self.params, args))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        write_text(self.help or "", formatter)
        self.format_options(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [
            (shelf_of(each), record)
            for each in self.get_params(ctx)
            if isinstance(each, click.Option) and (record := each.get_help_record(ctx)) is not None
        ]
        if not shows_all(ctx):
            first = [(names, _first_sentence(text)) for shelf, (names, text) in options if shelf.common]
            _write_section("Options", first, formatter)
            if left := len(options) - len(first):
                formatter.write_paragraph()
                formatter.write_text(f"{left} more options: {ctx.command_path} --help-all")
            return
        for title, group in groupby(sorted(options, key=lambda each: each[0].title), lambda e: e[0].title):
            _write_section(f"{title} options" if title else "Options", [each for _, each in group], formatter)


class VerbFamily(Verb, click.Group):
    """A verb with verbs of its own, as `cache ls`."""

    command_class = Verb

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


def write_text(text: str, formatter: click.HelpFormatter) -> None:
    """Write a help text, its examples first."""
    paragraphs = inspect.cleandoc(text.partition("\f")[0]).split("\n\n")
    examples = [each for each in paragraphs if each.startswith(_EXAMPLES)]
    for each in (*examples, *(each for each in paragraphs if each not in examples)):
        formatter.write_paragraph()
        with formatter.indentation():
            dedented = textwrap.dedent(each.removeprefix(_EXAMPLES))
            formatter.write_text(f"{_EXAMPLES}{dedented}" if each in examples else each)


def _first_sentence(text: str) -> str:
    """The first sentence of an option's help, or what there is of it before a semicolon; the rest is in
    --help-all."""
    sentence = re.split(r"(?<=[.)])\s+(?=[A-Z@\[])", text, maxsplit=1)[0]
    brief = sentence.partition("; ")[0]
    return brief if brief.count("(") == brief.count(")") else sentence


def _write_section(title: str, records: Sequence[tuple[str, str]], formatter: click.HelpFormatter) -> None:
    if records:
        with formatter.section(title):
            formatter.write_dl(records, col_max=28)


def _refuse_empty_values(parameters: Sequence[click.Parameter], args: list[str], ctx: click.Context) -> None:
    """Raise UsageError for `--option ""` and `--option=`, as a variable of the shell that is not set leaves
    them: what is meant is not known, and click reads it as the folder `.`, as false, or as nothing at all.
    """
    names = {
        name: each
        for each in parameters
        if isinstance(each, click.Option)
        and not (each.is_flag or each.count or isinstance(each, LabelOption))
        for name in each.opts
    }
    before = ""
    for word in args:
        if word == "--":
            return
        option, equals, value = word.partition("=")
        named = option if equals and not value else "" if word else before
        if named in names:
            raise click.UsageError(
                f"{named} has an empty value; give it one, or leave it out (is a shell variable unset?)", ctx
            )
        before = word


def _join_truths(parameters: Sequence[click.Parameter], args: list[str]) -> list[str]:
    """`--x false` as `--x=false`, and `--x` before anything else as `--x=true`, for options that are true or
    false: click would take the next word for the value, whatever it is."""
    truths = {name: each for each in parameters if isinstance(each, TruthOption) for name in each.opts}
    joined: list[str] = []
    words = iter(range(len(args)))
    for at in words:
        word = args[at]
        if word == "--":
            return joined + args[at:]
        if word in truths:
            follows = at + 1 < len(args) and truths[word].is_value(args[at + 1])
            word = f"{word}={args[at + 1] if follows else 'true'}"
            if follows:
                next(words)
        joined.append(word)
    return joined
