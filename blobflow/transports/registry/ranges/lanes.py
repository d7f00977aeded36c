"""The lanes of one blob: each fetches segment after segment, over a connection that it keeps.

One lane goes on where the blob's first answer was left, under the permit of that. Each of the others has a
permit that nobody else wanted when it began, and gives it back between two segments as soon as somebody does,
or the host takes fewer, or more streams do not bring more.

A range that breaks is asked for again from where it broke (`retry`). One that keeps failing, or is answered
by something else, fails its segment: nothing is begun after that, and what is before it is still good.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from blobflow.errors import BlobflowError, NetworkError, RegistryError
from blobflow.events import RangeRead
from blobflow.oci import Descriptor
from blobflow.permits import Permit, PermitKind
from blobflow.retrying import Attempts, Failure
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.ranges.requests import RangeRequests, RangesRefused
from blobflow.transports.registry.ranges.retry import RangeRetries
from blobflow.transports.registry.ranges.segments import Segment, Segments


class RangeLanes:
    """Fetches the `segments` of a blob. `finished` is called when the last byte has come. `known`: see
    `RangeSupport.begin`.

    `answered`: a range was answered as it has to be. `proven`: and `proof` bytes of it have come, or all of a
    shorter one, so that what else brings the blob may be left. `reason`: in a few words, why one was not.
    """

    def __init__(
        self,
        client: HostClient,
        blob: Descriptor,
        requests: RangeRequests,
        segments: Segments,
        finished: Callable[[], None],
        known: int = 0,
        *,
        proof: int = 0,
    ) -> None:
        self.answered = False
        self.proven = False
        self._proof = proof
        self.reason = "no answer"
        self._client = client
        self._support = client.capabilities.ranges
        self._blob = blob
        self._requests = requests
        self._segments = segments
        self._finished = finished
        self._lanes: dict[int, asyncio.Task[None]] = {}
        self._spare: dict[int, bool] = {}  # whether it has brought something
        self._fetching: dict[int, Segment] = {}
        self._failed = False
        self._bug: Exception | None = None
        self._support.begin(self, known)

    @property
    def has_failed(self) -> bool:
        """Whether a segment failed: none is begun any more."""
        return self._failed

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked for: no lane was opened, or all gave their permits back."""
        return not self._lanes

    def grow(self) -> bool:
        """Open the lanes that the host may have, and nobody wants the permits of: one, until that was
        answered. Whether there are any."""
        client, support, segments = self._client, self._support, self._segments
        support.measure(client.now(), client.meter.bytes_read, client.limiter.free(PermitKind.READ))
        while not self._failed and support.may_open(self) and segments.left and segments.has_room:
            if self._lanes and not self.answered:
                break
            permit = client.limiter.try_acquire_spare(PermitKind.READ)
            if permit is None:
                break
            support.opened(self)
            self._start(permit, spare=True)
        return bool(self._lanes)

    def go_on(self, permit: Permit, segment: Segment | None = None) -> None:
        """Open the lane that goes on under the permit of the blob's first answer; with this segment."""
        self._start(permit, spare=False, segment=segment)

    def _start(self, permit: Permit, *, spare: bool, segment: Segment | None = None) -> None:
        lane = next(number for number in itertools.count(1) if number not in self._lanes)
        if spare:
            self._spare[lane] = False
        task = asyncio.create_task(self._run(lane, permit, segment, spare=spare))
        task.add_done_callback(lambda _: self._ended(lane, permit))
        self._lanes[lane] = task

    def _ended(self, lane: int, permit: Permit) -> None:
        """A lane has ended, maybe before it began."""
        del self._lanes[lane]
        self._fetching.pop(lane, None)
        if lane in self._spare:
            permit.release()
            self._support.closed(self, flowed=self._spare.pop(lane))
        if not (self._lanes or self._failed or self._segments.left):
            self._finished()

    def check(self) -> None:
        """Raise what went wrong in here, that is no failure of a segment."""
        if self._bug is not None:
            raise self._bug

    async def close(self) -> None:
        """End all lanes; their connections and permits are given back then. Waits for no peer."""
        self._failed = True
        lanes = list(self._lanes.values())
        for each in lanes:
            each.cancel()
        self._support.end(self)
        self._segments.close()
        if lanes:
            await asyncio.wait(lanes)

    # A lane

    async def _run(self, lane: int, permit: Permit, segment: Segment | None, *, spare: bool) -> None:
        try:
            while (segment := segment or await self._next(spare=spare)) is not None:
                self._fetching[lane] = segment
                await self._fetch(lane, segment, permit)
                segment = None
        except Exception as error:  # noqa: BLE001  whatever it is, the blob's reader raises it
            self._bug = error
            self._segments.arrived.wake()

    async def _next(self, *, spare: bool) -> Segment | None:
        """The segment that a lane fetches next, when there is room for it; None: the lane ends."""
        limiter = self._client.limiter
        while not self._failed and self._segments.left:
            if spare and (self._support.is_over or limiter.is_wanted or limiter.is_over(PermitKind.READ)):
                return None
            if self._segments.has_room or self._segments.first is None:
                return self._segments.begin(max(len(self._lanes), self._support.share))
            await self._segments.changed()
        return None

    async def _fetch(self, lane: int, segment: Segment, permit: Permit) -> None:
        """All of a segment, or its failure."""
        client, began = self._client, self._client.now()
        description = f"a range of blob {self._blob.digest}"
        policy = RangeRetries(lambda: segment.at, client.jitter, times=client.retry_times)

        async def pause(failure: Failure) -> None:
            if policy.fruitless:
                self._support.growth.objected(client.now())
            await client.pause(description, failure)

        attempts = Attempts(policy, pause)
        try:
            while not segment.is_whole:
                if (error := await self._receive(lane, segment, permit)) is not None:
                    await attempts.failed(error)
        except BlobflowError as error:
            self._fail(segment, error)
            return
        finally:
            client.meter.ranges.bytes += segment.at - segment.start
        size, seconds = segment.stop - segment.start, client.now() - began
        client.observe(RangeRead(client.host, self._blob.digest, lane, segment.start, size, seconds))

    async def _receive(self, lane: int, segment: Segment, permit: Permit) -> BlobflowError | None:
        """What remains of a segment, by one request; the error by which its bytes ended early. Raises what
        another request does not mend."""
        self._client.meter.ranges.requests += 1
        async with self._requests.open(segment.at, segment.stop, permit) as download:
            self.answered = True
            if self._spare.get(lane) is False:
                self._spare[lane] = True
                self._support.flows()
            try:
                async for chunk in download:
                    if len(chunk) > segment.stop - segment.at:  # it told its length by Content-Range alone
                        raise RangesRefused("another length")
                    self._segments.received(segment, bytes(chunk))
                    self.proven = self.proven or segment.is_whole or segment.at - segment.start >= self._proof
                    while not self._segments.may_come(segment):
                        await self._segments.changed()
            except NetworkError as error:
                return error
        return None

    def _fail(self, failed: Segment, error: BlobflowError) -> None:
        """Nothing is begun after a segment that failed, and what was is given up."""
        self._failed = True
        if isinstance(error, RangesRefused):
            self.reason = error.reason
            self._support.refused(self._client.now())
        elif isinstance(error, RegistryError) and error.status:
            self.reason = str(error.status)
            if not (error.retryable or self.answered):  # the same bytes came without a Range
                self._support.refused(self._client.now())
        for lane, segment in self._fetching.items():
            if segment.start > failed.start:
                self._lanes[lane].cancel()
        self._segments.failed(failed, error)
