"""Shows events: live bars on a terminal, one line an image elsewhere, JSON lines for programs.

`show_progress` gives an observer for as long as it is entered; all of it goes to stderr. Events change
figures, and a ticker draws them a few times a second, together with what the meter counted: nothing is drawn
a chunk. What came from a registry passes through `one_line` (text) or ASCII-only JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, TextIO

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.units import one_line, seconds_text, short_digest, size_text
from blobflow.events import (
    Event,
    ImageDone,
    Meter,
    Observer,
    PhaseStarted,
    PlanMade,
    Retrying,
    StepDone,
    StepFailed,
    StepStarted,
    Traced,
    Warned,
)
from blobflow.oci.local_reference import transport_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_REFRESH_SECONDS = 0.25  # seconds; faster than that nobody reads, and each drawing costs about a millisecond
_BLOB_ROWS = 8  # blobs under way that are drawn; the default concurrency


@asynccontextmanager
async def show_progress(
    output: OutputOptions, meter: Meter, *, stream: TextIO | None = None, hosts: int = 1
) -> AsyncIterator[Observer]:
    """The observer that suits `output` and the stream (stderr), drawing while inside.

    `hosts`: target registries of the run; with several a line says which one it is about.
    """
    stream = stream or sys.stderr
    live = None if output.quiet or output.log_format == "json" else _progress_bars(output, meter, stream)
    if live is not None:
        async with live:
            yield live
    elif output.log_format == "json":
        yield JsonLines(stream)
    else:
        yield ProgressLines(output, stream, name_target=hosts > 1)


def _progress_bars(output: OutputOptions, meter: Meter, stream: TextIO) -> ProgressBars | None:
    """Bars, if the stream is a terminal that can draw them; else None."""
    if not stream.isatty():
        return None
    from rich.console import Console

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    return None if console.is_dumb_terminal else ProgressBars(output, meter, console)


def event_line(event: Event, output: OutputOptions) -> str | None:
    """The line for an event that every text display prints; None if none does."""
    match event:
        case Warned() if not output.quiet:
            return one_line(f"warning: {event.message}")
        case Retrying() if output.verbose:
            return one_line(
                f"retry {event.attempt} of {event.what} in {seconds_text(event.delay)}: {event.error}"
            )
        case Traced() if output.verbose:
            return one_line(f"{event.method} {event.url} {event.status} {seconds_text(event.seconds)}")
        case _:
            return None


def _registry_of(target: str) -> str:
    """The registry of a target; a layout or archive unchanged."""
    return target if transport_of(target) else target.partition("/")[0]


def progress_line(event: ImageDone, *, name_target: bool = False) -> str:
    """`Progress: 3/8 rancher/pause:3.1 done`; with several target registries, also which one."""
    name = event.source if transport_of(event.source) else event.source.partition("/")[2] or event.source
    where = f" at {_registry_of(event.target)}" if name_target else ""
    return one_line(f"Progress: {event.done}/{event.images} {name}{where} {event.status}")


def _write_line(stream: TextIO, line: str) -> None:
    """Write a line. A reader of the stream that went away does not end the run."""
    with suppress(OSError):
        stream.write(f"{line}\n")
        stream.flush()


class JsonLines:
    """Each event as one JSON object a line: see `json_events`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event, /) -> None:
        from blobflow.cli.output.json_events import event_document

        _write_line(self._stream, json.dumps(event_document(event)))


class ProgressLines:
    """One line an image, and those of `event_line`; with --quiet only the latter."""

    def __init__(self, output: OutputOptions, stream: TextIO, *, name_target: bool = False) -> None:
        self._look = output
        self._stream = stream
        self._name_target = name_target

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, ImageDone):
            line = None if self._look.quiet else progress_line(event, name_target=self._name_target)
        else:
            line = event_line(event, self._look)
        if line:
            _write_line(self._stream, line)


class ProgressBars:
    """Bars for images and bytes, and a row for each of the oldest blobs under way."""

    def __init__(self, output: OutputOptions, meter: Meter, console: Console) -> None:
        self._look = output
        self._meter = meter
        self._progress = _rich_progress(console)
        self._images: TaskID = self._progress.add_task("images", total=None, figures="")
        self._bytes: TaskID = self._progress.add_task("bytes", total=None, visible=False, figures="")
        self._copies: dict[int, StepStarted] = {}  # under way, oldest first
        self._rows = [self._progress.add_task("", visible=False, figures="") for _ in range(_BLOB_ROWS)]
        self._ticker: asyncio.Task[None] | None = None

    @property
    def bars(self) -> Progress:
        """What is drawn, as rich renders it."""
        return self._progress

    async def __aenter__(self) -> ProgressBars:
        self._progress.start()
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait((self._ticker,))
        self._progress.stop()

    async def _tick(self) -> None:
        while True:
            self.draw()
            await asyncio.sleep(_REFRESH_SECONDS)

    def __call__(self, event: Event, /) -> None:
        match event:
            case PhaseStarted():
                self._progress.update(self._images, description=one_line(event.phase), total=event.images)
                self._progress.update(self._images, figures=f"{event.images} images")
            case PlanMade():
                self._progress.update(self._bytes, total=event.bytes_to_write, visible=True)
            case StepStarted(kind="copy"):
                self._copies[event.step] = event
            case StepDone() | StepFailed():
                self._copies.pop(event.step, None)
            case ImageDone():
                figures = f"{event.done}/{event.images} images"
                self._progress.update(self._images, completed=event.done, total=event.images, figures=figures)
            case _:
                if line := event_line(event, self._look):
                    self._progress.console.print(line, soft_wrap=True)

    def draw(self) -> None:
        """Take the meter's figures and draw everything once."""
        total = self._progress.tasks[self._bytes].total
        written = self._meter.bytes_written
        if total is not None:
            # A refused mount moves bytes that no plan foresaw, and manifests count too.
            total = max(total, written)
        self._progress.update(
            self._bytes, completed=written, total=total, figures=self._speed(written, total)
        )
        self._draw_rows()
        self._progress.refresh()

    def _speed(self, written: int, total: float | None) -> str:
        task = self._progress.tasks[self._bytes]
        figures = f"{size_text(written)} of {size_text(int(total or 0))}"
        if task.speed:
            figures += f", {size_text(int(task.speed))}/s"
        if task.time_remaining:
            figures += f", {seconds_text(task.time_remaining)} left"
        return figures

    def _draw_rows(self) -> None:
        """The first copies under way, one a row; rows are made once, as rich draws whenever one is added."""
        for row, copy in zip_longest(self._rows, islice(self._copies.values(), _BLOB_ROWS)):
            if copy is None:
                self._progress.update(row, visible=False)
                continue
            moved = self._meter.active.get(copy.step, 0)
            to = _registry_of(copy.target)
            self._progress.update(
                row,
                visible=True,
                description=one_line(short_digest(copy.digest)),
                total=copy.size,
                completed=min(moved, copy.size),
                figures=one_line(f"{size_text(moved)} of {size_text(copy.size)} to {to}"),
            )


def _rich_progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        console=console,
        auto_refresh=False,
        transient=True,
        # Rich's own redirection would take over stdout and stderr of the whole process.
        redirect_stdout=False,
        redirect_stderr=False,
    )
