"""Runs the steps of a plan, each as a task.

`step_states` says which steps may run, `admission` which of them start now, `ways` which blobs go through the
store, and `retry` what is retried. Where there is a carrier, `carried` hands it the copies between registries
instead, and all else is done here. A step that fails is recorded, and the rest goes on. Only cancellation,
bugs and the loss of a carrier raise.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import assert_never

from blobflow.content import Attaches, BlobReader, KeepsUploads, Site
from blobflow.engine.plan.step_images import StepImages
from blobflow.engine.plan.steps import Attach, Backup, Copy, Mount, Plan, Put, Step
from blobflow.engine.services import Services
from blobflow.engine.sources.graph import Graph
from blobflow.engine.targets.acceptance import note_sparse_refused, refuses_sparse
from blobflow.engine.targets.mount_origins import BATCH, MOUNTS, OriginRecorder
from blobflow.engine.transfer.admission import Admission, HostLimiters, StepPermits
from blobflow.engine.transfer.backup import back_up
from blobflow.engine.transfer.carried import CarriedCopies
from blobflow.engine.transfer.carrying import Carrier
from blobflow.engine.transfer.copying import BlobCopier
from blobflow.engine.transfer.missing_content import MissingContent, SitesOf
from blobflow.engine.transfer.staging_area import StagingArea
from blobflow.engine.transfer.step_reports import StepOutcome, StepReports
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.engine.transfer.ways import BlobWays, Demand
from blobflow.errors import BlobflowError, ConnectFailed, EngineLost, NetworkError, RegistryError, Rejected
from blobflow.oci import Descriptor, Digest


class Transfer:
    """The transfer of one plan. `step_states` has the state of each step.

    `ended` is called with every step that was done, failed or skipped, as it happens. With `keep_going`
    False nothing new starts after the first failure. `recorder` learns where blobs were put. `more`: parts
    of the plan are still to come (`add`), until `no_more` is called; blobs that they may need stay staged
    until then, as far as capacity allows. `origins`: where content of the plan can be read that is not in the
    graph. `brought` is called with what was done beyond the plan, since a target reported it missing.
    """

    def __init__(
        self,
        plan: Plan,
        graph: Graph,
        services: Services,
        keep_going: bool,
        recorder: OriginRecorder,
        ended: Callable[[StepStates, int], None],
        *,
        more: bool = False,
        origins: SitesOf | None = None,
        brought: Callable[[Step], None] = lambda step: None,
    ) -> None:
        self.step_states = StepStates(plan)
        self._images = StepImages()
        self._images.add(plan)
        self._made = dict(plan.made)
        self._graph = graph
        self._services = services
        self._keep_going = keep_going
        self._recorder = recorder
        self._ended = ended
        self._changed = asyncio.Event()
        limiters = HostLimiters(services.source_at, services.sink_at, services.limiter_at)
        self._admission = Admission(limiters, self._changed.set)
        self._stopping = asyncio.Event()
        self._staging = StagingArea(
            services.cache,
            keep=services.cache_mode == "all",
            room=services.staging_bytes,
            most=services.staging_blobs,
            at_hand=graph.blobs,
        )
        self._tasks = asyncio.TaskGroup()
        self._ways = BlobWays(services, self._admission, self._staging, self._tasks, self._make_room)
        self._copier = BlobCopier(services, self._admission, self._staging, self._tasks, self._stopping)
        self._reports = StepReports(self.step_states, self._images, services.observe, self._after_failure)
        self._carried = self._carried_copies(services.carrier) if services.carrier is not None else None
        self._read_here: set[Digest] = set()  # although others are carried
        self._blob_steps: dict[Digest, list[int]] = {}
        self._blob_open: Counter[Digest] = Counter()
        self._more = more
        self._lingering: dict[Digest, None] = {}  # the first is here longest
        self._first = plan.steps
        self._beside = 0  # copies that are no steps of the plan
        self._missing = MissingContent(
            graph,
            self._made,
            origins or {},
            source_at=services.source_at,
            manifest_budget=services.manifest_budget,
            steps=lambda: map(self.step_states.step, range(self.step_states.steps)),
            put=self._put_bytes,
            copy=self._copy_beside,
            brought=brought,
            observe=services.observe,
        )
        self._note_blobs(plan.steps, 0)

    def _carried_copies(self, carrier: Carrier) -> CarriedCopies:
        return CarriedCopies(
            carrier,
            self.step_states,
            self._reports,
            self._tasks,
            self._services.meter,
            self._recorder,
            has_arrived=self._has_arrived,
            changed=self._changed.set,
            lost=self.wind_down,
        )

    def _note_blobs(self, steps: Iterable[Step], first: int) -> None:
        for number, step in enumerate(steps, first):
            if self._carried is not None and isinstance(step, Copy) and not self._carried.takes(step):
                self._read_here.add(step.blob.digest)
            if isinstance(step, Copy | Mount):
                self._blob_steps.setdefault(step.blob.digest, []).append(number)
                self._blob_open[step.blob.digest] += 1
                self._lingering.pop(step.blob.digest, None)

    async def add(self, part: Plan) -> None:
        """Run a part of the plan too, with steps numbered after the present ones. Only while `run` runs."""
        await self._find_held(part.steps)
        first = self.step_states.steps
        self._images.add(part)
        self._made |= part.made
        self.step_states.add(part)
        self._note_blobs(part.steps, first)
        self._changed.set()

    def no_more(self) -> None:
        """Add no more parts: `run` returns when the present steps have ended."""
        self._more = False
        for digest in self._lingering:
            self._release(digest)
        self._lingering.clear()
        self._changed.set()

    def wind_down(self) -> None:
        """Start nothing new; `run` returns when the steps under way have ended."""
        self.step_states.skip_rest()
        self._stopping.set()
        if self._carried is not None:
            self._carried.wind_down()
        self._changed.set()

    def _after_failure(self) -> None:
        if not self._keep_going:
            self.wind_down()

    async def run(self) -> None:
        """Run the plan to its end.

        On cancel the steps under way are cancelled and awaited: their sinks undo or journal what they had
        begun. Raises EngineLost where blobs are carried and the carrier is lost, once what this process does
        itself has ended.
        """
        await self._find_held(self._first)
        async with self._tasks:
            while True:
                self._changed.clear()
                self._update()
                if self.step_states.finished and (self._loss is not None or not self._more):
                    self.no_more()
                    break
                self._start_what_fits()
                await self._changed.wait()
        if self._loss is not None:
            raise self._loss

    @property
    def _loss(self) -> EngineLost | None:
        """Why nobody carries blobs any more."""
        return None if self._carried is None else self._carried.loss

    async def _find_held(self, steps: Iterable[Step]) -> None:
        await self._staging.find_held({s.blob.digest: s.blob for s in steps if isinstance(s, Copy)})

    def _update(self) -> None:
        """Process which steps have ended, and which are ready."""
        for number in self.step_states.newly_ended():
            self._ended(self.step_states, number)
            step = self.step_states.step(number)
            if isinstance(step, Copy | Mount):
                self._blob_open[step.blob.digest] -= 1
                if not self._blob_open[step.blob.digest]:
                    self._all_ended(step.blob.digest)
        for number in self.step_states.newly_ready():
            step = self.step_states.step(number)
            warm = isinstance(step, Copy) and self._staging.warm(step.blob)
            if isinstance(step, Copy) and self._is_carried(step):
                assert self._carried is not None
                self._carried.add(number)
            else:
                self._admission.add(number, step, warm=warm)

    def _is_carried(self, step: Copy) -> bool:
        """Whether a carrier brings this copy's blob: where this process has it, or has to read it for another
        target, nobody else reads it."""
        if self._carried is None or self._staging.warm(step.blob):
            return False
        return step.blob.digest not in self._read_here and self._carried.takes(step)

    def _has_arrived(self, digest: Digest) -> Iterator[Site]:
        """The targets that have a blob by now."""
        for number in self._blob_steps.get(digest, ()):
            if self.step_states.states[number] is StepState.DONE:
                yield self.step_states.step(number).target

    def _all_ended(self, digest: Digest) -> None:
        """Every known step of a blob has ended: release it, unless a later part may need it."""
        if self._more:
            self._lingering[digest] = None
        else:
            self._release(digest)

    def _release(self, digest: Digest) -> None:
        """Release a staged blob that no known step needs any more."""
        arrived = all(self.step_states.states[each] is StepState.DONE for each in self._blob_steps[digest])
        self._staging.release(digest, arrived=arrived)

    def _start_what_fits(self) -> None:
        for number, permits in self._admission.starts(self.step_states.step):
            if self.step_states.states[number] is StepState.READY:
                self._start(number, permits)
            else:
                permits.release()
        if self._carried is not None:
            self._carried.start_what_fits()

    def _start(self, number: int, permits: StepPermits) -> None:
        step = self.step_states.step(number)
        self.step_states.start(number)
        match step:
            case Copy():
                self._tasks.create_task(self._copy(number, step, permits, self._reader(step, permits)))
            case Mount() | Put() | Attach() | Backup():
                self._tasks.create_task(self._request(number, step, permits))
            case _:
                assert_never(step)

    def _reader(self, step: Copy, permits: StepPermits) -> BlobReader:
        """The reader of this copy's blob; staged if the blob goes through the store."""
        copies = unproven = 0
        for number in self._blob_steps[step.blob.digest]:
            each = self.step_states.step(number)
            if isinstance(each, Copy):
                copies += 1
            elif not self.step_states.over(number) and not self._services.journal.note(
                each.target.registry, MOUNTS
            ):
                unproven += 1
        return self._ways.reader(step, permits, Demand(copies, int(self._more), unproven))

    def _make_room(self, blob: Descriptor) -> None:
        """Release staged blobs that only targets still being asked may need, to stage one that is needed."""
        while self._lingering and self._staging.fits(blob) and not self._staging.has_room(blob):
            digest = next(iter(self._lingering))
            del self._lingering[digest]
            self._release(digest)

    async def _copy(self, number: int, step: Copy, permits: StepPermits, reader: BlobReader) -> None:
        async def act() -> StepOutcome:
            await self._copier.copy(number, step, reader, permits)
            self._recorder.found(step.target, (step.blob.digest,))
            return "done"

        await self._step(number, step, permits, act)

    async def _request(self, number: int, step: Mount | Put | Attach | Backup, permits: StepPermits) -> None:
        await self._step(number, step, permits, lambda: self._do(step, permits))

    async def _step(self, number: int, step: Step, permits: StepPermits, act: Act) -> None:
        """Run a step under its permits, which nobody holds while what was learned of origins is written."""
        try:
            await self._carry_out(number, step, act)
        finally:
            permits.release()
        await self._recorder.write(at_least=BATCH)

    async def _carry_out(self, number: int, step: Step, act: Act) -> None:
        """Run a step, and record and report how it ended."""
        self._reports.began(number)
        try:
            outcome = await act()
        except BlobflowError as error:
            self._reports.failed(number, error)
        else:
            self._reports.ended(number, outcome)

    async def _do(self, step: Mount | Put | Attach | Backup, permits: StepPermits) -> StepOutcome:
        match step:
            case Mount():
                return await self._mount(step, permits)
            case Put():
                return await self._put(step, permits)
            case Attach():
                return await self._attach(step, permits)
            case Backup():
                await back_up(step, permits, self._services)
                return "done"

    async def _attach(self, step: Attach, permits: StepPermits) -> StepOutcome:
        sink = permits.writing(self._services.sink_at(step.target))
        assert isinstance(sink, Attaches), "nothing is hung on what can't hold it"
        await sink.attach(step.subject, step.referrers)
        return "done"

    async def _mount(self, step: Mount, permits: StepPermits) -> StepOutcome:
        if self._recorder.is_worth_asking(step):
            if await self._is_granted(step, permits):
                self._recorder.granted(step)
                return "done"
            self._recorder.refused(step)
        await self._staging.find_held({step.blob.digest: step.blob})
        if self._is_carried(Copy(step.blob, step.source, step.target)):
            sink = self._services.sink_at(step.target)
            if isinstance(sink, KeepsUploads):
                sink.drop_upload(step.blob)
        return "refused"

    async def _is_granted(self, step: Mount, permits: StepPermits) -> bool:
        """Ask for a mount. A remembered origin is a guess: whatever comes of it, the blob can be uploaded, if
        there is a connection."""
        try:
            return await permits.writing(self._services.sink_at(step.target)).mount(step.blob, step.origin)
        except (RegistryError, NetworkError) as error:
            if not step.remembered or isinstance(error, ConnectFailed):
                raise
            return False

    async def _put(self, step: Put, permits: StepPermits) -> StepOutcome:
        """Put a manifest, or its fallback where the registry takes no sparse index."""
        registry = step.target.registry
        if step.fallback is None or not refuses_sparse(self._services.journal, registry):
            try:
                await self._missing.put(step, step.manifest, permits)
                return "done"
            except Rejected as error:
                if not step.sparse or not error.missing:
                    raise
                if step.fallback is None:
                    raise _explained(error, registry) from None
                note_sparse_refused(self._services.journal, registry)
        await self._missing.put(step, step.fallback, permits)
        return "fell back"

    async def _put_bytes(
        self, site: Site, manifest: Descriptor, tags: tuple[str, ...], permits: StepPermits | None
    ) -> None:
        made = self._made.get(manifest.digest)
        before = permits.release if permits is not None else None
        async with self._services.manifest_budget.moving(site.registry, manifest, before_waiting=before):
            raw = self._graph.raw(manifest.digest) if made is None else made.raw
            sink = self._services.sink_at(site)
            await (permits.writing(sink) if permits is not None else sink).put(manifest, raw, tags)

    async def _copy_beside(self, copy: Copy) -> None:
        """Copy a blob that no step copies, for a Put that waits for it."""
        digest = copy.blob.digest
        self._beside -= 1
        number = self._beside
        await self._staging.find_held({digest: copy.blob})
        if self._carried is not None and self._is_carried(copy):
            await self._carried.bring_beside(copy)
            return
        permits = await self._admission.admit(copy, warm=self._staging.warm(copy.blob))
        arrived = False
        try:
            await self._copier.copy(number, copy, self._ways.straight(copy, permits), permits)
            self._recorder.found(copy.target, (digest,))
            arrived = True
        finally:
            permits.release()
            if not self._blob_open[digest] and digest not in self._lingering:
                self._staging.release(digest, arrived=arrived)


Act = Callable[[], Awaitable[StepOutcome]]


def _explained(error: Rejected, registry: str) -> Rejected:
    explained = Rejected(
        f"{error.message}; {registry} takes no sparse index: use --index prune, or --index auto",
        status=error.status,
        code=error.code,
        detail=error.detail,
    )
    explained.missing = error.missing
    return explained
