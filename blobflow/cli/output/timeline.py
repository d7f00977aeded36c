"""The timeline of a run: an observer that records when each step began and ended, and passes all events
on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from blobflow.cli.output.event_text import registry_of
from blobflow.engine.plan.steps import Need
from blobflow.events import Event, Observer, PhaseStarted, RangeRead, StepDone, StepFailed, StepStarted

# Ranges of 8 MiB that are remembered: 80 GB of them.
MAX_RANGES = 10_000
# refused: a mount that the registry would not do; the step then went on as a copy, in a span of its own.
# cut: the run ended before, or the worker did, and another one began anew.
SpanEnd = Literal["done", "failed", "refused", "cut"]


class StepSpan(msgspec.Struct, frozen=True):
    """One step, or one go at it. `ready`, `began` and `ended` in seconds since the run began.

    `ready`: when all that it needs had ended; from then to `began` it waited for a slot at its hosts.
    `waited_for`: the step that ended last of those that it needs; None: it needs none. `worker`: who did it,
    if not the run's own process.
    """

    step: int
    kind: str
    digest: str
    target: str
    size: int
    ready: float
    began: float
    ended: float
    end: SpanEnd
    error: str = ""
    waited_for: int | None = None
    worker: str = ""

    @property
    def registry(self) -> str:
        """The registry that it was done at; a layout or archive as it is."""
        return registry_of(self.target)


class RangeSpan(msgspec.Struct, frozen=True):
    """A range of a blob that was read beside others, in the blob's `lane` (from 1). `began` and `ended` in
    seconds since the run began."""

    host: str
    digest: str
    lane: int
    offset: int
    size: int
    began: float
    ended: float


class _Attempt(msgspec.Struct):
    """A go at a step, as it is seen so far."""

    event: StepStarted
    began: float
    ended: float | None = None
    end: SpanEnd = "cut"
    error: str = ""


class Timeline:
    """Give it to a run as its observer. `clock` in seconds."""

    def __init__(self, pass_on: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._pass_on = pass_on
        self._clock = clock
        self._start = clock()
        self._transfer = 0.0
        self._goes: list[_Attempt] = []
        self._open: dict[int, _Attempt] = {}
        self._ranges: list[RangeSpan] = []

    def __call__(self, event: Event, /) -> None:
        now = self._clock() - self._start
        match event:
            case PhaseStarted(phase="transfer"):
                self._transfer = now
            case StepStarted():
                before = self._open.get(event.step)
                again = before is not None and before.event.kind == event.kind
                self._close(event.step, now, "cut" if again else "refused")
                self._open[event.step] = go = _Attempt(event, now)
                self._goes.append(go)
            case StepDone():
                self._close(event.step, now, "done")
            case StepFailed():
                self._close(event.step, now, "failed", event.error)
            case RangeRead() if len(self._ranges) < MAX_RANGES:
                where = event.host, event.digest, event.lane, event.offset, event.size
                self._ranges.append(RangeSpan(*where, now - event.seconds, now))
        self._pass_on(event)

    def _close(self, step: int, now: float, end: SpanEnd, error: str = "") -> None:
        if (go := self._open.pop(step, None)) is not None:
            go.ended, go.end, go.error = now, end, error

    @property
    def ranges(self) -> Sequence[RangeSpan]:
        """The ranges that were read so far, the first MAX_RANGES of them."""
        return self._ranges

    def spans(self, needs: Sequence[Sequence[Need]] = ()) -> list[StepSpan]:
        """What happened so far, in the order in which it began. `needs`: of each step, as planned."""
        now = self._clock() - self._start
        over = {go.event.step: now if go.ended is None else go.ended for go in self._goes}
        spans: list[StepSpan] = []
        tried: set[int] = set()
        for go in self._goes:
            event = go.event
            needed = [need.step for need in needs[event.step]] if event.step < len(needs) else []
            last = max((step for step in needed if step in over), key=over.__getitem__, default=None)
            ready = self._transfer if last is None else max(self._transfer, over[last])
            again = event.step in tried  # a refused mount: what it needs was long there
            tried.add(event.step)
            spans.append(
                StepSpan(
                    event.step,
                    event.kind,
                    event.digest,
                    event.target,
                    event.size,
                    go.began if again else min(ready, go.began),
                    go.began,
                    now if go.ended is None else go.ended,
                    go.end,
                    go.error,
                    last,
                    event.worker,
                )
            )
        return spans
