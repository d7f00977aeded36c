"""Carried copies: the copies of one transfer that a `Carrier` brings in place of this process.

Copies that are ready wait here, by blob, until the carrier has room; then a blob goes with all its targets of
that moment, so that it is read once. What becomes ready for a blob that is under way waits for the end of
that, and is then read at a target that has it: its source is not read again if that can be avoided.

As on one machine, half of what is under way are the largest blobs and the other half go in the plan's order,
and in the end all are the largest. No task and no carriage exists for what waits.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from blobflow.content import Site
from blobflow.engine.plan.steps import Copy
from blobflow.engine.targets.mount_origins import BATCH, OriginRecorder
from blobflow.engine.transfer.carrying import Arrival, Carriage, Carrier, Moved, Tell, tell_nobody
from blobflow.engine.transfer.schedule import AT_LAST
from blobflow.engine.transfer.step_reports import StepReports
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.errors import BlobflowError, EngineLost
from blobflow.events import Meter
from blobflow.oci import Descriptor, Digest
from blobflow.oci.local_reference import transport_of


class CarriedCopies:
    """Owned by one transfer, which gives it its task group, and calls `start_what_fits` at every change.

    `has_arrived` gives the targets that have a blob by now, and `recorder` learns of each; `lost` is called
    once, if the carrier is lost as a whole: why is in `loss`.
    """

    def __init__(
        self,
        carrier: Carrier,
        states: StepStates,
        reports: StepReports,
        tasks: asyncio.TaskGroup,
        meter: Meter,
        recorder: OriginRecorder,
        *,
        has_arrived: Callable[[Digest], Iterable[Site]],
        changed: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._carrier = carrier
        self._states = states
        self._reports = reports
        self._tasks = tasks
        self._meter = meter
        self._has_arrived = has_arrived
        self._recorder = recorder
        self._changed = changed
        self._lost = lost
        self.loss: EngineLost | None = None
        self._waiting: dict[Digest, list[int]] = {}
        self._by_size: list[tuple[int, int, Digest]] = []
        self._by_order: deque[Digest] = deque()
        self._size_left = 0
        self._under_way: dict[Digest, _Journey] = {}
        self._large = 0  # of those under way
        self._behind: dict[Digest, list[int]] = {}
        carrier.on_room(changed)

    def takes(self, step: Copy) -> bool:
        """Whether the carrier can bring this copy's blob."""
        return self._can_carry(Carriage(step.blob, step.source, (step.target,)))

    def add(self, number: int) -> None:
        """Add a copy that is ready."""
        digest = self._copy(number).blob.digest
        if digest in self._under_way:
            self._behind.setdefault(digest, []).append(number)
        elif digest in self._waiting:
            self._waiting[digest].append(number)
        else:
            self._wait(digest, [number])

    def start_what_fits(self) -> None:
        """Hand the carrier as many blobs as it has room for."""
        if self.loss is not None:
            return
        while self._waiting and len(self._under_way) < (capacity := self._carrier.capacity()):
            largest = self._large < (capacity + 1) // 2 or len(self._waiting) <= AT_LAST * capacity
            self._start(self._next(largest=largest), largest=largest)

    def wind_down(self) -> None:
        """Take back what no worker has begun. Its steps were skipped already."""
        for journey in self._under_way.values():
            if not journey.begun:
                journey.task.cancel()

    async def bring_beside(self, step: Copy) -> None:
        """Bring a blob to a target now: a Put waits for it. Raises why it is not there."""
        error: BlobflowError | None = None
        for source in dict.fromkeys((self._nearest(step.blob.digest, [step]), step.source)):
            carriage = Carriage(step.blob, source, (step.target,))
            try:
                arrivals = await self._hand_over(carriage, self._size_left + step.blob.size)
            except BlobflowError as lost:
                self._lose(lost)
                raise
            told = {arrival.target: arrival.error for arrival in arrivals}
            error = told.get(step.target, _unsaid(step.blob.digest))
            if error is None:
                self._found(step)
                return
            if error.side != "source":
                break
        if error is not None:
            raise error

    # What waits

    def _wait(self, digest: Digest, numbers: list[int]) -> None:
        blob = self._copy(numbers[0]).blob
        self._waiting[digest] = numbers
        self._size_left += blob.size
        heapq.heappush(self._by_size, (-blob.size, numbers[0], digest))
        self._by_order.append(digest)

    def _next(self, *, largest: bool) -> Digest:
        """The blob that goes next. Each is in both orders, and stays in the other one when it has gone."""
        while True:
            digest = heapq.heappop(self._by_size)[2] if largest else self._by_order.popleft()
            if digest in self._waiting:
                return digest

    def _start(self, digest: Digest, *, largest: bool) -> None:
        waiting = self._waiting.pop(digest)
        size_left = self._size_left
        self._size_left -= self._copy(waiting[0]).blob.size
        copies: dict[Site, int] = {}
        for number in waiting:
            if self._states.states[number] is not StepState.READY:
                continue
            if copies.setdefault(self._copy(number).target, number) != number:
                self._behind.setdefault(digest, []).append(number)
        if copies:
            journey = _Journey(
                {n: self._copy(n) for n in copies.values()},
                self._states,
                self._reports,
                self._meter,
                self._found,
                largest=largest,
            )
            self._under_way[digest] = journey
            self._large += largest
            journey.task = self._tasks.create_task(self._bring(digest, journey, size_left))

    # What is under way

    async def _bring(self, digest: Digest, journey: _Journey, size_left: int) -> None:
        copies = journey.copies
        planned = next(iter(copies.values())).source
        nearest = self._nearest(digest, copies.values())
        try:
            await self._carry(journey, nearest, size_left, retried=nearest != planned)
            if nearest != planned and journey.open:
                await self._carry(journey, planned, size_left, retried=False)
        except BlobflowError as error:
            self._lose(error)
        finally:
            if self.loss is not None:
                journey.give_up(self.loss)
            journey.over()
            del self._under_way[digest]
            self._large -= journey.largest
            if behind := self._behind.pop(digest, None):
                self._wait(digest, behind)
            self._changed()
        await self._recorder.write(at_least=BATCH)

    def _found(self, copy: Copy) -> None:
        self._recorder.found(copy.target, (copy.blob.digest,))

    async def _carry(self, journey: _Journey, source: Site, size_left: int, *, retried: bool) -> None:
        """`retried`: from elsewhere, if it can't be read at this source."""

        def tell(news: Moved | Arrival) -> None:
            if isinstance(news, Moved):
                journey.moved(news)
            elif not (retried and news.error is not None and news.error.side == "source"):
                journey.arrived(news)
                self._changed()

        carriage = Carriage(journey.blob, source, journey.targets)
        for arrival in await self._hand_over(carriage, size_left, tell):
            tell(arrival)
        if not retried:
            journey.give_up(_unsaid(journey.blob.digest))

    async def _hand_over(
        self, carriage: Carriage, size_left: int, tell: Tell = tell_nobody
    ) -> Sequence[Arrival]:
        """What the carrier says. A cancellation that is none of ours (libraries pass on those of others) must
        not be taken for the run's: then nothing was said."""
        try:
            return await self._carrier.carry(carriage, size_left=size_left, tell=tell)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return ()

    def _nearest(self, digest: Digest, copies: Iterable[Copy]) -> Site:
        """Where a blob is read: at a target that has it by now, best of the same registry; else where the
        plan says."""
        copies = list(copies)
        here = {copy.target.registry for copy in copies}
        blob, targets = copies[0].blob, tuple(copy.target for copy in copies)
        elsewhere: Site | None = None
        for site in self._has_arrived(digest):
            if site not in targets and self._can_carry(Carriage(blob, site, targets)):
                if site.registry in here:
                    return site
                elsewhere = elsewhere or site
        return elsewhere or copies[0].source

    def _can_carry(self, carriage: Carriage) -> bool:
        if any(transport_of(site.registry) for site in (carriage.source, *carriage.targets)):
            return False
        return self._carrier.takes(carriage)

    def _lose(self, error: BlobflowError) -> None:
        if self.loss is None:
            self.loss = error if isinstance(error, EngineLost) else EngineLost(str(error))
            self._lost()
            for journey in self._under_way.values():
                if journey.task is not asyncio.current_task():
                    journey.task.cancel()

    def _copy(self, number: int) -> Copy:
        step = self._states.step(number)
        assert isinstance(step, Copy)
        return step


def _unsaid(digest: Digest) -> BlobflowError:
    return BlobflowError(f"nobody said what became of blob {digest}")


class _Journey:
    """A blob that the carrier was handed, with the copies that it is for. `begun`: something was told of it;
    `largest`: it is one of the largest half."""

    task: asyncio.Task[None]

    def __init__(
        self,
        copies: dict[int, Copy],
        states: StepStates,
        reports: StepReports,
        meter: Meter,
        found: Callable[[Copy], None],
        *,
        largest: bool,
    ) -> None:
        self.copies = copies
        self.largest = largest
        self.begun = False
        self.open = {copy.target: number for number, copy in copies.items()}
        self._states = states
        self._reports = reports
        self._meter = meter
        self._found = found
        self._workers: dict[int, str] = {}

    @property
    def blob(self) -> Descriptor:
        return next(iter(self.copies.values())).blob

    @property
    def targets(self) -> tuple[Site, ...]:
        """Those of which it is not known what became of the blob there."""
        return tuple(self.open)

    def moved(self, news: Moved) -> None:
        """A worker has begun at a target, or got further."""
        number = self.open.get(news.target)
        if number is not None:
            self._begin(number, news.worker)
            self._meter.active[number] = news.bytes

    def arrived(self, news: Arrival) -> None:
        """It is known what became of the blob at a target; what is told again counts once."""
        number = self.open.get(news.target)
        if number is None:
            return
        if news.error is None:
            self._found(self.copies[number])
        self._begin(number, news.worker)
        del self.open[news.target]
        self._meter.active.pop(number, None)
        if self._states.states[number] is StepState.SKIPPED:
            return  # the run winds down, and it was taken back too late
        self._count(news)
        if news.error is None:
            self._reports.ended(number)
        else:
            self._reports.failed(number, news.error)

    def _count(self, news: Arrival) -> None:
        if news.worker:
            counts = self._meter.workers[news.worker]
            counts.failed += news.error is not None
            if news.error is None:
                counts.copies += 1
                counts.bytes += self.blob.size

    def give_up(self, error: BlobflowError) -> None:
        """Nothing more will be told."""
        for target in self.targets:
            self.arrived(Arrival(target, error))

    def over(self) -> None:
        """Nothing moves any more."""
        for number in self.copies:
            self._meter.active.pop(number, None)

    def _begin(self, number: int, worker: str) -> None:
        if not self.begun:
            self.begun = True
            for each in self.open.values():
                if self._states.states[each] is StepState.READY:
                    self._states.start(each)
        unknown = number not in self._workers or worker not in ("", self._workers[number])
        if unknown and self._states.states[number] is StepState.RUNNING:
            self._workers[number] = worker
            self._reports.began(number, worker)
