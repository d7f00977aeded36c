"""Carrying a run out: progress while it goes, then its report and its summary, however it ended."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.console import display
from blobflow.cli.figures import count_text
from blobflow.cli.files import check_place, write_whole
from blobflow.cli.options import Ends, Link, Look, Run, ends_of, policy_of, settings_of
from blobflow.cli.outlook import outlook_lines
from blobflow.cli.running import ENDING
from blobflow.cli.running import run as run_loop
from blobflow.cli.telling import digest_lines, failure_lines, plan_lines, summary_lines
from blobflow.cli.timeline import Timeline
from blobflow.cli.writing import as_far_as_read, say
from blobflow.engine.flow import Run as Flow
from blobflow.engine.report import Report, TagRecord, encode, with_lost
from blobflow.errors import BlobflowError, RunIncomplete, StorageError, UsageError
from blobflow.events import Meter, Observer
from blobflow.oci.location import STREAM, path_of, transport_of

if TYPE_CHECKING:
    from blobflow.engine.execution import Execution
    from blobflow.engine.flow import Planned
    from blobflow.engine.plan import Pair
    from blobflow.mirror import Settings


# The endings of a report's name that make it a page, and not JSON.
PAGES = (".html", ".htm")


class Outcome(msgspec.Struct, frozen=True):
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
            check_skipped(sum(bool(image.reason) for image in images), len(images))
        if failed := sum(tag.status == "failed" for tag in self.report.tags):
            raise RunIncomplete(f"{failed} of {len(self.report.tags)} tags too many could not be removed")

    def check_image(self) -> None:
        """For runs over one image: raise its own error, the first if there are several targets."""
        for error in self.errors.values():
            raise error
        self.check_set()


def check_skipped(skipped: int, images: int) -> None:
    """Raise RunIncomplete if none of so many images is for the platforms that were chosen."""
    if skipped and skipped == images:
        raise RunIncomplete(
            f"none of {count_text(images, 'image')} is for a platform that was chosen; if that is right, say "
            "--missing-platform skip"
        )


Begin = Callable[[Sequence["Pair"], Sequence[str]], Flow]


class Course:
    """A run's course, for the report: the run once it is begun, and what is known besides.

    Called with pairs and notes it begins the run; `take` begins another one. `lost`: what could not even be
    begun, and why. `tags`: what became of tags that were too many.
    """

    def __init__(self, run: Run, observe: Observer, meter: Meter) -> None:
        self._run = run
        self._observe = observe
        self._meter = meter
        self._notes: tuple[str, ...] = ()
        self.flow: Flow | Execution = self._flow(())
        self.lost: Mapping[Pair, BlobflowError] = {}
        self.tags: list[TagRecord] = []

    def __call__(self, pairs: Sequence[Pair], notes: Sequence[str]) -> Flow:
        self._notes = tuple(notes)
        flow = self._flow(pairs)
        self.take(flow)
        return flow

    def take(self, flow: Flow | Execution) -> None:
        """Begin this one."""
        self.flow = flow
        ending = ENDING.get()
        ending.wind_down, ending.grace = flow.wind_down, self._run.grace

    def _flow(self, pairs: Sequence[Pair]) -> Flow:
        return Flow(pairs, policy_of(self._run), observe=self._observe, meter=self._meter)

    def note(self, notes: Iterable[str]) -> None:
        """Take in what else there is to note."""
        self._notes += tuple(notes)

    def report(self) -> Report:
        """All of it, as of now."""
        report = with_lost(self.flow.report(), self.lost)
        return msgspec.structs.replace(report, notes=(*self._notes, *report.notes), tags=tuple(self.tags))


# What is to be carried out: it begins a run, with notes for the report, brings it to its end, and returns
# what else there is to note.
Work = Callable[["Settings", Course, Observer, Meter], Awaitable[Sequence[str]]]


def carry_out(pairs: Sequence[Pair], link: Link, run: Run, *, list_failures: bool = True) -> Outcome:
    """Mirror the pairs, showing progress; write the report and tell the summary.

    `list_failures`: a sentence for each image that failed; not where the caller ends with that error anyway.
    Also if the run raises or is interrupted: then the report is of what became of it until then.
    """

    async def work(settings: Settings, begin: Begin, show: Observer, meter: Meter) -> Sequence[str]:
        from blobflow.mirror import mirror

        await mirror(pairs, settings, observer=show, meter=meter, run=begin(pairs, ()))
        return ()

    return carry_out_work(work, ends_of(pairs), link, run, list_failures=list_failures)


def _nobody(report: Report) -> None:
    """Who does not want to know."""


def carry_out_work(
    work: Work,
    ends: Ends,
    link: Link,
    run: Run,
    *,
    list_failures: bool = True,
    told: Callable[[Report], None] = _nobody,
) -> Outcome:
    """As `carry_out`, for what has to find out first what there is to mirror.

    `told` gets the report, however the run ended.
    """
    for file in run.report:
        check_place(file, "--report")
    if _streams(ends) and sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and no place for an archive; redirect it, or name a file"
        )
    return run_loop(_carried_out(work, ends, link, run, list_failures, told))


async def _carried_out(
    work: Work, ends: Ends, link: Link, run: Run, list_failures: bool, told: Callable[[Report], None]
) -> Outcome:
    meter = Meter()
    async with display(link.look, meter, hosts=len(ends.targets)) as show:
        timeline = Timeline(show)
        course = Course(run, timeline, meter)
        ended: BaseException | None = None
        try:
            course.note(await work(settings_of(link, run, ends), course, timeline, meter))
        except (BlobflowError, asyncio.CancelledError) as error:
            ended = error
    report = course.report()
    told(report)
    unwritten = _write(report, course, timeline, run)
    unwritten += _leave(report, link.look, list_failures, aside=_streams(ends))
    if ended is not None:
        for each in unwritten:  # how the run ended is the exit code, and this is news besides
            say(f"blobflow: {each}", err=True)
        raise ended
    for each in unwritten:
        raise each
    if ENDING.get().asked:  # too late to cut anything, and whoever would go on has to know
        raise asyncio.CancelledError
    return Outcome(report, course.flow.errors)


def _streams(ends: Ends) -> bool:
    """Whether an archive goes to standard output."""
    return any(transport_of(host) and path_of(host) == STREAM for host in ends.targets)


def _write(report: Report, course: Course, timeline: Timeline, run: Run) -> list[StorageError]:
    """Write the report where it is wanted, in the form that the file's name says. Returns why it could not be
    written, if so: what the run did is to be told before that."""
    errors = []
    for file in run.report:
        if file.suffix.lower() in PAGES:
            from blobflow.cli.runpage import page_of

            planned = course.flow.planned
            content = page_of(report, timeline.spans(planned.plan.needs if planned else ()), planned).encode()
        else:
            content = encode(report)
        try:
            write_whole(file, content)
        except StorageError as error:
            errors.append(error)
    return errors


def _leave(report: Report, look: Look, list_failures: bool, *, aside: bool) -> list[StorageError]:
    """Say what the report says; `aside`: not on standard output. Returns as `_write` does."""
    errors: list[StorageError] = []
    if look.log_format == "json":
        totals = {"event": "summary", "totals": msgspec.to_builtins(report.totals)}
        click.echo(json.dumps(totals), err=True)
        return errors
    if not look.quiet and report.images:
        try:
            with as_far_as_read():
                say(*digest_lines(report), *summary_lines(report), err=aside)
        except StorageError as error:
            errors.append(error)
    for line in failure_lines(report) if list_failures else ():
        say(line, err=True)
    return errors


def make_planned(pairs: Sequence[Pair], link: Link, run: Run) -> Planned:
    """Resolve, survey and plan on the loop; nothing is changed anywhere."""
    return run_loop(_planned(pairs, link, run))


async def _planned(pairs: Sequence[Pair], link: Link, run: Run) -> Planned:
    from blobflow.mirror import plan_run

    meter = Meter()
    async with display(link.look, meter) as show:
        settings = settings_of(link, run, ends_of(pairs))
        return await plan_run(pairs, settings, policy_of(run), observer=show, meter=meter)


def show_plan(planned: Planned, look: Look, more: Sequence[str] = ()) -> None:
    """Print a plan for people: a line an image, `more`, and the totals last. Nothing if it is to be quiet."""
    if not look.quiet:
        images = outlook_lines(planned)
        with as_far_as_read():
            say(*images, *more, *(("",) if images or more else ()), *plan_lines(planned))


def check_planned(planned: Planned, look: Look, *, listed: bool = True, may_skip_all: bool = True) -> None:
    """Raise RunIncomplete if there are pairs that could not be planned; say which ones, and why, unless they
    are `listed` on standard output. Not all may be skipped, unless they may."""
    if not listed or look.quiet:
        for pair, error in planned.failures.items():
            say(f"failed: {pair.source} -> {pair.target}: {error}", err=True)
    if planned.failures:
        raise RunIncomplete(f"{len(planned.failures)} of {len(planned.pairs)} images could not be planned")
    if not may_skip_all:
        check_skipped(len(planned.skipped), len(planned.pairs))


def check_planned_image(planned: Planned) -> None:
    """For a plan of one image: raise its own error, the first if there are several targets."""
    for error in planned.failures.values():
        raise error
