"""How fast, and how long still: neither jumps, and neither is told before it can be known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.cli.output.pace import KNOWN_AFTER, Rate, Remaining, Stillness, left_text


def test_a_steady_rate_is_told_as_it_is_from_the_first_sample_on() -> None:
    rate = Rate()
    for tick in range(1, 20):
        rate.saw(100.0 * tick, tick * 0.25)
        assert rate.value == pytest.approx(400.0 if tick > 1 else 0.0)


def test_a_rate_follows_what_happens_now() -> None:
    rate = Rate(span=5.0)
    for tick in range(100):
        rate.saw(tick * 100.0, tick)
    for tick in range(100, 130):
        rate.saw(9900.0, tick)
    assert rate.value < 1.0


def test_what_does_not_move_stands_still_from_its_last_byte_on() -> None:
    stillness = Stillness(0.0)
    stillness.saw(5, 1.0)
    stillness.saw(5, 2.0)
    assert stillness.seconds(2.5) == 0.0
    assert stillness.seconds(15.0) == 14.0
    stillness.saw(6, 16.0)
    assert stillness.seconds(16.5) == 0.0


def test_no_end_is_told_before_it_can_be_known() -> None:
    remaining = Remaining()
    assert remaining.saw(0, 1000, 0.0) is None
    assert remaining.saw(0, 1000, 60.0) is None, "nothing has moved yet"
    assert remaining.saw(5, 1000, 61.0) is None
    assert remaining.saw(9, 1000, 61.0 + KNOWN_AFTER) is None, "less than a hundredth is done"
    assert remaining.saw(20, 1000, 62.0 + KNOWN_AFTER) is not None


@given(st.lists(st.floats(0.2, 2.0), min_size=40, max_size=120))
def test_the_end_moves_steadily_however_unevenly_bytes_come(speeds: list[float]) -> None:
    remaining, done, last = Remaining(), 0.0, None
    for tick, speed in enumerate(speeds):
        done += 250.0 * speed
        left = remaining.saw(done, 1_000_000.0, tick * 0.25)
        if left is not None and last is not None:
            assert left <= last * 1.3, "it goes away by steps that one can follow"
        last = left if left is not None else last


def test_the_end_comes_true() -> None:
    remaining = Remaining()
    for tick in range(800):
        left = remaining.saw(tick * 10.0, 10_000.0, tick * 0.25)
        if tick > 100:
            assert left == pytest.approx((1000 - tick) * 0.25, rel=0.1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "a few s"),
        (4.9, "a few s"),
        (12, "15 s"),
        (57, "60 s"),
        (59, "1 min"),
        (62, "1 min"),
        (199, "3 min 20 s"),
        (1500, "25 min"),
        (3599, "1 h 0 min"),
        (7850, "2 h 10 min"),
    ],
)
def test_how_long_is_told_about(seconds: float, text: str) -> None:
    assert left_text(seconds) == text
