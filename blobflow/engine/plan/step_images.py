"""For which image a step is done, for those who watch a run. Pure."""

from __future__ import annotations

from array import array

from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Plan

_NONE = -1


class StepImages:
    """The image of each step: that of a goal which needs it. Of a blob that several images share it is the
    one whose manifest is put last."""

    def __init__(self) -> None:
        self._pairs: list[Pair] = []
        self._of = array("l")

    def add(self, part: Plan) -> None:
        """Take in the next part of a plan, whose steps are numbered after those before."""
        first = len(self._of)
        of = array("l", [_NONE]) * len(part.steps)
        for goal in part.goals:
            for number in goal.steps:
                of[number - first] = len(self._pairs)
            self._pairs.append(goal.pair)
        for step in reversed(range(len(of))):  # needs point backwards
            for need in part.needs[step] if of[step] != _NONE else ():
                if of[need.step - first] == _NONE:
                    of[need.step - first] = of[step]
        self._of += of

    def source(self, step: int) -> str:
        """The source of the image that a step is for; "" if none is known, as for a step beyond the plan."""
        pair = self._of[step] if 0 <= step < len(self._of) else _NONE
        return "" if pair == _NONE else str(self._pairs[pair].source)
