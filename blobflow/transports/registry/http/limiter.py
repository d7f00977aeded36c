"""The gate of one host: how much may be under way there at once, and how fast. Decided in sync, sans-IO code.

Concurrency. A window holds the requests in flight at the host, of whatever kind. It opens as answers come
while it is full, and closes by a factor when the host says 429 or 503 or goes silent: additive increase,
multiplicative decrease, within the limits that were set. The size that was refused last is remembered: up to
it the window opens quickly, beyond it slowly, so that a host with eight slots is asked for a ninth at once
only every few hundred requests.

Lanes. Reads and writes are streams of blobs, small requests have a lane of their own and one place in the
window that no stream may take, so that a HEAD never queues behind blobs. A stream of which only the answer
is still to come is a small request by then, so that the next one's bytes can go. Each lane may always have
one in flight, whatever the window: where lanes are entered in the order write, read, small, and nobody waits
for an earlier one while in a later, no two can wait for each other, and a window of one can't stop a run.

Pace. Requests and bytes a second are counted for the host, and bytes for the whole run as well. What was not
used is hardly saved up, so that no burst follows a pause.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType

import msgspec

from blobflow.content import Sleep

# Small requests at once to a host: a survey is some hundred HEADs, and on a long path this many of them in
# flight hide the round trips, while few enough connections are opened.
MAX_REQUESTS = 16
# A window that was refused right after it was known to be good is one too large: it closes by little, and
# stays near the limit. One that is refused before it was ever used whole is much too large.
SMALL_DECREASE = 0.85
LARGE_DECREASE = 0.5
# Answers, in windows full, that open the window by one: below the size that was refused last, and at it.
# 40 windows of 8 are some 320 requests for one 429: 0.3 %.
APPROACH = 2.0
PROBE = 40.0
# Seconds of an unused allowance that are not lost: timers come late by about a millisecond, and without this
# every such lateness would make the pace slower than the one set.
BURST_SECONDS = 0.1


class PermitKind(enum.Enum):
    """The lanes; in the order in which they are let in when there is room."""

    SMALL = "small"
    READ = "read"
    WRITE = "write"


class Capacity(msgspec.Struct, frozen=True):
    """What a host may be asked for now: `blobs` each way, and `small` requests, at once."""

    blobs: int
    small: int


class CongestionWindow:
    """The size of the window, as answers teach it. Sans-IO; times are seconds of any one clock."""

    def __init__(self, start: int, ceiling: int) -> None:
        self._exact = float(min(start, ceiling))
        self._ceiling = float(ceiling)
        self._refused = math.inf
        self._cut_at = -math.inf
        self._since_cut = 0

    @property
    def size(self) -> int:
        """Requests in flight at once; at least 1."""
        return int(self._exact)

    def answered(self, *, full: bool) -> None:
        """The host answered as a host that has time; `full`: the window was in use to its end."""
        self._since_cut += 1
        if full:
            self._exact = min(self._ceiling, self._exact + self._step())
        if self._exact >= self._refused + 1:
            self._refused = math.inf  # it takes more than it did

    def congested(self, sent: float, now: float) -> None:
        """The host has too much to do. What was `sent` before the last decrease says nothing about it."""
        if sent <= self._cut_at:
            return
        probed = self._since_cut >= self._exact
        if probed or self._refused == math.inf:
            self._refused = self._exact
        self._exact = max(1.0, self._exact * (SMALL_DECREASE if probed else LARGE_DECREASE))
        self._cut_at = now
        self._since_cut = 0

    def _step(self) -> float:
        if self._cut_at == -math.inf:
            return 1.0  # never refused: twice as many with every window
        slowness = APPROACH if self._exact < self._refused - 1 or self._refused == math.inf else PROBE
        return 1.0 / (slowness * self._exact)


class HostLimiter:
    """The lanes of one host. Used from one event loop.

    `connections` bounds the blobs each way, and twice as much all requests. `clock` in seconds.
    """

    def __init__(self, connections: int, clock: Callable[[], float]) -> None:
        self._connections = connections
        self._clock = clock
        ceiling = 2 * connections
        # One more than the blobs, so that all of them can start at once where nothing is known yet.
        self.window = CongestionWindow(connections + 1, ceiling)
        self._most = {
            PermitKind.SMALL: min(MAX_REQUESTS, ceiling),
            PermitKind.READ: connections,
            PermitKind.WRITE: connections,
        }
        self._used = dict.fromkeys(PermitKind, 0)
        self._waiting: dict[PermitKind, deque[asyncio.Future[None]]] = {kind: deque() for kind in PermitKind}
        self.small, self.reads, self.writes = (PermitPool(self, kind) for kind in PermitKind)

    @property
    def room(self) -> Capacity:
        """The limits now in force."""
        size = self.window.size
        return Capacity(
            blobs=max(1, min(self._connections, size - 1)), small=min(self._most[PermitKind.SMALL], size)
        )

    @property
    def in_flight(self) -> int:
        return sum(self._used.values())

    def admits(self, kind: PermitKind) -> bool:
        """Whether one more may enter this lane now."""
        used = self._used[kind]
        if not used:
            return True
        size = self.window.size
        if used >= self._most[kind] or self.in_flight >= size:
            return False
        if kind is PermitKind.SMALL:
            return True
        if self._used[PermitKind.READ] + self._used[PermitKind.WRITE] >= size - 1:
            return False
        # A copy within the host needs one place each way: writes that wait for reads must not take them all.
        other = PermitKind.WRITE if kind is PermitKind.READ else PermitKind.READ
        return used < (size + 1) // 2 or not self._waiting[other]

    def answered(self) -> None:
        """The host answered a request, in whatever way but those that say that it has too much to do."""
        self.window.answered(full=self.in_flight >= self.window.size - 1)
        self._let_in()

    def congested(self, sent: float) -> None:
        """A request `sent` then was answered by 429 or 503, or by nothing."""
        self.window.congested(sent, self._clock())

    async def enter(self, kind: PermitKind) -> None:
        """Return when there is room; first come, first served within a lane."""
        if not self._waiting[kind] and self.admits(kind):
            self._used[kind] += 1
            return
        permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[kind].append(permit)
        try:
            await permit
        except asyncio.CancelledError:
            if permit.cancelled():
                with suppress(ValueError):
                    self._waiting[kind].remove(permit)
                self._let_in()
            else:
                self.leave(kind)  # let in and cancelled at the same moment
            raise

    def leave(self, kind: PermitKind) -> None:
        self._used[kind] -= 1
        self._let_in()

    def downgrade(self, kind: PermitKind) -> PermitKind:
        """The lane of a stream of which only the answer is to come: that of small requests, unless half as
        many are under way there as there may be streams. So these have a part of the window, however long a
        host takes to answer; and where streams are to come one by one, they do."""
        if self._used[PermitKind.SMALL] >= self.room.blobs // 2:
            return kind
        self._used[PermitKind.SMALL] += 1
        self.leave(kind)
        return PermitKind.SMALL

    def _let_in(self) -> None:
        for kind in PermitKind:
            waiting = self._waiting[kind]
            while waiting and self.admits(kind):
                permit = waiting.popleft()
                if not permit.cancelled():
                    self._used[kind] += 1
                    permit.set_result(None)


class Permit:
    """A place in a lane, held until it is left."""

    def __init__(self, limiter: HostLimiter, kind: PermitKind) -> None:
        self._limiter = limiter
        self._kind: PermitKind | None = kind

    def downgrade(self) -> None:
        """The last byte of the stream has gone: what remains is an answer, as to a small request. So a stream
        can follow while the host commits this one."""
        if self._kind not in (None, PermitKind.SMALL):
            self._kind = self._limiter.downgrade(self._kind)

    def leave(self) -> None:
        """Nothing more is to come. Does nothing the second time."""
        if self._kind is not None:
            self._limiter.leave(self._kind)
            self._kind = None


class PermitPool:
    """A way in: `async with lane:` holds one place. Reusable, by any number of tasks at once."""

    def __init__(self, limiter: HostLimiter, kind: PermitKind) -> None:
        self._limiter = limiter
        self._kind = kind

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[Permit]:
        """One place, that may be left before the context is."""
        await self._limiter.enter(self._kind)
        permit = Permit(self._limiter, self._kind)
        try:
            yield permit
        finally:
            permit.leave()

    async def __aenter__(self) -> None:
        await self._limiter.enter(self._kind)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limiter.leave(self._kind)


class RateLimit:
    """At most `rate` units a second, evenly. Sans-IO; `clock` in seconds."""

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
    """Waits until every one of some paces allows it. `rate`: the slowest one's."""

    def __init__(self, rate_limits: Sequence[RateLimit], sleep: Sleep) -> None:
        self._rate_limits = rate_limits
        self._sleep = sleep
        self.rate = min(rate_limit.rate for rate_limit in rate_limits)

    async def wait(self, amount: float) -> None:
        delay = max(rate_limit.reserve(amount) for rate_limit in self._rate_limits)
        if delay > 0:
            await self._sleep(delay)


def throttle_of(rate_limits: Sequence[RateLimit | None], sleep: Sleep) -> Throttle | None:
    """A brake for those paces that are; None if there are none, so that what is not limited costs nothing."""
    given = [rate_limit for rate_limit in rate_limits if rate_limit is not None]
    return Throttle(given, sleep) if given else None


def rate_limit_of(rate: float, clock: Callable[[], float]) -> RateLimit | None:
    """The pace of a rate; 0 is no limit."""
    return RateLimit(rate, clock) if rate > 0 else None
