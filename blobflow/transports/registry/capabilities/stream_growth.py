"""How many streams are worth having at a host beyond those that it has anyway: as many as bring more.

With each growth there are twice as many streams as before, as long as their sum brings more than without it.
A growth that brought nothing is taken back, and no other is tried for a while. A host that objects (it
resets, or refuses) gets half as many. Sans-IO.
"""

from __future__ import annotations

# Streams that the first growth is, before anything was measured.
FIRST = 2
# Seconds in which a sum is measured, once all streams have brought their first bytes. What looks like no gain
# is measured once more.
MEASURED_SECONDS = 0.3
MEASURED_TWICE = 2
# Seconds without a growth after one that brought nothing; twice as many after each further one.
REST_SECONDS = 3.0
LONGEST_REST_SECONDS = 60.0
# What a growth, to twice as many, has to bring: so many times the sum before.
GAIN = 1.15
# Seconds for which a host counts as one at which more streams bring something.
PROVEN_FOR = 120.0


class StreamGrowth:
    """How many streams there may be beyond those that there are anyway. `target`: so many. `known`: so many
    are known to bring more, and not measured again."""

    def __init__(self) -> None:
        self.target = 0
        self.known = 0
        self._less: tuple[int, float] | None = None  # the target before the growth, and what it brought
        self._measured = 0
        self._window: tuple[float, int] | None = None
        self._rest = REST_SECONDS
        self._rests_until = -PROVEN_FOR
        self._proven = -PROVEN_FOR

    def begin(self) -> None:
        """More may be worth it: at least a few."""
        self.target = self.target or FIRST

    def end(self) -> None:
        """There is no use for more."""
        self.target, self.known, self._less, self._window = 0, 0, None, None

    def is_proven(self, now: float) -> bool:
        """Whether more streams brought more here, not long ago."""
        return now - self._proven < PROVEN_FOR

    def measure(self, now: float, moved: int, *, flowing: int, usual: int, most: int) -> None:
        """`moved`: bytes that all streams have moved so far; `flowing`: streams beyond the `usual` ones that
        have moved some of them, of which there may be at `most` so many. Call it often."""
        least = self.known if now >= self._rests_until else 0
        self.target = max(1, min(max(self.target, least), most))
        if flowing < self.target or self._window is None:
            self._window = now, moved
            return
        since, before = self._window
        if now - since >= MEASURED_SECONDS:
            self._window = now, moved
            self._judge(now, (moved - before) / (now - since), min(self.target + flowing + usual, most))

    def _judge(self, now: float, rate: float, grown: int) -> None:
        """Take back a growth that brought nothing, or grow."""
        if self._less is not None:
            target, less = self._less
            self._measured += 1
            if rate >= less * GAIN:
                self._proven, self._rest = now, REST_SECONDS
            elif self._measured < MEASURED_TWICE:
                return
            else:
                self.target, self._less = target, None
                self._rests_until = now + self._rest
                self._rest = min(2 * self._rest, LONGEST_REST_SECONDS)
                return
        self._less, self._measured = None, 0
        if now >= self._rests_until and grown > self.target:
            self._less = self.target, rate
            self.target = grown

    def objected(self, now: float) -> None:
        """The host does not like so many."""
        self.target = max(1, self.target // 2)
        self.known = min(self.known, self.target)
        self._less, self._window = None, None
        self._rests_until = now + self._rest
