"""The flow: resolve → survey → plan → transfer → verify → report, over whatever world it is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from blobflow.content import Allowance
from blobflow.engine.closing import (
    announce,
    complete_places,
    plan_made,
    verify_targets,
)
from blobflow.engine.concurrency.batches import in_batches
from blobflow.engine.concurrency.bounded import BoundedRunner, run_alongside
from blobflow.engine.plan.cost import Cost, RunningCost, cost_of
from blobflow.engine.plan.planner import make_plan
from blobflow.engine.plan.steps import (
    DesiredImage,
    Goal,
    Graph,
    Inventory,
    Pair,
    Plan,
    appended,
    merge_inventories,
    renumbered,
    site_of,
)
from blobflow.engine.planning import MAX_SMALL_REQUESTS, Discovered, Discovery, join_discovered, undiscovered
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.targets.audit import Audit
from blobflow.engine.targets.survey import put_record
from blobflow.engine.targets.verification import moved_tags
from blobflow.engine.transfer.runner import Services, Transfer
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.engine.undertaking import Undertaking
from blobflow.errors import BlobflowError
from blobflow.events import Meter, Observer, PhaseStarted, Warned, ignore
from blobflow.oci import Digest, Reference

__all__ = ["KEEP_GOING", "MAX_SMALL_REQUESTS", "Planned", "Policy", "Run"]


class Planned(msgspec.Struct, frozen=True):
    """A plan with what it was made from.

    `failures`: pairs that could not be planned, and why; `skipped`: those that were not to be, as they lack
    the platforms that are wanted. `reads`: the manifests that planning read, by host; a run of the plan reads
    as many. `allowances`: what their hosts said last of how many they let be read. `policy`: what it was made
    under. `counted`: its price, where the graph is not all of it.
    """

    pairs: tuple[Pair, ...]
    plan: Plan
    graph: Graph
    desired_images: dict[Pair, DesiredImage]
    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    reads: dict[str, int] = {}
    allowances: dict[str, Allowance] = {}
    policy: Policy = KEEP_GOING
    counted: Cost | None = None
    skipped: dict[Pair, str] = {}

    @property
    def price(self) -> Cost:
        return self.counted or cost_of(self.plan, self.graph, (*self.failures, *self.skipped))


class Run(Undertaking[Discovered]):
    """One run over a set of pairs. `report` may be asked at any time, also after a cancelled `go`.

    `planned`: what is carried out, once it is known.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        policy: Policy = KEEP_GOING,
        *,
        observe: Observer = ignore,
        meter: Meter | None = None,
    ) -> None:
        self._pairs = tuple(dict.fromkeys(pairs))
        super().__init__(self._pairs, policy, observe, meter)
        self._sums = RunningCost()
        self.planned: Planned | None = None
        self._current: frozenset[Pair] = frozenset()
        self._partial: set[Pair] = set()
        self._audit: Audit | None = None

    def report(self) -> Report:
        """What has become of every image so far."""
        report = super().report()
        return report if self._audit is None else self._audit.entered(report)

    def undone(self, error: BlobflowError | None) -> None:
        """What was to be made of the images that it brought was not: that failed, or was cancelled (None)."""
        self._tally.undone(error)

    @property
    def cut_short(self) -> bool:
        """Whether it has left images as they were, because it was to start nothing new."""
        return self._tally.cut_short

    async def go(self, services: Services) -> Report:
        """Do it. Failures of images are in the report; what is raised concerns the whole run.

        The plan is of the whole set, unless a target keeps the others waiting for its answers for longer
        than `services.patience`: then those begin, and what it wants is planned and added when it is known.
        """
        discovery = self._discovery(services)
        ask = partial(self._ask, discovery)
        async with in_batches(map(ask, discovery.groups)) as self._batches:
            plan = self._take(await self._batches.first(_of_use, services.patience), discovery, services)
            if self._tally.errors and not self._policy.keep_going:
                return self.report()
            self._observe(PhaseStarted("transfer", len(self._pairs)))
            ended = partial(self._step_ended, services)
            graph, keep_going, more = discovery.graph(), self._policy.keep_going, not self._batches.over
            self._transfer = Transfer(
                plan, graph, services, keep_going, ended, more=more, brought=self._tally.moved_by
            )
            await run_alongside(self._take_late(self._transfer, discovery, services), self._transfer.run())
        await self._verify(services)
        await complete_places(self._tally, services, self._observe)
        return self.report()

    def _discovery(self, services: Services) -> Discovery:
        discovery = Discovery(self._pairs, self._policy, services, self._observe)
        self._audit = discovery.audit
        self._tally.roots(discovery.roots)
        return discovery

    async def _ask(self, discovery: Discovery, pairs: tuple[Pair, ...]) -> Discovered:
        """What the inquiry finds. An error that ends the run fails only these pairs once others are moved."""
        try:
            return await discovery.of(pairs)
        except BlobflowError as error:
            if self._transfer is None:
                raise
            return undiscovered(pairs, error)

    async def _take_late(self, transfer: Transfer, discovery: Discovery, services: Services) -> None:
        """Plan what is known only now, and add it to what runs."""
        assert self._batches is not None
        try:
            async for answers in self._batches.late():
                part = self._take(answers, discovery, services)
                if any(each.failures for each in answers) and not self._policy.keep_going:
                    self.wind_down()
                await transfer.add(part)
        finally:
            transfer.no_more()

    def _take(self, answers: Sequence[Discovered], discovery: Discovery, services: Services) -> Plan:
        """Plan what the answers allow, add it to what is planned already, and tell it. Returns what is new,
        its steps numbered after those that were there before."""
        found = join_discovered(answers)
        part = make_plan(found.good, discovery.graph(), found.inventory, found.desired_images)
        if self.planned is not None:
            part = renumbered(part, len(self.planned.plan.steps))
        self.planned = _with(self.planned, self._pairs, part, found, discovery)
        self._sums.add(part)
        self._observe(plan_made(self._sums, len(self._pairs)))
        for pair, error in found.failures.items():
            self._tell(self._tally.failed(pair, error))
        for record in self._tally.planned(part.goals, found.desired_images, found.inventory):
            self._tell(record)
        for pair, lacks in found.skipped.items():
            self._tell(self._tally.skipped(pair, lacks.message))
        found_whole = [goal for goal in part.goals if not goal.steps and self._is_news(goal, found)]
        self._current |= found.current
        self._partial |= {pair for pair in found.good if found.desired_images[pair].lacking}
        self._remember(services, found_whole)
        announce(part, services)
        return part

    def _step_ended(self, services: Services, agenda: StepStates, number: int) -> None:
        for goal, record in self._tally.ended(agenda, number):
            self._tell(record)
            if record.status == "done":
                self._remember(services, (goal,))
        if agenda.states[number] is StepState.FAILED and not self._policy.keep_going and self._batches:
            self._batches.stop()

    async def _verify(self, services: Services) -> None:
        put = self._tally.verifiable(("done",))
        resolved = {pair.source: self._tally.source_root(pair) for pair in put}
        moved: dict[Reference, Digest | None] = {}
        looking = moved_tags(resolved, services.source_at, BoundedRunner(MAX_SMALL_REQUESTS), moved)
        level = self._policy.verify
        await run_alongside(
            looking,
            verify_targets(
                self._tally,
                level,
                services,
                self._observe,
                BoundedRunner(MAX_SMALL_REQUESTS),
                audit=self._audit,
            ),
        )
        self._tally.moved(moved)
        for reference, digest in sorted(moved.items()):
            now = f"names {digest}" if digest else "is gone"
            self._observe(Warned(f"{reference} moved during the run: it {now} now; the next run takes it up"))

    async def plan(self, services: Services) -> Planned:
        """Resolve, survey and plan; nothing is changed anywhere."""
        discovery = self._discovery(services)
        async with in_batches(map(discovery.of, discovery.groups)) as batches:
            found = join_discovered(await batches.first(_of_use))
        plan = make_plan(found.good, discovery.graph(), found.inventory, found.desired_images)
        self.planned = _with(None, self._pairs, plan, found, discovery)
        self._observe(plan_made(self.planned.price, len(self._pairs)))
        return self.planned

    def _is_news(self, goal: Goal, answers: Discovered) -> bool:
        """Whether an image that needs nothing is news: the journal has most that do already."""
        return self._policy.trust_root or goal.pair not in answers.current

    def _remember(self, services: Services, goals: Iterable[Goal]) -> None:
        for goal in goals:
            pair = goal.pair
            if pair.target.transport:  # files are at hand, and anyone may change them: they are asked
                continue
            if pair in self._partial:  # of another source the same root may have more below it
                continue
            put, source = self._tally.final(pair).digest, self._tally.source_root(pair).digest
            chosen = put_record(
                pair.choice,
                source,
                put,
                foreign=self._policy.foreign_layers,
                referrers=self._policy.lookup(pair) != "off" and pair not in self._current,
            )
            services.journal.record_put(site_of(pair.target), put, chosen)
            if self._audit is not None:
                self._audit.repaired(pair)


def _of_use(answers: Discovered) -> bool:
    """Whether something can be done by them."""
    return bool(answers.good)


def _with(
    before: Planned | None, pairs: tuple[Pair, ...], part: Plan, answers: Discovered, discovery: Discovery
) -> Planned:
    """What was planned before, and a part of the plan beside it."""
    quota, graph = discovery.quota, discovery.graph()
    reads = dict(sorted(quota.reads.items()))
    skipped = {pair: lacks.message for pair, lacks in answers.skipped.items()}
    if before is None:
        return Planned(
            pairs,
            part,
            graph,
            answers.desired_images,
            answers.inventory,
            answers.failures,
            reads,
            quota.allowances,
            skipped=skipped,
        )
    return Planned(
        pairs,
        appended(before.plan, part),
        graph,
        before.desired_images | answers.desired_images,
        merge_inventories((before.inventory, answers.inventory)),
        before.failures | answers.failures,
        reads,
        quota.allowances,
        skipped=before.skipped | skipped,
    )
