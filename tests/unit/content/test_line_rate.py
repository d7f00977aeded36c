"""What a line's rate is taken to be, and what losing a blob on it would cost. Nothing here waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blobflow.content import COSTLY_SECONDS, TELLING_BYTES, LineRate, RateTap
from tests.fakes.notes import Notes

MIB = 1024 * 1024


def line(notes: Notes | None = None) -> LineRate:
    return LineRate(notes, "r", "line.read")


@pytest.mark.parametrize(
    ("size", "bytes_per_second", "costly"),
    [
        (256 * MIB, 30_000_000, False),
        (300 * MIB, 30_000_000, True),
        (300 * MIB, 100_000_000, False),
        (2**31, 900_000_000, False),
        (40 * 10**9, 900_000_000, True),
        (10 * MIB, 1_000_000, True),
    ],
)
def test_seconds_decide_and_not_the_size(size: int, bytes_per_second: int, costly: bool) -> None:
    made = line()
    assert made.is_costly(size) is None
    made.saw(bytes_per_second * 100, 100.0)
    assert made.is_costly(size) is costly
    assert made.is_proven_cheap(size) is not costly


def test_few_bytes_and_no_time_say_little() -> None:
    made = line()
    made.saw(TELLING_BYTES - 1, 100.0)
    assert made.bytes_per_second is None and not made.seen
    made.saw(TELLING_BYTES, 0.0)
    assert made.is_proven_cheap(2**40)


def test_a_later_run_knows_the_rate_and_has_not_seen_it() -> None:
    notes = Notes()
    first = line(notes)
    first.saw(10 * MIB, 1.0)
    assert line(notes).bytes_per_second is None  # it is noted when a blob has come whole
    first.write_note()
    again = line(notes)
    assert again.bytes_per_second == 10 * MIB and not again.seen
    assert again.is_costly(10 * MIB * int(COSTLY_SECONDS)) and not again.is_costly(10 * MIB)
    assert not again.is_proven_cheap(1)


def test_only_news_is_noted() -> None:
    notes = Notes()
    made = line(notes)
    for rate, noted in ((10, 10), (14, 10), (7, 10), (16, 16), (8, 8)):
        made.saw(rate * MIB, 1.0)
        made.write_note()
        assert notes.note("r", "line.read") == str(noted * MIB)


@pytest.mark.parametrize("note", ["", "0", "-5", "1e9", "fast", "9" * 40])
def test_a_note_that_nobody_wrote_is_none(note: str) -> None:
    notes = Notes()
    notes.record_note("r", "line.read", note)
    assert line(notes).bytes_per_second is None


def test_a_stream_tells_its_rate_while_it_comes_and_leaves_out_what_had_come_before() -> None:
    seconds: Iterator[float] = iter(range(1000))
    notes = Notes()
    made = line(notes)
    tap = RateTap(made, lambda: next(seconds))
    tap.feed(bytes(100 * MIB))  # it lay ready
    tap.feed(bytes(TELLING_BYTES - 1))
    assert made.bytes_per_second is None
    tap.feed(b"1")
    assert made.bytes_per_second == TELLING_BYTES
    tap.feed(bytes(TELLING_BYTES))
    assert made.bytes_per_second == TELLING_BYTES  # twice the bytes in twice the seconds
    tap.feed(bytes(TELLING_BYTES))
    tap.finish()
    assert made.bytes_per_second == TELLING_BYTES
    assert notes.note("r", "line.read") == str(TELLING_BYTES)


def test_an_empty_stream_tells_nothing() -> None:
    made = line()
    RateTap(made, lambda: 0.0).finish()
    assert made.bytes_per_second is None
