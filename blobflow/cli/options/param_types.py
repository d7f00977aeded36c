"""Types of options beyond click's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from blobflow.byte_size import parse_size

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def byte_size(text: str) -> int:
    """An amount of bytes: `20GB`, `512MiB`."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Seconds(click.FloatRange):
    """A number of seconds. Not "nan", which click's own FloatRange takes for any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


def byte_rate(text: str) -> int:
    """Bytes a second: `10MB`, `10MB/s`; 0 would move nothing."""
    found = byte_size(text.removesuffix("/s"))
    if not found:
        raise click.BadParameter("0 would move nothing; leave it out for no limit")
    return found
