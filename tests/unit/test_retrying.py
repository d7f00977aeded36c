"""The one way to try again, and the tables that it is asked by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from blobflow.errors import BlobflowError, ConnectionLost, NotFound, Throttled, TimedOut
from blobflow.retrying import Attempts, Failure, Rule, retrying, rule_for


class Delays:
    """A policy that gives these delays, and then gives up."""

    def __init__(self, *delays: float) -> None:
        self._delays = list(delays)
        self.asked: list[BlobflowError] = []

    def next_delay(self, error: BlobflowError) -> float | None:
        self.asked.append(error)
        return self._delays.pop(0) if self._delays else None

    def attempts_for(self, error: BlobflowError) -> int:
        return len(self.asked) + len(self._delays) + 1


class Pauses:
    """What a pause was told; it takes no time, and may end the attempts."""

    def __init__(self, ends_with: BlobflowError | None = None) -> None:
        self.failures: list[Failure] = []
        self._ends_with = ends_with

    async def __call__(self, failure: Failure) -> None:
        self.failures.append(failure)
        if self._ends_with is not None:
            raise self._ends_with


def failing(*errors: BaseException) -> Callable[[], object]:
    """What raises these, one at each attempt, and then returns how often it was tried."""
    left = list(errors)

    async def once() -> int:
        if left:
            raise left.pop(0)
        return len(errors) + 1

    return once


async def test_what_succeeds_at_a_later_attempt_is_returned() -> None:
    lost, slow = ConnectionLost("lost"), TimedOut("slow")
    pauses = Pauses()
    assert await retrying(Delays(0.5, 1.0), failing(lost, slow), pauses) == 3  # type: ignore[arg-type]
    assert pauses.failures == [Failure(lost, 1, 0.5, 3), Failure(slow, 2, 1.0, 3)]


async def test_the_last_error_is_raised_with_the_number_of_attempts() -> None:
    errors = [ConnectionLost("first"), ConnectionLost("second")]
    with pytest.raises(ConnectionLost, match=r"second \(after 2 attempts\)"):
        await retrying(Delays(0.5), failing(*errors), Pauses())  # type: ignore[arg-type]


async def test_attempts_that_were_counted_below_are_not_forgotten_and_seen_by_the_policy() -> None:
    seen: list[int] = []

    class Seeing(Delays):
        def next_delay(self, error: BlobflowError) -> float | None:
            seen.append(error.attempts)
            return super().next_delay(error)

    with pytest.raises(TimedOut) as raised:
        await retrying(Seeing(), failing(TimedOut("slow", attempts=4)), Pauses())  # type: ignore[arg-type]
    assert (seen, raised.value.attempts) == ([4], 4)


async def test_a_pause_may_end_the_attempts() -> None:
    policy = Delays(0.5, 0.5)
    lost = ConnectionLost("lost")
    with pytest.raises(ConnectionLost):
        await retrying(policy, failing(lost, NotFound("never tried")), Pauses(lost))  # type: ignore[arg-type]
    assert policy.asked == [lost]


async def test_what_is_no_error_of_ours_is_never_tried_again() -> None:
    policy = Delays(0.5)
    with pytest.raises(ZeroDivisionError):
        await retrying(policy, failing(ZeroDivisionError()), Pauses())  # type: ignore[arg-type]
    assert policy.asked == []


async def test_a_generator_makes_its_attempts_itself() -> None:
    attempts = Attempts(Delays(0.5), Pauses())
    await attempts.failed(ConnectionLost("one"))
    with pytest.raises(ConnectionLost, match=r"two \(after 2 attempts\)"):
        await attempts.failed(ConnectionLost("two"))


def test_the_first_class_of_a_table_that_fits_decides() -> None:
    first, second = Rule(1, 1.0, 1.0), Rule(2, 1.0, 1.0)
    table = ((ConnectionLost, first), (BlobflowError, second))
    assert rule_for(ConnectionLost("x"), table) is first
    assert rule_for(Throttled("x"), table) is second
    assert rule_for(Throttled("x"), table[:1]) is None


def test_a_rules_delays_double_up_to_their_bound_and_jitter_takes_at_most_half() -> None:
    rule = Rule(attempts=9, first=0.25, most=1.5)
    assert [rule.delay(failures, 1.0) for failures in (1, 2, 3, 4, 9)] == [0.25, 0.5, 1.0, 1.5, 1.5]
    assert [rule.delay(failures, 0.0) for failures in (1, 4)] == [0.125, 0.75]
