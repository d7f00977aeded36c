"""Retries of requests: which, when, and how long nothing is sent to the host. Pure, but for `Backoff`.

Only requests without a body, or with a small one held in memory, are sent again here; a blob's bytes are sent
again by the engine, which can reopen them. What may be tried again is said by the error tree (`retryable`),
how often and when by the table below. Every delay is exponential with jitter, and a Retry-After wins over it.
"""

from __future__ import annotations

from collections.abc import Callable

from blobflow.content import Sleep
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    NetworkError,
    RegistryError,
    Throttled,
    TimedOut,
    Unavailable,
)
from blobflow.retrying import MAX_RETRY_AFTER_SECONDS, Failure, Rule, Table, begin_wait, rule_for
from blobflow.waits import HostWaits

# Seconds for which nothing is sent to the host after a 429 that does not say how long.
DEFAULT_RETRY_AFTER = 0.25

# The first class that fits decides. A refused connection or unknown host is known within two seconds; a 429
# is sat out for minutes, since only time mends it, but begins with little: it holds the whole host, and most
# often only says that the window has been opened by one too many. A minute without progress is not worth
# many more of them.
#
# What is mended elsewhere: a token that ended, once, with a fresh one (`dispatch`); an upload session that is
# stale, and one whose token ended under the bytes (`uploads.state`).
POLICIES: Table = (
    (Throttled, Rule(attempts=10, first=DEFAULT_RETRY_AFTER, most=60.0)),
    (Unavailable, Rule(attempts=5, first=0.5, most=15.0)),
    (ConnectFailed, Rule(attempts=4, first=0.25, most=3.0)),
    (TimedOut, Rule(attempts=3, first=0.5, most=5.0)),
    (ConnectionLost, Rule(attempts=4, first=0.25, most=5.0)),
    (NetworkError, Rule(attempts=3, first=0.5, most=5.0)),
)


def retry_after_of(error: BlobflowError) -> float | None:
    """What the registry asked for, in seconds; None if it did not."""
    return error.retry_after if isinstance(error, (Throttled, Unavailable)) else None


def delay_before_next(
    error: BlobflowError,
    attempt: int,
    jitter: float,
    *,
    fail_fast: bool = False,
    longest: float = MAX_RETRY_AFTER_SECONDS,
    times: int | None = None,
) -> float | None:
    """Seconds to wait after failed `attempt` (from 1), or None: give up. `jitter` is in 0 ≤ j < 1.

    `fail_fast`: the same can be had elsewhere, so one more attempt has to do, and none where the host wants
    time. `longest`: seconds that are waited at most where the host wants time. `times`: how often it is tried
    again, in place of what the table says.
    """
    if not error.retryable or (fail_fast and (attempt > 1 or concerns_host(error))):
        return None
    rule = rule_for(error, POLICIES)
    if rule is None or attempt >= attempts_of(error, times):
        return None
    wish = retry_after_of(error)
    if wish is not None:
        return wish if wish <= longest else None
    delay = rule.delay(attempt, jitter)
    return None if concerns_host(error) and delay > longest else delay


def attempts_of(error: BlobflowError, times: int | None = None) -> int:
    """How many attempts there are in all; 0 for what has no rule. `times`: see `delay_before_next`."""
    rule = rule_for(error, POLICIES)
    if rule is None:
        return 0
    return rule.attempts if times is None else times + 1


def concerns_host(error: BlobflowError) -> bool:
    """Whether the wait holds for every request of the host: it said so, or it counts requests."""
    return isinstance(error, Throttled) or retry_after_of(error) is not None


class RequestRetries:
    """The retry `Policy` of one request. `fail_fast`, `longest`, `times`: see `delay_before_next`.
    `unanswered`: it is sent again also when no answer came; else it may have been done."""

    def __init__(
        self,
        jitter: Callable[[], float],
        *,
        fail_fast: bool,
        longest: float,
        unanswered: bool,
        times: int | None = None,
    ) -> None:
        self._jitter = jitter
        self._fail_fast = fail_fast
        self._longest = longest
        self._unanswered = unanswered
        self._times = times
        self._attempt = 0

    def next_delay(self, error: BlobflowError) -> float | None:
        """See `Policy.next_delay`."""
        self._attempt += 1
        if not (self._unanswered or isinstance(error, RegistryError)):
            return None
        return delay_before_next(
            error,
            self._attempt,
            self._jitter(),
            fail_fast=self._fail_fast,
            longest=self._longest,
            times=self._times,
        )

    def attempts_for(self, error: BlobflowError) -> int:
        """See `Policy.attempts_for`."""
        attempts = attempts_of(error, self._times)
        return min(attempts, 2) if self._fail_fast else attempts


class Backoff:
    """Until when no request is sent to one host. Who waits for that is among the `waits`."""

    def __init__(self, clock: Callable[[], float], sleep: Sleep, waits: HostWaits) -> None:
        self._clock = clock
        self._sleep = sleep
        self._waits = waits
        self._until = 0.0
        self._cause: Failure | None = None

    def hold(self, failure: Failure) -> None:
        """Send nothing for the failure's delay from now."""
        until = self._clock() + failure.delay
        if until > self._until:
            self._until, self._cause = until, failure

    async def wait(self) -> None:
        """Return when the host may be asked again; at once if nothing holds."""
        while (left := self._until - self._clock()) > 0:
            assert self._cause is not None, "something holds"
            with begin_wait(self._waits, self._cause, kind="rest", seconds=left):
                await self._sleep(left)
