"""A run on a terminal: images and bytes, the blobs under way, and what is waited for.

    transfer 37/200 images  ━━━━━━━━━━━─────────────────────────  1.2 GB of 5.0 GB  45.1 MB/s  2 min left
      rancher/pause:3.1     ━━━━━━━━────  250 MB of 400 MB  12.1 MB/s
      rancher/coredns:1.8   ━━──────────  12.0 MB of 80.0 MB  0 B/s for 14 s
      target.example answers 503, trying again in 20 s (2 of 5)

Events change values; `draw` puts them into lines for the width that the terminal has now, a few times a
second. What does not fit is left out, the least telling first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from textwrap import wrap

from rich.cells import cell_len

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.event_text import event_line
from blobflow.cli.output.run_state import RunState
from blobflow.cli.output.terminal_area import Line, Part, TerminalArea, padded, shorten_start
from blobflow.cli.output.transfers import BlobTransfer
from blobflow.cli.output.units import count_text, one_line, short_digest
from blobflow.cli.output.wait_text import wait_sentences
from blobflow.events import Event, Meter

_REFRESH_SECONDS = 0.25  # faster than that nobody reads
_BLOB_ROWS = 8  # blobs under way that are drawn; the default concurrency
_WAIT_ROWS = 4
# Seconds after which a wait without a known end is shown: while bytes move, and while none has for a second.
_SHOWN_AFTER, _SHOWN_AT_REST, _REST = 3.0, 0.7, 1.0
_NARROWEST_BAR, _WIDEST_BAR = 8, 40
# Columns from which rows have a bar and say where a blob goes, and from which they have much of its digest.
_BARS_FROM, _DIGESTS_FROM = 90, 140
_SPEED, _LONGEST_SPEED = len("not confirmed yet"), len("0 B/s for 59 min 59 s")
_NARROWEST_NAME = 12
_FEW_DIGITS = 7
# Columns that `wrap` takes, whatever a terminal has; the area cuts what is too much.
_NARROWEST_WAIT = 8


class ProgressBars:
    """Draws a run. `hosts`: how many targets it has; `clock` in seconds; `glyphs`: what bars are made of."""

    def __init__(
        self,
        output: OutputOptions,
        meter: Meter,
        area: TerminalArea,
        *,
        hosts: int = 1,
        clock: Callable[[], float] = time.monotonic,
        glyphs: tuple[str, str] = ("━", "─"),
    ) -> None:
        self._look = output
        self._state = RunState(meter, clock)
        self._area = area
        self._hosts = hosts
        self._glyphs = glyphs
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ProgressBars:
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait((self._ticker,))
        self._area.close()

    async def _tick(self) -> None:
        await asyncio.sleep(_REFRESH_SECONDS)  # what is over by then needs no display
        while True:
            self.draw()
            await asyncio.sleep(_REFRESH_SECONDS)

    def __call__(self, event: Event, /) -> None:
        self._state.take(event)
        if line := event_line(event, self._look):
            self._area.print(line)

    def draw(self) -> None:
        """Take the meter's figures and draw everything once."""
        self._state.look()
        columns, height = self._area.size
        waits = list(self._waits(columns - 1))
        rows = self._rows(columns - 1, max(1, height - len(waits) - 4))
        self._area.draw([self._total(columns - 1), *rows, *waits])

    def _waits(self, width: int) -> Iterable[Line]:
        least = _SHOWN_AT_REST if self._state.rests(_REST) else _SHOWN_AFTER
        now, waits = self._state.clock(), self._state.waits()
        for text in wait_sentences(waits, now, least=least, most=_WAIT_ROWS):
            room = max(_NARROWEST_WAIT, width - 2)
            for line in wrap(text, room, max_lines=2, placeholder="…", subsequent_indent="  "):
                yield (Part(f"  {line}", "warn"),)

    def _total(self, width: int) -> Line:
        """The first line: the figures with a bar after the first of them. Where it is too narrow the last
        ones are left out, but never the first."""
        figures = self._state.figures()

        def room() -> int:
            return width - sum(len(each) + 2 for each in figures)

        if room() < _NARROWEST_BAR:
            figures[0] = figures[0].removesuffix(" images").removesuffix(" image")
        while len(figures) > 1 and room() < -2:
            figures.pop()
        bar = room()
        parts = [Part(figures[0], "strong")]
        if bar >= _NARROWEST_BAR:
            parts += [Part("  "), *self._bar(self._state.share, min(bar, _WIDEST_BAR))]
        return [*parts, *(Part(f"  {each}") for each in figures[1:])]

    def _rows(self, width: int, most: int) -> Iterable[Line]:
        """A row for each of the oldest blobs under way."""
        transfers = self._state.transfers
        shown = transfers.first(min(most, _BLOB_ROWS))
        amounts = max((len(each.amount_text()) for each in shown), default=0)
        bar = min(_WIDEST_BAR, width // 5) if width >= _BARS_FROM else 0
        digests = [self._digest(each, width) for each in shown]
        digest = max(map(len, digests), default=0)
        to = max((len(each.target) for each in shown), default=0)
        to = to if self._hosts > 1 and width >= _BARS_FROM else 0
        speed = _LONGEST_SPEED if width >= _BARS_FROM else _SPEED
        taken = sum(cells + 2 for cells in (amounts, speed, bar, digest, to and to + 3) if cells)
        column = max(_NARROWEST_NAME, width - 2 - taken)
        column = min(column, max((cell_len(each.name) for each in shown), default=0))
        for each, named in zip(shown, digests, strict=True):
            yield self._row(each, column, bar, amounts, named, to=bool(to))
        if len(transfers) > len(shown):
            yield (Part(f"  and {count_text(len(transfers) - len(shown), 'more blob')}", "dim"),)

    def _digest(self, blob: BlobTransfer, width: int) -> str:
        """What tells apart the blobs of one image."""
        if width >= _DIGESTS_FROM:
            return one_line(short_digest(blob.digest))
        return one_line(blob.digest.partition(":")[2][:_FEW_DIGITS]) if width >= _BARS_FROM else ""

    def _row(self, blob: BlobTransfer, column: int, bar: int, amounts: int, digest: str, *, to: bool) -> Line:
        now = self._state.clock()
        line = [Part(f"  {padded(shorten_start(blob.name, column), column)}")]
        if digest:
            line.append(Part(f"  {digest}", "dim"))
        if bar:
            share = blob.moved / blob.size if blob.size else 1.0
            line += [Part("  "), *self._bar(share, bar)]
        line.append(Part(f"  {blob.amount_text():>{amounts}}"))
        line.append(Part(f"  {blob.speed_text(now)}", "warn" if blob.stalled(now) else ""))
        return [*line, Part(f"  to {blob.target}", "dim")] if to else line

    def _bar(self, share: float, width: int) -> tuple[Part, Part]:
        full, empty = self._glyphs
        done = int(min(1.0, max(0.0, share)) * width)
        return Part(full * done, "good"), Part(empty * (width - done), "dim")
