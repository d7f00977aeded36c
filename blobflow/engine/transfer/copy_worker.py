"""A worker's side of carrying: copies blobs from registry to registry for a plan that somebody else has.

It is what a `Transfer` is for a whole plan, without steps that wait for others: whoever hands it carriages
decides their order. It stays small however many it has brought: nothing is kept of one that has ended.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from types import TracebackType
from typing import Self

import msgspec

from blobflow.engine.plan.steps import Copy, Step
from blobflow.engine.services import Services
from blobflow.engine.transfer.admission import Admission, HostLimiters, StepPermits
from blobflow.engine.transfer.carrying import Arrival, Carriage, Moved, Tell, tell_nobody
from blobflow.engine.transfer.copying import BlobCopier
from blobflow.engine.transfer.staging_area import StagingArea
from blobflow.engine.transfer.ways import BlobWays, Demand
from blobflow.errors import BlobflowError, StorageError, without_frames
from blobflow.oci import Digest


class WorkerStopped(BlobflowError):
    """The worker was stopped before it had brought a carriage, which is for another one."""

    retryable = True


class _Waiting(msgspec.Struct):
    """A copy that waits for its permits."""

    step: Copy
    granted: asyncio.Future[StepPermits]


class CopyWorker:
    """Brings carriages, several at a time, within the limits of its own services. A context manager, used
    from one event loop; `name`: what errors and arrivals call it.

    At its end, what is under way is cancelled, and undone or journaled as in any run; those who wait for it
    get WorkerStopped.
    """

    def __init__(self, services: Services, name: str = "") -> None:
        self.name = name
        self._services = services
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        limiters = HostLimiters(services.source_at, services.sink_at, services.limiter_at)
        self._admission = Admission(limiters, self._changed.set)
        self._staging = StagingArea(
            services.cache,
            keep=services.cache_mode == "all",
            room=services.staging_bytes,
            most=services.staging_blobs,
        )
        self._tasks = asyncio.TaskGroup()
        self._ways = BlobWays(services, self._admission, self._staging, self._tasks)
        self._copier = BlobCopier(services, self._admission, self._staging, self._tasks, self._stopping)
        self._numbers = count()
        self._waiting: dict[int, _Waiting] = {}
        self._under_way: dict[int, Copy] = {}
        self._wanted: Counter[Digest] = Counter()
        self._lost: set[Digest] = set()
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        begun = asyncio.Event()
        self._running = asyncio.create_task(self._run(begun))
        await begun.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait((self._running,))
            if not self._running.cancelled():
                self._running.result()  # a bug of ours

    def wind_down(self) -> None:
        """Try nothing again that fails from now on: what is under way ends soon, or well."""
        self._stopping.set()

    def moved(self) -> Iterator[tuple[Digest, Moved]]:
        """How far each copy under way is."""
        active = self._services.meter.active
        for number, step in self._under_way.items():
            yield step.blob.digest, Moved(step.target, self.name, active.get(number, 0))

    async def bring(self, carriage: Carriage, *, tell: Tell = tell_nobody) -> Sequence[Arrival]:
        """Bring a blob to all targets of a carriage: one arrival for each, in their order, with what failed.

        `tell` is called as a copy begins, and with each arrival at once. On cancel the copies are stopped and
        awaited, their upload sessions given up or journaled, before CancelledError goes on; others go on.
        What a registry is still to be told of that has been told when the services close. Raises
        WorkerStopped.
        """
        if self._running is None or self._running.done() or self._closed:
            raise WorkerStopped(f"worker {self.name} does not run")
        task = self._tasks.create_task(self._bring(carriage, tell))
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait((task,))
                raise
        if task.cancelled():
            raise WorkerStopped(f"worker {self.name} was stopped before blob {carriage.blob.digest} arrived")
        return task.result()

    async def _run(self, begun: asyncio.Event) -> None:
        async with self._tasks:
            begun.set()
            while True:
                self._changed.clear()
                for number, permits in self._admission.starts(self._step):
                    granted = self._waiting.pop(number).granted
                    if granted.cancelled():
                        permits.release()
                    else:
                        granted.set_result(permits)
                await self._changed.wait()

    def _step(self, number: int) -> Step:
        return self._waiting[number].step

    async def _bring(self, carriage: Carriage, tell: Tell) -> list[Arrival]:
        digest = carriage.blob.digest
        steps = [Copy(carriage.blob, carriage.source, target) for target in carriage.targets]
        first = not self._wanted[digest]
        self._wanted[digest] += len(steps)
        try:
            arrivals = await self._no_room(steps, tell) if first else []
            if not arrivals:
                async with asyncio.TaskGroup() as copies:
                    tasks = [copies.create_task(self._arrive(step, tell)) for step in steps]
                arrivals = [task.result() for task in tasks]
        except BaseException:
            self._lost.add(digest)
            raise
        else:
            if any(arrival.error for arrival in arrivals):
                self._lost.add(digest)
            return arrivals
        finally:
            self._wanted[digest] -= len(steps)
            self._release(digest)

    def _release(self, digest: Digest) -> None:
        """Let go of a blob that no carriage needs any more."""
        if not self._wanted[digest]:
            del self._wanted[digest]
            self._staging.release(digest, arrived=digest not in self._lost)
            self._staging.forget(digest)
            self._lost.discard(digest)

    async def _arrive(self, step: Copy, tell: Tell) -> Arrival:
        error: BlobflowError | None = None
        try:
            await self._copy(step, tell)
        except BlobflowError as failure:
            error = self._named(failure)
        arrival = Arrival(step.target, error, self.name)
        tell(arrival)
        return arrival

    async def _no_room(self, steps: list[Copy], tell: Tell) -> list[Arrival]:
        """Learn what the store has of a blob. Returns arrivals only where it has no room for it, and so
        nothing arrives: that is for its carriage alone."""
        try:
            await self._staging.find_held({step.blob.digest: step.blob for step in steps})
        except StorageError as failure:
            error = self._named(failure)
            arrivals = [Arrival(step.target, error, self.name) for step in steps]
            for arrival in arrivals:
                tell(arrival)
            return arrivals
        return []

    def _named(self, failure: BlobflowError) -> BlobflowError:
        """A failure, with its side, and with this worker in its sentence."""
        if not isinstance(failure, StorageError):  # the store is neither side, and names itself
            failure.side = failure.side or "target"
        if self.name:
            failure.message = f"worker {self.name}: {failure.message}"
        return without_frames(failure)

    async def _copy(self, step: Copy, tell: Tell) -> None:
        number = next(self._numbers)
        permits = await self._permits(number, step)
        self._under_way[number] = step
        try:
            tell(Moved(step.target, self.name))
            demand = Demand(self._wanted[step.blob.digest])
            reader = self._ways.reader(step, permits, demand)
            await self._copier.copy(number, step, reader, permits)
        finally:
            del self._under_way[number]
            permits.release()

    async def _permits(self, number: int, step: Copy) -> StepPermits:
        granted: asyncio.Future[StepPermits] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(step, granted)
        self._admission.add(number, step, warm=self._staging.warm(step.blob))
        self._changed.set()
        try:
            return await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                granted.result().release()  # granted and cancelled at the same moment
            elif self._waiting.pop(number, None) is not None:
                self._admission.drop(number, step)
            raise
