"""The flow: resolve → survey → plan → transfer → verify → report, over whatever world it is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from blobflow.content import Allowance
from blobflow.engine.agenda import Agenda, State
from blobflow.engine.audit import Audit
from blobflow.engine.closing import (
    announce,
    complete_places,
    plan_made,
    verify_targets,
)
from blobflow.engine.inquiry import LANE, Answers, Inquiry, joined, nothing_of
from blobflow.engine.lane import Lane, beside
from blobflow.engine.plan import (
    Goal,
    Graph,
    Inventory,
    Pair,
    Plan,
    Shape,
    appended,
    merged,
    renumbered,
    site_of,
)
from blobflow.engine.planner import make_plan
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.price import Price, Sums, price_of
from blobflow.engine.report import Report
from blobflow.engine.survey import recorded_as
from blobflow.engine.transfer import Transfer, World
from blobflow.engine.undertaking import Undertaking
from blobflow.engine.verify import moved_tags
from blobflow.engine.waves import asked
from blobflow.errors import BlobflowError
from blobflow.events import Meter, Observer, PhaseStarted, Warned, ignore
from blobflow.oci import Digest, Reference

__all__ = ["KEEP_GOING", "LANE", "Planned", "Policy", "Run"]


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
    shapes: dict[Pair, Shape]
    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    reads: dict[str, int] = {}
    allowances: dict[str, Allowance] = {}
    policy: Policy = KEEP_GOING
    counted: Price | None = None
    skipped: dict[Pair, str] = {}

    @property
    def price(self) -> Price:
        return self.counted or price_of(self.plan, self.graph, (*self.failures, *self.skipped))


class Run(Undertaking[Answers]):
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
        self._sums = Sums()
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

    async def go(self, world: World) -> Report:
        """Do it. Failures of images are in the report; what is raised concerns the whole run.

        The plan is of the whole set, unless a target keeps the others waiting for its answers for longer
        than `world.patience`: then those begin, and what it wants is planned and added when it is known.
        """
        inquiry = self._inquiry(world)
        ask = partial(self._ask, inquiry)
        async with asked(map(ask, inquiry.groups)) as self._waves:
            plan = self._take(await self._waves.first(_of_use, world.patience), inquiry, world)
            if self._tally.errors and not self._policy.keep_going:
                return self.report()
            self._observe(PhaseStarted("transfer", len(self._pairs)))
            ended = partial(self._step_ended, world)
            graph, keep_going, more = inquiry.graph(), self._policy.keep_going, not self._waves.over
            self._transfer = Transfer(plan, graph, world, keep_going, ended, more=more)
            await beside(self._take_late(self._transfer, inquiry, world), self._transfer.run())
        await self._verify(world)
        await complete_places(self._tally, world, self._observe)
        return self.report()

    def _inquiry(self, world: World) -> Inquiry:
        inquiry = Inquiry(self._pairs, self._policy, world, self._observe)
        self._audit = inquiry.audit
        self._tally.roots(inquiry.roots)
        return inquiry

    async def _ask(self, inquiry: Inquiry, pairs: tuple[Pair, ...]) -> Answers:
        """What the inquiry finds. An error that ends the run fails only these pairs once others are moved."""
        try:
            return await inquiry.of(pairs)
        except BlobflowError as error:
            if self._transfer is None:
                raise
            return nothing_of(pairs, error)

    async def _take_late(self, transfer: Transfer, inquiry: Inquiry, world: World) -> None:
        """Plan what is known only now, and add it to what runs."""
        assert self._waves is not None
        try:
            async for answers in self._waves.late():
                part = self._take(answers, inquiry, world)
                if any(each.failures for each in answers) and not self._policy.keep_going:
                    self.wind_down()
                await transfer.add(part)
        finally:
            transfer.no_more()

    def _take(self, answers: Sequence[Answers], inquiry: Inquiry, world: World) -> Plan:
        """Plan what the answers allow, add it to what is planned already, and tell it. Returns what is new,
        its steps numbered after those that were there before."""
        found = joined(answers)
        part = make_plan(found.good, inquiry.graph(), found.inventory, found.shapes)
        if self.planned is not None:
            part = renumbered(part, len(self.planned.plan.steps))
        self.planned = _with(self.planned, self._pairs, part, found, inquiry)
        self._sums.add(part)
        self._observe(plan_made(self._sums, len(self._pairs)))
        for pair, error in found.failures.items():
            self._tell(self._tally.failed(pair, error))
        for record in self._tally.planned(part.goals, found.shapes, found.inventory):
            self._tell(record)
        for pair, lacks in found.skipped.items():
            self._tell(self._tally.skipped(pair, lacks.message))
        found_whole = [goal for goal in part.goals if not goal.steps and self._is_news(goal, found)]
        self._current |= found.current
        self._partial |= {pair for pair in found.good if found.shapes[pair].lacking}
        self._remember(world, found_whole)
        announce(part, world)
        return part

    def _step_ended(self, world: World, agenda: Agenda, number: int) -> None:
        for goal, record in self._tally.ended(agenda, number):
            self._tell(record)
            if record.status == "done":
                self._remember(world, (goal,))
        if agenda.states[number] is State.FAILED and not self._policy.keep_going and self._waves:
            self._waves.stop()

    async def _verify(self, world: World) -> None:
        put = self._tally.verifiable(("done",))
        resolved = {pair.source: self._tally.source_root(pair) for pair in put}
        moved: dict[Reference, Digest | None] = {}
        looking = moved_tags(resolved, world.source_at, Lane(LANE), moved)
        level = self._policy.verify
        await beside(
            looking, verify_targets(self._tally, level, world, self._observe, Lane(LANE), audit=self._audit)
        )
        self._tally.moved(moved)
        for reference, digest in sorted(moved.items()):
            now = f"names {digest}" if digest else "is gone"
            self._observe(Warned(f"{reference} moved during the run: it {now} now; the next run takes it up"))

    async def plan(self, world: World) -> Planned:
        """Resolve, survey and plan; nothing is changed anywhere."""
        inquiry = self._inquiry(world)
        async with asked(map(inquiry.of, inquiry.groups)) as waves:
            found = joined(await waves.first(_of_use))
        plan = make_plan(found.good, inquiry.graph(), found.inventory, found.shapes)
        self.planned = _with(None, self._pairs, plan, found, inquiry)
        self._observe(plan_made(self.planned.price, len(self._pairs)))
        return self.planned

    def _is_news(self, goal: Goal, answers: Answers) -> bool:
        """Whether an image that needs nothing is news: the journal has most that do already."""
        return self._policy.trust_root or goal.pair not in answers.current

    def _remember(self, world: World, goals: Iterable[Goal]) -> None:
        for goal in goals:
            pair = goal.pair
            if pair.target.transport:  # files are at hand, and anyone may change them: they are asked
                continue
            if pair in self._partial:  # of another source the same root may have more below it
                continue
            put, source = self._tally.final(pair).digest, self._tally.source_root(pair).digest
            chosen = recorded_as(
                pair.choice,
                source,
                put,
                foreign=self._policy.foreign_layers,
                referrers=self._policy.lookup(pair) != "off" and pair not in self._current,
            )
            world.journal.record_put(site_of(pair.target), put, chosen)
            if self._audit is not None:
                self._audit.repaired(pair)


def _of_use(answers: Answers) -> bool:
    """Whether something can be done by them."""
    return bool(answers.good)


def _with(
    before: Planned | None, pairs: tuple[Pair, ...], part: Plan, answers: Answers, inquiry: Inquiry
) -> Planned:
    """What was planned before, and a part of the plan beside it."""
    quota, graph = inquiry.quota, inquiry.graph()
    reads = dict(sorted(quota.reads.items()))
    skipped = {pair: lacks.message for pair, lacks in answers.skipped.items()}
    if before is None:
        return Planned(
            pairs,
            part,
            graph,
            answers.shapes,
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
        before.shapes | answers.shapes,
        merged((before.inventory, answers.inventory)),
        before.failures | answers.failures,
        reads,
        quota.allowances,
        skipped=before.skipped | skipped,
    )
