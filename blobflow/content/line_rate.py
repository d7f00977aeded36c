"""Line rates: how fast one blob's bytes come from a host, or go to it, and what losing them would cost.

A blob is staged, or sent in chunks, where starting over would cost seconds: that depends on the line as much
as on the size. Rates are those of one stream beside all others that the run has under way, since at such a
rate the blob would be moved again. What this process has seen goes before what an earlier one noted.
"""

from __future__ import annotations

from collections.abc import Callable

from blobflow.content.journal import Journal, parse_number
from blobflow.content.streams import Chunk, Tap

# Work of so many seconds is worth keeping. At 30 MB/s, a common rate between registries, it is 300 MB.
COSTLY_SECONDS = 10.0
# Fewer bytes say little of a line: kernels hold some MB of a blob before anybody asks for its first.
TELLING_BYTES = 8 * 1024 * 1024
# A note is renewed where the rate differs from it by more than this factor.
_NOTED_WITHIN = 1.5
_NEVER_ZERO = 1e-6


class LineRate:
    """The rate of one stream to or from `origin`, in bytes a second. `note`: the journal's key for it;
    without a journal nothing outlives the object."""

    def __init__(self, journal: Journal | None = None, origin: str = "", note: str = "") -> None:
        self._journal = journal
        self._origin = origin
        self._note = note
        noted = parse_number(journal.note(origin, note)) if journal is not None else None
        self._noted = float(noted) if noted else None
        self._seen: float | None = None

    @property
    def bytes_per_second(self) -> float | None:
        """What was seen last; else what an earlier run noted; None if nothing is known."""
        return self._noted if self._seen is None else self._seen

    @property
    def seen(self) -> bool:
        """Whether the rate is this process's own experience."""
        return self._seen is not None

    def is_costly(self, size: int) -> bool | None:
        """Whether losing `size` bytes would cost COSTLY_SECONDS or more; None if no rate is known."""
        rate = self.bytes_per_second
        return None if rate is None else size >= rate * COSTLY_SECONDS

    def is_proven_cheap(self, size: int) -> bool:
        """Whether this process has seen that losing `size` bytes costs less."""
        return self.seen and not self.is_costly(size)

    def saw(self, size: int, seconds: float) -> None:
        """So many bytes of one blob took so many seconds. Fewer than TELLING_BYTES are passed over."""
        if size >= TELLING_BYTES:
            self._seen = size / max(seconds, _NEVER_ZERO)

    def write_note(self) -> None:
        """Note the rate for later runs, if it is news to them."""
        seen, noted = self._seen, self._noted
        if self._journal is None or seen is None:
            return
        if noted is None or not noted / _NOTED_WITHIN <= seen <= noted * _NOTED_WITHIN:
            self._noted = seen
            self._journal.record_note(self._origin, self._note, str(round(seen)))


class RateTap(Tap):
    """Tells `line` how fast a stream is: at TELLING_BYTES, at every doubling, and at the end.

    The time before the first chunk is left out, and so are that chunk's bytes: they had come already.
    """

    __slots__ = ("_bytes", "_clock", "_line", "_next", "_since")

    def __init__(self, line: LineRate, clock: Callable[[], float]) -> None:
        self._line = line
        self._clock = clock
        self._since: float | None = None
        self._bytes = 0
        self._next = TELLING_BYTES

    def feed(self, chunk: Chunk) -> None:
        if self._since is None:
            self._since = self._clock()
            return
        self._bytes += len(chunk)
        if self._bytes >= self._next:
            self._next = 2 * self._bytes
            self._line.saw(self._bytes, self._clock() - self._since)

    def finish(self) -> None:
        if self._since is not None:
            self._line.saw(self._bytes, self._clock() - self._since)
            self._line.write_note()
