"""Runs that are kept account of, and a process that stays: the options, and what they come to.

Without `--every` or `--cron` there is one run, and its error is the process's. With one of them the process
stays until a signal ends it, a run's error is told, and `rounds` says when the next one is.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.files import check_place
from blobflow.cli.options import Look, gathered
from blobflow.cli.starting import collect
from blobflow.cli.writing import say
from blobflow.errors import BlobflowError, RunIncomplete, StorageError, UsageError

if TYPE_CHECKING:
    from blobflow.cli.ledger import End, Ledger
    from blobflow.cli.timetable import Timetable
    from blobflow.engine.report import Report

_FILE = click.Path(path_type=Path, dir_okay=False)

# One run, which hands over its report however it ends.
RunOnce = Callable[[Callable[["Report"], None]], None]


class Staying(msgspec.Struct, frozen=True):
    """What was said of more than one run."""

    every: str | None = None
    cron: str | None = None
    metrics_file: Path | None = None
    metrics_listen: str | None = None

    @property
    def stays(self) -> bool:
        return self.every is not None or self.cron is not None


staying_options = gathered(
    "staying",
    Staying,
    click.option(
        "--every", metavar="SPAN", help="Stay, and run every so often, as 30m or 6h; the first time now."
    ),
    click.option(
        "--cron",
        metavar="EXPR",
        help="Stay, and run at these times of the local zone: minute hour day month weekday, or @daily.",
    ),
    click.option(
        "--metrics-file",
        type=_FILE,
        metavar="FILE",
        help="Keep account of runs in a text file for Prometheus (node_exporter's textfile collector).",
    ),
    click.option(
        "--metrics-listen",
        metavar="HOST:PORT",
        help="Of a process that stays: serve the account at http://HOST:PORT/metrics.",
    ),
)


def check_staying(staying: Staying) -> Timetable | None:
    """The timetable, if the process stays. Raises UsageError for what can't be meant."""
    if not staying.stays:
        if staying.metrics_listen is not None:
            raise UsageError("--metrics-listen is for a process that stays; add --every or --cron")
        return None
    if staying.every is not None and staying.cron is not None:
        raise UsageError("--every and --cron are two ways to say when; give one")
    from blobflow.cli.timetable import Every, parse_cron, parse_span

    if staying.cron is not None:
        return parse_cron(staying.cron)
    return Every(parse_span(staying.every or ""), time.time())


def run_kept(staying: Staying, look: Look, run: RunOnce, reread: Callable[[], None]) -> None:
    """Run once, or again and again, and keep account. Raises what a single run raises."""
    timetable = check_staying(staying)
    with _ledger(staying, look) as ledger:
        if timetable is None:
            _run_entered(ledger, look, run)
        else:
            _stay(timetable, look, lambda: _run_entered(ledger, look, run), reread)


def _stay(timetable: Timetable, look: Look, run: Callable[[], None], reread: Callable[[], None]) -> None:
    from blobflow.cli.rounds import Signals, go_round

    begun = False

    def run_told() -> None:
        nonlocal begun
        try:
            run()
        except BlobflowError as error:
            if isinstance(error, UsageError) and not begun:
                raise  # it was started wrongly; later, somebody may be just about to mend a file
            _say(look, "error", str(error))
        begun = True
        collect()

    def reread_told() -> None:
        try:
            reread()
        except BlobflowError as error:
            _say(look, "error", f"{error}; going on with what was asked for before")
        else:
            _say(look, "reread", "what is asked for was read anew")

    def announce(start: float) -> None:
        if not look.quiet:
            at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(start))
            _say(look, "next", f"next run at {at}")

    with Signals().caught() as signals:
        go_round(
            timetable,
            run_told,
            reread_told,
            wait=signals.wait,
            random=random.random,
            announce=announce,
        )


def _say(look: Look, event: str, sentence: str) -> None:
    if look.log_format == "json":
        click.echo(json.dumps({"event": event, "message": sentence}), err=True)
    else:
        say(f"blobflow: {sentence}", err=True)


def _run_entered(ledger: Ledger | None, look: Look, run: RunOnce) -> None:
    """One run, entered in the ledger, also if it fails or is interrupted: that goes before what the ledger
    may raise."""
    if ledger is None:
        run(lambda report: None)
        return
    from blobflow.engine.report import Report, Totals

    reports = [Report(Totals(), ())]
    end: End = "failed"
    ledger.begin()
    try:
        run(reports.append)
        end = "done"
    except RunIncomplete:
        end = "incomplete"
        raise
    except KeyboardInterrupt:
        end = "interrupted"
        raise
    finally:
        try:
            ledger.enter(reports[-1], end)
        except StorageError as error:
            if end == "done":
                raise
            _say(look, "error", str(error))


@contextmanager
def _ledger(staying: Staying, look: Look) -> Iterator[Ledger | None]:
    if staying.metrics_file is None and staying.metrics_listen is None:
        yield None
        return
    if staying.metrics_file is not None:
        check_place(staying.metrics_file, "--metrics-file")
    from blobflow.cli.ledger import Ledger

    ledger = Ledger(staying.metrics_file)
    if staying.metrics_listen is None:
        yield ledger
        return
    from blobflow.cli.serve import parse_listen

    host, port = parse_listen(staying.metrics_listen)
    with ledger.listening(host, port) as bound:
        if not look.quiet:
            _say(look, "metrics", f"metrics at http://{host}:{bound}/metrics")
        yield ledger
