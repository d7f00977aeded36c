"""Output options: what a verb prints while it runs, and in which form."""

from __future__ import annotations

from typing import Literal

import click
import msgspec

from blobflow.cli.options.log_format import remember_log_format
from blobflow.cli.options.option_group import option_group


class OutputOptions(msgspec.Struct, frozen=True):
    """How much a verb tells while it runs, and in which form."""

    quiet: bool = False
    verbose: bool = False
    log_format: Literal["text", "json"] = "text"


_quiet_option = click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
_log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    callback=remember_log_format,
    is_eager=True,
    help="`json`: events as JSON lines on stderr.",
)
OUTPUT_OPTIONS = (
    _quiet_option,
    click.option("-v", "--verbose", is_flag=True, help="Show each HTTP exchange and retry. Without secrets."),
    _log_format_option,
)
# For verbs that ask no registry.
local_output_options = option_group(
    "output", OutputOptions, _quiet_option, _log_format_option, title="Output", common=("quiet",)
)
