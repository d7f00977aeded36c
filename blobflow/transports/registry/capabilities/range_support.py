"""How ranges of one host's blobs are read at once: whether, and how many. Sans-IO.

How many: as many beyond one for each blob as bring more (`stream_growth`); how many streams the host takes at
most its limiter knows.
"""

from __future__ import annotations

from blobflow.bounded_cache import BoundedCache
from blobflow.oci import Digest
from blobflow.transports.registry.capabilities.stream_growth import StreamGrowth

# Seconds for which a host that does not serve ranges right is asked for none.
REFUSED_SECONDS = 300.0
# Blobs that are remembered: those that were read by ranges, and those that came wrong.
_MOST_BLOBS = 1000


class RangeSupport:
    """What is known of ranges at a host, and who reads by them. `growth`: how many at once."""

    def __init__(self) -> None:
        self.growth = StreamGrowth()
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

    def begin(self, reader: object, known: int = 0) -> None:
        """`reader` reads a blob by ranges from now on. `known`: so many streams are known to bring more here
        than its blob's first one does alone."""
        self.growth.begin()
        self.growth.known = max(self.growth.known, known - 1)
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

    @property
    def share(self) -> int:
        """How many streams one of those who read is about to have."""
        return max(self.growth.target, self.growth.known) // max(1, len(self._streams))

    def may_open(self, reader: object) -> bool:
        """Whether `reader` may have one more stream: the one with the fewest gets it."""
        streams = self._streams
        return sum(streams.values()) < self.growth.target and streams[reader] == min(streams.values())

    def measure(self, now: float, received: int, free: int) -> None:
        """See `StreamGrowth.measure`. `free`: how many more streams the host takes by now."""
        most, blobs = sum(self._streams.values()) + free, len(self._streams)
        self.growth.measure(now, received, flowing=self._flowing, usual=blobs, most=most)
