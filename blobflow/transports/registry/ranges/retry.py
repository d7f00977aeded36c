"""When a range that broke is asked for again: what remains of it. Pure.

Requests up to the headers are retried by the host's client; here it is about the bytes after them. Progress
makes the count begin anew, so a line that cuts every connection after some megabytes costs a request a cut.
"""

from __future__ import annotations

from collections.abc import Callable

from blobflow.errors import BlobflowError, ConnectionLost, NetworkError, TimedOut
from blobflow.retrying import Rule, Table, rule_for

# Attempts in a row that brought less than FRUITFUL.
RULES: Table = (
    (TimedOut, Rule(attempts=2, first=0.5, most=5.0)),
    (ConnectionLost, Rule(attempts=5, first=0.1, most=5.0)),
    (NetworkError, Rule(attempts=3, first=0.5, most=5.0)),
)
FRUITFUL = 256 * 1024  # bytes


class RangeRetries:
    """The retry `Policy` of one range. `at` gives the offset up to which it has come; `jitter` 0 ≤ j < 1.
    `times`: how often in a row it is tried again without progress, in place of what RULES say; 0: never."""

    def __init__(
        self, at: Callable[[], int], jitter: Callable[[], float], *, times: int | None = None
    ) -> None:
        self._at = at
        self._jitter = jitter
        self._times = times
        self._began = at()
        self.fruitless = 0

    def next_delay(self, error: BlobflowError) -> float | None:
        """See `Policy.next_delay`."""
        came, self._began = self._at() - self._began, self._at()
        self.fruitless = 0 if came >= FRUITFUL else self.fruitless + 1
        rule = rule_for(error, RULES)
        if rule is None or self._times == 0:
            return None
        if self.fruitless >= (rule.attempts if self._times is None else self._times + 1):
            return None
        return rule.delay(self.fruitless, self._jitter()) if self.fruitless else 0.0

    def attempts_for(self, error: BlobflowError) -> int:
        """See `Policy.attempts_for`: what brings bytes begins the count anew."""
        return 0
