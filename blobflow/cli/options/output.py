"""Output options: what a verb prints while it runs, and in which form."""

from __future__ import annotations

from typing import Literal

import click
import msgspec

from blobflow.cli.options.log_format import remember_log_format


class OutputOptions(msgspec.Struct, frozen=True):
    """How much a verb tells while it runs, and in which form."""

    quiet: bool = False
    verbose: bool = False
    log_format: Literal["text", "json"] = "text"


OUTPUT_OPTIONS = (
    click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong."),
    click.option("-v", "--verbose", is_flag=True, help="Show each HTTP exchange and retry. Without secrets."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        callback=remember_log_format,
        is_eager=True,
        help="`json`: events as JSON lines on stderr.",
    ),
)
