"""How many blobs move at once at a host that is far away: more than usual, while more of them bring more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blobflow.permits import FixedLimiter, Permit, PermitKind
from blobflow.transports.registry.capabilities.stream_growth import REST_SECONDS
from blobflow.transports.registry.http.limiter import HostLimiter

USUAL, FAR = 8, 16
FAR_AWAY, NEAR = 0.04, 0.001
LINE = 16e6
BLOB = 4_000_000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Line:
    """A host whose streams, so many at once, move `rate` of them bytes a second together; blobs of 4 MB
    follow each other, `kind` of them at this moment as many as the limiter grants."""

    def __init__(
        self,
        rate: Callable[[int], float],
        *,
        round_trip: float = FAR_AWAY,
        far: int = FAR,
        kind: PermitKind = PermitKind.READ,
    ) -> None:
        self.clock = Clock()
        self.rate = rate
        self.kind = kind
        self.moved = 0.0
        self.limiter = HostLimiter(USUAL, self.clock, far_connections=far, moved=lambda kind: int(self.moved))
        self.round_trip = round_trip
        self.held: list[Permit] = []
        self.open()

    def open(self) -> None:
        """So many answers while all that may be is in flight that the window is as wide as it gets."""
        for _ in range(200):
            self.answer(self.round_trip)

    def answer(self, seconds: float) -> None:
        held = []
        while (permit := self.limiter.try_acquire(PermitKind.REQUEST)) is not None:
            held.append(permit)
        self.limiter.answered(seconds)
        for permit in held:
            permit.release()

    def fill(self) -> None:
        while (permit := self.limiter.try_acquire(self.kind)) is not None:
            self.held.append(permit)
        self.limiter.on_room(self.kind, lambda: None)  # there are always more blobs than may move

    def run(self, seconds: float) -> int:
        """Blobs one after the other for so long; how many at once there are in the end."""
        end = self.clock.now + seconds
        self.fill()
        while self.clock.now < end:
            rate = self.rate(len(self.held))
            self.clock.now += BLOB / rate
            self.moved += BLOB
            self.held.pop(0).release()
            self.fill()
        return len(self.held)


@pytest.mark.parametrize("kind", [PermitKind.READ, PermitKind.WRITE])
def test_over_a_long_way_there_are_twice_as_many_while_each_brings_as_much(kind: PermitKind) -> None:
    line = Line(lambda streams: streams * LINE, kind=kind)
    assert line.run(0.1) <= USUAL + 2
    assert line.run(2) == FAR
    assert line.run(30) == FAR


@pytest.mark.parametrize("takes", [6, 8, 9])
def test_what_brings_nothing_is_taken_back(takes: int) -> None:
    line = Line(lambda streams: min(streams, takes) * LINE)
    line.run(REST_SECONDS - 1)
    assert line.run(0.5) <= USUAL + 2


@pytest.mark.parametrize(
    ("round_trip", "far"), [(NEAR, FAR), (FAR_AWAY, 0), (FAR_AWAY, USUAL)], ids=["near", "set", "equal"]
)
def test_a_near_host_and_one_whose_number_was_set_keep_theirs(round_trip: float, far: int) -> None:
    line = Line(lambda streams: streams * LINE, round_trip=round_trip, far=far)
    assert line.run(10) == USUAL


def test_a_host_that_refuses_gets_fewer_at_once_and_later_more_again() -> None:
    line = Line(lambda streams: streams * LINE)
    assert line.run(3) == FAR
    line.limiter.congested(line.clock.now)
    assert line.limiter.extra(PermitKind.READ) == (FAR - USUAL) // 2
    assert line.limiter.limit(PermitKind.READ) <= USUAL + (FAR - USUAL) // 2


def test_without_blobs_that_wait_nothing_is_tried() -> None:
    line = Line(lambda streams: streams * LINE)
    line.fill()
    line.limiter._calls[PermitKind.READ].clear()
    line.held.pop().release()
    assert line.limiter.extra(PermitKind.READ) == 0


@pytest.mark.parametrize("extra", [0, 2, 8, 100])
def test_the_other_side_takes_as_many_more_within_its_limits(extra: int) -> None:
    near = Line(lambda streams: streams * LINE, round_trip=NEAR)
    near.limiter.match(extra)
    near.open()
    assert near.run(1) == min(USUAL + extra, FAR)
    near.limiter.match(0)
    assert near.limiter.limit(PermitKind.WRITE) == USUAL

    fixed = Line(lambda streams: streams * LINE, far=0)
    fixed.limiter.match(extra)
    assert fixed.run(1) == USUAL


def test_small_requests_keep_room_beside_the_streams_that_are_more_than_usual() -> None:
    near = Line(lambda streams: streams * LINE, round_trip=NEAR)
    near.limiter.match(FAR - USUAL)
    near.open()
    assert near.run(1) == FAR
    requests = 0
    while near.limiter.try_acquire(PermitKind.REQUEST) is not None:
        requests += 1
    assert requests >= 1


@pytest.mark.parametrize("streams", [1, 4])
def test_files_take_as_many_more_unless_they_are_written_one_by_one(streams: int) -> None:
    files = FixedLimiter(streams)
    files.match(3)
    assert files.limit(PermitKind.WRITE) == (1 if streams == 1 else streams + 3)
    assert files.extra(PermitKind.WRITE) == 0
    files.match(0)
    assert files.limit(PermitKind.WRITE) == streams
