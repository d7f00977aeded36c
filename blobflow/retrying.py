"""Retries: the one loop for everything that another attempt may mend.

What is retried can be begun again from its start, or from where it stood. Whether another attempt is worth
it, and after how long, a `Policy` says: a table of rules for each class of error, and what it counts. It is
asked after each failure, and knows nothing of tasks or time. How pauses are spent, and who is told of them,
is up to the caller's `Pause`.

Policies stand where their errors arise: those of a registry's requests in its transport, of a blob's bytes in
the engine, of a blob that is pulled through in the server. An error that is raised in the end carries the
number of its attempts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from blobflow.errors import BlobflowError
from blobflow.waits import HostWaits, OpenWait, WaitKind

T = TypeVar("T")

# Who asks for more than this (seconds) gets no retry: the error and the registry's wish go to the user. A
# caller with clients of its own waits less.
MAX_RETRY_AFTER_SECONDS = 300.0


class Rule(msgspec.Struct, frozen=True):
    """`attempts` in all; delays in seconds: `first`, doubled each time, at most `most`."""

    attempts: int
    first: float
    most: float

    def delay(self, failures: int, jitter: float) -> float:
        """Seconds after so many failures in a row (from 1); `jitter`, in 0 ≤ j < 1, is half of it."""
        return min(self.most, self.first * 2.0 ** (failures - 1)) * (0.5 + jitter / 2)


# The first class that fits decides; what fits none is not tried again.
Table = tuple[tuple[type[BlobflowError], Rule], ...]


def rule_for(error: BlobflowError, table: Table) -> Rule | None:
    """The rule of an error."""
    return next((rule for kind, rule in table if isinstance(error, kind)), None)


class Policy(Protocol):
    """When one task is tried again. It counts, so that each task has its own."""

    def next_delay(self, error: BlobflowError) -> float | None:
        """Seconds from a failed attempt to the next; None: there is none. Called once after each."""
        ...

    def attempts_for(self, error: BlobflowError) -> int:
        """How many attempts there are in all if each fails like the last one, with this error; 0: that is no
        number to be told. Called after `next_delay`."""
        ...


class Failure(msgspec.Struct, frozen=True):
    """The `attempt` (from 1) that failed, and the seconds until the next. `attempts`: how many there are in
    all; 0: their number is not fixed."""

    error: BlobflowError
    attempt: int
    delay: float
    attempts: int = 0


def begin_wait(
    waits: HostWaits,
    failure: Failure,
    what: str = "",
    *,
    kind: WaitKind = "retry",
    seconds: float | None = None,
) -> OpenWait:
    """The wait for the attempt after a failure, which begins now. `what`: what is tried; `kind`: another one
    than for a retry; `seconds`: if they are not the failure's whole delay."""
    return waits.begin(
        kind,
        what,
        seconds=failure.delay if seconds is None else seconds,
        error=failure.error,
        attempt=failure.attempt + 1 if failure.attempts else 0,
        attempts=failure.attempts,
    )


# Waits until the next attempt may begin; or raises, and there is none.
Pause = Callable[[Failure], Awaitable[None]]


class Attempts:
    """The attempts of one task, for a caller who makes them himself: a generator, say."""

    def __init__(self, policy: Policy, pause: Pause) -> None:
        self._policy = policy
        self._pause = pause
        self._failed = 0

    async def failed(self, error: BlobflowError) -> None:
        """Return when the next attempt may begin. Raises the error if that was the last."""
        self._failed += 1
        delay = self._policy.next_delay(error)
        error.attempts = max(error.attempts, self._failed)
        if delay is None:
            raise error
        await self._pause(Failure(error, self._failed, delay, self._policy.attempts_for(error)))


async def retrying(policy: Policy, once: Callable[[], Awaitable[T]], pause: Pause) -> T:
    """What `once` returns, at the first attempt that succeeds. Raises its error, and what is no error of ours
    at once; may be cancelled in an attempt and between two."""
    attempts = Attempts(policy, pause)
    while True:
        try:
            return await once()
        except BlobflowError as error:
            failure = error
        await attempts.failed(failure)
