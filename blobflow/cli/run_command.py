"""Runs a verb's work: shows progress, then writes the report and the summary, however the run ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.exit_codes import error_of_file, error_of_set
from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.options.output import OutputOptions
from blobflow.cli.options.run import RunOptions
from blobflow.cli.output.progress import show_progress
from blobflow.cli.output.report_text import digest_lines, failure_lines, left_lines, summary_lines
from blobflow.cli.output.stdio import ignore_closed_pipe, print_lines
from blobflow.cli.output.timeline import Timeline
from blobflow.cli.output.units import count_text
from blobflow.cli.runtime.event_loop import SHUTDOWN, run_loop
from blobflow.cli.runtime.files import check_writable, write_atomic
from blobflow.cli.settings import Hosts, hosts_of, run_policy, run_settings
from blobflow.cli.signature_policies import with_signatures
from blobflow.engine.execution import Run as Flow
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.results.report import Report, TagRecord, with_unresolved
from blobflow.errors import BlobflowError, RunCutShort, RunIncomplete, StorageError, UsageError, own_copy
from blobflow.events import Meter, Observer, RunStarted
from blobflow.oci.local_reference import STREAM, path_of, transport_of

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.engine.pairs import Pair
    from blobflow.engine.policy import Policy
    from blobflow.settings import Settings
    from blobflow.transports.registry import HostSettings


class RunOutcome(msgspec.Struct, frozen=True):
    """What a run that was not cut short did; `errors` are those of the images that failed."""

    report: Report
    errors: Mapping[Pair, BlobflowError]

    def check_set(self, *, may_skip_all: bool = True) -> None:
        """Raise RunIncomplete unless every image of the set arrived or was skipped.

        That all of them were skipped is an error, too, unless `may_skip_all`.
        """
        images = self.report.images
        missing = sum(not image.ok for image in images)
        if missing:
            raise error_of_set(
                self.errors.values(), len(images), f"{missing} of {len(images)} images did not arrive"
            )
        if not may_skip_all:
            check_not_all_skipped(sum(bool(image.reason) for image in images), len(images))
        if failed := sum(tag.status == "failed" for tag in self.report.tags):
            raise RunIncomplete(f"{failed} of {len(self.report.tags)} tags too many could not be removed")

    def check_image(self) -> None:
        """For a run over one image: raise its own error. If it has several targets, what failed was told of
        each, and what is raised counts them, with the exit code of the first."""
        errors, targets = [*self.errors.values()], len(self.report.images)
        if errors and targets > 1 and error_of_file(errors, targets) is None:
            ended = own_copy(errors[0])
            ended.message = f"{len(errors)} of {targets} targets did not get the image"
            ended.side, ended.attempts = None, 1
            raise ended
        for error in errors:
            raise error
        self.check_set()


def check_not_all_skipped(skipped: int, images: int) -> None:
    """Raise RunIncomplete if all images were skipped: none is for a platform that was chosen."""
    if skipped and skipped == images:
        raise RunIncomplete(
            f"none of {count_text(images, 'image')} is for a platform that was chosen; if that is right, say "
            "--missing-platform skip"
        )


StartRun = Callable[[Sequence["Pair"], Sequence[str]], Flow]


class RunRecorder:
    """Holds a run and what its report says besides, so that there is a report however the run ends.

    Called with pairs and notes it makes the run that a signal winds down; `take` does that with another one.
    `unresolved`: pairs that could not even be planned, and why. `tags`: what became of tags that were too
    many. `command`: the command line, without its secrets.
    """

    def __init__(self, run: RunOptions, observe: Observer, meter: Meter) -> None:
        from blobflow.cli.options.command_line import command_line
        from blobflow.engine.results.run_record import utc_now

        self._run = run
        self._observe = observe
        self._meter = meter
        self._notes: tuple[str, ...] = ()
        self.command = command_line()
        self.policy = run_policy(run)
        self._started = utc_now()
        self.flow: Flow = self._flow(())
        self.unresolved: Mapping[Pair, BlobflowError] = {}
        self.tags: list[TagRecord] = []

    def __call__(self, pairs: Sequence[Pair], notes: Sequence[str]) -> Flow:
        self._notes = tuple(notes)
        flow = self._flow(pairs)
        self.take(flow)
        return flow

    def take(self, flow: Flow) -> None:
        """Make this the run that is reported, and that a signal winds down. What the command asked for before
        counts too."""
        self.flow, flow.before = flow, Meter()
        shutdown = SHUTDOWN.get()
        shutdown.wind_down, shutdown.grace = flow.wind_down, self._run.grace

    def _flow(self, pairs: Sequence[Pair]) -> Flow:
        return run_of_pairs(pairs, self.policy, observe=self._observe, meter=self._meter)

    def note(self, notes: Iterable[str]) -> None:
        """Add to the report's notes."""
        self._notes += tuple(notes)

    def report(self, ended: BaseException | None = None) -> Report:
        """The report as of now. `ended`: what ended the work, if something did."""
        report = with_unresolved(self.flow.report(), self.unresolved)
        return msgspec.structs.replace(
            report,
            notes=(*self._notes, *report.notes),
            tags=tuple(self.tags),
            run=msgspec.structs.replace(
                report.run, started=self._started, command=self.command, error=_ending(ended)
            ),
        )


def _ending(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(error) if isinstance(error, BlobflowError) else "interrupted"


# A verb's work: it starts a run, with notes for the report, awaits its end, and returns further notes.
Work = Callable[["Client", RunRecorder], Awaitable[Sequence[str]]]


def run_mirror(
    pairs: Sequence[Pair], connection: ConnectionOptions, run: RunOptions, *, list_failures: bool = True
) -> RunOutcome:
    """Mirror the pairs, showing progress; then write the report and print the summary.

    Both happen also if the run raises or is interrupted, and then say what was done until then.
    `list_failures`: print a sentence for each image that failed; False where the caller raises that error.
    """

    async def work(client: Client, recorder: RunRecorder) -> Sequence[str]:
        await client.mirror(pairs, recorder.policy, on_start=recorder.take)
        return ()

    return run_command(work, hosts_of(pairs), connection, run, list_failures=list_failures)


def _ignore_report(report: Report) -> None:
    """The default of `on_report`."""


def run_command(
    work: Work,
    hosts: Hosts,
    connection: ConnectionOptions,
    run: RunOptions,
    *,
    host_defaults: Mapping[str, HostSettings] | None = None,
    policy: Callable[[Policy], Policy] | None = None,
    list_failures: bool = True,
    on_report: Callable[[Report], None] = _ignore_report,
) -> RunOutcome:
    """As `run_mirror`, for work that has to find out first what there is to mirror.

    `host_defaults`: see `run_settings`. `policy` makes the run's policy of what the options say; None: with
    the signature policy that they name. `on_report` gets the report, however the run ends.
    """
    for file in run.report:
        check_writable(file, "--report")
    if _writes_stdout(hosts) and sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and no place for an archive; redirect it, or name a file"
        )
    settings = partial(run_settings, connection, run, hosts, host_defaults=host_defaults)
    judged = policy or partial(with_signatures, run, connection.config, ())
    return run_loop(
        _run_recorded(work, settings, judged, hosts, connection.output, run, list_failures, on_report)
    )


async def _run_recorded(
    work: Work,
    settings: Callable[[], Settings],
    policy: Callable[[Policy], Policy],
    hosts: Hosts,
    output: OutputOptions,
    run: RunOptions,
    list_failures: bool,
    on_report: Callable[[Report], None],
) -> RunOutcome:
    meter = Meter()
    SHUTDOWN.get().waits = meter.waits
    async with show_progress(output, meter, hosts=len(hosts.targets)) as show:
        timeline = Timeline(show)
        recorder = RunRecorder(run, timeline, meter)
        show(_run_started(recorder.command, hosts))
        ended: BaseException | None = None
        try:
            used = settings()  # imports faster than the client would, which is imported after that
            recorder.policy = policy(recorder.policy)
            from blobflow.client import Client

            async with Client(used, observer=timeline, meter=meter, engine=run.engine) as client:
                recorder.note(await work(client, recorder))
        except RunCutShort as error:
            ended = None if SHUTDOWN.get().requested else error
        except (BlobflowError, asyncio.CancelledError) as error:
            ended = error
    report = recorder.report(ended)
    on_report(report)
    unwritten = _write_reports(report, recorder, timeline, run)
    failed = isinstance(ended, BlobflowError) or bool(recorder.flow.errors)
    told_at_the_end = error_of_file(recorder.flow.errors.values(), len(report.images)) is not None
    list_failures = list_failures and not told_at_the_end
    unwritten += _print_summary(
        report, output, list_failures, aside=_writes_stdout(hosts), one_failed=failed and not list_failures
    )
    if ended is not None:
        for each in unwritten:  # the exit code is about how the run ended; this comes on top
            print_lines(f"blobflow: {each}", err=True)
        raise ended
    for each in unwritten:
        raise each
    if SHUTDOWN.get().requested:  # a signal that came too late to cancel the work still ends the process
        raise asyncio.CancelledError
    return RunOutcome(report, {**recorder.flow.errors, **recorder.unresolved})


def _run_started(command: tuple[str, ...], hosts: Hosts) -> RunStarted:
    from blobflow.version import __version__

    return RunStarted(__version__, command, tuple(sorted(hosts.sources)), tuple(sorted(hosts.targets)))


def _writes_stdout(hosts: Hosts) -> bool:
    """Whether an archive is written to standard output."""
    return any(transport_of(host) and path_of(host) == STREAM for host in hosts.targets)


def _write_reports(
    report: Report, recorder: RunRecorder, timeline: Timeline, run: RunOptions
) -> list[StorageError]:
    """Write the report to each file, in the format that the file's suffix says.

    Returns the errors instead of raising them: first the summary is printed.
    """
    errors = []
    planned = recorder.flow.planned
    for file in run.report:
        from blobflow.cli.output.report_files import form_of, render_report

        form = form_of(file)
        spans = timeline.spans(planned.plan.needs if planned else ()) if form == "html" else ()
        try:
            write_atomic(file, render_report(report, form, spans, planned, timeline.ranges))
        except StorageError as error:
            errors.append(error)
    return errors


def _print_summary(
    report: Report, output: OutputOptions, list_failures: bool, *, aside: bool, one_failed: bool
) -> list[StorageError]:
    """Print the summary, and what is left where a signal ended the run; `aside`: on stderr, which stdout's
    archive needs. `one_failed`: it was for one image, of which the error that the caller raises says all.
    Returns as `_write_reports`."""
    errors: list[StorageError] = []
    if output.log_format == "json":
        from blobflow.cli.output.json_events import Summary, print_event

        print_event(Summary(report.totals, report.run.started, report.run.ended))
        return errors
    cut = SHUTDOWN.get().requested
    if not output.quiet and report.images and (cut or not one_failed):
        try:
            with ignore_closed_pipe():
                print_lines(*digest_lines(report), *summary_lines(report), err=aside)
        except StorageError as error:
            errors.append(error)
    for line in failure_lines(report) if list_failures else ():
        print_lines(line, err=True)
    for line in left_lines(report) if cut and not output.quiet else ():
        print_lines(line, err=True)
    return errors
