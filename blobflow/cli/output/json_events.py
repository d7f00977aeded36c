"""Events as JSON lines on stderr, as `--log-format json` asks for: what is written, and its schema.

Each line is an object with the kind of the event under `event`, and under `time` when it was written (UTC,
RFC 3339, always with milliseconds, so that lines sort as text). Beside the events of a run there are those of
the command itself. A reader passes over kinds and fields that it does not know: later versions have more.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import click
import msgspec

from blobflow.engine.results.report import Totals
from blobflow.engine.results.run_record import utc_now
from blobflow.events import Event


class Summary(Event, frozen=True, tag="summary"):
    """A run has ended, however; `started` and `ended` as in the report's `run`, `totals` as there."""

    totals: Totals
    started: datetime | None = None
    ended: datetime | None = None


class RunError(Event, frozen=True, tag="error", omit_defaults=True):
    """What ends the command with this exit code; without one, what a process that stays goes on after."""

    message: str
    exit_code: int | None = None


class NextRun(Event, frozen=True, tag="next"):
    """A process that stays says when it runs again."""

    message: str


class Reread(Event, frozen=True, tag="reread"):
    """What is asked for was read again, upon SIGHUP."""

    message: str


class MetricsServed(Event, frozen=True, tag="metrics"):
    """Where metrics can be had."""

    message: str


def event_document(event: Event) -> dict[str, Any]:
    """An event with the time, now, as it is written."""
    built: dict[str, Any] = msgspec.to_builtins(event)
    return {"time": utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z"), **built}


def print_event(event: Event) -> None:
    """Write an event of the command to stderr."""
    click.echo(json.dumps(event_document(event)), err=True)
