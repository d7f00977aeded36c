"""Segments of a blob: fetched in any order, taken in theirs, within a budget; and what breaks of them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import ConnectionLost, NotFound, TimedOut
from blobflow.transports.registry.http.read_ahead import ReadAhead
from blobflow.transports.registry.ranges.retry import FRUITFUL, RangeRetries
from blobflow.transports.registry.ranges.segments import Segment, Segments

SIZE = 64


@given(
    content=st.binary(min_size=1, max_size=2000),
    border=st.integers(0, 100),
    lanes=st.integers(1, 8),
    choices=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 40)), min_size=1),
)
def test_bytes_come_out_in_order_and_each_is_fetched_once(
    content: bytes, border: int, lanes: int, choices: list[tuple[int, int]]
) -> None:
    border = min(border, len(content) - 1)
    ahead = ReadAhead(10**6)
    segments = Segments(border, len(content), SIZE, ahead)
    fetching: list[Segment] = []
    asked: list[tuple[int, int]] = []
    taken = b""
    turn = 0
    while not segments.is_over:
        while len(fetching) < lanes and (begun := segments.begin(lanes)) is not None:
            fetching.append(begun)
            asked.append((begun.start, begun.stop))
        which, size = choices[turn % len(choices)]
        turn += 1
        if fetching:
            segment = fetching[which % len(fetching)]
            segments.received(segment, content[segment.at : min(segment.at + size, segment.stop)])
            if segment.is_whole:
                fetching.remove(segment)
        while (chunk := segments.take()) is not None:
            taken += chunk
    assert taken == content[border:]
    assert [start for start, _ in asked] == [border, *(stop for _, stop in asked[:-1])]
    assert asked[-1][1] == len(content)
    segments.close()
    segments.close()
    assert (ahead.held, ahead.blobs) == (0, 0)


def test_what_a_head_left_is_taken_before_the_rest() -> None:
    segments = Segments(10, 20, SIZE, ReadAhead(100))
    begun = segments.begin()
    assert begun is not None
    segments.received(begun, b"b" * 10)
    gap = segments.put_before(7)
    assert segments.first is gap and segments.take() is None
    segments.received(gap, b"a" * 3)
    assert segments.take() == b"aaa"
    assert segments.take() == b"b" * 10
    assert segments.is_over


def test_the_first_segment_comes_even_where_the_budget_is_spent() -> None:
    ahead = ReadAhead(0)
    segments = Segments(0, 200, SIZE, ahead)
    first, second = segments.begin(), segments.begin()
    assert first is not None and second is not None
    ahead.limit = 1
    ahead.hold(1)
    assert segments.may_come(first) and not segments.may_come(second) and not segments.has_room
    segments.received(first, b"x")
    assert not segments.may_come(first), "until its reader has taken that"
    segments.take()
    assert segments.may_come(first)


async def test_who_waits_for_room_is_woken_when_a_reader_has_taken_some_or_left() -> None:
    ahead = ReadAhead(8)
    one, other = Segments(0, 100, SIZE, ahead), Segments(0, 100, SIZE, ahead)
    begun = one.begin()
    assert begun is not None
    one.received(begun, b"12345678")
    assert not other.has_room
    waiting = asyncio.create_task(other.changed())
    await asyncio.sleep(0)
    one.take()
    await waiting
    assert other.has_room
    waiting = asyncio.create_task(other.changed())
    await asyncio.sleep(0)
    one.close()
    await waiting


def test_an_error_is_raised_after_all_that_came_before_it() -> None:
    segments = Segments(0, 200, SIZE, ReadAhead(1000))
    first, second = segments.begin(), segments.begin()
    assert first is not None and second is not None
    segments.failed(second, ConnectionLost("cut"))
    segments.received(first, b"a" * SIZE)
    assert segments.take() == b"a" * SIZE
    with pytest.raises(ConnectionLost):
        segments.take()


def test_a_range_is_asked_for_again_as_long_as_it_gets_on() -> None:
    at = 0
    retries = RangeRetries(lambda: at, lambda: 0.0)
    for _ in range(100):
        at += FRUITFUL
        assert retries.next_delay(ConnectionLost("cut")) == 0.0
    delays = [retries.next_delay(ConnectionLost("cut")) for _ in range(5)]
    assert delays[-1] is None
    assert delays[:-1] == sorted(delay for delay in delays if delay is not None)
    at += FRUITFUL
    assert retries.next_delay(ConnectionLost("cut")) == 0.0, "anew"


def test_silence_is_tried_once_more_and_a_refusal_not_at_all() -> None:
    retries = RangeRetries(lambda: 0, lambda: 0.0)
    assert retries.next_delay(TimedOut("silent")) is not None
    assert retries.next_delay(TimedOut("silent")) is None
    assert RangeRetries(lambda: 0, lambda: 0.0).next_delay(NotFound("gone")) is None


@pytest.mark.parametrize("times", [1, 2, 9])
def test_a_range_is_asked_for_again_as_often_as_was_said(times: int) -> None:
    for error in (ConnectionLost("cut"), TimedOut("silent")):
        retries = RangeRetries(lambda: 0, lambda: 0.0, times=times)
        delays = [retries.next_delay(error) for _ in range(times + 1)]
        assert None not in delays[:-1]
        assert delays[-1] is None


def test_a_range_that_is_to_be_tried_once_is_even_where_it_got_on() -> None:
    at = 0
    retries = RangeRetries(lambda: at, lambda: 0.0, times=0)
    at = FRUITFUL
    assert retries.next_delay(ConnectionLost("cut")) is None
