"""`--log-format`, in force as soon as it is parsed: errors in later options are reported in it, too."""

from __future__ import annotations

import click

_KEY = "blobflow.log_format"  # in click's context, which all commands of an invocation share


def remember_log_format(context: click.Context, _: click.Parameter, value: str) -> str:
    """The callback of the option."""
    context.meta[_KEY] = value
    return value


def log_format(context: click.Context) -> str:
    """The format that was given, `text` by default."""
    return str(context.meta.get(_KEY, "text"))
