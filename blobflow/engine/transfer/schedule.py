"""The schedule: which ready steps start now, at one target. Synchronous, and called at every change.

It asks the limiters of the hosts for all permits of a step in one go, so runs can't deadlock: one at the
target, and one at the source unless the store has the blob or is just reading it. Small requests (mounts,
manifests, small blobs) have permits of their own, so that they never queue behind blobs that stream. Where
copies to several targets wait for one source, no target takes more than its share of the source's permits:
one that has stopped answering keeps the permits that it holds, and must not hold them all.

Half of a target's streams are the largest blobs, so that a run does not end waiting for one of them; the
other half go in the plan's order, so that images complete as the run goes. In the end all streams take the
largest remaining blob first, so that they end together.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeGuard

import msgspec

from blobflow.content import is_small
from blobflow.engine.plan.steps import Copy, Step
from blobflow.oci import Digest
from blobflow.permits import Limiter, Permit, PermitKind, try_acquire_all

# With so few waiting copies a stream, the run is near its end.
AT_LAST = 2
# How many candidates of each order one decision looks at: it keeps a decision cheap however many steps are
# ready, and is more than the streams that registries take (8 to 32).
WINDOW = 64

# A kind of permit, and the limiter that grants it.
Need = tuple[Limiter, PermitKind]
Acquire = Callable[[Sequence[Need]], list[Permit] | None]


def streams(step: Step) -> TypeGuard[Copy]:
    """Whether a step moves a blob that streams."""
    return isinstance(step, Copy) and not is_small(step.blob)


def needs_of(target: Limiter, source: Limiter | None, *, small: bool) -> tuple[Need, ...]:
    """The permits with which a step begins. `source`: None if it reads nothing there.

    A small blob that is copied within a host is read as a stream is: it can't wait for a second small request
    where there may be only one.
    """
    here = PermitKind.REQUEST if small else PermitKind.WRITE
    if source is None:
        return ((target, here),)
    there = PermitKind.REQUEST if small and source is not target else PermitKind.READ
    return (target, here), (source, there)


class Waiting(msgspec.Struct, frozen=True):
    """A ready step as the schedule sees it. `source`: the host of a copy's blob. `warm`: the store has the
    blob, or is reading it now."""

    number: int
    target: str
    source: str = ""
    size: int = 0
    warm: bool = False

    @property
    def reads(self) -> bool:
        """Whether it needs a permit at its source."""
        return bool(self.source) and not self.warm


class Start(msgspec.Struct, frozen=True):
    """A step to start; `largest` says that it is one of the target's largest half."""

    number: int
    largest: bool = False


class InUse(msgspec.Struct):
    """What is in use: streams of the largest half at the target, and permits held at sources, by source and
    target."""

    largest: int = 0
    shares: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)


class Candidates(NamedTuple):
    """`small` steps in plan order; `by_size` and `by_order` are the same copies, largest first and in plan
    order."""

    small: Sequence[Waiting]
    by_size: Sequence[Waiting]
    by_order: Sequence[Waiting]


class Granted(NamedTuple):
    """The permits with which a step starts, and the needs that they meet."""

    needs: tuple[Need, ...]
    permits: list[Permit]


def _nobody_else(source: str) -> int:
    return 0


def schedule(
    candidates: Candidates,
    in_use: InUse,
    target: Limiter,
    source_at: Callable[[str], Limiter],
    rivals: Callable[[str], int] = _nobody_else,
    acquire: Acquire = try_acquire_all,
) -> dict[Start, Granted]:
    """Decide what starts now at one target, which all candidates share; streams first, since the largest of
    them may determine how long the run takes.

    `rivals`: how many other targets have copies that wait for a permit at a source.
    """
    starts: dict[Start, Granted] = {}
    taken: set[int] = set()
    largest, shares = in_use.largest, Counter(in_use.shares)

    def start(step: Waiting, *, small: bool, large: bool = False) -> bool:
        source = source_at(step.source) if step.reads else None
        needs = needs_of(target, source, small=small)
        mine = step.source, step.target
        if source is not None:
            share = -(-source.limit(needs[1][1]) // (1 + rivals(step.source)))
            if shares[mine] >= share:
                return False
        permits = acquire(needs)
        if permits is None:
            return False
        shares[mine] += source is not None
        taken.add(step.number)
        starts[Start(step.number, large)] = Granted(needs, permits)
        return True

    for copies, large in ((candidates.by_size, True), (candidates.by_order, False)):
        for copy in copies:
            if not target.admits(PermitKind.WRITE):
                break
            if copy.number in taken:
                continue
            slots = target.limit(PermitKind.WRITE)
            at_last = len(candidates.by_order) <= AT_LAST * slots
            if large and largest >= (slots if at_last else (slots + 1) // 2):
                break
            largest += start(copy, small=False, large=large) and large
    for step in candidates.small:
        if not target.admits(PermitKind.REQUEST):
            break
        start(step, small=True)
    return starts


class Ready:
    """The ready steps of one target host, in the orders that the schedule wants. Plain state."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._steps: dict[int, Waiting] = {}
        self._small: dict[bool, list[int]] = {True: [], False: []}  # by whether they read at a source
        self._warm: list[int] = []
        self._by_size: list[tuple[int, int]] = []
        self._by_order: list[int] = []
        self._streams: set[int] = set()
        self._by_digest: dict[Digest, set[int]] = {}
        self._cold: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._steps)

    def wants(self, source: str) -> bool:
        """Whether copies wait for a permit at that source."""
        return self._cold[source] > 0

    def add(self, number: int, step: Step, *, warm: bool = False) -> None:
        if not isinstance(step, Copy):
            self._put(Waiting(number, self._host))
            return
        self._by_digest.setdefault(step.blob.digest, set()).add(number)
        if streams(step):
            self._streams.add(number)
        self._put(Waiting(number, self._host, step.source.registry, step.blob.size, warm))

    def _put(self, step: Waiting) -> None:
        self._steps[step.number] = step
        self._cold[step.source] += step.reads
        if step.number not in self._streams:
            bisect.insort(self._small[step.reads], step.number)
        elif step.warm:
            bisect.insort(self._warm, step.number)
        else:
            bisect.insort(self._by_size, (-step.size, step.number))
            bisect.insort(self._by_order, step.number)

    def remove(self, number: int, digest: Digest | None = None) -> None:
        """Take out a step that starts, or is not to; of a copy's `digest`."""
        self._take(number)
        self._streams.discard(number)
        if digest is not None and (others := self._by_digest.get(digest)) is not None:
            others.discard(number)
            if not others:
                del self._by_digest[digest]

    def _take(self, number: int) -> None:
        step = self._steps.pop(number, None)
        if step is None:
            return
        self._cold[step.source] -= step.reads
        _discard(self._small[step.reads], number)
        _discard(self._warm, number)
        _discard(self._by_order, number)
        _discard(self._by_size, (-step.size, number))

    def warmed(self, digest: Digest) -> None:
        """Note that the store has this blob now, or is reading it: its copies need no permit for the
        source."""
        for number in self._by_digest.get(digest, ()):
            if (step := self._steps.get(number)) is not None:
                self._take(number)
                self._put(msgspec.structs.replace(step, warm=True))

    def candidates(self) -> Candidates:
        """The candidates for `schedule`: warm copies lead both orders, and small steps that wait for a full
        source hide none that don't."""
        steps = self._steps
        small = sorted(chain.from_iterable(numbers[:WINDOW] for numbers in self._small.values()))
        warm = [steps[number] for number in self._warm[:WINDOW]]
        by_size = [steps[number] for _, number in self._by_size[:WINDOW]]
        by_order = [steps[number] for number in self._by_order[:WINDOW]]
        return Candidates([steps[number] for number in small], warm + by_size, warm + by_order)


def _discard(items: list[Any], item: Any) -> None:
    """Take `item` out of a sorted list, if it is there."""
    at = bisect.bisect_left(items, item)
    if at < len(items) and items[at] == item:
        del items[at]
