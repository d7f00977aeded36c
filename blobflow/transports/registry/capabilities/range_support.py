"""How ranges of one host's blobs are read at once: whether, and how many. Sans-IO.

How many: with each growth there are twice as many streams as before, as long as their sum brings more than
without it. A growth that brought nothing is taken back, and no other is tried for a while. A host that
objects (it resets, or refuses) gets half as many; how many streams it takes at most its limiter knows.
"""

from __future__ import annotations

from blobflow.bounded_cache import BoundedCache
from blobflow.oci import Digest

# Seconds for which a host that does not serve ranges right is asked for none.
REFUSED_SECONDS = 300.0
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
# Seconds for which a host counts as one at which ranges bring something.
PROVEN_FOR = 120.0
# Blobs that are remembered: those that were read by ranges, and those that came wrong.
_MOST_BLOBS = 1000


class RangeGrowth:
    """How many streams there may be at a host beyond one for each blob. `target`: so many."""

    def __init__(self) -> None:
        self.target = 0
        self._less: tuple[int, float] | None = None  # the target before the growth, and what it brought
        self._measured = 0
        self._window: tuple[float, int] | None = None
        self._rest = REST_SECONDS
        self._rests_until = -PROVEN_FOR
        self._proven = -PROVEN_FOR

    def begin(self) -> None:
        """A blob is worth ranges: at least a few more streams."""
        self.target = self.target or FIRST

    def end(self) -> None:
        """Nothing is read by ranges any more."""
        self.target, self._less, self._window = 0, None, None

    def is_proven(self, now: float) -> bool:
        """Whether more streams brought more here, not long ago."""
        return now - self._proven < PROVEN_FOR

    def measure(self, now: float, received: int, *, flowing: int, blobs: int, most: int) -> None:
        """`received`: bytes that the host has sent so far; `flowing`: streams beyond one for each of the
        `blobs` that have brought some of them, of which there may be at `most` so many. Call it often."""
        self.target = max(1, min(self.target, most))
        if flowing < self.target or self._window is None:
            self._window = now, received
            return
        since, before = self._window
        if now - since >= MEASURED_SECONDS:
            self._window = now, received
            self._judge(now, (received - before) / (now - since), min(self.target + flowing + blobs, most))

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
        self._less, self._window = None, None
        self._rests_until = now + self._rest


class RangeSupport:
    """What is known of ranges at a host, and who reads by them. `growth`: how many at once."""

    def __init__(self) -> None:
        self.growth = RangeGrowth()
        self._refused_until = -REFUSED_SECONDS
        self._read: BoundedCache[Digest, bool] = BoundedCache(entries=_MOST_BLOBS)
        self._distrusted: BoundedCache[Digest, bool] = BoundedCache(entries=_MOST_BLOBS)
        self._streams: dict[object, int] = {}
        self._flowing = 0

    def may_be_asked(self, blob: Digest, now: float) -> bool:
        """Whether ranges of a blob may be asked for."""
        return now >= self._refused_until and not self._distrusted.get(blob)

    def refused(self, now: float) -> None:
        """A range was not answered as it has to be."""
        self._refused_until = now + REFUSED_SECONDS

    def used(self, blob: Digest) -> None:
        """Bytes of a blob came by ranges."""
        self._read.put(blob, True)

    def came_wrong(self, blob: Digest) -> bool:
        """A blob turned out to be another. If bytes of it came by ranges, maybe those of an earlier reading
        that this one went on from, it is read by one stream from now on; returns whether it is so."""
        if self._read.get(blob) and not self._distrusted.get(blob):
            self._distrusted.put(blob, True)
            return True
        return False

    def begin(self, reader: object) -> None:
        """`reader` reads a blob by ranges from now on."""
        self.growth.begin()
        self._streams[reader] = 0

    def end(self, reader: object) -> None:
        """It does no more. Does nothing the second time."""
        self._streams.pop(reader, None)
        if not self._streams:
            self.growth.end()

    def opened(self, reader: object) -> None:
        """`reader` has one more stream."""
        self._streams[reader] += 1

    def flows(self) -> None:
        """A stream that was opened has brought its first bytes."""
        self._flowing += 1

    def closed(self, reader: object, *, flowed: bool) -> None:
        """A stream has ended; `flowed`: after it has brought something."""
        self._flowing -= flowed
        if reader in self._streams:
            self._streams[reader] -= 1

    @property
    def is_over(self) -> bool:
        """Whether there are more streams than there are to be."""
        return sum(self._streams.values()) > self.growth.target

    def may_open(self, reader: object) -> bool:
        """Whether `reader` may have one more stream: the one with the fewest gets it."""
        streams = self._streams
        return sum(streams.values()) < self.growth.target and streams[reader] == min(streams.values())

    def measure(self, now: float, received: int, free: int) -> None:
        """See `RangeGrowth.measure`. `free`: how many more streams the host takes by now."""
        most, blobs = sum(self._streams.values()) + free, len(self._streams)
        self.growth.measure(now, received, flowing=self._flowing, blobs=blobs, most=most)
