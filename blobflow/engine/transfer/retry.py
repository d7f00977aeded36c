"""Retrying a blob's bytes: what, how often, how long between. Pure.

Requests without a body are retried inside the transport. A blob's bytes are retried here, through their
`BlobReader`, which reads again from wherever that is possible. The table:

    failure                                            attempts
    a connection lost after it had moved FRUITFUL      MOST, with hardly a pause: over a line that breaks now
      bytes                                              and then the blob arrives in the end
    the same, at about the same byte every time,       ALIKE in a row: the line is not bad, but something on
      with a target that starts over                     the way lets no more than so much through
    any at the target, once the rest would make the    no more: at a registry that keeps no partial uploads,
      bytes sent more than RESENT times the blob         every break on a bad line costs the blob once more
    no connection, after the transport itself had      1: a peer that is gone is known within seconds, and
      tried to connect more than once                    costs the others neither permits nor time
    any other error that says it is retryable          ATTEMPTS in a row without FRUITFUL bytes more that the
                                                         target confirms
    a registry that wants more time than anyone waits  1: how much it wants is said in the error
    a digest that did not match                        2: a flipped bit heals, a wrong blob does not
    anything else                                      1

There is no limit on the total time: the transport has a timeout on progress.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    DigestMismatch,
    Throttled,
    Unavailable,
)
from blobflow.retrying import MAX_RETRY_AFTER_SECONDS, Rule, Table, rule_for

# Fruitless attempts in a row, and the delays between them. A restarted registry or a reset connection is
# back in less than the first delay.
ATTEMPTS = 5
FIRST_DELAY = 0.25  # seconds
LONGEST_DELAY = 30.0  # seconds
RULES: Table = (
    (DigestMismatch, Rule(attempts=2, first=FIRST_DELAY, most=LONGEST_DELAY)),
    (BlobflowError, Rule(attempts=ATTEMPTS, first=FIRST_DELAY, most=LONGEST_DELAY)),
)
# Over a line that drops every 12 MB, to a registry that keeps partial uploads, a blob of 50 GB takes 4,200
# attempts.
MOST = 5000
# Enough for a blob that is lost twice near its end and then arrives. A line that needs more is not worth its
# bytes: where chunks help, they have become small by then.
RESENT = 3
# Breaks at random are within a tenth of the one before about one time in ten.
ALIKE = 20
FRUITFUL = 1024 * 1024  # bytes


class Tries(msgspec.Struct, frozen=True):
    """The attempts so far: `made` in all, `fruitless` since the last that moved something.

    `alike`: how many in a row moved about as much as the one before (`moved` bytes), and from the same offset
    `at` of the blob. `furthest`: the largest offset that one began at.
    """

    made: int = 0
    fruitless: int = 0
    alike: int = 0
    moved: int = 0
    at: int = 0
    furthest: int = 0

    def after(self, error: BlobflowError, at: int = 0) -> Tries:
        """The attempts with one more, which failed. `at` is the offset at which the target began it."""
        moved = error.received if isinstance(error, ConnectionLost) else 0
        furthest = max(self.furthest, at)
        if moved < FRUITFUL:
            # Where this one began shows what the one before had achieved.
            further = furthest - self.furthest >= FRUITFUL
            return Tries(self.made + 1, 1 if further else self.fruitless + 1, at=at, furthest=furthest)
        # A source does not resend what it has sent: there the same number is progress.
        alike = error.side != "source" and at == self.at and abs(moved - self.moved) <= self.moved / 10
        return Tries(self.made + 1, 0, self.alike + 1 if alike else 0, moved, at, furthest)


def delay_before_retry(
    error: BlobflowError, tries: Tries, random: Callable[[], float], times: int | None = None
) -> float | None:
    """Seconds to wait after a failure; None: give up. `tries` includes the one that failed.

    Exponential with jitter (`random` gives 0 ≤ r < 1), but never less than the registry's Retry-After; one of
    more than MAX_RETRY_AFTER_SECONDS is not waited for.
    `times`: how often in a row it is tried again without having moved anything, in place of what RULES say
    (a digest that did not match is not read more often for it).
    """
    rule = rule_for(error, RULES)
    if rule is None or not _may_be_mended(error):
        return None
    if tries.fruitless >= _attempts(error, times) or times == 0:
        return None
    if tries.made >= MOST or tries.alike >= ALIKE:
        return None
    asked = (error.retry_after if isinstance(error, Throttled | Unavailable) else None) or 0.0
    if asked > MAX_RETRY_AFTER_SECONDS:
        return None
    return max(asked, rule.delay(tries.fruitless, random()))


def _attempts(error: BlobflowError, times: int | None) -> int:
    """How many attempts in a row may fail so without having moved anything; 0: what has no rule."""
    rule = rule_for(error, RULES)
    if rule is None or times is None:
        return rule.attempts if rule is not None else 0
    return min(rule.attempts, times + 1) if isinstance(error, DigestMismatch) else times + 1


def may_send(written: int, size: int, at: int) -> bool:
    """Whether a blob of `size` bytes may be sent again from `at`, which is as much as its target is known to
    have, after `written` bytes in all. Small blobs are bounded by the number of their attempts instead."""
    return size < FRUITFUL or written + size - at <= RESENT * size


def _may_be_mended(error: BlobflowError) -> bool:
    """Whether another attempt may succeed. `error` is as the transport raised it."""
    if isinstance(error, ConnectFailed) and error.attempts > 1:
        return False
    return error.retryable or isinstance(error, DigestMismatch)


class BlobRetries:
    """The retry `Policy` of copying one blob to one target. `at` gives the offset at which the last attempt
    began; `random` 0 ≤ r < 1. `times`: see `delay_before_retry`."""

    def __init__(
        self, random: Callable[[], float], at: Callable[[], int] = lambda: 0, *, times: int | None = None
    ) -> None:
        self._random = random
        self._at = at
        self._times = times
        self.tries = Tries()

    def next_delay(self, error: BlobflowError) -> float | None:
        """See `Policy.next_delay`."""
        self.tries = self.tries.after(error, self._at())
        return delay_before_retry(error, self.tries, self._random, self._times)

    def attempts_for(self, error: BlobflowError) -> int:
        """See `Policy.attempts_for`. Attempts that moved something don't count."""
        return _attempts(error, self._times) if self.tries.made == self.tries.fruitless else 0
