"""`--log-format`, in force for all that is wrong with a command line, too, wherever in it the option is."""

from __future__ import annotations

from itertools import pairwise

import click

_OPTION = "--log-format"
_KEY = "blobflow.log_format"  # in click's context, which all commands of an invocation share


def remember_log_format(context: click.Context, _: click.Parameter, value: str) -> str:
    """The callback of the option."""
    context.meta[_KEY] = value
    return value


def log_format(context: click.Context) -> str:
    """The format that was given, `text` by default; that of the words where none was parsed so far."""
    if _KEY in context.meta:
        return str(context.meta[_KEY])
    words = context.meta.get("blobflow.arguments", ())
    given = [after for word, after in pairwise(words) if word == _OPTION]
    given += [word.removeprefix(f"{_OPTION}=") for word in words if word.startswith(f"{_OPTION}=")]
    return "json" if "json" in given else "text"
