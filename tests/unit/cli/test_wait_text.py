"""What is waited for, in words, and which of it a log is told of."""

from __future__ import annotations

from typing import get_args

import pytest

from blobflow.cli.output.wait_text import WaitLog, group_waits, sentence, span_text, wait_sentences
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    DigestMismatch,
    Throttled,
    TimedOut,
    Unavailable,
)
from blobflow.waits import Wait, WaitKind

H = "target.example"


def retry(error: BlobflowError, seconds: float = 20.0, attempt: int = 2, attempts: int = 5) -> Wait:
    return Wait("retry", H, "manifest a:1", 0.0, seconds, error, attempt, attempts)


def told(*waits: Wait, now: float = 0.0) -> list[str]:
    return [sentence(group, now) for group in group_waits(waits)]


RETRIES = [
    (Unavailable("x", status=503), f"{H} answers 503"),
    (Unavailable("x", status=500), f"{H} answers 500"),
    (Throttled("x"), f"{H} answers 429"),
    (ConnectFailed("can't connect to it"), f"no connection to {H}"),
    (TimedOut("x"), f"{H} is silent"),
    (ConnectionLost("x"), f"the connection to {H} broke"),
    (DigestMismatch("blob", expected="a", actual="b"), "blob has digest b, expected a"),
]


@pytest.mark.parametrize(("error", "words"), RETRIES, ids=lambda value: type(value).__name__)
def test_a_retry_says_why_when_and_how_many_there_are(error: BlobflowError, words: str) -> None:
    assert told(retry(error)) == [f"{words}, trying again in 20 s (2 of 5)"]


def test_a_retry_counts_down_to_now() -> None:
    wait = retry(Unavailable("x", status=503), seconds=2.0)
    assert [told(wait, now=now)[0].partition(", ")[2] for now in (0.0, 0.5, 1.0, 1.9, 2.5)] == [
        "trying again in 2 s (2 of 5)",
        "trying again in 2 s (2 of 5)",
        "trying again in 1 s (2 of 5)",
        "trying again in 1 s (2 of 5)",
        "trying again now (2 of 5)",
    ]


def test_where_attempts_are_not_counted_none_are_told() -> None:
    assert told(retry(ConnectionLost("x"), attempt=0, attempts=0)) == [
        f"the connection to {H} broke, trying again in 20 s"
    ]


def test_many_that_wait_for_one_host_are_one_sentence() -> None:
    first, last = retry(Throttled("x"), 30.0), retry(Throttled("x"), 20.0, attempt=3)
    assert told(first, last, first) == [
        f"{H} answers 429, trying again in 20 s (3 of 5); 3 requests wait for that"
    ]


OTHERS: list[tuple[Wait, str]] = [
    (Wait("quota", H, "", 0, 300), f"{H} lets no more manifests be read for now, asking again in 4 min 48 s"),
    (Wait("lock", "/store", "", 0), "another process has /store locked, for 12 s now"),
    (Wait("connect", H, "", 0), f"connecting to {H}, for 12 s now"),
    (Wait("tls", H, "", 0), f"TLS handshake with {H}, for 12 s now"),
    (Wait("login", H, "", 0), f"asking files and credential helpers for the login at {H}, for 12 s now"),
    (Wait("answer", H, "a token for r", 0), f"{H} has not answered for 12 s: a token for r"),
    (Wait("commit", H, "x", 0), f"{H} has all bytes of a blob, and has not answered for 12 s"),
    (Wait("stall", H, "a:1 (1 of 2 B)", 0), f"0 B/s for 12 s: a:1 (1 of 2 B) to {H}"),
    (
        Wait("source-stall", H, "a:1 (1 of 2 B)", 0),
        f"0 B/s for 12 s: {H} sends nothing of a:1 (1 of 2 B)",
    ),
    (
        Wait("target-stall", H, "a:1 (1 of 2 B)", 0),
        f"0 B/s for 12 s: {H} takes nothing of a:1 (1 of 2 B)",
    ),
    (Wait("read", "/a.tar", "", 0), "reading and hashing /a.tar, for 12 s now"),
    (Wait("work", "", "tidying the store", 0), "tidying the store, for 12 s now"),
    (
        Wait("rate", H, "", 0, 14),
        f"held back for 2 s by the limit on bytes or requests a second for {H}",
    ),
    (
        Wait("rate", H, "", 0, 11),
        f"held back by the limit on bytes or requests a second for {H}",
    ),
    (Wait("permit", H, "", 0), f"1 request waits until earlier ones to {H} have ended, for 12 s now"),
    (Wait("end", "", "finishing", 0, 25), "finishing, for at most 13 s; once more ends it at once"),
]


@pytest.mark.parametrize(("wait", "words"), OTHERS, ids=lambda value: getattr(value, "kind", ""))
def test_every_wait_has_its_words(wait: Wait, words: str) -> None:
    assert told(wait, now=12.0) == [words]


def test_no_kind_of_wait_is_without_words() -> None:
    tested = {wait.kind for wait, _ in OTHERS} | {"retry", "rest"}
    assert {*get_args(WaitKind)} - tested == {"send", "pull"}, "bytes on their way are no wait"
    assert told(Wait("send", H, "", 0), Wait("pull", H, "", 0)) == []


def test_several_of_a_kind_are_counted() -> None:
    twice = [Wait(kind, H, "x", 0) for kind in ("answer", "commit", "stall")] * 2
    twice += [Wait("permit", "other.example", "x", 0)] * 2
    assert told(*twice, now=9.0) == [
        f"{H} has not answered for 9 s: 2 requests",
        f"{H} has all bytes of 2 blobs, and has not answered for 9 s",
        f"0 B/s for 9 s: 2 blobs to {H}",
        "2 requests wait until earlier ones to other.example have ended, for 9 s now",
    ]


def test_who_waits_for_a_permit_waits_for_what_others_wait_for_at_that_host() -> None:
    waits = [Wait("permit", H, "", 0), Wait("answer", H, "manifest a:1", 1), Wait("permit", H, "", 0)]
    assert told(*waits, now=9.0) == [f"{H} has not answered for 8 s: manifest a:1"]


def test_what_matters_most_comes_first_and_what_is_too_much_is_counted() -> None:
    waits = [Wait("work", "", "x", 0), Wait("answer", H, "x", 0), Wait("rest", H, "", 0, 9, Throttled("x"))]
    lines = wait_sentences(waits, 5.0, least=1.0, most=2)
    assert lines == [f"{H} answers 429, trying again in 4 s", "and 2 other waits"]


def test_a_short_wait_is_not_drawn_and_one_with_a_known_end_is_at_once() -> None:
    assert wait_sentences([Wait("answer", H, "x", 0)], 0.5, least=1.0, most=4) == []
    assert wait_sentences([retry(Throttled("x"), 0.5)], 0.0, least=1.0, most=4) == []
    assert len(wait_sentences([retry(Throttled("x"), 5.0)], 0.0, least=1.0, most=4)) == 1


def test_a_log_is_told_of_an_open_wait_after_some_seconds_and_then_ever_more_rarely() -> None:
    log, wait = WaitLog(), Wait("answer", H, "x", 0.0)
    told_at = [now / 2 for now in range(2000) if log.due([wait], now / 2)]
    assert told_at == [5.0, 35.0, 95.0, 215.0, 455.0, 755.0]


def test_a_log_is_told_of_each_attempt_that_is_waited_for_at_length() -> None:
    log, found = WaitLog(), []
    for attempt, start in ((2, 0.0), (3, 4.0), (4, 8.0)):
        wait = Wait("rest", H, "", start, start + 4, Throttled("x"), attempt, 10)
        for half in range(8):
            found += [event.message for event in log.due([wait], start + half / 2)]
    assert found == [f"{H} answers 429, trying again in 4 s ({attempt} of 10)" for attempt in (2, 3, 4)]


def test_a_log_is_not_told_of_short_retries_however_many() -> None:
    log = WaitLog()
    for number in range(100):
        wait = Wait("retry", H, "x", number, number + 1.0, ConnectionLost("x"), 2, 5)
        assert log.due([wait], number + 0.5) == []


def test_a_wait_that_comes_and_goes_is_told_once_a_minute_at_most() -> None:
    log, times = WaitLog(), []
    for start in range(0, 300, 10):  # an answer after 7 seconds, again and again
        for half in range(14):
            now = start + half / 2
            times += [now for _ in log.due([Wait("answer", H, "x", start)], now)]
    assert times[0] == 5.0 and len(times) <= 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.1, "1 s"), (20, "20 s"), (100, "1 min 40 s"), (120, "2 min"), (3725, "1 h 2 min")],
)
def test_whole_seconds(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
