"""Warnings of verbs that have no run to tell them."""

from __future__ import annotations

from collections.abc import Iterable

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.stdio import print_lines
from blobflow.events import Warned


def print_warnings(sentences: Iterable[str], output: OutputOptions) -> None:
    """Tell on stderr what a run would tell as warnings: not with --quiet, and as events where those are asked
    for."""
    if output.log_format == "json":
        from blobflow.cli.output.json_events import print_event

        for each in sentences:
            print_event(Warned(each))
    elif not output.quiet:
        for each in sentences:
            print_lines(f"warning: {each}", err=True)
