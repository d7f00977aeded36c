"""Groups of options: a decorator adds them to a verb, and hands it one value in their place.

So a verb's signature says what it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

Command = Callable[..., None]
Option = Callable[[Command], Command]


def option_group(name: str, kind: Callable[..., object], *options: Option) -> Option:
    """A decorator that adds `options` to a verb, and passes it `kind`, made of their values, as `name`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gather(**arguments: Any) -> None:
            own = {field: arguments.pop(field) for field in fields}
            command(**arguments, **{name: kind(**own)})

        before = _parameters(gather)
        decorated: Command = gather
        for option in reversed(options):
            decorated = option(decorated)
        fields = [field for field in _parameters(decorated) if field not in before]
        return decorated

    return decorate


def hide_options(*names: str) -> Option:
    """A decorator, above those that add options, that leaves some out of --help, by their parameters' names.

    The verb refuses them with a sentence that says what to use instead.
    """

    def decorate(command: Command) -> Command:
        for option in getattr(command, "__click_params__", ()):
            if isinstance(option, click.Option) and option.name in names:
                option.hidden = True
        return command

    return decorate


def _parameters(command: Command) -> list[str]:
    """The names of the options that a command has so far."""
    return [parameter.name or "" for parameter in getattr(command, "__click_params__", [])]


def was_given(option: str) -> bool:
    """Whether the command under way was given an option, and did not take its default."""
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(option) if context else None
    return source not in (None, ParameterSource.DEFAULT)
