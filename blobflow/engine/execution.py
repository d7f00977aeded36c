"""Execution: carries out a plan, also while later parts are still being planned, and reports the result.

    Planning ─► transfer ─► verify ─► report
       └── parts that are planned later are added to what runs

There is one way to carry out a plan, whether it was just made of pairs or was saved by an earlier run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from blobflow.content import Expects, Site
from blobflow.engine.concurrency.batches import Batches, in_batches
from blobflow.engine.concurrency.bounded_runner import (
    MAX_LOOKUPS,
    MAX_SMALL_REQUESTS,
    BoundedRunner,
    run_alongside,
)
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.planned import Planned, PlanPart
from blobflow.engine.plan.steps import Copy, Plan, Step
from blobflow.engine.planning import PairPlanning, Planning
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.collector import ResultCollector
from blobflow.engine.results.report import ImageRecord, Report
from blobflow.engine.results.run_record import run_record, utc_now
from blobflow.engine.services import Services
from blobflow.engine.targets.audit import mark_doubtful
from blobflow.engine.targets.mount_origins import OriginRecorder
from blobflow.engine.targets.verification import Verification, moved_tags
from blobflow.engine.transfer.admission import HostLimiters
from blobflow.engine.transfer.runner import Transfer
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.errors import BlobflowError
from blobflow.events import ImageDone, Meter, Observer, PhaseStarted, Warned, ignore
from blobflow.oci import Descriptor, Digest, Reference
from blobflow.permits import PermitKind


def run_of_pairs(
    pairs: Sequence[Pair],
    policy: Policy = KEEP_GOING,
    *,
    observe: Observer = ignore,
    meter: Meter | None = None,
) -> Run:
    """A run that brings every pair's image to its target."""
    return Run(PairPlanning(pairs, policy, observe), meter)


class Run:
    """One execution of a plan. `report` may be called at any time, also before `execute` and after it was
    cancelled. `before`: what the meter has counted that is not the run's: all that it had when the run was
    made, unless somebody says otherwise."""

    def __init__(self, planning: Planning[Any], meter: Meter | None = None) -> None:
        """`meter`: where the services count bytes, for the report."""
        self._planning = planning
        self._policy = planning.policy
        self._observe = planning.observe
        self._meter = meter or Meter()
        self.before = self._meter.since(Meter())
        self._collector = ResultCollector(planning.pairs)
        self._collector.roots(planning.roots)
        self._settled = 0
        self._transfer: Transfer | None = None
        self._batches: Batches[Any] | None = None
        self._recorder: OriginRecorder
        self._started = time.monotonic()
        self._started_at = utc_now()

    def report(self) -> Report:
        """The report on every image as of now."""
        meter = self._meter.since(self.before)
        report = self._collector.report(meter, time.monotonic() - self._started)
        run = run_record(self._planning.pairs, meter, self._started_at)
        report = msgspec.structs.replace(report, run=run)
        return self._planning.complete(report, self._transfer.step_states if self._transfer else None)

    @property
    def planned(self) -> Planned | None:
        """The plan that is carried out, once it is made."""
        return self._planning.planned

    @property
    def errors(self) -> Mapping[Pair, BlobflowError]:
        """Why each failed image failed; a verb about one image exits with its code."""
        return self._collector.errors

    @property
    def cut_short(self) -> bool:
        """Whether images were left unfinished because the run was winding down."""
        return self._collector.cut_short

    def count_brought(self, steps: Iterable[Step]) -> None:
        """Count what was brought for this run's images before it: the report says that it was moved, not that
        it was there."""
        self._collector.brought(steps)

    def undone(self, error: BlobflowError | None) -> None:
        """Record that a later use of the images that arrived failed with `error`, or was cancelled (None)."""
        self._collector.undone(error)

    def wind_down(self) -> bool:
        """Start nothing new: steps under way end, and `execute` returns. Returns False if nothing is under
        way yet."""
        if self._transfer is None or self._batches is None:
            return False
        self._batches.stop()
        self._transfer.wind_down()
        return True

    async def execute(self, services: Services) -> Report:
        """Carry it out. Failures of images are in the report; what is raised concerns the whole run.

        The plan covers the whole set, unless a target keeps the others waiting for longer than
        `services.patience`: then those begin, and its part is planned and added once it has answered.
        On cancel, steps under way are undone or journaled before CancelledError propagates. In any case the
        journal has then where blobs were put.
        """
        self._recorder = OriginRecorder(services.journal, services.sink_at)
        try:
            return await self._carry_out(services)
        finally:
            await self._recorder.write()

    async def _carry_out(self, services: Services) -> Report:
        planning = self._planning
        async with in_batches(planning.questions(services)) as self._batches:
            part = self._take(await self._batches.first(planning.is_useful, services.patience), services)
            if self._collector.errors and not self._policy.keep_going:
                return self.report()
            self._observe(PhaseStarted("transfer", len(planning.pairs)))
            planning.is_transferring = True
            self._transfer = Transfer(
                part,
                planning.graph(),
                services,
                self._policy.keep_going,
                self._recorder,
                lambda states, number: self._step_ended(services, states, number),
                more=not self._batches.over,
                origins=planning.origins,
                brought=self._collector.moved_by,
            )
            await run_alongside(self._take_late(self._transfer, services), self._transfer.run())
        await self._check_sources_and_targets(services)
        await self._complete_archives(services)
        return self.report()

    async def _take_late(self, transfer: Transfer, services: Services) -> None:
        """Plan what the late answers allow, and add it to the running transfer."""
        assert self._batches is not None
        try:
            async for answers in self._batches.late():
                part = self._take(answers, services)
                if self._collector.errors and not self._policy.keep_going:
                    self.wind_down()
                await transfer.add(part)
        finally:
            transfer.no_more()

    def _take(self, answers: Sequence[Any], services: Services) -> Plan:
        """Plan what the answers allow, and tell observers, the journal and targets. Returns the new part."""
        part = self._planning.take(answers)
        for record in self._records_of(part):
            self._tell(record)
        for goal in part.unrecorded:
            self._planning.record(goal, self._collector, services)
        self._recorder.surveyed(part)
        _announce(part.plan, services)
        return part.plan

    def _records_of(self, part: PlanPart) -> Sequence[ImageRecord]:
        """The images of a part that need no step, or can't have any."""
        collector = self._collector
        failed = [collector.failed(pair, error) for pair, error in part.failures.items()]
        present = collector.planned(part.plan.goals, part.desired_images, part.inventory)
        return [*failed, *present, *(collector.skipped(*each) for each in part.skipped.items())]

    def _step_ended(self, services: Services, states: StepStates, number: int) -> None:
        failed = states.states[number] is StepState.FAILED
        if failed:
            self._planning.explain(states.errors[number], states.step(number))
        for goal, record in self._collector.ended(states, number):
            self._tell(record)
            if record.status == "done":
                self._planning.record(goal, self._collector, services)
        if failed and not self._policy.keep_going and self._batches is not None:
            self._batches.stop()

    def _tell(self, record: ImageRecord) -> None:
        self._settled += 1
        self._observe(
            ImageDone(
                source=record.source,
                target=record.target,
                digest=record.digest,
                status=record.status,
                error=record.error,
                done=self._settled,
                images=self._collector.images,
                reason=record.reason,
                platforms=record.platforms,
            )
        )

    # After the transfer

    async def _check_sources_and_targets(self, services: Services) -> None:
        """Verify the targets, and check whether tags of the sources moved meanwhile."""
        put = self._collector.verifiable(("done",)) if self._planning.follows_tags else {}
        resolved = {pair.source: self._collector.source_root(pair) for pair in put}
        moved: dict[Reference, Digest | None] = {}
        looking = moved_tags(resolved, services.source_at, BoundedRunner(MAX_LOOKUPS), moved)
        await run_alongside(looking, self._verify_targets(services))
        self._collector.moved(moved)
        for reference, digest in sorted(moved.items()):
            now = f"names {digest}" if digest else "is gone"
            self._observe(Warned(f"{reference} moved during the run: it {now} now; the next run takes it up"))

    async def _verify_targets(self, services: Services) -> None:
        """Verify the images that were put, or, on closer levels than "roots", all that should be there, with
        what refers to it.

        What this run's audit found incomplete is audited again.
        """
        collector, level = self._collector, self._policy.verify
        roots = collector.verifiable(("done",) if level == "roots" else ("done", "present"))
        if not roots:
            return
        self._observe(PhaseStarted("verify", len(roots)))
        verification = Verification(
            services.source_at,
            services.sink_at,
            BoundedRunner(MAX_LOOKUPS if level == "roots" else MAX_SMALL_REQUESTS),
            read_at_once=self._reads_at_once(roots, services),
            manifest_budget=services.manifest_budget,
            count=services.meter.counts["verify"],
        )
        attached = collector.attached_to(roots) if level != "roots" else {}
        wrong = await verification.check(roots, level, collector.images_of(roots), attached)
        if self._planning.audit is not None:
            sources = {pair: collector.source_root(pair) for pair in roots}
            wrong |= await self._planning.audit.look_again(roots, sources)
        for pair, error in wrong.items():
            mark_doubtful(services.journal, pair, collector.source_root(pair).digest, roots[pair].digest)
            collector.not_verified(pair, error)
            self._observe(Warned(f"{pair.target} is not what it should be: {error}"))

    def _reads_at_once(self, pairs: Iterable[Pair], services: Services) -> int:
        """How many blobs are read back at once: as many as the strictest target's limit allows."""
        limiters = HostLimiters(services.source_at, services.sink_at, services.limiter_at)
        return min(limiters.target(site_of(pair.target)).limit(PermitKind.READ) for pair in pairs)

    async def _complete_archives(self, services: Services) -> None:
        """Complete the archives, and fail the images of those that can't be completed."""
        with services.meter.waits.begin("work", "", "completing archives"):
            failures = await services.complete()
        for pair in self._collector.verifiable(("done",)) if failures else ():
            if error := failures.get(site_of(pair.target)):
                self._collector.not_verified(pair, error)
                self._observe(Warned(f"{pair.target} is not there: {error}"))
        self._collector.places_complete()


def _announce(plan: Plan, services: Services) -> None:
    """Announce to the sinks that ask for it which blobs will come, in the order of the plan."""
    coming: dict[Site, list[Descriptor]] = {}
    for step in plan.steps:
        if isinstance(step, Copy):
            coming.setdefault(step.target, []).append(step.blob)
    for site, blobs in coming.items():
        if isinstance(sink := services.sink_at(site), Expects):
            sink.expect(blobs)
