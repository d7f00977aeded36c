"""Pauses that grow with failures. Pure but for its clock.

Who is kept apart is a `key` (an address, or an address and a name). Each key has moments, one after the
other, and `reserve` hands out the next: at once where nothing failed lately, later and later apart the more
did, up to a limit. Moments are handed out when something arrives, before it is known how it ends, so that
they tell nothing of how it ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

# Seconds without a failure after which a key is as good as new.
FORGET_SECONDS = 600.0
# Keys that are remembered: those that were not seen for longest go first.
KEYS = 16_384
# More failures than these make no longer pause.
_MOST_FAILURES = 20


class _Pace:
    __slots__ = ("failed_at", "failures", "next")

    def __init__(self, now: float) -> None:
        self.failures = 0
        self.failed_at = now
        self.next = now


class FailureBackoff:
    """The paces of many keys. All times in seconds.

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
        self._paces: OrderedDict[Hashable, _Pace] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paces)

    def reserve(self, key: Hashable) -> float | None:
        """Seconds until this key's next moment, which is taken now. None: it is too far ahead, and not
        taken."""
        pace, now = self._pace(key), self._clock()
        moment = max(now, pace.next)
        if moment - now > self._wait:
            return None
        pause = self._least + self._first * (2 ** min(pace.failures, _MOST_FAILURES) - 1)
        pace.next = moment + min(pause, self._most)
        return moment - now

    def ahead(self, key: Hashable) -> float:
        """Seconds until this key's next moment; it is not taken."""
        return max(0.0, self._pace(key).next - self._clock())

    def has_failed(self, key: Hashable) -> bool:
        """Whether anything failed lately."""
        return self._pace(key).failures > 0

    def fail(self, key: Hashable) -> None:
        pace = self._pace(key)
        pace.failures += 1
        pace.failed_at = self._clock()

    def forgive(self, key: Hashable) -> None:
        """Let the key be as good as new."""
        self._paces.pop(key, None)

    def _pace(self, key: Hashable) -> _Pace:
        now = self._clock()
        pace = self._paces.get(key)
        if pace is None or (now - pace.failed_at > FORGET_SECONDS and pace.next <= now):
            pace = self._paces[key] = _Pace(now)
        self._paces.move_to_end(key)
        while len(self._paces) > KEYS:
            self._paces.popitem(last=False)
        return pace
