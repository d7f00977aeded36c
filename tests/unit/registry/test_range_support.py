"""How many ranges of a host are read at once: while their sum grows, shared by those who read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blobflow.oci import digest_of
from blobflow.transports.registry.capabilities.range_support import REFUSED_SECONDS, RangeSupport
from blobflow.transports.registry.capabilities.stream_growth import FIRST, REST_SECONDS, StreamGrowth

STEP = 0.05
LINE = 16e6


class Host:
    """A host that sends `rate(streams)` bytes a second to one blob's reader, who has what it may have."""

    def __init__(self, rate: Callable[[int], float], most: int = 7) -> None:
        self.growth = StreamGrowth()
        self.rate = rate
        self.most = most
        self.now = 0.0
        self.received = 0.0

    def run(self, seconds: float) -> int:
        """The streams that there are after so long."""
        end = self.now + seconds
        while self.now < end:
            streams = min(self.growth.target, self.most)
            self.received += self.rate(1 + streams) * STEP
            self.now += STEP
            self.growth.measure(self.now, int(self.received), flowing=streams, usual=1, most=self.most)
        return 1 + min(self.growth.target, self.most)


def test_streams_double_while_their_sum_grows() -> None:
    host = Host(lambda streams: streams * LINE)
    host.growth.begin()
    found = [host.run(0.4) for _ in range(4)]
    assert found == sorted(found)
    assert found[-1] == 8
    assert host.growth.is_proven(host.now)


@pytest.mark.parametrize("takes", [1, 3, 6])
def test_a_growth_that_brings_nothing_is_taken_back_for_a_while(takes: int) -> None:
    host = Host(lambda streams: min(streams, takes) * LINE)
    host.growth.begin()
    host.run(REST_SECONDS - 0.5)
    settled = 1 + host.growth.target
    assert settled <= max(takes, 1 + FIRST)
    assert host.run(0.5) == settled


def test_a_sum_that_falls_with_more_streams_is_no_gain() -> None:
    host = Host(lambda streams: LINE * streams if streams <= 3 else LINE)
    host.growth.begin()
    assert host.run(3) == 3


def test_a_line_that_grows_later_is_found_by_trying_again() -> None:
    host = Host(lambda streams: LINE)
    host.growth.begin()
    assert host.run(2) == 1 + FIRST
    host.rate = lambda streams: streams * LINE
    assert host.run(2 * REST_SECONDS) == 8


def test_a_host_that_objects_gets_half_as_many_and_keeps_at_least_one_more() -> None:
    host = Host(lambda streams: streams * LINE)
    host.growth.begin()
    host.run(2)
    host.growth.target = 7
    host.growth.objected(host.now)
    assert host.growth.target == 3
    assert host.run(REST_SECONDS - 0.1) == 4
    for _ in range(5):
        host.growth.objected(host.now)
    assert host.growth.target == 1


def test_as_many_as_are_known_to_bring_more_are_there_at_once() -> None:
    host = Host(lambda streams: streams * LINE, most=15)
    host.growth.begin()
    host.growth.known = 7
    assert host.run(STEP) == 8
    assert host.run(1) == 16, "and more are found out"
    host.growth.end()
    assert (host.growth.target, host.growth.known) == (0, 0)


def test_they_come_when_there_is_room_and_a_host_that_objects_is_believed() -> None:
    host = Host(lambda streams: streams * LINE, most=2)
    host.growth.begin()
    host.growth.known = 7
    assert host.run(STEP) == 3
    host.most = 7
    assert host.run(STEP) == 8
    host.growth.objected(host.now)
    assert host.run(STEP) == 4
    host.rate = lambda streams: LINE
    assert host.run(2 * REST_SECONDS) == 4, "what it objected to is not known to be worth it any more"


def test_what_is_known_to_one_reader_is_shared_by_all() -> None:
    support = RangeSupport()
    first, second = object(), object()
    support.begin(first, known=9)
    support.measure(0.0, 0, free=8)
    assert support.share == 8
    support.begin(second)
    support.measure(0.0, 0, free=8)
    assert support.share == 4
    support.end(first)
    support.end(second)
    assert support.share == 0


def test_the_reader_with_the_fewest_streams_gets_the_next() -> None:
    support = RangeSupport()
    first, second = object(), object()
    support.begin(first)
    support.growth.target = 4
    for _ in range(2):
        support.opened(first)
    support.begin(second)
    assert support.may_open(second) and not support.may_open(first)
    support.opened(second)
    support.opened(second)
    assert not support.may_open(first) and not support.may_open(second) and not support.is_over
    support.growth.target = 3
    assert support.is_over
    support.closed(first, flowed=False)
    assert not support.is_over
    support.end(second)
    assert support.may_open(first)
    support.end(first)
    assert support.growth.target == 0


def test_a_host_that_refused_is_left_alone_for_a_while_and_a_blob_that_came_wrong_for_good() -> None:
    support = RangeSupport()
    one, other = digest_of(b"one"), digest_of(b"other")
    assert support.may_be_asked(one, 0.0)
    support.refused(100.0)
    assert not support.may_be_asked(one, 100.0 + REFUSED_SECONDS - 1)
    assert support.may_be_asked(one, 100.0 + REFUSED_SECONDS)
    assert not support.came_wrong(one), "by one stream, so that ranges are not to blame"
    support.used(one)
    assert support.came_wrong(one) and not support.came_wrong(one)
    assert not support.may_be_asked(one, 10**9) and support.may_be_asked(other, 10**9)
