"""A blob's stream that goes over to ranges where its line is worth it.

    one GET ──────────────► border ▏
                                   ▏ range ──► ▏ range ──► …     lane 1
                                   ▏       range ──► ▏ range …   lane 2

A reading begins as any other: one request, one stream, its `head`. While that goes it is looked at (`line`);
what is found worth it gets ranges ahead of it (`lanes`), from a border on that it will come to. The head is
only left there, and only once a range was answered as it has to be, by 206, with the same ETag, the same
size, of just these bytes, and some of these came. If one is answered by anything else, that answer is closed
unread, the host gets no more such requests for a while, and the head goes on: nothing is read twice. An
answer that goes wrong later costs what was ahead of it: the rest is read by one stream.

The bytes are passed on in order, and not verified, as by every `Source`. Those of a blob that came wrong are
read by one stream the next time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Self

from blobflow.content import BlobStream, Chunk
from blobflow.errors import ConnectionLost, NetworkError
from blobflow.oci import Descriptor
from blobflow.permits import Permit, PermitKind
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.ranges.lanes import RangeLanes
from blobflow.transports.registry.ranges.line import (
    LIMITED,
    PROVEN_SECONDS,
    SEEN_SECONDS,
    LineObserver,
    Seen,
    is_worth_ranges,
)
from blobflow.transports.registry.ranges.requests import RangeRequests, RangesRefused
from blobflow.transports.registry.ranges.segments import Segments

MIB = 1024 * 1024
# The bytes of one range: half a second's, but not so few that the round trips between them count, and not so
# many that a window full of them takes too much memory.
LEAST_RANGE = MIB
MOST_RANGE = 8 * MIB
RANGE_SECONDS = 0.5
# The head is left once this part of the shortest range has come: it may be the only way to the blob. No more
# than comes in a connection's first few round trips: over a far line the head is at the border by then.
PROOF = 32
# The first range is one of them ahead of the head; so many times as far, where it is answered too late.
MOST_LEAD = 16
# Where it is known how long answers take, what the head brings in so many of them is enough: a connection,
# the answer, and as much again. What lies before the border comes by the head alone.
LEAD_TRIPS = 4


def can_be_divided(length: int) -> bool:
    """Whether so many bytes are enough for several ranges."""
    return length >= 2 * LEAST_RANGE


class RangedStream:
    """A `BlobStream` of the bytes from `offset` to `stop`, which `head` gives, too; `leave` closes that.

    `reopen` opens the bytes from an offset on by one stream, under `permit`, which is released when the last
    byte has come. `aclose` it: that ends its lanes, with their connections and permits, and waits for no
    peer.

    Raises what `Source.open` says; ConnectionLost tells how much of the whole reading was `received`.
    """

    def __init__(
        self,
        client: HostClient,
        blob: Descriptor,
        head: BlobStream,
        offset: int,
        stop: int,
        requests: RangeRequests,
        *,
        permit: Permit,
        leave: Callable[[], None],
        reopen: Callable[[int], AbstractAsyncContextManager[BlobStream]],
    ) -> None:
        self._client = client
        self._support = client.capabilities.ranges
        self._blob = blob
        self._head = head
        self._next: Callable[[], Awaitable[Chunk]] = self._from_head
        self._offset = self._position = offset
        self._stop = stop
        self._requests = requests
        self._permit = permit
        self._leave = leave
        self._reopen = reopen
        seconds = PROVEN_SECONDS if self._support.growth.is_proven(client.now()) else SEEN_SECONDS
        self._line: LineObserver | None = LineObserver(client.now, seconds)
        self._worth: Seen | None = None  # what was seen last of a line that is worth ranges
        self._began = client.now()
        self._lead = 1
        self._segments: Segments | None = None
        self._lanes: RangeLanes | None = None
        self._tail = AsyncExitStack()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        return await self._next()

    async def aclose(self) -> None:
        """See `BlobStream.aclose`."""
        self._next = self._closed
        self._leave()
        try:
            if self._lanes is not None:
                await self._lanes.close()
        finally:
            await self._tail.aclose()

    async def _closed(self) -> Chunk:
        if self._position == self._stop:
            raise StopAsyncIteration
        raise ConnectionLost(
            f"blob {self._blob.digest} is read on although its stream was closed",
            received=self._position - self._offset,
            expected=self._stop - self._offset,
        )

    # While the head goes

    async def _from_head(self) -> Chunk:
        began = self._client.now()
        try:
            chunk = await self._head.__anext__()
        except NetworkError:
            if self._lanes is None or self._lanes.has_failed or not self._lanes.answered:
                raise
            self._go_over(self._lanes)
            return await self._next()
        now = self._client.now()
        self._position += len(chunk)
        if self._lanes is not None:
            return await self._ahead_of(self._lanes, chunk)
        if self._line is not None:
            if (seen := self._line.saw(now - began, len(chunk), now)) is not None:
                self._judge(self._line, seen)
            if self._worth is not None and self._client.limiter.has_spare(PermitKind.READ):
                await self._go_ahead(self._worth)
        return chunk

    def _judge(self, line: LineObserver, seen: Seen) -> None:
        """Whether what was seen is worth ranges, and the host may be asked for them."""
        client = self._client
        self._worth = None
        if not self._support.may_be_asked(self._blob.digest, client.now()):
            self._line = None
            return
        if client.limiter.round_trip.is_far:
            line.seconds = PROVEN_SECONDS
        if client.reading is not None:
            average = (self._position - self._offset) / (client.now() - self._began)
            if average >= LIMITED * client.reading.rate:
                return  # what holds it back is a limit of ours
        if is_worth_ranges(seen, self._stop - self._position):
            self._worth = seen

    async def _go_ahead(self, seen: Seen) -> None:
        """Ask for a first range, if there is enough for one: nobody else wants the permits."""
        client = self._client
        self._worth = None
        size = int(min(MOST_RANGE, max(LEAST_RANGE, seen.rate * RANGE_SECONDS)))
        lead = self._lead * self._least_lead(size, seen.rate)
        if self._stop - self._position < lead + size:
            return
        segments = Segments(self._position + lead, self._stop, size, client.read_ahead)
        known = client.limiter.reads_at_best(seen.rate)
        lanes = RangeLanes(
            client,
            self._blob,
            self._requests,
            segments,
            self._permit.release,
            known,
            proof=LEAST_RANGE // PROOF,
        )
        if lanes.grow():
            self._lanes, self._segments = lanes, segments
        else:
            await lanes.close()  # another blob's ranges have them

    def _least_lead(self, size: int, rate: float) -> int:
        """How far ahead of the head a range of `size` bytes is at least, at `rate` bytes a second."""
        trip = self._client.limiter.round_trip
        if not trip.is_far:
            return size
        return min(size, max(LEAST_RANGE, int(rate * trip.usual * LEAD_TRIPS)))

    async def _ahead_of(self, lanes: RangeLanes, chunk: Chunk) -> Chunk:
        """What of the head's chunk is passed on, while ranges are fetched ahead of it."""
        assert self._segments is not None
        lanes.check()
        beyond = self._position - self._segments.border
        if lanes.has_failed:
            await self._fall_back(lanes, lanes.reason)
        elif lanes.is_idle and not lanes.answered:
            await self._give_way(lanes)
        elif beyond >= 0 and not lanes.proven:
            await self._was_late(lanes)
        elif beyond >= 0:
            self._position -= beyond
            self._go_over(lanes)
            return memoryview(chunk)[: len(chunk) - beyond]
        elif lanes.answered:
            lanes.grow()
        return chunk

    async def _fall_back(self, lanes: RangeLanes, reason: str) -> None:
        """No ranges any more in this reading."""
        self._client.meter.ranges.fallbacks[reason] += 1
        self._line = self._lanes = self._segments = None
        await lanes.close()

    async def _give_way(self, lanes: RangeLanes) -> None:
        """No ranges for now: the head goes on, and its line is looked at."""
        self._lanes = self._segments = None
        await lanes.close()

    async def _was_late(self, lanes: RangeLanes) -> None:
        """The head came to the border before enough of a range: the next one is farther ahead."""
        self._lead *= 4
        if self._lead > MOST_LEAD:
            await self._fall_back(lanes, "no answer in time")
        else:
            await self._give_way(lanes)

    def _go_over(self, lanes: RangeLanes) -> None:
        """Leave the head; what it lacks up to the border is a range as any other."""
        assert self._segments is not None
        first = None
        if self._position < self._segments.border:
            first = self._segments.put_before(self._position)
        self._leave()
        self._next = self._from_lanes
        self._support.used(self._blob.digest)
        self._client.meter.ranges.blobs += 1
        lanes.go_on(self._permit, first)

    # And after it

    async def _from_lanes(self) -> Chunk:
        lanes, segments = self._lanes, self._segments
        assert lanes is not None and segments is not None
        lanes.grow()
        try:
            while (chunk := segments.take()) is None:
                lanes.check()
                if segments.is_over:
                    self._permit.release()
                    raise StopAsyncIteration
                if segments.is_closed:
                    return await self._closed()
                await segments.arrived.wait()
        except RangesRefused as refusal:
            return await self._go_on_alone(lanes, refusal.reason)
        except ConnectionLost as error:
            error.received, error.expected = self._position - self._offset, self._stop - self._offset
            raise
        self._position = segments.position
        return chunk

    async def _go_on_alone(self, lanes: RangeLanes, reason: str) -> Chunk:
        """The rest by one stream."""
        await self._fall_back(lanes, reason)
        stream = await self._tail.enter_async_context(self._reopen(self._position))
        self._next = stream.__anext__
        return await self._next()
