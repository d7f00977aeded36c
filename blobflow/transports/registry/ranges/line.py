"""Whether a line is worth several ranges at once: judged by what is seen of one connection. Sans-IO.

What counts is that the reader waits for bytes while this process has time to spare: then source and line are
the bottleneck, and neither the target nor this machine. A near line is not worth it, however its reader
waits: a connection that brings more than FASTEST is as fast as several would be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_SCHEDSTAT = Path("/proc/self/schedstat")
# Seconds that are looked at, one after the other, until the line is worth it. TCP's slow start is over in the
# first of them at a round trip of up to 50 ms.
SEEN_SECONDS = 0.5
# The same at a host of which it is known that more ranges bring more; and after the first time at one that is
# known to be far.
PROVEN_SECONDS = 0.15
# The least part of the time that the reader waits, and the most that this process computes or waits for a
# CPU: with both, at least twice as much could be taken. On a machine whose CPUs are busy, with the source
# maybe, a reader waits as much as over a far line.
WAITED = 0.8
BUSY = 0.5
# Bytes a second that one connection of a far line does not carry; 1 GB costs more than a CPU second here.
FASTEST = 200e6
# Seconds that what remains would take.
LEFT_SECONDS = 1.0
# Of a rate limit: who reads at this part of it is held back by the limit.
LIMITED = 0.7


class Seen(msgspec.Struct, frozen=True):
    """What was seen of a connection in some `seconds`: for how many of them its reader `waited`, the `cpu`
    seconds of this process (`busy_seconds`), the bytes that were `received`."""

    seconds: float
    waited: float
    cpu: float
    received: int

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.received / self.seconds if self.seconds > 0 else 0.0


def is_worth_ranges(seen: Seen, left: int) -> bool:
    """Whether `left` bytes are to be read by ranges, after what was seen."""
    if not seen.received or seen.rate > FASTEST or left < LEFT_SECONDS * seen.rate:
        return False
    return seen.waited >= WAITED * seen.seconds and seen.cpu <= BUSY * seen.seconds


def busy_seconds() -> float:
    """The CPU seconds of this process, and those in which it waited for a CPU, as far as the system tells
    (Linux: run-queue time of the main thread, in nanoseconds; Documentation/scheduler/sched-stats)."""
    try:
        waited = int(_SCHEDSTAT.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        waited = 0
    return time.process_time() + waited / 1e9


class LineObserver:
    """Looks at one connection, for `seconds` each time. `clock` and `cpu` in seconds."""

    def __init__(
        self, clock: Callable[[], float], seconds: float, cpu: Callable[[], float] = busy_seconds
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self.seconds = seconds
        self._begin(clock())

    def _begin(self, now: float) -> None:
        self._since, self._cpu_since = now, self._cpu()
        self._waited, self._received = 0.0, 0

    def saw(self, waited: float, size: int, now: float) -> Seen | None:
        """Count `size` bytes that were waited for so long; what was seen, each time that it is enough."""
        self._waited += waited
        self._received += size
        if now - self._since < self.seconds:
            return None
        seen = Seen(now - self._since, self._waited, self._cpu() - self._cpu_since, self._received)
        self._begin(now)
        return seen
