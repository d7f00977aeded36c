"""Carrying a run out: progress while it goes, then its report and its summary, however it ended."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.connection import (
    ConnectionOptions,
    Hosts,
    OutputOptions,
    RunOptions,
    hosts_of,
    run_policy,
    run_settings,
)
from blobflow.cli.output.plan_text import dry_run_lines
from blobflow.cli.output.progress import show_progress
from blobflow.cli.output.report_text import digest_lines, failure_lines, plan_lines, summary_lines
from blobflow.cli.output.stdio import ignore_closed_pipe, print_lines
from blobflow.cli.output.timeline import Timeline
from blobflow.cli.output.units import count_text
from blobflow.cli.runtime.event_loop import SHUTDOWN
from blobflow.cli.runtime.event_loop import run as run_loop
from blobflow.cli.runtime.files import check_writable, write_atomic
from blobflow.engine.execution import Run as Flow
from blobflow.engine.results.report import Report, TagRecord, encode_report, with_unresolved
from blobflow.errors import BlobflowError, RunIncomplete, StorageError, UsageError
from blobflow.events import Meter, Observer
from blobflow.oci.local_reference import STREAM, path_of, transport_of

if TYPE_CHECKING:
    from blobflow.client import Settings
    from blobflow.engine.execution import Planned
    from blobflow.engine.plan.steps import Pair
    from blobflow.engine.saved.execution import SavedRun


# The endings of a report's name that make it a page, and not JSON.
HTML_SUFFIXES = (".html", ".htm")


class RunOutcome(msgspec.Struct, frozen=True):
    """What a run that came back did; `errors` of the images that failed."""

    report: Report
    errors: Mapping[Pair, BlobflowError]

    def check_set(self, *, may_skip_all: bool = True) -> None:
        """Raise RunIncomplete unless every image of the set is where it should be, or was skipped; not all of
        them, unless they may."""
        images = self.report.images
        missing = sum(not image.ok for image in images)
        if missing:
            raise RunIncomplete(f"{missing} of {len(images)} images did not arrive")
        if not may_skip_all:
            check_not_all_skipped(sum(bool(image.reason) for image in images), len(images))
        if failed := sum(tag.status == "failed" for tag in self.report.tags):
            raise RunIncomplete(f"{failed} of {len(self.report.tags)} tags too many could not be removed")

    def check_image(self) -> None:
        """For runs over one image: raise its own error, the first if there are several targets."""
        for error in self.errors.values():
            raise error
        self.check_set()


def check_not_all_skipped(skipped: int, images: int) -> None:
    """Raise RunIncomplete if none of so many images is for the platforms that were chosen."""
    if skipped and skipped == images:
        raise RunIncomplete(
            f"none of {count_text(images, 'image')} is for a platform that was chosen; if that is right, say "
            "--missing-platform skip"
        )


StartRun = Callable[[Sequence["Pair"], Sequence[str]], Flow]


class RunRecorder:
    """A run's course, for the report: the run once it is begun, and what is known besides.

    Called with pairs and notes it begins the run; `take` begins another one. `lost`: what could not even be
    begun, and why. `tags`: what became of tags that were too many.
    """

    def __init__(self, run: RunOptions, observe: Observer, meter: Meter) -> None:
        self._run = run
        self._observe = observe
        self._meter = meter
        self._notes: tuple[str, ...] = ()
        self.flow: Flow | SavedRun = self._flow(())
        self.lost: Mapping[Pair, BlobflowError] = {}
        self.tags: list[TagRecord] = []

    def __call__(self, pairs: Sequence[Pair], notes: Sequence[str]) -> Flow:
        self._notes = tuple(notes)
        flow = self._flow(pairs)
        self.take(flow)
        return flow

    def take(self, flow: Flow | SavedRun) -> None:
        """Begin this one."""
        self.flow = flow
        ending = SHUTDOWN.get()
        ending.wind_down, ending.grace = flow.wind_down, self._run.grace

    def _flow(self, pairs: Sequence[Pair]) -> Flow:
        return Flow(pairs, run_policy(self._run), observe=self._observe, meter=self._meter)

    def note(self, notes: Iterable[str]) -> None:
        """Take in what else there is to note."""
        self._notes += tuple(notes)

    def report(self) -> Report:
        """All of it, as of now."""
        report = with_unresolved(self.flow.report(), self.lost)
        return msgspec.structs.replace(report, notes=(*self._notes, *report.notes), tags=tuple(self.tags))


# What is to be carried out: it begins a run, with notes for the report, brings it to its end, and returns
# what else there is to note.
Work = Callable[["Settings", RunRecorder, Observer, Meter], Awaitable[Sequence[str]]]


def run_mirror(
    pairs: Sequence[Pair], connection: ConnectionOptions, run: RunOptions, *, list_failures: bool = True
) -> RunOutcome:
    """Mirror the pairs, showing progress; write the report and tell the summary.

    `list_failures`: a sentence for each image that failed; not where the caller ends with that error anyway.
    Also if the run raises or is interrupted: then the report is of what became of it until then.
    """

    async def work(settings: Settings, begin: StartRun, show: Observer, meter: Meter) -> Sequence[str]:
        from blobflow.client import mirror

        await mirror(pairs, settings, observer=show, meter=meter, run=begin(pairs, ()))
        return ()

    return run_command(work, hosts_of(pairs), connection, run, list_failures=list_failures)


def _ignore_report(report: Report) -> None:
    """Who does not want to know."""


def run_command(
    work: Work,
    hosts: Hosts,
    connection: ConnectionOptions,
    run: RunOptions,
    *,
    list_failures: bool = True,
    told: Callable[[Report], None] = _ignore_report,
) -> RunOutcome:
    """As `run_mirror`, for what has to find out first what there is to mirror.

    `told` gets the report, however the run ended.
    """
    for file in run.report:
        check_writable(file, "--report")
    if _writes_stdout(hosts) and sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and no place for an archive; redirect it, or name a file"
        )
    return run_loop(_run_recorded(work, hosts, connection, run, list_failures, told))


async def _run_recorded(
    work: Work,
    hosts: Hosts,
    connection: ConnectionOptions,
    run: RunOptions,
    list_failures: bool,
    told: Callable[[Report], None],
) -> RunOutcome:
    meter = Meter()
    async with show_progress(connection.output, meter, hosts=len(hosts.targets)) as show:
        timeline = Timeline(show)
        recorder = RunRecorder(run, timeline, meter)
        ended: BaseException | None = None
        try:
            recorder.note(await work(run_settings(connection, run, hosts), recorder, timeline, meter))
        except (BlobflowError, asyncio.CancelledError) as error:
            ended = error
    report = recorder.report()
    told(report)
    unwritten = _write_reports(report, recorder, timeline, run)
    unwritten += _print_summary(report, connection.output, list_failures, aside=_writes_stdout(hosts))
    if ended is not None:
        for each in unwritten:  # how the run ended is the exit code, and this is news besides
            print_lines(f"blobflow: {each}", err=True)
        raise ended
    for each in unwritten:
        raise each
    if SHUTDOWN.get().asked:  # too late to cut anything, and whoever would go on has to know
        raise asyncio.CancelledError
    return RunOutcome(report, recorder.flow.errors)


def _writes_stdout(hosts: Hosts) -> bool:
    """Whether an archive goes to standard output."""
    return any(transport_of(host) and path_of(host) == STREAM for host in hosts.targets)


def _write_reports(
    report: Report, recorder: RunRecorder, timeline: Timeline, run: RunOptions
) -> list[StorageError]:
    """Write the report where it is wanted, in the form that the file's name says. Returns why it could not be
    written, if so: what the run did is to be told before that."""
    errors = []
    for file in run.report:
        if file.suffix.lower() in HTML_SUFFIXES:
            from blobflow.cli.output.html_report import render_html_report

            planned = recorder.flow.planned
            content = render_html_report(
                report, timeline.spans(planned.plan.needs if planned else ()), planned
            ).encode()
        else:
            content = encode_report(report)
        try:
            write_atomic(file, content)
        except StorageError as error:
            errors.append(error)
    return errors


def _print_summary(
    report: Report, output: OutputOptions, list_failures: bool, *, aside: bool
) -> list[StorageError]:
    """Say what the report says; `aside`: not on standard output. Returns as `_write_reports` does."""
    errors: list[StorageError] = []
    if output.log_format == "json":
        totals = {"event": "summary", "totals": msgspec.to_builtins(report.totals)}
        click.echo(json.dumps(totals), err=True)
        return errors
    if not output.quiet and report.images:
        try:
            with ignore_closed_pipe():
                print_lines(*digest_lines(report), *summary_lines(report), err=aside)
        except StorageError as error:
            errors.append(error)
    for line in failure_lines(report) if list_failures else ():
        print_lines(line, err=True)
    return errors


def plan_pairs(pairs: Sequence[Pair], connection: ConnectionOptions, run: RunOptions) -> Planned:
    """Resolve, survey and plan on the loop; nothing is changed anywhere."""
    return run_loop(_plan_on_loop(pairs, connection, run))


async def _plan_on_loop(pairs: Sequence[Pair], connection: ConnectionOptions, run: RunOptions) -> Planned:
    from blobflow.client import plan_run

    meter = Meter()
    async with show_progress(connection.output, meter) as show:
        settings = run_settings(connection, run, hosts_of(pairs))
        return await plan_run(pairs, settings, run_policy(run), observer=show, meter=meter)


def print_plan(planned: Planned, output: OutputOptions, more: Sequence[str] = ()) -> None:
    """Print a plan for people: a line an image, `more`, and the totals last. Nothing if it is to be quiet."""
    if not output.quiet:
        images = dry_run_lines(planned)
        with ignore_closed_pipe():
            print_lines(*images, *more, *(("",) if images or more else ()), *plan_lines(planned))


def check_plan(
    planned: Planned, output: OutputOptions, *, listed: bool = True, may_skip_all: bool = True
) -> None:
    """Raise RunIncomplete if there are pairs that could not be planned; say which ones, and why, unless they
    are `listed` on standard output. Not all may be skipped, unless they may."""
    if not listed or output.quiet:
        for pair, error in planned.failures.items():
            print_lines(f"failed: {pair.source} -> {pair.target}: {error}", err=True)
    if planned.failures:
        raise RunIncomplete(f"{len(planned.failures)} of {len(planned.pairs)} images could not be planned")
    if not may_skip_all:
        check_not_all_skipped(len(planned.skipped), len(planned.pairs))


def check_single_plan(planned: Planned) -> None:
    """For a plan of one image: raise its own error, the first if there are several targets."""
    for error in planned.failures.values():
        raise error
