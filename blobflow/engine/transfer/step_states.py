"""The states of steps: which can run now, as results come in. Sans-IO; `runner` asks it and reports to it.

A step goes waiting → ready → running → done, failed or skipped. The rules, all of them here:

- a step is ready when each earlier step that it needs "succeeded" or "unless replaced" is done, and each that
  it needs "finished" or "after" has ended;
- a failed or skipped step skips its dependents, except those that need it only finished, and says because of
  which step; so does a Put that fell back with the dependents that need it unless replaced: referrers of
  what was not put are skipped;
- a refused mount becomes a copy at once;
- when a home fails, the first mount that waited for it becomes a copy, and the others now mount from there.
  If the home failed because the *source* could not provide the blob, they fail with it: a copy elsewhere
  would read the same source again. They also fail where there is no connection to their registry: all of
  them would wait for it, one after the other.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from blobflow.engine.plan.steps import Copy, Mount, NeedKind, Plan, Step
from blobflow.errors import BlobflowError, ConnectFailed, without_frames


class StepState(enum.Enum):
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


_ENDED = (StepState.DONE, StepState.FAILED, StepState.SKIPPED)


class StepStates:
    """The state of every step of one plan. Steps are known by their number in the plan.

    `winding_down`: nothing is started any more, or retried.
    """

    def __init__(self, plan: Plan) -> None:
        self._steps: list[Step] = []
        self.states: list[StepState] = []
        self.errors: dict[int, BlobflowError] = {}
        self.because: dict[int, int] = {}
        self.fell_back: set[int] = set()
        self._blocked: list[int] = []
        self._dependents: list[list[tuple[int, NeedKind]]] = []
        self._open = 0
        self._fresh: list[int] = []
        self._ended: list[int] = []
        self.winding_down = False
        self.add(plan)

    def add(self, part: Plan) -> None:
        """Add a part of the plan whose steps are numbered after the present ones. It needs only steps of its
        own. None of it is started once the rest is skipped."""
        first = len(self._steps)
        self._steps += part.steps
        self.states += [StepState.WAITING] * len(part.steps)
        self._blocked += [len(needs) for needs in part.needs]
        self._dependents += [[] for _ in part.steps]
        self._open += len(part.steps)
        for number, needs in enumerate(part.needs, first):
            for need in needs:
                self._dependents[need.step].append((number, need.kind))
            if not needs:
                self._make_ready(number)
        if self.winding_down:
            self.skip_rest()

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self._steps)

    @property
    def finished(self) -> bool:
        return not self._open

    def step(self, number: int) -> Step:
        """The step in its present form: a refused mount is a copy."""
        return self._steps[number]

    def newly_ready(self) -> Sequence[int]:
        """Steps that became ready since the last call, each returned once."""
        fresh, self._fresh = self._fresh, []
        return [number for number in fresh if self.states[number] is StepState.READY]

    def newly_ended(self) -> Sequence[int]:
        """Steps that were done, failed or skipped since the last call, each returned once."""
        ended, self._ended = self._ended, []
        return ended

    def over(self, number: int) -> bool:
        return self.states[number] in _ENDED

    def start(self, number: int) -> None:
        assert self.states[number] is StepState.READY
        self.states[number] = StepState.RUNNING

    def done(self, number: int, *, fell_back: bool = False) -> None:
        """`fell_back`: the fallback of a Put is what the target took."""
        if fell_back:
            self.fell_back.add(number)
        self._end(number, StepState.DONE)
        for dependent, kind in self._dependents[number]:
            if fell_back and kind == NeedKind.UNLESS_REPLACED:
                self._skip(dependent, number)
            else:
                self._unblock(dependent)

    def refused(self, number: int) -> None:
        """The registry refused the mount: the same step, now a copy, is ready again; or skipped, if nothing
        new may start."""
        self._become_copy(number)
        if self.winding_down:
            self._end(number, StepState.SKIPPED)
        else:
            self._make_ready(number)

    def failed(self, number: int, error: BlobflowError) -> None:
        self.errors[number] = without_frames(error)
        self._end(number, StepState.FAILED)
        orphans: list[int] = []
        for dependent, kind in self._dependents[number]:
            if kind == NeedKind.AFTER:
                self._unblock(dependent)
            elif kind != NeedKind.FINISHED:
                self._skip(dependent, number)
            elif self.states[dependent] is StepState.WAITING:
                orphans.append(dependent)
        if error.side == "source" or isinstance(error, ConnectFailed):
            for orphan in orphans:
                self.failed(orphan, error)
        elif orphans:
            self._move_home(orphans)

    def skip_rest(self) -> None:
        """Start nothing more, now or later: the run ends at its first failure, or is winding down."""
        self.winding_down = True
        for number, state in enumerate(self.states):
            if state in (StepState.WAITING, StepState.READY):
                self._end(number, StepState.SKIPPED)

    def root_cause(self, number: int) -> BlobflowError | None:
        """The error because of which a step failed or was skipped; None if it was skipped by choice."""
        while number in self.because:
            number = self.because[number]
        return self.errors.get(number)

    def left(self, number: int) -> bool:
        """Whether a step was skipped because the subject of its referrer was not put."""
        skipped = self.states[number] is StepState.SKIPPED
        while number in self.because:
            number = self.because[number]
        return skipped and number in self.fell_back

    def _move_home(self, orphans: Sequence[int]) -> None:
        heir = min(orphans)
        self._become_copy(heir)
        home = self._steps[heir].target
        for orphan in sorted(orphans):
            if orphan != heir:
                step = self._steps[orphan]
                assert isinstance(step, Mount)
                self._steps[orphan] = Mount(step.blob, home, step.target, step.source)
                self._dependents[heir].append((orphan, NeedKind.FINISHED))
        self._unblock(heir)

    def _become_copy(self, number: int) -> None:
        step = self._steps[number]
        assert isinstance(step, Mount)
        self._steps[number] = Copy(step.blob, step.source, step.target)

    def _skip(self, number: int, because: int) -> None:
        if self.states[number] in _ENDED:
            return
        self.because[number] = because
        self._end(number, StepState.SKIPPED)
        for dependent, kind in self._dependents[number]:
            if kind == NeedKind.AFTER:
                self._unblock(dependent)
            elif kind != NeedKind.FINISHED:
                self._skip(dependent, number)

    def _unblock(self, number: int) -> None:
        self._blocked[number] -= 1
        if not self._blocked[number] and self.states[number] is StepState.WAITING:
            self._make_ready(number)

    def _make_ready(self, number: int) -> None:
        self.states[number] = StepState.READY
        self._fresh.append(number)

    def _end(self, number: int, state: StepState) -> None:
        self.states[number] = state
        self._open -= 1
        self._ended.append(number)
