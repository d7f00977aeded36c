"""Retrying a blob's bytes: what, how often, how long between. Pure.

Requests without a body are retried inside the transport. A blob's bytes are retried here, through their
`BlobReader`, which reads again from wherever that is possible. The table:

    failure                                            tries
    a connection lost after it had moved FRUITFUL      MOST, with hardly a pause: a line that breaks now and
      bytes                                            then gets through in the end
    the same, at about the same byte every time,       ALIKE in a row: that is no bad line, but something in
      with a target that starts over                   between that lets no more than so much through
    any at the target, after what is left would make   no more: a registry that forgets what broke makes a
      the bytes sent more than RESENT times the blob   bad line cost the blob once more with every break
    no connection, after the transport itself had      1: a peer that is gone is known within seconds, and
      tried for one more than once                       costs the others neither slots nor time
    any other error that says it is retryable          ATTEMPTS in a row without FRUITFUL bytes more that the
                                                         target confirms
    a digest that did not match                        2: a flipped bit heals, a wrong blob does not
    anything else                                      1

There is no limit on the time in all: progress has a timeout, in the transport.
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
from blobflow.retrying import Rule, Table, rule_for

# Fruitless tries in a row, and what is waited between them. A restarted registry or a reset connection is
# back in less than the first delay.
ATTEMPTS = 5
FIRST_DELAY = 0.25  # seconds
LONGEST_DELAY = 30.0  # seconds
RULES: Table = (
    (DigestMismatch, Rule(attempts=2, first=FIRST_DELAY, most=LONGEST_DELAY)),
    (BlobflowError, Rule(attempts=ATTEMPTS, first=FIRST_DELAY, most=LONGEST_DELAY)),
)
# A line that drops every 12 MB, and a registry that keeps what came before, take 4,200 tries for a blob of 50
# GB.
MOST = 5000
# Twice lost near its end, and then arrived. A line that needs more than that is not worth its bytes: where
# chunks help, they have become small by then.
RESENT = 3
# Breaks at random are within a tenth of the one before about one time in ten.
ALIKE = 20
FRUITFUL = 1024 * 1024  # bytes


class Tries(msgspec.Struct, frozen=True):
    """How often something was tried: `made` in all, `fruitless` since the last that moved something.

    `alike`: how many in a row then moved about as much as the one before (`moved` bytes), and from the same
    offset `at` of the blob. `furthest`: the largest offset that one began at.
    """

    made: int = 0
    fruitless: int = 0
    alike: int = 0
    moved: int = 0
    at: int = 0
    furthest: int = 0

    def after(self, error: BlobflowError, at: int = 0) -> Tries:
        """One more try, which failed. `at` is the offset from which the target wanted the blob."""
        moved = error.received if isinstance(error, ConnectionLost) else 0
        furthest = max(self.furthest, at)
        if moved < FRUITFUL:
            # What the one before had brought shows in where this one began.
            further = furthest - self.furthest >= FRUITFUL
            return Tries(self.made + 1, 1 if further else self.fruitless + 1, at=at, furthest=furthest)
        # What a source has sent is not sent again: there the same number is progress.
        alike = error.side != "source" and at == self.at and abs(moved - self.moved) <= self.moved / 10
        return Tries(self.made + 1, 0, self.alike + 1 if alike else 0, moved, at, furthest)


def delay_before_retry(error: BlobflowError, tries: Tries, random: Callable[[], float]) -> float | None:
    """Seconds to wait after a failure; None: give up. `tries` includes the one that failed.

    Exponential with jitter (`random` gives 0 ≤ r < 1), but never less than the registry's Retry-After.
    """
    rule = rule_for(error, RULES)
    if rule is None or not _may_be_mended(error) or tries.fruitless >= rule.attempts:
        return None
    if tries.made >= MOST or tries.alike >= ALIKE:
        return None
    asked = error.retry_after if isinstance(error, Throttled | Unavailable) else None
    return max(asked or 0.0, rule.delay(tries.fruitless, random()))


def may_send(written: int, size: int, at: int) -> bool:
    """Whether a blob of `size` bytes, of which `written` were sent in all, may be sent again from `at`, which
    is as much as its target is known to have. Small blobs are bounded by the number of their tries."""
    return size < FRUITFUL or written + size - at <= RESENT * size


def _may_be_mended(error: BlobflowError) -> bool:
    """Whether another try may succeed. `error` is as the transport raised it."""
    if isinstance(error, ConnectFailed) and error.attempts > 1:
        return False
    return error.retryable or isinstance(error, DigestMismatch)


class BlobRetries:
    """The retry `Policy` of one blob's way to one place. `at` gives the offset from which the place wanted it
    last; `random` 0 ≤ r < 1."""

    def __init__(self, random: Callable[[], float], at: Callable[[], int] = lambda: 0) -> None:
        self._random = random
        self._at = at
        self.tries = Tries()

    def next_delay(self, error: BlobflowError) -> float | None:
        """See `Policy.next_delay`."""
        self.tries = self.tries.after(error, self._at())
        return delay_before_retry(error, self.tries, self._random)
