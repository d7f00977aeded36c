"""Rate limits: requests a second at a host, bytes a second there and of the whole run.

What was not used is hardly saved up, so that no burst follows a pause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from blobflow.content import Sleep
from blobflow.waits import HostWaits

# Seconds of an unused allowance that are not lost: timers come late by about a millisecond, and without this
# every such lateness would make the rate slower than the one set.
BURST_SECONDS = 0.1
# A limit makes every chunk wait; nobody is told of what is shorter than this (seconds).
TOLD_SECONDS = 0.5


class RateLimit:
    """At most `rate` units a second, evenly; it may be changed at any time. Sans-IO; `clock` in seconds."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self._clock = clock
        self._free_at = -math.inf

    def reserve(self, amount: float) -> float:
        """Seconds from now at which `amount` units, asked for in this order, may go."""
        now = self._clock()
        start = max(self._free_at, now - BURST_SECONDS)
        self._free_at = start + amount / self.rate
        return max(0.0, start - now)


class Throttle:
    """Waits until every one of some rate limits allows it. Where that takes long enough to be told it is
    among the `waits`."""

    def __init__(self, limits: Sequence[RateLimit], sleep: Sleep, waits: HostWaits | None = None) -> None:
        self._limits = limits
        self._sleep = sleep
        self._waits = waits or HostWaits()

    @property
    def rate(self) -> float:
        """The slowest one's."""
        return min(limit.rate for limit in self._limits)

    async def wait(self, amount: float) -> None:
        delay = max(limit.reserve(amount) for limit in self._limits)
        if delay >= TOLD_SECONDS:
            with self._waits.begin("rate", seconds=delay):
                await self._sleep(delay)
        elif delay > 0:
            await self._sleep(delay)


def throttle_of(
    limits: Sequence[RateLimit | None], sleep: Sleep, waits: HostWaits | None = None
) -> Throttle | None:
    """A throttle for the limits that are set; None if none is, so that what is not limited costs nothing."""
    given = [limit for limit in limits if limit is not None]
    return Throttle(given, sleep, waits) if given else None


def rate_limit_of(rate: float, clock: Callable[[], float]) -> RateLimit | None:
    """The limit of a rate; 0 is none."""
    return RateLimit(rate, clock) if rate > 0 else None
