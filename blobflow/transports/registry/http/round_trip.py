"""The round trip to one host, as the times of its answers show it, and what follows for small requests.

Where a host is near, a few requests at once keep it busy, and more only queue there. Where it is far, most of
what is in flight is on the way, and is no load: twice as far, twice as many are answered with the same load.
So as many more are allowed as the round trip is longer than a near one's, up to `FARTHEST` times.

The shortest time counts, in which the host had least to do; what takes longer has waited there, or here. When
answers usually take `RISEN` times as long, more requests would only wait for longer. Sans-IO.
"""

from __future__ import annotations

import math

# Seconds up to which a host is near: 16 requests in flight are 3,200 a second there, which is more than most
# registries answer.
NEAR_SECONDS = 0.005
# Times as many small requests as near, at most, which is from 20 ms on. 64 at once are what people give tools
# for far registries; each is a connection, and a handshake.
FARTHEST = 4
RISEN = 3.0
# The share of one answer in what is usual.
_SHARE = 1 / 16


class RoundTrip:
    """What is known of the round trip to a host; `near`: small requests at once where that is short."""

    def __init__(self, near: int) -> None:
        self.near = near
        self.shortest = math.inf
        self._usual = 0.0
        self._first = near  # answers to come that took the time of making a connection, too

    def took(self, seconds: float) -> None:
        """A request without a body was answered after so many seconds."""
        if self._first:
            self._first -= 1
        elif self.shortest == math.inf:
            self.shortest = self._usual = seconds
        else:
            self.shortest = min(self.shortest, seconds)
            self._usual += (seconds - self._usual) * _SHARE

    @property
    def requests(self) -> int:
        """Small requests at once that are worth having in flight."""
        if self.shortest == math.inf:
            return self.near
        return int(self.near * min(max(self.shortest / NEAR_SECONDS, 1), FARTHEST))

    @property
    def usual(self) -> float:
        """Seconds that an answer takes by now, what it waits for others included; 0: not known."""
        return self._usual

    @property
    def is_far(self) -> bool:
        """Whether the host is known to be farther away than a near one."""
        return NEAR_SECONDS < self.shortest < math.inf

    @property
    def rising(self) -> bool:
        """Whether answers usually take so much longer than the way that they wait for each other."""
        return self._usual > RISEN * self.shortest
