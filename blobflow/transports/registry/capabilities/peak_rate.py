"""The most that a host's streams moved together, and how many they were. Sans-IO.

So many are known to be worth it there: whoever is left alone may have as many for one blob, and need not find
that out anew, two by two.
"""

from __future__ import annotations

import msgspec

from blobflow.transports.registry.capabilities.stream_growth import GAIN, MEASURED_SECONDS, PROVEN_FOR


class _Peak(msgspec.Struct, frozen=True):
    """At the time `at`, `streams` moved `rate` bytes a second."""

    at: float
    rate: float
    streams: int


class PeakRate:
    """What was seen of the streams of one host. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._peak: _Peak | None = None
        self._since: tuple[float, int] | None = None
        self._streams = 0

    def look(self, now: float, moved: int, streams: int) -> None:
        """So many streams are under way, and all have `moved` so many bytes so far. Call it before one of
        them ends, and after one has begun."""
        self._streams = max(self._streams, streams)
        if self._since is None:
            self._since = now, moved
            return
        since, before = self._since
        if now - since >= MEASURED_SECONDS:
            rate = (moved - before) / (now - since)
            if rate >= self._best(now):
                self._peak = _Peak(now, rate, self._streams)
            self._since, self._streams = (now, moved), streams

    def streams(self, now: float, rate: float) -> int:
        """How many of them moved clearly more than `rate` bytes a second, not long ago; 0: none did."""
        best = self._best(now)
        return self._peak.streams if self._peak is not None and best >= rate * GAIN else 0

    def _best(self, now: float) -> float:
        """The highest rate that was seen lately; 0: none was."""
        peak = self._peak
        return peak.rate if peak is not None and now - peak.at < PROVEN_FOR else 0.0
