"""The schedule: which ready steps start now. A pure function, called at every change.

Two lanes a host. Small requests (mounts, manifests, small blobs) have their own, so that they never queue
behind blobs that stream. Those have `limits.blobs` slots at each host, and a copy takes its source and target
slot in one decision, so runs can't deadlock: a copy whose blob the store already holds (or is just reading)
needs only the target's. Where copies to several targets wait for one source, no target takes more than its
share of the source's slots: one that has stopped answering keeps what it has, and must not have them all.

Half of a target's blob slots go to the largest blobs, so that a run does not end waiting for one of them; the
other half in the plan's order, so that images complete as the run goes. What is left in the end goes largest
first in all of them, so that they end together.
"""

from __future__ import annotations

import bisect
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard

import msgspec

from blobflow.content import is_small
from blobflow.engine.plan.steps import Copy, Step
from blobflow.oci import Digest

# So few waiting copies a slot are the end of a run.
AT_LAST = 2
# How many candidates of each order one decision looks at: it keeps a decision cheap however many steps are
# ready, and is more than the slots that registries take (8 to 32).
WINDOW = 64


def streams(step: Step) -> TypeGuard[Copy]:
    """Whether a step takes the slots of blobs."""
    return isinstance(step, Copy) and not is_small(step.blob)


class Limits(msgspec.Struct, frozen=True):
    """Steps under way at once at a host. `blobs`: copies; `small`: mounts, puts, copies of small blobs."""

    blobs: int = 8
    small: int = 16


class Waiting(msgspec.Struct, frozen=True):
    """A ready step as the schedule sees it. `warm`: the store has the blob, or is reading it now."""

    number: int
    target: str
    source: str = ""
    size: int = 0
    warm: bool = False


class Start(msgspec.Struct, frozen=True):
    """A step to start; `largest` says which half of the target's blob slots it takes."""

    number: int
    largest: bool = False


class SlotsInUse(msgspec.Struct):
    """Slots in use, by host."""

    reading: Counter[str] = msgspec.field(default_factory=Counter)
    writing: Counter[str] = msgspec.field(default_factory=Counter)
    largest: Counter[str] = msgspec.field(default_factory=Counter)
    small: Counter[str] = msgspec.field(default_factory=Counter)
    shares: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)

    def read(self, source: str, target: str, slots: int) -> None:
        """So many more slots of a source (fewer, if negative) are in use for a target."""
        self.reading[source] += slots
        self.shares[source, target] += slots


def _nobody_else(source: str) -> int:
    return 0


def schedule(
    small: Iterable[Waiting],
    by_size: Sequence[Waiting],
    by_order: Sequence[Waiting],
    flight: SlotsInUse,
    limits: Callable[[str], Limits],
    rivals: Callable[[str], int] = _nobody_else,
) -> list[Start]:
    """Decide what starts now at one target, which all of the waiting have; streams first, as the largest of
    them may be what a run is as long as.

    `rivals`: how many other targets have copies that wait for a slot of a source. `small` in plan order;
    `by_size` and `by_order` are the same copies, largest first and in plan order.
    """
    starts: list[Start] = []
    room = functools.cache(limits)
    taken: set[int] = set()
    reading, writing, largest = Counter(flight.reading), Counter(flight.writing), Counter(flight.largest)
    shares = Counter(flight.shares)

    def slot_at(copy: Waiting) -> bool:
        """Take a slot of the copy's source, if there is one for its target."""
        slots, mine = room(copy.source).blobs, (copy.source, copy.target)
        if reading[copy.source] >= slots or shares[mine] >= -(-slots // (1 + rivals(copy.source))):
            return False
        reading[copy.source] += 1
        shares[mine] += 1
        return True

    for candidates, big in ((by_size, True), (by_order, False)):
        for copy in candidates:
            slots = room(copy.target).blobs
            if writing[copy.target] >= slots:
                break
            if copy.number in taken:
                continue
            at_last = len(by_order) <= AT_LAST * slots
            if big and largest[copy.target] >= (slots if at_last else (slots + 1) // 2):
                break
            if not copy.warm and not slot_at(copy):
                continue
            writing[copy.target] += 1
            largest[copy.target] += big
            taken.add(copy.number)
            starts.append(Start(copy.number, big))
    small_used: Counter[str] = Counter()
    for step in small:
        if flight.small[step.target] + small_used[step.target] >= room(step.target).small:
            break
        small_used[step.target] += 1
        starts.append(Start(step.number))
    return starts


class Ready:
    """The ready steps of one target host, in the orders that the schedule wants. Plain state."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._small: list[int] = []
        self._copies: dict[int, Waiting] = {}
        self._warm: list[int] = []
        self._by_size: list[tuple[int, int]] = []
        self._by_order: list[int] = []
        self._by_digest: dict[Digest, set[int]] = {}
        self._cold: Counter[str] = Counter()

    def wants(self, source: str) -> bool:
        """Whether copies wait for a slot of that source."""
        return self._cold[source] > 0

    def add(self, number: int, step: Step, *, warm: bool = False) -> None:
        if not streams(step):
            bisect.insort(self._small, number)
            return
        self._by_digest.setdefault(step.blob.digest, set()).add(number)
        self._put(Waiting(number, self._host, step.source.registry, step.blob.size, warm))

    def _put(self, copy: Waiting) -> None:
        self._copies[copy.number] = copy
        if copy.warm:
            bisect.insort(self._warm, copy.number)
        else:
            self._cold[copy.source] += 1
            bisect.insort(self._by_size, (-copy.size, copy.number))
            bisect.insort(self._by_order, copy.number)

    def remove(self, number: int) -> None:
        copy = self._copies.pop(number, None)
        if copy is None:
            _discard(self._small, number)
            return
        self._cold[copy.source] -= not copy.warm
        _discard(self._warm, number)
        _discard(self._by_order, number)
        _discard(self._by_size, (-copy.size, number))

    def warmed(self, digest: Digest) -> None:
        """The store holds this blob now, or is reading it: its copies need no source slot."""
        for number in self._by_digest.get(digest, ()):
            if (copy := self._copies.get(number)) is not None:
                self.remove(number)
                self._put(msgspec.structs.replace(copy, warm=True))

    def candidates(self) -> tuple[list[Waiting], list[Waiting], list[Waiting]]:
        """What `schedule` takes: small steps, copies by size, copies by order; warm copies lead both."""
        copies = self._copies
        small = [Waiting(number, self._host) for number in self._small[:WINDOW]]
        warm = [copies[number] for number in self._warm[:WINDOW]]
        by_size = [copies[number] for _, number in self._by_size[:WINDOW]]
        by_order = [copies[number] for number in self._by_order[:WINDOW]]
        return small, warm + by_size, warm + by_order


def _discard(items: list[Any], item: Any) -> None:
    """Take `item` out of a sorted list, if it is there."""
    at = bisect.bisect_left(items, item)
    if at < len(items) and items[at] == item:
        del items[at]
