"""Planning: from pairs to a plan. Asks sources and targets, and writes nothing to them.

    discover (sources and targets, a target host at a time) ─► make_plan (pure) ─► Planned

A `Planning` is asked in batches, so that targets which answer soon need not wait for those that do not:
`plan` waits for all of them, and a `Run` (engine.execution) begins with the first batch and adds the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from blobflow.engine.concurrency.batches import in_batches
from blobflow.engine.discovered import Discovered, join_discovered, undiscovered
from blobflow.engine.discovery import Discovery
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.cost import Cost, RunningCost
from blobflow.engine.plan.planned import Planned, PlanPart
from blobflow.engine.plan.planner import make_plan
from blobflow.engine.plan.steps import Goal, Step, renumbered
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.collector import ResultCollector
from blobflow.engine.results.report import Report
from blobflow.engine.services import Services
from blobflow.engine.sources.graph import Graph
from blobflow.engine.targets.audit import Audit
from blobflow.engine.targets.known_platforms import note_platforms
from blobflow.engine.targets.known_referrers import note_referrers
from blobflow.engine.targets.survey import put_record
from blobflow.engine.transfer.missing_content import SitesOf
from blobflow.engine.transfer.step_states import StepStates
from blobflow.errors import BlobflowError
from blobflow.events import Observer, PlanMade, ignore
from blobflow.oci import Descriptor, Reference

Answer = TypeVar("Answer")


async def plan(planning: Planning[Any], services: Services) -> Planned:
    """Plan everything in one go. Failures of images are in the result; what is raised concerns all images."""
    async with in_batches(planning.questions(services)) as batches:
        planning.take(await batches.first(planning.is_useful))
    assert planning.planned is not None, "taking in answers plans them"
    return planning.planned


class Planning(ABC, Generic[Answer]):
    """How one run makes its plan: what it asks each target host, and what it plans from the answers.

    `roots` collects what the sources' names were resolved to; `origins` says where content can be read that
    the graph does not have. `planned`: the plan so far. `audit`: the audit of images that earlier runs put,
    if there is one. `is_transferring` is set once steps run: from then on an error that would have ended the
    run fails the pairs of its host alone. `follows_tags`: the sources' tags were resolved by this run, so
    that a tag which moves meanwhile is worth reporting.
    """

    follows_tags = True

    def __init__(self, pairs: Sequence[Pair], policy: Policy, observe: Observer) -> None:
        self.pairs = tuple(dict.fromkeys(pairs))
        self.policy = policy
        self.observe = observe
        self.roots: dict[Reference, Descriptor] = {}
        self.origins: SitesOf = {}
        self.planned: Planned | None = None
        self.audit: Audit | None = None
        self.is_transferring = False

    @abstractmethod
    def questions(self, services: Services) -> Iterable[Coroutine[Any, Any, Answer]]:
        """The questions to ask, one coroutine a target host."""

    @abstractmethod
    def is_useful(self, answer: Answer) -> bool:
        """Whether an answer alone allows any step."""

    @abstractmethod
    def take(self, answers: Sequence[Answer]) -> PlanPart:
        """Plan what these answers allow, and add it to `planned`."""

    @abstractmethod
    def graph(self) -> Graph:
        """The graph of what was read from the sources so far."""

    @abstractmethod
    def record(self, goal: Goal, collector: ResultCollector, services: Services) -> None:
        """Record in the journal that an image is complete at its target."""

    def explain(self, error: BlobflowError, step: Step) -> None:
        """Add to the error of a step what only the planning knows."""

    def complete(self, report: Report, step_states: StepStates | None) -> Report:
        """The report with what only the planning knows. `step_states`: None before steps run."""
        return report if self.audit is None else self.audit.entered(report)

    def _add(self, part: PlanPart, planned: Planned) -> PlanPart:
        """Number a part's steps after those that are planned, and add it. `planned`: what becomes the plan if
        this part is the first."""
        if self.planned is None:
            self.planned = planned
            return part
        part = msgspec.structs.replace(part, plan=renumbered(part.plan, len(self.planned.plan.steps)))
        self.planned = msgspec.structs.replace(
            self.planned.with_part(part),
            graph=planned.graph,
            reads=planned.reads,
            allowances=planned.allowances,
        )
        return part


class PairPlanning(Planning[Discovered]):
    """Plans pairs: what their sources name now is what their targets should have."""

    def __init__(
        self, pairs: Sequence[Pair], policy: Policy = KEEP_GOING, observe: Observer = ignore
    ) -> None:
        super().__init__(pairs, policy, observe)
        self._discovery: Discovery
        self._cost = RunningCost()
        self._current: frozenset[Pair] = frozenset()
        self._partial: set[Pair] = set()

    def questions(self, services: Services) -> Iterable[Coroutine[Any, Any, Discovered]]:
        self._discovery = Discovery(self.pairs, self.policy, services, self.observe, self.roots)
        self.audit = self._discovery.audit
        return map(self._ask, self._discovery.groups)

    async def _ask(self, pairs: tuple[Pair, ...]) -> Discovered:
        try:
            return await self._discovery.discover(pairs)
        except BlobflowError as error:
            if not self.is_transferring:
                raise
            return undiscovered(pairs, error)

    def is_useful(self, answer: Discovered) -> bool:
        return bool(answer.good)

    def graph(self) -> Graph:
        return self._discovery.graph()

    def take(self, answers: Sequence[Discovered]) -> PlanPart:
        found = join_discovered(answers)
        self._current |= found.current
        self._partial |= {pair for pair in found.good if found.desired_images[pair].lacking}
        made = make_plan(found.good, self.graph(), found.inventory, found.desired_images)
        part = PlanPart(
            made,
            found.desired_images,
            found.inventory,
            found.failures,
            {pair: lacks.message for pair, lacks in found.skipped.items()},
            tuple(goal for goal in made.goals if not goal.steps and self._is_unrecorded(goal)),
        )
        quota = self._discovery.quota
        part = self._add(
            part,
            Planned(
                self.pairs,
                part.plan,
                self.graph(),
                part.desired_images,
                part.inventory,
                part.failures,
                dict(sorted(quota.reads.items())),
                quota.allowances,
                self.policy,
                skipped=part.skipped,
            ),
        )
        self._cost.add(part.plan)
        self.observe(plan_made(self._cost, len(self.pairs)))
        return part

    def _is_unrecorded(self, goal: Goal) -> bool:
        """Whether the journal may lack the record of an image that needs no step."""
        return self.policy.trust_root or goal.pair not in self._current

    def record(self, goal: Goal, collector: ResultCollector, services: Services) -> None:
        pair = goal.pair
        if pair.target.transport:  # local files are cheap to ask, and anyone may change them
            return
        if pair in self._partial:  # of another source the same root may have more below it
            return
        put, source = collector.final(pair).digest, collector.source_root(pair).digest
        chosen = put_record(
            pair.choice,
            source,
            put,
            foreign=self.policy.foreign_layers,
            referrers=self.policy.lookup(pair) != "off" and pair not in self._current,
        )
        services.journal.record_put(site_of(pair.target), put, chosen)
        assert self.planned is not None
        note_platforms(services.journal, pair, put, self.planned.desired_images[pair].platforms)
        if listed := self._discovery.referrers_at_hand.get(pair):
            note_referrers(services.journal, pair, source, listed)
        if self.audit is not None:
            self.audit.repaired(pair)


def plan_made(cost: Cost | RunningCost, images: int) -> PlanMade:
    """The event that reports a plan for `images` images."""
    return PlanMade(
        images=images,
        copies=cost.copies,
        mounts=cost.mounts,
        puts=cost.manifests,
        bytes_to_read=cost.bytes_to_read,
        bytes_to_write=cost.bytes_to_write,
    )
