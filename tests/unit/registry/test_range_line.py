"""Whether a line is worth several ranges: what is seen of it, and what is made of that."""

from __future__ import annotations

import time

import pytest

from blobflow.transports.registry.ranges.line import (
    FASTEST,
    LineObserver,
    Seen,
    busy_seconds,
    is_worth_ranges,
)

MB = 1_000_000
FAR = Seen(seconds=0.5, waited=0.48, cpu=0.02, received=8 * MB)


@pytest.mark.parametrize(
    ("seen", "left", "worth"),
    [
        pytest.param(FAR, 500 * MB, True, id="16 MB/s, all of it waited for"),
        pytest.param(FAR, 15 * MB, False, id="and less than a second's left"),
        pytest.param(Seen(0.5, 0.3, 0.02, 8 * MB), 500 * MB, False, id="the target is as slow"),
        pytest.param(Seen(0.5, 0.48, 0.4, 8 * MB), 500 * MB, False, id="this machine is busy"),
        pytest.param(Seen(0.5, 0.48, 0.1, int(FASTEST)), 10**12, False, id="a near line"),
        pytest.param(Seen(0.5, 0.5, 0.0, 0), 500 * MB, False, id="nothing came"),
        pytest.param(Seen(0.5, 0.5, 0.0, 5000), 20_000, True, id="a slow line, and a small rest"),
    ],
)
def test_a_line_is_worth_ranges_where_it_alone_is_waited_for(seen: Seen, left: int, worth: bool) -> None:
    assert is_worth_ranges(seen, left) is worth


def test_what_is_seen_are_the_bytes_and_the_waiting_of_each_period_anew() -> None:
    now, cpu = 10.0, 1.0
    line = LineObserver(lambda: now, 0.5, cpu=lambda: cpu)
    assert line.saw(0.2, 100, 10.2) is None
    cpu = 1.1
    seen = line.saw(0.3, 50, 10.6)
    assert seen is not None
    assert (seen.received, seen.waited, round(seen.seconds, 6), round(seen.cpu, 6)) == (150, 0.5, 0.6, 0.1)
    assert round(seen.rate, 6) == 250
    assert line.saw(0.1, 10, 11.0) is None
    again = line.saw(0.1, 10, 11.1)
    assert again is not None and again.received == 20 and again.cpu == 0


def test_who_waits_for_a_cpu_is_busy() -> None:
    computed = time.process_time()
    before = busy_seconds()
    sum(range(200_000))
    assert computed <= before < busy_seconds()
