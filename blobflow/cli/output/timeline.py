"""The timeline of a run: an observer that records when each step began and ended, and passes all events
on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from blobflow.engine.plan.steps import Need
from blobflow.events import Event, Observer, PhaseStarted, StepDone, StepFailed, StepStarted
from blobflow.oci.local_reference import transport_of

# refused: a mount that the registry would not do; the step then went on as a copy, in a span of its own.
# cut: the run ended before.
SpanEnd = Literal["done", "failed", "refused", "cut"]


class StepSpan(msgspec.Struct, frozen=True):
    """One step, or one go at it. `ready`, `began` and `ended` in seconds since the run began.

    `ready`: when all that it needs had ended; from then to `began` it waited for a slot at its hosts.
    `waited_for`: the step that ended last of those that it needs; None: it needs none.
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

    @property
    def registry(self) -> str:
        """The registry that it was done at; a layout or archive as it is."""
        return self.target if transport_of(self.target) else self.target.partition("/")[0]


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

    def __call__(self, event: Event, /) -> None:
        now = self._clock() - self._start
        match event:
            case PhaseStarted(phase="transfer"):
                self._transfer = now
            case StepStarted():
                self._close(event.step, now, "refused")
                self._open[event.step] = go = _Attempt(event, now)
                self._goes.append(go)
            case StepDone():
                self._close(event.step, now, "done")
            case StepFailed():
                self._close(event.step, now, "failed", event.error)
        self._pass_on(event)

    def _close(self, step: int, now: float, end: SpanEnd, error: str = "") -> None:
        if (go := self._open.pop(step, None)) is not None:
            go.ended, go.end, go.error = now, end, error

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
                )
            )
        return spans
