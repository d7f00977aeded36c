"""Shows events: live bars on a terminal, one line an image elsewhere, JSON lines for programs.

`show_progress` gives an observer for as long as it is entered; all of it goes to stderr. Events change
figures, and a ticker draws them a few times a second, together with what the meter counted and what is waited
for: nothing is drawn a chunk. What came from a registry passes through `one_line` (text) or ASCII-only JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.event_text import event_line, progress_line
from blobflow.cli.output.run_state import RunState
from blobflow.cli.output.units import one_line
from blobflow.cli.output.wait_text import WaitLog
from blobflow.events import Event, ImageDone, Meter, Observer, PhaseStarted, StepStarted

if TYPE_CHECKING:
    from blobflow.cli.output.progress_bars import ProgressBars

_LOOK_SECONDS = 0.5  # how often logs look whether there is something to say
# Seconds of silence after which a log is told how far the run is; then twice as many, up to the last.
_FIRST_SILENCE, _LAST_SILENCE = 30.0, 300.0


@asynccontextmanager
async def show_progress(
    output: OutputOptions, meter: Meter, *, stream: TextIO | None = None, hosts: int = 1
) -> AsyncIterator[Observer]:
    """The observer that suits `output` and the stream (stderr), drawing while inside.

    `hosts`: target registries of the run; with several a line says which one it is about.
    """
    stream = stream or sys.stderr
    live = (
        None if output.quiet or output.log_format == "json" else _progress_bars(output, meter, stream, hosts)
    )
    if live is not None:
        async with live:
            yield live
        return
    show: JsonLines | ProgressLines
    if output.log_format == "json":
        show = JsonLines(stream, meter)
    else:
        show = ProgressLines(output, stream, meter, name_target=hosts > 1)
    ticker = asyncio.create_task(_every(_LOOK_SECONDS, show.look))
    try:
        yield show
    finally:
        ticker.cancel()
        await asyncio.wait((ticker,))


async def _every(seconds: float, look: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        look()


def _progress_bars(output: OutputOptions, meter: Meter, stream: TextIO, hosts: int) -> ProgressBars | None:
    """Bars, if the stream is a terminal that can draw them; else None. Without colours where NO_COLOR says
    so (no-color.org)."""
    if not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return None
    from blobflow.cli.output.progress_bars import ProgressBars
    from blobflow.cli.output.terminal_area import TerminalArea

    area = TerminalArea(stream, colors=not os.environ.get("NO_COLOR"))
    if "utf" in (getattr(stream, "encoding", None) or "utf-8").lower():
        return ProgressBars(output, meter, area, hosts=hosts)
    return ProgressBars(output, meter, area, hosts=hosts, glyphs=("=", "-"))


def _write_line(stream: TextIO, line: str) -> None:
    """Write a line. A reader of the stream that went away does not end the run."""
    with suppress(OSError):
        stream.write(f"{line}\n")
        stream.flush()


class JsonLines:
    """Each event as one JSON object a line: see `json_events`. What is waited for is a `Waiting`."""

    def __init__(
        self, stream: TextIO, meter: Meter | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._state = RunState(meter or Meter(), clock)
        self._waits = WaitLog()

    def __call__(self, event: Event, /) -> None:
        self._state.take(event)
        self._write(event)

    def look(self) -> None:
        """Say what is due by now."""
        self._state.look()
        for event in self._waits.due(self._state.waits(), self._state.clock()):
            self._write(event)

    def _write(self, event: Event) -> None:
        from blobflow.cli.output.json_events import event_document

        _write_line(self._stream, json.dumps(event_document(event)))


class ProgressLines:
    """One line an image, those of `event_line`, and what is waited for; after a long silence also how far the
    run is. With --quiet nothing of it."""

    def __init__(
        self,
        output: OutputOptions,
        stream: TextIO,
        meter: Meter | None = None,
        *,
        name_target: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = output
        self._stream = stream
        self._name_target = name_target
        self._state = RunState(meter or Meter(), clock)
        self._waits = WaitLog()
        self._spoke = clock()
        self._silence = _FIRST_SILENCE
        self._begun = False

    def __call__(self, event: Event, /) -> None:
        self._state.take(event)
        self._begun = self._begun or isinstance(event, (PhaseStarted, StepStarted))
        if isinstance(event, ImageDone):
            # Of one image that failed its error says it all.
            told = not self._look.quiet and not (event.images == 1 and event.status == "failed")
            line = progress_line(event, name_target=self._name_target) if told else None
        else:
            line = event_line(event, self._look)
        if line:
            self._say(line)
            self._silence = _FIRST_SILENCE

    def look(self) -> None:
        """Say what is due by now."""
        self._state.look()
        if self._look.quiet:
            return
        now = self._state.clock()
        for event in self._waits.due(self._state.waits(), now):
            self._say(one_line(event.message))
        if self._begun and now - self._spoke >= self._silence:
            self._say(one_line(f"Progress: {', '.join(self._state.figures())}"))
            self._silence = min(2 * self._silence, _LAST_SILENCE)

    def _say(self, line: str) -> None:
        _write_line(self._stream, line)
        self._spoke = self._state.clock()
