"""How fast something goes, and how long it will still take, such that neither jumps. Pure; times are seconds
of any one clock."""

from __future__ import annotations

import math

# Seconds that weigh most in a rate, and in which a new estimate of the end is taken over.
RATE_SPAN = 5.0
LEFT_SPAN = 20.0
_TAKEN_OVER = 8.0
# An end is not told before so many seconds have shown how fast it goes, and this part of the whole is done.
KNOWN_AFTER = 4.0
KNOWN_PART = 0.01
# What stands still for so long (seconds) has no end, and is told as that.
STALLED_AFTER = 2.0
# The end may come nearer at any time, but moves away only by more than this.
_STEP_BACK = 1.2


class Rate:
    """Units a second, those of the last `span` seconds before all."""

    def __init__(self, span: float = RATE_SPAN) -> None:
        self._span = span
        self._at: float | None = None
        self._seen = 0.0
        self._value = 0.0
        self._weight = 0.0

    def saw(self, total: float, now: float) -> None:
        """So many units have passed until now."""
        if self._at is not None and now > self._at:
            share = 1 - math.exp((self._at - now) / self._span)
            passed = max(0.0, total - self._seen) / (now - self._at)
            self._value += (passed - self._value) * share
            self._weight += (1 - self._weight) * share
        if self._at is None or now > self._at:
            self._at, self._seen = now, total

    @property
    def value(self) -> float:
        return self._value / self._weight if self._weight else 0.0


class Stillness:
    """Since when something has not moved."""

    def __init__(self, now: float) -> None:
        self._seen = 0
        self.since = now

    def saw(self, total: int, now: float) -> None:
        """So many units have passed until now."""
        if total != self._seen:
            self._seen, self.since = total, now

    def seconds(self, now: float) -> float:
        """How long it has stood still by now; 0 for what is no stall."""
        still = now - self.since
        return still if still >= STALLED_AFTER else 0.0


class Remaining:
    """How long the rest of something takes."""

    def __init__(self) -> None:
        self._rate = Rate(LEFT_SPAN)
        self._began: float | None = None
        self._last = 0.0
        self._end = 0.0
        self._shown = math.inf

    def saw(self, done: float, total: float, now: float) -> float | None:
        """`done` of `total` units by now. Returns the seconds left; None: that can't be known yet."""
        self._rate.saw(done, now)
        if self._began is None:
            if not done:
                return None
            self._began = self._last = now
        if now - self._began < KNOWN_AFTER or done < total * KNOWN_PART or self._rate.value <= 0:
            self._last = now
            return None
        end = now + max(0.0, total - done) / self._rate.value
        share = 1.0 if not self._end else 1 - math.exp((self._last - now) / _TAKEN_OVER)
        self._end += (end - self._end) * share
        self._last = now
        left = max(0.0, self._end - now)
        self._shown = left if left < self._shown or left > self._shown * _STEP_BACK else self._shown
        return self._shown


def left_text(seconds: float) -> str:
    """About how long: `a few s`, `25 s`, `3 min 20 s`, `25 min`, `2 h 10 min`."""
    if seconds < 5:
        return "a few s"
    if seconds < 58:
        return f"{math.ceil(seconds / 5) * 5} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60 // 10 * 10} min"
