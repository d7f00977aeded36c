"""Groups of options: a decorator adds them to a verb, and hands it one value in their place.

So a verb's signature says what it takes. What each option is to a reader of --help, its group's title and
whether it is among the few that are shown first, stands beside it here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import click
from click.core import ParameterSource

Command = Callable[..., None]
Option = Callable[[Command], Command]


class Shelf(NamedTuple):
    """Where --help has an option: under the title of its group ("": the verb's own), and whether at first."""

    title: str = ""
    common: bool = True


_SHELVES: WeakKeyDictionary[click.Parameter, Shelf] = WeakKeyDictionary()


def shelf_of(parameter: click.Parameter) -> Shelf:
    """Where --help has it. An option of no group is the verb's own, and shown at first."""
    return _SHELVES.get(parameter, Shelf())


class AliasedOption(click.Option):
    """An option that goes by further names, those of other tools, which --help leaves out.

    `aliases`: the names, with their dashes.
    """

    def __init__(self, *args: Any, aliases: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._shown = list(self.opts)
        self.opts += aliases

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        every, self.opts = self.opts, self._shown
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


class OnceOption(click.Option):
    """An option that says what is read or written: of two that differ click leaves the first out in silence.
    `instead`: what to do who means both."""

    def __init__(self, *args: Any, instead: str = "give one", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._instead = instead

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=self.nargs)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        if isinstance(value, list):
            if len(set(value)) > 1:  # not quoted: a URL may have a login in it
                raise click.UsageError(f"{self.opts[-1]} is given more than once; {self._instead}", ctx)
            value = value[0]
        return super().process_value(ctx, value)


class LabelOption(click.Option):
    """A text by which nothing is said if it is empty: scripts for `docker manifest annotate` pass
    `--variant "$VARIANT"` for images with a variant and without, those for skopeo `--override-variant`."""


class _Truth(click.types.BoolParamType):
    """click's, but for blanks: these are no way to say false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        if isinstance(value, str) and not value.strip():
            self.fail("a blank is neither true nor false", param, ctx)
        return super().convert(value, param, ctx)


class TruthOption(AliasedOption):
    """True or false: `--x`, `--x=false`, `--x false`, as Go's tools and ours have it. None if not given."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, type=_Truth(), metavar="[=false]", **attributes)

    def is_value(self, word: str) -> bool:
        """Whether a word after the option's name is its value, and not the next argument."""
        try:
            self.type.convert(word, self, None)
        except click.UsageError:
            return False
        return True


def option_group(
    name: str,
    kind: Callable[..., object],
    *options: Option,
    title: str = "",
    common: Collection[str] | None = None,
) -> Option:
    """A decorator that adds `options` to a verb, and passes it `kind`, made of their values, as `name`.

    `title`: what --help calls the group. `common`: the parameters that are shown at first, None: all.
    """

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gather(**arguments: Any) -> None:
            own = {field: arguments.pop(field) for field in fields}
            command(**arguments, **{name: kind(**own)})

        before = _parameters(gather)
        decorated: Command = gather
        for option in reversed(options):
            decorated = option(decorated)
        added = [each for each in _declared(decorated) if each.name not in before]
        fields = [each.name or "" for each in added]
        for each in added:
            _SHELVES[each] = Shelf(title, common is None or each.name in common)
        return decorated

    return decorate


def hide_options(*names: str) -> Option:
    """A decorator, above those that add options, that leaves some out of --help, by their parameters' names.

    The verb refuses them with a sentence that says what to use instead.
    """

    def decorate(command: Command) -> Command:
        for option in _declared(command):
            if isinstance(option, click.Option) and option.name in names:
                option.hidden = True
        return command

    return decorate


def show_first(*names: str) -> Option:
    """A decorator, above those that add options, for a verb with many: --help shows these parameters alone,
    and leaves the others to --help-all."""

    def decorate(command: Command) -> Command:
        for parameter in _declared(command):
            _SHELVES[parameter] = Shelf(shelf_of(parameter).title, parameter.name in names)
        return command

    return decorate


def _declared(command: Command) -> list[click.Parameter]:
    """The parameters that a command has so far."""
    return list(getattr(command, "__click_params__", ()))


def _parameters(command: Command) -> list[str]:
    """Their names."""
    return [parameter.name or "" for parameter in _declared(command)]


def was_typed(option: str) -> bool:
    """Whether the command line under way has an option, and not the environment alone."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(option) is ParameterSource.COMMANDLINE


def was_given(option: str) -> bool:
    """Whether the command under way was given an option, and did not take its default."""
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(option) if context else None
    return source not in (None, ParameterSource.DEFAULT)
