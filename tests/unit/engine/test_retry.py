"""The retry table of bodies."""

from __future__ import annotations

from random import Random

import pytest

from blobflow.engine.transfer.retry import (
    ALIKE,
    ATTEMPTS,
    FRUITFUL,
    LONGEST_DELAY,
    MOST,
    RESENT,
    Tries,
    delay_before_retry,
    may_send,
)
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    Denied,
    DigestMismatch,
    NotFound,
    StorageError,
    Throttled,
    TimedOut,
    Unavailable,
)
from blobflow.retrying import MAX_RETRY_AFTER_SECONDS

SIZE = 60_000_000


def tries_of(error: BlobflowError, times: int | None = None) -> int:
    """How often something that always fails with `error` is tried."""
    tries = Tries()
    while True:
        tries = tries.after(error)
        if delay_before_retry(error, tries, lambda: 0.5, times) is None:
            return tries.made


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ConnectFailed("x"), ATTEMPTS),
        (ConnectFailed("x", attempts=4), 1),
        (TimedOut("x"), ATTEMPTS),
        (ConnectionLost("x", received=FRUITFUL - 1), ATTEMPTS),
        (ConnectionLost("x", received=FRUITFUL), ALIKE + 1),
        (ConnectionLost("x", received=FRUITFUL, side="source"), MOST),
        (Throttled("x"), ATTEMPTS),
        (Unavailable("x"), ATTEMPTS),
        (DigestMismatch("x", expected="a", actual="b"), 2),
        (NotFound("x"), 1),
        (Denied("x"), 1),
        (StorageError("x"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BlobflowError) else str(value),
)
def test_how_often_each_failure_is_tried(error: BlobflowError, tries: int) -> None:
    assert tries_of(error) == tries


@pytest.mark.parametrize(
    ("error", "times", "tries"),
    [
        (TimedOut("x"), 0, 1),
        (TimedOut("x"), 1, 2),
        (Unavailable("x"), 9, 10),
        (ConnectionLost("x", received=FRUITFUL), 0, 1),
        (ConnectionLost("x", received=FRUITFUL), 1, ALIKE + 1),
        (DigestMismatch("x", expected="a", actual="b"), 9, 2),
        (DigestMismatch("x", expected="a", actual="b"), 0, 1),
        (NotFound("x"), 9, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BlobflowError) else str(value),
)
def test_how_often_may_be_said(error: BlobflowError, times: int, tries: int) -> None:
    assert tries_of(error, times) == tries


def test_a_fruitful_try_forgives_the_fruitless_before_it() -> None:
    tries = Tries()
    for _ in range(ATTEMPTS - 1):
        tries = tries.after(ConnectFailed("x"))
    tries = tries.after(ConnectionLost("x", received=FRUITFUL))
    assert tries == Tries(made=ATTEMPTS, fruitless=0, moved=FRUITFUL)


def test_breaks_at_random_and_a_target_that_goes_on_are_tried_to_the_end() -> None:
    random, tries = Random(1), Tries()
    for _ in range(MOST - 1):
        tries = tries.after(ConnectionLost("x", received=FRUITFUL + int(random.expovariate(1 / 12e6))))
        assert delay_before_retry(ConnectionLost("x"), tries, lambda: 0.5) is not None
    tries = Tries()
    for number in range(MOST - 1):
        tries = tries.after(ConnectionLost("x", received=FRUITFUL), at=number * FRUITFUL)
        assert delay_before_retry(ConnectionLost("x"), tries, lambda: 0.5) is not None


@pytest.mark.parametrize("error", [Unavailable("x", status=502), ConnectionLost("x", received=100)], ids=str)
def test_what_the_target_has_got_further_with_begins_the_count_anew(error: BlobflowError) -> None:
    tries = Tries()
    for number in range(100):
        tries = tries.after(error, at=number * FRUITFUL)
        assert delay_before_retry(error, tries, lambda: 0.5) is not None
    for number in range(ATTEMPTS - 1):  # where it was before is no progress
        assert delay_before_retry(error, tries, lambda: 0.5) is not None
        tries = tries.after(error, at=(98 + number % 2) * FRUITFUL)
    assert delay_before_retry(error, tries, lambda: 0.5) is None


def test_delays_grow_have_jitter_and_an_end() -> None:
    error = TimedOut("x")
    low = [delay_before_retry(error, Tries(n, n), lambda: 0.0) for n in range(1, ATTEMPTS)]
    high = [delay_before_retry(error, Tries(n, n), lambda: 1.0) for n in range(1, ATTEMPTS)]
    assert low == [0.125, 0.25, 0.5, 1.0]
    assert high == [0.25, 0.5, 1.0, 2.0]


@pytest.mark.parametrize("error", [Throttled("x", retry_after=7.5), Unavailable("x", retry_after=7.5)])
def test_the_registrys_retry_after_is_kept(error: BlobflowError) -> None:
    assert delay_before_retry(error, Tries(1, 1), lambda: 0.0) == 7.5
    assert LONGEST_DELAY > 7.5


@pytest.mark.parametrize("kind", [Throttled, Unavailable])
def test_who_wants_more_time_than_anyone_waits_gets_no_other_attempt(
    kind: type[Throttled] | type[Unavailable],
) -> None:
    longest = kind("x", retry_after=MAX_RETRY_AFTER_SECONDS)
    assert delay_before_retry(longest, Tries(1, 1), lambda: 0.0) == MAX_RETRY_AFTER_SECONDS
    for times in (None, 3):
        longer = kind("x", retry_after=MAX_RETRY_AFTER_SECONDS + 1)
        assert delay_before_retry(longer, Tries(1, 1), lambda: 0.0, times) is None


@pytest.mark.parametrize(
    ("written", "at", "may"),
    [
        (0, 0, True),
        (2 * SIZE, 0, True),
        (2 * SIZE + 1, 0, False),
        (2 * SIZE + 1, 1, True),
        (3 * SIZE - 1, SIZE - 1, True),
        (3 * SIZE, SIZE - 1, False),
    ],
)
def test_a_blob_is_sent_again_while_that_makes_no_more_than_three_times_its_bytes(
    written: int, at: int, may: bool
) -> None:
    assert RESENT == 3
    assert may_send(written, SIZE, at) is may


def test_small_blobs_are_bounded_by_their_tries_alone() -> None:
    assert may_send(100 * FRUITFUL, FRUITFUL - 1, 0)
