"""When runs are due: spans, cron expressions, what clocks do twice a year."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.cli.runtime.cron import Interval, jitter, parse_cron, parse_interval
from blobflow.errors import UsageError

UTC = ZoneInfo("UTC")
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = UTC, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def told(moment: float, zone: ZoneInfo = UTC) -> str:
    return datetime.fromtimestamp(moment, zone).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("90m", 5400),
        ("5min", 300),
        ("6h", 21600),
        ("1d12h", 129600),
        ("1w", 604800),
        ("1.5H", 5400),
    ],
)
def test_spans(text: str, seconds: float) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "6h!", "0s", "0.1s", "-6h", "6y", "٣h"])
def test_what_is_no_span_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"write it as 30m, 6h|a second is the least"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("expression", "now", "due"),
    [
        # 2026-11-21 is a Saturday.
        ("* * * * *", "2026-11-21 12:00", "2026-11-21 12:01"),
        ("*/15 * * * *", "2026-11-21 12:44", "2026-11-21 12:45"),
        ("*/15 * * * *", "2026-11-21 12:45", "2026-11-21 13:00"),
        ("5/20 * * * *", "2026-11-21 12:46", "2026-11-21 13:05"),
        ("0 3 * * *", "2026-11-21 12:00", "2026-11-22 03:00"),
        ("30 1,13 * * *", "2026-11-21 12:00", "2026-11-21 13:30"),
        ("0 9-17/4 * * mon-fri", "2026-11-21 12:00", "2026-11-23 09:00"),
        ("0 0 * * 7", "2026-11-21 12:00", "2026-11-22 00:00"),
        ("0 0 * * 5-7", "2026-11-22 12:00", "2026-11-27 00:00"),
        ("0 0 1 * *", "2026-12-31 23:59", "2027-01-01 00:00"),
        ("0 0 29 feb *", "2026-11-21 12:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "2096-03-01 00:00", "2104-02-29 00:00"),
        ("0 0 31 * *", "2026-11-21 12:00", "2026-12-31 00:00"),
        ("0 0 13 * fri", "2026-11-21 12:00", "2026-11-27 00:00"),  # either day is enough
        ("0 0 */2 * fri", "2026-11-21 12:00", "2026-11-27 00:00"),  # a star is no restriction: both
        ("@daily", "2026-11-21 12:00", "2026-11-22 00:00"),
        ("@yearly", "2026-11-21 12:00", "2027-01-01 00:00"),
    ],
)
def test_the_next_time_of_an_expression(expression: str, now: str, due: str) -> None:
    assert told(parse_cron(expression, UTC).after(at(now))) == due


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "5 fields"),
        ("* * * *", "5 fields"),
        ("* * * * * *", "5 fields"),
        ("@fortnightly", "5 fields"),
        ("60 * * * *", "'60' is no minute .* 0 to 59"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of the month"),
        ("* * * 13 *", "'13' is no month"),
        ("* * * * 8", "'8' is no day of the week"),
        ("* * * mon *", "'mon' is no month"),
        ("*/0 * * * *", "no values"),
        ("30-10 * * * *", "no values"),
        ("1, * * * *", "'' is no minute"),
        ("-1 * * * *", "is no minute"),
        ("² * * * *", "is no minute"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
    ],
)
def test_what_is_no_expression_says_which_field(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_cron(text)


def test_a_time_that_is_left_out_in_spring_comes_an_hour_later_and_once() -> None:
    nightly = parse_cron("30 2 * * *", BERLIN)
    due = nightly.after(at("2027-03-28 00:00", BERLIN))
    assert told(due, BERLIN) == "2027-03-28 03:30"
    assert told(nightly.after(due), BERLIN) == "2027-03-29 02:30"


def test_a_time_that_comes_twice_in_autumn_counts_once() -> None:
    nightly = parse_cron("30 2 * * *", BERLIN)
    due = nightly.after(at("2026-10-25 00:00", BERLIN))
    assert due == at("2026-10-25 02:30", BERLIN, fold=0)
    assert told(nightly.after(due), BERLIN) == "2026-10-26 02:30"


@given(
    now=st.floats(0, 4e9),
    expression=st.sampled_from(["*/7 * * * *", "0 3 * * *", "15 2 1 * mon", "@weekly", "59 23 31 12 *"]),
    zone=st.sampled_from([UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")]),
)
def test_what_is_due_is_later_than_now_and_on_a_whole_minute(
    now: float, expression: str, zone: ZoneInfo
) -> None:
    due = parse_cron(expression, zone).after(now)
    assert due > now
    assert due % 60 == 0


def test_every_counts_from_its_start_and_skips_what_was_missed() -> None:
    every = Interval(3600, start=1000)
    assert every.after(1000) == 4600
    assert every.after(4599) == 4600
    assert every.after(4600) == 8200
    assert every.after(1000 + 5.5 * 3600) == 1000 + 6 * 3600


def test_jitter_is_a_tenth_of_what_is_between_and_five_minutes_at_most() -> None:
    assert jitter(0, 600, 0.0) == 0
    assert jitter(0, 600, 0.5) == 30
    assert jitter(0, 86400, 0.999) == pytest.approx(299.7)
