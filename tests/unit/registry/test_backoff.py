"""The retry table and the back-off that a host's requests share."""

from __future__ import annotations

import pytest

from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    DigestMismatch,
    NotFound,
    Rejected,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    UntrustedPeer,
)
from blobflow.retrying import MAX_RETRY_AFTER_SECONDS, Failure
from blobflow.transports.registry.http.backoff import (
    POLICIES,
    Backoff,
    concerns_host,
    delay_before_next,
)
from blobflow.waits import HostWaits
from tests.fakes.registry import Clock


@pytest.mark.parametrize(
    "error",
    [
        NotFound("no"),
        Unauthorized("no"),
        Rejected("no"),
        UntrustedPeer("no"),
        DigestMismatch("blob", expected="a", actual="b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_another_try_cannot_mend_is_not_tried_again(error: BlobflowError) -> None:
    assert delay_before_next(error, 1, 0.0) is None


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (Throttled("t"), 10),
        (Unavailable("u"), 5),
        (ConnectFailed("c"), 4),
        (TimedOut("t"), 3),
        (ConnectionLost("l"), 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BlobflowError) else str(value),
)
def test_each_class_has_its_number_of_attempts(error: BlobflowError, attempts: int) -> None:
    assert [delay_before_next(error, n, 0.0) is not None for n in range(1, attempts + 2)] == (
        [True] * (attempts - 1) + [False] * 2
    )


@pytest.mark.parametrize("kind", [kind for kind, _ in POLICIES])
def test_delays_double_up_to_their_bound_and_jitter_takes_at_most_half(kind: type[BlobflowError]) -> None:
    error = kind("x")
    own = next(rule for each, rule in POLICIES if each is kind)
    for attempt in range(1, own.attempts):
        full = min(own.most, own.first * 2 ** (attempt - 1))
        low, high = delay_before_next(error, attempt, 0.0), delay_before_next(error, attempt, 0.999999)
        assert low == full / 2
        assert high is not None and full * 0.99 < high < full


def test_a_retry_after_wins_over_the_table_and_over_jitter() -> None:
    for jitter in (0.0, 0.9):
        assert delay_before_next(Throttled("t", retry_after=17.0), 1, jitter) == 17.0
        assert delay_before_next(Unavailable("u", retry_after=0.0), 3, jitter) == 0.0


def test_a_wish_beyond_the_bound_is_no_retry_at_all() -> None:
    assert (
        delay_before_next(Throttled("t", retry_after=MAX_RETRY_AFTER_SECONDS), 1, 0.0)
        == MAX_RETRY_AFTER_SECONDS
    )
    assert delay_before_next(Throttled("t", retry_after=MAX_RETRY_AFTER_SECONDS + 1), 1, 0.0) is None


def test_only_a_counted_or_spoken_wish_holds_all_requests() -> None:
    assert concerns_host(Throttled("t"))
    assert concerns_host(Unavailable("u", retry_after=3.0))
    assert not concerns_host(Unavailable("u"))
    assert not concerns_host(ConnectionLost("l"))


async def test_the_back_off_holds_until_its_last_end_and_then_no_more() -> None:
    clock = Clock()
    backoff = Backoff(clock, clock.sleep, HostWaits())
    await backoff.wait()
    backoff.hold(Failure(Throttled("t"), 1, 5.0))
    backoff.hold(Failure(Throttled("t"), 1, 2.0))
    await backoff.wait()
    await backoff.wait()
    assert clock.slept == [5.0]


@pytest.mark.parametrize("times", [0, 1, 30])
def test_how_often_may_be_said(times: int) -> None:
    """In place of the table, and not of what can't be mended."""
    for error in (Throttled("t", retry_after=0.0), Unavailable("u"), ConnectFailed("c")):
        delays = [delay_before_next(error, n, 0.0, times=times) for n in range(1, times + 2)]
        assert [delay is not None for delay in delays] == [True] * times + [False]
    assert delay_before_next(NotFound("n"), 1, 0.0, times=times) is None
