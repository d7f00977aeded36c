"""The limiter of one host: how many requests may be in flight there. Synchronous decisions.

Concurrency. A window holds the requests in flight at the host, of whatever kind; answers open and close it,
within the limits that were set (`congestion_window`).

Distance. How many small requests there may be grows with the round trip to the host (`round_trip`): what is
on its way is no load there, and more of it hides the way. Blobs keep their number where it was set; else
there may be more of them at a far host, as long as more move more (`stream_growth`). The other side of such
copies takes as many, since they come slowly. What many of them moved there is remembered, for who could read
one blob by as many (`peak_rate`).

Permits. Reads and writes are streams of blobs; small requests have one permit in the window that no stream
may take, so that a HEAD never queues behind blobs. A stream that only waits for its answer counts as a small
request by then, so that the next one's bytes can go. There may always be one permit of each kind,
whatever the window, so that a window of one can't stop a run. See `permits` for who may wait for what.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from blobflow.permits import MAX_REQUESTS, Permit, PermitKind
from blobflow.transports.registry.capabilities.peak_rate import PeakRate
from blobflow.transports.registry.capabilities.stream_growth import StreamGrowth
from blobflow.transports.registry.http.congestion_window import CongestionWindow
from blobflow.transports.registry.http.round_trip import RoundTrip
from blobflow.waits import HostWaits


class HostLimiter:
    """The `Limiter` of one registry host. Used from one event loop.

    `connections` bounds the blobs each way, and twice as much all requests at a near host. Small requests are
    at most `MAX_REQUESTS` there; at a far one there may be up to `round_trip.FARTHEST` times as many, and as
    many more in all. `clock` in seconds. `far_connections`: as many blobs there may be at a far host, where
    the bytes that have `moved` show that more are worth it.
    """

    def __init__(
        self,
        connections: int,
        clock: Callable[[], float],
        waits: HostWaits | None = None,
        *,
        far_connections: int = 0,
        moved: Callable[[PermitKind], int] = lambda kind: 0,
    ) -> None:
        self._connections = connections
        self._far_connections = max(connections, far_connections)
        self._moved = moved
        self._growth = {PermitKind.READ: StreamGrowth(), PermitKind.WRITE: StreamGrowth()}
        self._reads = PeakRate()
        self._matched = 0
        self._clock = clock
        self._waits = waits or HostWaits()
        self._near_ceiling = 2 * connections
        # One more than the blobs, so that all of them can start at once where nothing is known yet.
        self.window = CongestionWindow(connections + 1, self._near_ceiling)
        self.round_trip = RoundTrip(min(MAX_REQUESTS, self._near_ceiling))
        self._most = {
            PermitKind.REQUEST: self.round_trip.near,
            PermitKind.READ: connections,
            PermitKind.WRITE: connections,
        }
        self._used = dict.fromkeys(PermitKind, 0)
        self._in_flight = 0
        self._waiting: dict[PermitKind, deque[asyncio.Future[None]]] = {kind: deque() for kind in PermitKind}
        self._retries = 0
        self._refused: deque[asyncio.Future[None]] = deque()
        self._calls: dict[PermitKind, set[Callable[[], None]]] = {kind: set() for kind in PermitKind}

    def limit(self, kind: PermitKind) -> int:
        """See `Limiter.limit`."""
        size = self.window.size
        if kind is PermitKind.REQUEST:
            return min(self._most[kind], size)
        return max(1, min(self._most[kind], size - 1))

    def extra(self, kind: PermitKind) -> int:
        """See `Limiter.extra`."""
        return self._growth[kind].target

    def match(self, extra: int) -> None:
        """See `Limiter.match`."""
        extra = min(extra, self._far_connections - self._connections)
        if extra != self._matched:
            self._matched = extra
            self._widen()
            self._let_in()

    def resize(self, connections: int, far_connections: int) -> None:
        """Have so many from now on. What is over that ends first, and then nothing more begins."""
        before = self._connections, self._far_connections
        self._connections, self._far_connections = connections, max(connections, far_connections)
        if before != (self._connections, self._far_connections):
            self._near_ceiling, self._matched = 2 * connections, 0
            self._growth = {kind: StreamGrowth() for kind in self._growth}
            self._most[PermitKind.REQUEST] = self.round_trip.near = min(MAX_REQUESTS, self._near_ceiling)
            self._widen()
            self.window.resize(connections + 1)
            self._let_in()

    @property
    def in_flight(self) -> int:
        """The permits that are held."""
        return self._in_flight

    def admits(self, kind: PermitKind) -> bool:
        """See `Limiter.admits`."""
        return not self._waiting[kind] and self._has_room(kind)

    def try_acquire(self, kind: PermitKind) -> HostPermit | None:
        """See `Limiter.try_acquire`."""
        if not self.admits(kind):
            return None
        self._enter(kind)
        return HostPermit(self, kind)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for a permit of any kind, or asked to be called when there is one."""
        return any(self._waiting.values()) or any(self._calls.values())

    def free(self, kind: PermitKind) -> int:
        """How many more permits of that kind there may be, as things stand."""
        return max(0, self.limit(kind) - self._used[kind])

    def reads_at_best(self, rate: float) -> int:
        """How many streams of this far host moved clearly more than `rate` (bytes a second) together, not
        long ago; 0: none did."""
        return self._reads.streams(self._clock(), rate)

    def is_over(self, kind: PermitKind) -> bool:
        """Whether more permits of that kind are held than there may be by now."""
        return self._used[kind] > self.limit(kind)

    def has_spare(self, kind: PermitKind) -> bool:
        """Whether there is a permit to be had that nobody wants."""
        return not self.is_wanted and self.admits(kind)

    def try_acquire_spare(self, kind: PermitKind) -> HostPermit | None:
        """As `try_acquire`, for what can be done without: only while nobody wants a permit."""
        return None if self.is_wanted else self.try_acquire(kind)

    async def acquire(self, kind: PermitKind) -> HostPermit:
        """A permit, when there is one; first come, first served within a kind."""
        if (permit := self.try_acquire(kind)) is not None:
            return permit
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[kind].append(granted)
        try:
            with self._waits.begin("permit"):
                await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                with suppress(ValueError):
                    self._waiting[kind].remove(granted)
                self._let_in()
            else:
                self.leave(kind)  # granted and cancelled at the same moment
            raise
        return HostPermit(self, kind)

    @asynccontextmanager
    async def permit(self, kind: PermitKind, held: Permit | None = None) -> AsyncIterator[Permit]:
        """A permit while inside. The one that is `held` already, if it is good for this (a stream's is for a
        small request too): then it is its holder's to release. One whose stream is over is not good for
        another stream, and is given back before that waits for its own."""
        if held is not None and held.kind is not None:
            if kind in (held.kind, PermitKind.REQUEST):
                yield held
                return
            held.release()
        permit = await self.acquire(kind)
        try:
            yield permit
        finally:
            permit.release()

    @asynccontextmanager
    async def retry(self, held: Permit | None) -> AsyncIterator[None]:
        """While something is sent again that the host had no time for. Those who keep the permit that they
        `held` meanwhile go again only as many at once as the window has become; others get a new one in their
        turn anyway."""
        if held is None or held.kind is None:
            yield
            return
        if self._retries >= self.window.size:
            permit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._refused.append(permit)
            try:
                with self._waits.begin("permit"):
                    await permit
            except asyncio.CancelledError:
                if permit.cancelled():
                    with suppress(ValueError):
                        self._refused.remove(permit)
                else:
                    self._retried()
                raise
        else:
            self._retries += 1
        try:
            yield
        finally:
            self._retried()

    def answered(self, seconds: float | None = None) -> None:
        """The host answered a request, in whatever way but those that say that it has too much to do.
        `seconds`: from sending it to the head of the answer, if nothing but the way and the host took them.
        """
        if seconds is not None:
            self._took(seconds)
        if self.round_trip.rising and self.window.size >= self._near_ceiling:
            self.window.crowded(self._near_ceiling)
        else:
            self.window.answered(full=self._in_flight >= self.window.size - 1)
        self._let_in()

    def _took(self, seconds: float) -> None:
        self.round_trip.took(seconds)
        if self._most[PermitKind.REQUEST] != self.round_trip.requests:
            self._most[PermitKind.REQUEST] = self.round_trip.requests
            self._widen()

    def congested(self, sent: float) -> None:
        """A request `sent` then was answered by 429 or 503, or by nothing."""
        now = self._clock()
        self.window.congested(sent, now)
        for growth in self._growth.values():
            if growth.target:
                growth.objected(now)
        self._widen()

    def on_room(self, kind: PermitKind, call: Callable[[], None]) -> None:
        """See `Limiter.on_room`."""
        self._calls[kind].add(call)

    def _enter(self, kind: PermitKind) -> None:
        self._used[kind] += 1
        self._in_flight += 1
        self._count_reads(kind)

    def _count_reads(self, kind: PermitKind) -> None:
        if kind is PermitKind.READ and self.round_trip.is_far:
            self._reads.look(self._clock(), self._moved(kind), self._used[kind])

    def _look(self, kind: PermitKind) -> None:
        """A stream ends while all that may be are under way: whether more of them would move more."""
        if not (self._waiting[kind] or self._calls[kind]) or not self.round_trip.is_far:
            return
        growth, extra = self._growth[kind], self._used[kind] - self._connections
        growth.begin()
        growth.measure(
            self._clock(),
            self._moved(kind),
            flowing=extra,
            usual=self._connections,
            most=self._far_connections - self._connections,
        )
        self._widen()

    def _widen(self) -> None:
        """Have as many at once as distance and growth say."""
        extra = self._most[PermitKind.REQUEST] - self.round_trip.near
        for kind in self._growth:
            more = max(self._growth[kind].target, self._matched)
            self._most[kind] = self._connections + more
            extra = max(extra, more)
        self.window.ceiling = self._near_ceiling + extra

    def leave(self, kind: PermitKind) -> None:
        """Take a permit back."""
        if self._far_connections > self._connections <= self._used[kind] and kind in self._growth:
            self._look(kind)
        self._count_reads(kind)
        self._used[kind] -= 1
        self._in_flight -= 1
        self._let_in()

    def downgraded(self, kind: PermitKind) -> PermitKind:
        """What a stream's permit is when only the answer is to come: one for a small request, unless half as
        many are under way there as there may be streams. So these have a part of the window, however long a
        host takes to answer; and where streams are to come one by one, they do."""
        if self._used[PermitKind.REQUEST] >= self.limit(PermitKind.WRITE) // 2:
            return kind
        self._enter(PermitKind.REQUEST)
        self.leave(kind)
        return PermitKind.REQUEST

    def _has_room(self, kind: PermitKind) -> bool:
        used = self._used[kind]
        if not used:
            return True
        size = self.window.size
        if used >= self._most[kind] or self._in_flight >= size:
            return False
        if kind is PermitKind.REQUEST:
            return True
        if self._used[PermitKind.READ] + self._used[PermitKind.WRITE] >= size - 1:
            return False
        # A copy within the host needs one place each way: writes that wait for reads must not take them all.
        other = PermitKind.WRITE if kind is PermitKind.READ else PermitKind.READ
        return used < (size + 1) // 2 or not self._waiting[other]

    def _let_in(self) -> None:
        for kind, waiting in self._waiting.items():
            while waiting and self._has_room(kind):
                granted = waiting.popleft()
                if not granted.cancelled():
                    self._enter(kind)
                    granted.set_result(None)
        for kind, calls in self._calls.items():
            if calls and self.admits(kind):
                self._calls[kind] = set()
                for call in calls:
                    call()

    def _retried(self) -> None:
        self._retries -= 1
        while self._refused and self._retries < self.window.size:
            permit = self._refused.popleft()
            if not permit.cancelled():
                self._retries += 1
                permit.set_result(None)


class HostPermit:
    """A `Permit` of a `HostLimiter`."""

    __slots__ = ("_kind", "_limiter")

    def __init__(self, limiter: HostLimiter, kind: PermitKind) -> None:
        self._limiter = limiter
        self._kind: PermitKind | None = kind

    @property
    def kind(self) -> PermitKind | None:
        """See `Permit.kind`."""
        return self._kind

    def downgrade(self) -> None:
        """See `Permit.downgrade`."""
        if self._kind not in (None, PermitKind.REQUEST):
            self._kind = self._limiter.downgraded(self._kind)

    def release(self) -> None:
        """See `Permit.release`."""
        if self._kind is not None:
            kind, self._kind = self._kind, None
            self._limiter.leave(kind)
