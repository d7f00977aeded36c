"""Back-off after failed logins: pauses that grow with failures. Pure but for its clock.

A `key` is an address, or an address and a name. Each key has moments, one after the other, and `reserve`
hands out the next: at once where nothing failed lately, and further and further apart the more did, up to a
limit. A moment is handed out when something arrives, before anybody knows how it ends, so that it tells
nothing of how it ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

# Seconds without a failure after which a key is as good as new.
FORGET_SECONDS = 600.0
# Keys that are remembered: the least recently used go first.
KEYS = 16_384
# More failures than these make the pause no longer.
_MOST_FAILURES = 20


class _Schedule:
    __slots__ = ("failed_at", "failures", "next")

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.failed_at = now
        self.next = now


class FailureBackoff:
    """The pauses of many keys. All times in seconds.

    Between two moments of a key there are `least`, and with the n-th failure `least + first * (2**n - 1)`,
    but no more than `most`. Nothing is reserved further than `wait` ahead.
    """

    def __init__(
        self, *, least: float, first: float, most: float, wait: float, clock: Callable[[], float]
    ) -> None:
        self._least = least
        self._first = first
        self._most = most
        self._wait = wait
        self._clock = clock
        self._schedules: OrderedDict[Hashable, _Schedule] = OrderedDict()

    def __len__(self) -> int:
        return len(self._schedules)

    def reserve(self, key: Hashable) -> float | None:
        """Seconds until this key's next moment, which is taken now. None if it is too far ahead; then it is
        not taken."""
        schedule, now = self._schedule(key), self._clock()
        moment = max(now, schedule.next)
        if moment - now > self._wait:
            return None
        pause = self._least + self._first * (2 ** min(schedule.failures, _MOST_FAILURES) - 1)
        schedule.next = moment + min(pause, self._most)
        return moment - now

    def ahead(self, key: Hashable) -> float:
        """Seconds until this key's next moment, which stays free."""
        return max(0.0, self._schedule(key).next - self._clock())

    def has_failed(self, key: Hashable) -> bool:
        """Whether anything failed lately."""
        return self._schedule(key).failures > 0

    def fail(self, key: Hashable) -> None:
        schedule = self._schedule(key)
        schedule.failures += 1
        schedule.failed_at = self._clock()

    def reset(self, key: Hashable) -> None:
        """Make the key as good as new."""
        self._schedules.pop(key, None)

    def _schedule(self, key: Hashable) -> _Schedule:
        now = self._clock()
        schedule = self._schedules.get(key)
        if schedule is None or (now - schedule.failed_at > FORGET_SECONDS and schedule.next <= now):
            schedule = self._schedules[key] = _Schedule(now)
        self._schedules.move_to_end(key)
        while len(self._schedules) > KEYS:
            self._schedules.popitem(last=False)
        return schedule
