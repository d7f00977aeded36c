"""What many streams moved together is known to who reads one blob by several."""

from __future__ import annotations

import pytest

from blobflow.permits import Permit, PermitKind
from blobflow.transports.registry.capabilities.peak_rate import PeakRate
from blobflow.transports.registry.capabilities.stream_growth import GAIN, MEASURED_SECONDS, PROVEN_FOR
from blobflow.transports.registry.http.limiter import HostLimiter

LINE = 16_000_000


class Host:
    """Streams that begin and end at a host, each of which moves as much."""

    def __init__(self) -> None:
        self.peak = PeakRate()
        self.now = 100.0
        self.moved = 0

    def run(self, streams: int, seconds: float = 1.0, rate: float = LINE) -> None:
        for _ in range(10):
            self.peak.look(self.now, self.moved, streams)
            self.now += seconds / 10
            self.moved += int(streams * rate * seconds / 10)
        self.peak.look(self.now, self.moved, streams)

    def at_best(self, rate: float = LINE) -> int:
        return self.peak.streams(self.now, rate)


def test_of_a_host_of_which_nothing_was_seen_nothing_is_known() -> None:
    host = Host()
    assert host.at_best() == 0
    host.run(8, seconds=MEASURED_SECONDS / 2)
    assert host.at_best() == 0, "of a moment that short"


def test_so_many_are_known_as_moved_most_together() -> None:
    host = Host()
    host.run(4)
    assert host.at_best() == 4
    host.run(16)
    host.run(1)
    assert host.at_best() == 16


@pytest.mark.parametrize(("alone", "known"), [(1.0, 0), (1 / GAIN, 8), (1 / GAIN + 0.01, 0), (0.125, 8)])
def test_they_are_worth_nothing_to_whom_one_brings_as_much(alone: float, known: int) -> None:
    host = Host()
    host.run(8)
    assert host.at_best(alone * 8 * LINE) == known


def test_what_was_seen_counts_for_a_while() -> None:
    host = Host()
    host.run(8)
    seen = host.now
    host.now = seen + PROVEN_FOR - 1
    assert host.at_best() == 8
    host.now = seen + PROVEN_FOR
    assert host.at_best() == 0
    host.run(4)
    assert host.at_best() == 4


@pytest.mark.parametrize(("round_trip", "known"), [(0.001, 0), (0.04, 8)])
def test_a_limiter_looks_at_the_streams_of_far_hosts_alone(round_trip: float, known: int) -> None:
    now = moved = 0.0
    limiter = HostLimiter(8, lambda: now, moved=lambda kind: int(moved))
    for _ in range(100):
        limiter.answered(round_trip)
    held: list[Permit] = []
    for _ in range(40):
        while (permit := limiter.try_acquire(PermitKind.READ)) is not None:
            held.append(permit)
        now += 0.05
        moved += 0.05 * len(held) * LINE
        held.pop(0).release()
    assert limiter.reads_at_best(LINE) == known
    assert limiter.reads_at_best(8 * LINE) == 0
