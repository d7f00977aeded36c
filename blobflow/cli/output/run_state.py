"""How far a run is, as its events and its meter show it: the figures of every text display. Sans-IO; `clock`
in seconds."""

from __future__ import annotations

from collections.abc import Callable

from blobflow.cli.output.pace import Rate, Remaining, Stillness, left_text
from blobflow.cli.output.transfers import Transfers
from blobflow.cli.output.units import count_text, one_line, size_text
from blobflow.cli.output.wait_text import span_text
from blobflow.events import Event, ImageDone, Meter, PhaseStarted, PlanMade, WorkersChanged
from blobflow.waits import Wait

# Parts of planning, as they are called here; they go on at the same time, for several targets.
_PLANNING = {
    "resolve": "resolve",
    "survey": "survey",
    "manifests": "manifests read",
    "contents": "contents asked for",
}
_OF_IMAGES = ("transfer", "verify")


class RunState:
    """The state of one run. `transfers`: the blobs under way; `share`: of it that is done, 0 to 1."""

    def __init__(self, meter: Meter, clock: Callable[[], float]) -> None:
        self.meter = meter
        self.clock = clock
        self.transfers = Transfers(meter, clock)
        self.share = 0.0
        self._phase = "starting"
        self._done = self._images = self._left_over = 0
        self._bytes: int | None = None
        self._rate = Rate()
        self._remaining = Remaining()
        self._left: float | None = None
        self._moving = Stillness(clock())
        self._workers: int | None = None  # of an engine that carries blobs; None: none does

    def take(self, event: Event) -> None:
        """Learn of an event."""
        self.transfers.take(event)
        match event:
            case PhaseStarted(phase="audit"):  # a part of the survey, of one target
                pass
            case PhaseStarted():
                self._phase, self._images = one_line(event.phase), event.images
                if event.phase in ("warm", "export", "archives"):
                    self._done = 0
            case PlanMade():
                self._bytes = event.bytes_to_write
            case WorkersChanged():
                self._workers = event.workers
            case ImageDone():
                # One that the end of the run left is settled, and not done.
                self._left_over += event.status == "skipped" and not event.reason
                self._done, self._images = event.done - self._left_over, event.images

    def look(self) -> None:
        """Take the meter's figures."""
        now, written = self.clock(), self.meter.bytes_written
        self.transfers.look()
        self._rate.saw(written, now)
        self._moving.saw(self.meter.bytes_read + written, now)
        if self._bytes is not None:
            self._left = self._remaining.saw(written, self._whole(), now)

    def rests(self, seconds: float) -> bool:
        """Whether no byte has moved for so long."""
        return self.clock() - self._moving.since >= seconds

    def waits(self) -> list[Wait]:
        """What is waited for, and what stands still without another reason."""
        waits = self.meter.waits.now()
        return waits + self.transfers.stalls(waits)

    def figures(self) -> list[str]:
        """What goes on and how far it is, and then what else is to be said, the most telling first."""
        title, done, total = self._progress()
        images = (" image" if total == 1 else " images") if total and title in _OF_IMAGES else ""
        figures = [f"{title} {done}/{total}{images}" if total else title]
        self.share = done / total if total else 0.0
        if self._phase in _PLANNING:
            counts = [(words, self.meter.counts[part]) for part, words in _PLANNING.items() if part != title]
            figures += [
                f"{words} {each.done}/{each.total}" for words, each in counts if each.done < each.total
            ]
        elif self._phase == "transfer" and self._bytes is not None:
            written, whole = self.meter.bytes_written, self._whole()
            self.share = written / whole if whole else 1.0
            figures += [f"{size_text(written)} of {size_text(whole)}", *self._speed(written < whole)]
        if self._workers is not None and self._phase == "transfer":
            figures.append(count_text(self._workers, "worker"))
        return figures

    def _whole(self) -> int:
        """The bytes to write in all: a refused mount moves some that no plan foresaw; manifests count too."""
        return max(self._bytes or 0, self.meter.bytes_written)

    def _speed(self, unfinished: bool) -> list[str]:
        if (still := self._moving.seconds(self.clock())) and unfinished:
            return [f"0 B/s for {span_text(int(still))}"]
        speed = [f"{size_text(int(self._rate.value))}/s"]
        return [*speed, f"{left_text(self._left)} left"] if self._left is not None and unfinished else speed

    def _progress(self) -> tuple[str, int, int]:
        """What is going on, and how much of it is done: the first part of planning that is not over, or
        else the phase."""
        for part in ("resolve", "survey"):
            count = self.meter.counts[part]
            if self._phase in _PLANNING and count.done < count.total:
                return part, count.done, count.total
        count = self.meter.counts[self._phase]
        if count.total:
            return self._phase, count.done, count.total
        return self._phase, self._done, self._images
