"""The window of one host: how many requests may be in flight there. Sans-IO.

It opens as answers come while it is full, and closes by a factor when the host says 429 or 503 or goes
silent: additive increase, multiplicative decrease, within the limits that were set. The size that was refused
last is remembered: up to it the window opens quickly, beyond it slowly, so that a host with eight slots is
asked for a ninth at once only every few hundred requests.
"""

from __future__ import annotations

import math

# A window that was refused right after it was known to be good is one too large: it closes by little, and
# stays near the limit. One that is refused before it was ever used whole is much too large.
SMALL_DECREASE = 0.85
LARGE_DECREASE = 0.5
# Answers, in windows full, that open the window by one: below the size that was refused last, and at it.
# 40 windows of 8 are some 320 requests for one 429: 0.3 %.
APPROACH = 2.0
PROBE = 40.0


class CongestionWindow:
    """The size of the window, as answers teach it. Sans-IO; times are seconds of any one clock."""

    def __init__(self, start: int, ceiling: int) -> None:
        self.ceiling = ceiling
        self._exact = float(min(start, ceiling))
        self._refused = math.inf
        self._cut_at = -math.inf
        self._since_cut = 0

    @property
    def size(self) -> int:
        """Requests in flight at once; at least 1."""
        return int(min(self._exact, self.ceiling))

    def answered(self, *, full: bool) -> None:
        """The host answered without signs of overload; `full`: the whole window was in use."""
        self._since_cut += 1
        if full:
            self._exact = min(self.ceiling, self._exact + self._step())
        if self._exact >= self._refused + 1:
            self._refused = math.inf  # it takes more than it did

    def congested(self, sent: float, now: float) -> None:
        """The host is overloaded. A request `sent` before the last decrease says nothing about that."""
        if sent <= self._cut_at:
            return
        probed = self._since_cut >= self._exact
        if probed or self._refused == math.inf:
            self._refused = self._exact
        self._exact = max(1.0, self._exact * (SMALL_DECREASE if probed else LARGE_DECREASE))
        self._cut_at = now
        self._since_cut = 0

    def crowded(self, least: int) -> None:
        """The host answered, but ever later: one window full of such answers closes the window by one, down
        to `least`."""
        exact = min(self._exact, float(self.ceiling))
        self._exact = max(float(least), exact - 1.0 / exact)

    def resize(self, start: int) -> None:
        """Other limits hold: one that was never refused begins with `start`, as at first."""
        if self._cut_at == -math.inf:
            self._exact = float(min(start, self.ceiling))

    def _step(self) -> float:
        if self._cut_at == -math.inf:
            return 1.0  # never refused: twice as many with every window
        slowness = APPROACH if self._exact < self._refused - 1 or self._refused == math.inf else PROBE
        return 1.0 / (slowness * self._exact)
