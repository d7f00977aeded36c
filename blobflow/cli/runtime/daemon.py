"""Runs once, or on a schedule as a daemon; with metrics if wanted.

Without `--every` or `--cron` there is one run, and its error is the process's. With one of them the process
stays until a signal ends it, prints the error of a run, and goes on as `scheduler` says.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from blobflow.cli.options.option_group import option_group
from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.runtime.files import check_writable
from blobflow.cli.runtime.startup import collect_garbage
from blobflow.errors import BlobflowError, RunIncomplete, StorageError, UsageError

if TYPE_CHECKING:
    from blobflow.cli.runtime.entry_schedules import EntrySchedules
    from blobflow.cli.runtime.metrics import RunMetrics, RunResult
    from blobflow.cli.runtime.scheduler import Times
    from blobflow.engine.results.report import Report

_FILE = click.Path(path_type=Path, dir_okay=False)

# One run, which passes its report on however it ends.
RunOnce = Callable[[Callable[["Report"], None]], None]

DaemonEvent = Literal["next", "reread", "metrics", "error"]


class ScheduleOptions(msgspec.Struct, frozen=True):
    """When to run again, and where metrics of runs go."""

    every: str | None = None
    cron: str | None = None
    metrics_file: Path | None = None
    metrics_listen: str | None = None

    @property
    def stays(self) -> bool:
        return self.every is not None or self.cron is not None

    @property
    def follows_spec(self) -> bool:
        """Whether each entry of the spec has its own time."""
        return self.every == "spec"


schedule_options = option_group(
    "schedule",
    ScheduleOptions,
    click.option(
        "--every",
        metavar="SPAN|spec",
        help="Stay, and run every so often, as 30m or 6h; the first time now. With `spec` each entry of SPEC "
        "runs when its own `every` or `schedule` says (in regsync.yml `interval` or `schedule`).",
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


def parse_schedule(options: ScheduleOptions, own: EntrySchedules | None = None) -> Times | None:
    """The schedule, if the process stays, else None; `own` are those of the spec's entries.

    Raises UsageError for options that don't go together.
    """
    if not options.stays:
        if options.metrics_listen is not None:
            raise UsageError("--metrics-listen is for a process that stays; add --every or --cron")
        return None
    if options.every is not None and options.cron is not None:
        raise UsageError("--every and --cron are two ways to say when; give one")
    if options.follows_spec:
        return own
    from blobflow.cli.runtime.cron import Interval, parse_cron, parse_interval

    if options.cron is not None:
        return parse_cron(options.cron)
    return Interval(parse_interval(options.every or ""), time.time())


def run_scheduled(
    options: ScheduleOptions,
    output: OutputOptions,
    run: RunOnce,
    reread: Callable[[], None],
    own: EntrySchedules | None = None,
) -> None:
    """Run once, or on a schedule, and count runs in metrics. Raises what a single run raises. `own`: see
    `parse_schedule`."""
    schedule = parse_schedule(options, own)
    with _open_metrics(options, output) as metrics:
        if schedule is None:
            _run_recorded(metrics, output, run)
        else:
            _run_as_daemon(schedule, output, lambda: _run_recorded(metrics, output, run), reread)


def _run_as_daemon(
    schedule: Times, output: OutputOptions, run: Callable[[], None], reread: Callable[[], None]
) -> None:
    from blobflow.cli.runtime.scheduler import WakeSignals, run_on_schedule

    begun = False

    def run_told() -> None:
        nonlocal begun
        try:
            run()
        except BlobflowError as error:
            if isinstance(error, UsageError) and not begun:
                raise  # it was started wrongly; later, somebody may be about to mend a file
            _print_event(output, "error", str(error))
        begun = True
        collect_garbage()

    def reread_told() -> None:
        try:
            reread()
        except BlobflowError as error:
            _print_event(output, "error", f"{error}; going on with what was asked for before")
        else:
            _print_event(output, "reread", "the spec or list was read again")

    def announce(start: float) -> None:
        if not output.quiet:
            at = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(start))
            _print_event(output, "next", f"next run at {at}")

    with WakeSignals().caught() as signals:
        run_on_schedule(
            schedule,
            run_told,
            reread_told,
            wait=signals.wait,
            random=random.random,
            announce=announce,
        )


def _print_event(output: OutputOptions, event: DaemonEvent, sentence: str) -> None:
    if output.log_format == "json":
        from blobflow.cli.output import json_events

        kinds = {"next": json_events.NextRun, "reread": json_events.Reread}
        kinds |= {"metrics": json_events.MetricsServed, "error": json_events.RunError}
        json_events.print_event(kinds[event](sentence))
    else:
        print_lines(f"blobflow: {sentence}", err=True)


def _run_recorded(metrics: RunMetrics | None, output: OutputOptions, run: RunOnce) -> None:
    """One run, counted in the metrics, also if it fails or is interrupted: its error goes before theirs."""
    if metrics is None:
        run(lambda report: None)
        return
    from blobflow.engine.results.report import Report, Totals

    reports = [Report(Totals(), ())]
    end: RunResult = "failed"
    metrics.start_run()
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
            metrics.record_run(reports[-1], end)
        except StorageError as error:
            if end == "done":
                raise
            _print_event(output, "error", str(error))


@contextmanager
def _open_metrics(options: ScheduleOptions, output: OutputOptions) -> Iterator[RunMetrics | None]:
    if options.metrics_file is None and options.metrics_listen is None:
        yield None
        return
    if options.metrics_file is not None:
        check_writable(options.metrics_file, "--metrics-file")
    from blobflow.cli.runtime.metrics import RunMetrics

    metrics = RunMetrics(options.metrics_file)
    if options.metrics_listen is None:
        yield metrics
        return
    from blobflow.cli.runtime.listen_address import parse_listen_address

    host, port = parse_listen_address(options.metrics_listen)
    with metrics.listening(host, port) as bound:
        if not output.quiet:
            _print_event(output, "metrics", f"metrics at http://{host}:{bound}/metrics")
        yield metrics
