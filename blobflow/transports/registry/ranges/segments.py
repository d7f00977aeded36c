"""The segments of a blob that is read by ranges: who fetches which, and their bytes in order. No IO.

A segment is what one range is asked for, and asked for again from where it broke. Segments are fetched side
by side and read one after the other; the one that is read now is the `first`. What came of the others lies
in memory, within the run's `ReadAhead`; the first one's bytes are only held while its reader is busy.
"""

from __future__ import annotations

from collections import deque

from blobflow.errors import BlobflowError
from blobflow.transports.registry.http.read_ahead import ReadAhead, Signal

# Chunks that lie ready are joined up to so many bytes: each that is passed on costs as much as copying this.
JOINED = 512 * 1024
# The last segments are no shorter than this part of the others.
_SHORTEST = 4


class Segment:
    """Bytes `start` to `stop` of a blob, of which those before `at` have come. `error`: no more will come."""

    __slots__ = ("at", "error", "pieces", "start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = self.at = start
        self.stop = stop
        self.pieces: deque[bytes] = deque()
        self.error: BlobflowError | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all of it has come."""
        return self.at == self.stop


class Segments:
    """What is ahead of a read, from `border` to `stop`, in segments of `size` bytes. `arrived`: the first of
    them has changed."""

    def __init__(self, border: int, stop: int, size: int, ahead: ReadAhead) -> None:
        self.border = border
        self.position = border
        self.arrived = Signal()
        self.is_closed = False
        self._next = border
        self._stop = stop
        self._size = size
        self._ahead = ahead
        self._held = 0
        self._open: deque[Segment] = deque()
        ahead.blobs += 1

    @property
    def first(self) -> Segment | None:
        """The segment that is read now; None: nobody has begun it."""
        return self._open[0] if self._open else None

    @property
    def left(self) -> int:
        """Bytes that nobody fetches or has fetched."""
        return self._stop - self._next

    def begin(self, lanes: int = 1) -> Segment | None:
        """The next segment, to be fetched; None: there is none. The last ones are shorter, so that so many
        `lanes` end at about the same time."""
        if not self.left:
            return None
        size = min(self._size, max(-(-self.left // lanes), self._size // _SHORTEST))
        segment = Segment(self._next, self._next + min(size, self.left))
        self._next = segment.stop
        self._open.append(segment)
        return segment

    def put_before(self, start: int) -> Segment:
        """A segment from `start` to the border, to be fetched by somebody."""
        segment = Segment(start, self.border)
        self.border = self.position = start
        self._open.appendleft(segment)
        return segment

    def may_come(self, segment: Segment) -> bool:
        """Whether more of a segment may be received: there is room, or its reader waits for it."""
        if segment is self.first and not segment.pieces:
            return True
        return self._ahead.has_room(self._held)

    @property
    def has_room(self) -> bool:
        """Whether one more segment may be begun."""
        return self._ahead.has_room(self._held)

    async def changed(self) -> None:
        """Return when there may be room."""
        await self._ahead.changed.wait()

    def received(self, segment: Segment, chunk: bytes) -> None:
        """Take in bytes of a segment."""
        segment.pieces.append(chunk)
        segment.at += len(chunk)
        self._held += len(chunk)
        self._ahead.hold(len(chunk))
        if segment is self.first:
            self.arrived.wake()

    def failed(self, segment: Segment, error: BlobflowError) -> None:
        """No more of a segment will come."""
        segment.error = error
        self.arrived.wake()

    def take(self) -> bytes | None:
        """The next bytes of the first segment; None: there are none yet. Raises its error."""
        while self._open:
            first = self._open[0]
            if first.pieces:
                return self._taken(first)
            if first.error is not None:
                raise first.error
            if not first.is_whole:
                return None
            self._open.popleft()
            self._ahead.changed.wake()
        return None

    @property
    def is_over(self) -> bool:
        """Whether all has been taken."""
        return self.position == self._stop

    def _taken(self, first: Segment) -> bytes:
        pieces, joined, size = first.pieces, [first.pieces.popleft()], 0
        size = len(joined[0])
        while pieces and size + len(pieces[0]) <= JOINED:
            joined.append(pieces.popleft())
            size += len(joined[-1])
        self.position += size
        self._held -= size
        self._ahead.free(size)
        return joined[0] if len(joined) == 1 else b"".join(joined)

    def close(self) -> None:
        """Give up what is held. Does nothing the second time."""
        if not self.is_closed:
            self.is_closed = True
            self._open.clear()
            self.arrived.wake()
            self._ahead.blobs -= 1
            self._ahead.free(self._held)
            self._held = 0
