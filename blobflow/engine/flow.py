"""The flow: resolve → survey → plan → transfer → verify → report, over whatever world it is given."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from blobflow.content import Allowance, Expects, NullJournal, Site
from blobflow.engine.agenda import Agenda
from blobflow.engine.audit import Audit, AuditMode, doubt
from blobflow.engine.lane import Lane, beside
from blobflow.engine.plan import Copy, Goal, Graph, Inventory, Lookup, Pair, Plan, Shape, site_of
from blobflow.engine.planner import make_plan
from blobflow.engine.price import Price, price_of
from blobflow.engine.quota import Quota
from blobflow.engine.referring import Referrals, hang_referrers, holds_referrers, yielding
from blobflow.engine.report import ImageRecord, Report
from blobflow.engine.resolve import clashes, read_graph, resolve_roots
from blobflow.engine.shape import choices_of, shape_pairs
from blobflow.engine.survey import TagSurvey, Targets, recorded_as, survey_content, survey_tags
from blobflow.engine.tally import Tally
from blobflow.engine.transfer import Transfer, World, refuses_sparse
from blobflow.engine.verify import Level, Verification, moved_tags
from blobflow.errors import BlobflowError
from blobflow.events import ImageDone, Meter, Observer, PhaseStarted, PlanMade, Warned, ignore
from blobflow.oci import Descriptor, Digest, Reference

# Small requests in flight in one phase, over all hosts; the sessions bound them a host as well.
LANE = 32


class Policy(msgspec.Struct, frozen=True):
    """What a run does where it has a choice.

    `verify`: how closely the targets are asked after the transfer, see `engine.verify`; "roots" looks at the
    images that this run put, the others at every image, before the transfer too, and so repair what they
    can. `keep_going`: a failed image does not keep the others from being mirrored. `no_overwrite`: a target
    tag that names another digest is an error. `trust_root`: a target tag that names the right root is taken
    as whole, also where no earlier run of ours put it there. `wait`: where a source lets fewer manifests be
    read than are needed, read those and wait for more; without it such a run is not begun.
    `foreign_layers`: layers with `urls`, or that are not meant to be distributed, are mirrored too where the
    source registry itself holds them; from their `urls` nothing is ever fetched. `referrers`: when to look up
    signatures, SBOMs and attestations; None: as each pair says. An image whose referrers can't be looked up
    fails. `audit`: below which of the images that an earlier run put it is looked before they are taken as
    whole, see `engine.audit`; with another `verify` than "roots" all of them are looked below anyway.
    """

    keep_going: bool = True
    no_overwrite: bool = False
    trust_root: bool = False
    verify: Level = "roots"
    wait: bool = False
    foreign_layers: bool = False
    referrers: Lookup | None = None
    audit: AuditMode = "rolling"


KEEP_GOING = Policy()


class Planned(msgspec.Struct, frozen=True):
    """A plan with what it was made from.

    `failures`: pairs that could not be planned, and why. `reads`: the manifests that planning read, by host;
    a run of the plan reads as many. `allowances`: what their hosts said last of how many they let be read.
    """

    pairs: tuple[Pair, ...]
    plan: Plan
    graph: Graph
    shapes: dict[Pair, Shape]
    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    reads: dict[str, int] = {}
    allowances: dict[str, Allowance] = {}

    @property
    def price(self) -> Price:
        return price_of(self.plan, self.graph)


class Run:
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
        self._policy = policy
        self._observe = observe
        self._meter = meter or Meter()
        self._tally = Tally(self._pairs)
        self._told = 0
        self._transfer: Transfer | None = None
        self.planned: Planned | None = None
        self._current: frozenset[Pair] = frozenset()
        self._audit: Audit | None = None
        self._started = time.monotonic()

    def report(self) -> Report:
        """What has become of every image so far."""
        report = self._tally.report(
            bytes_read=self._meter.bytes_read,
            written={host: meter.bytes_written for host, meter in self._meter.hosts.items()},
            requests=self._meter.requests,
            seconds=time.monotonic() - self._started,
        )
        return report if self._audit is None else self._audit.entered(report)

    @property
    def errors(self) -> Mapping[Pair, BlobflowError]:
        """Why each failed image failed; a verb about one image exits with its code."""
        return self._tally.errors

    async def go(self, world: World) -> Report:
        """Do it. Failures of images are in the report; what is raised concerns the whole run."""
        planned = await self.plan(world)
        for pair, error in planned.failures.items():
            self._tell(self._tally.failed(pair, error))
        for record in self._tally.planned(planned.plan, planned.shapes, planned.inventory):
            self._tell(record)
        self._remember(world, (goal for goal in planned.plan.goals if self._found_whole(goal)))
        if planned.failures and not self._policy.keep_going:
            return self.report()

        def ended(agenda: Agenda, number: int) -> None:
            for goal, record in self._tally.ended(agenda, number):
                self._tell(record)
                if record.status == "done":
                    self._remember(world, (goal,))

        _announce(planned.plan, world)
        self._observe(PhaseStarted("transfer", len(self._pairs)))
        self._transfer = Transfer(planned.plan, planned.graph, world, self._policy.keep_going, ended)
        await self._transfer.run()
        await self._verify(world)
        await self._complete(world)
        return self.report()

    def _lookup(self, pair: Pair) -> Lookup:
        return self._policy.referrers or pair.referrers

    def wind_down(self) -> bool:
        """Start nothing new: what is under way ends, and `go` returns. False if nothing is under way yet."""
        if self._transfer is None:
            return False
        self._transfer.wind_down()
        return True

    async def _complete(self, world: World) -> None:
        """Let archives take their places; the images of one that can't are failed."""
        failures = await world.complete()
        for pair in self._tally.verifiable(("done",)) if failures else ():
            if error := failures.get(site_of(pair.target)):
                self._tally.not_verified(pair, error)
                self._observe(Warned(f"{pair.target} is not there: {error}"))

    async def _verify(self, world: World) -> None:
        level = self._policy.verify
        put = self._tally.verifiable(("done",))
        roots = put if level == "roots" else self._tally.verifiable(("done", "present"))
        if not roots:
            return
        self._observe(PhaseStarted("verify", len(roots)))
        at_once = min(world.limits(pair.target.host).blobs for pair in roots)
        verification = Verification(world.source_at, world.sink_at, Lane(LANE), read_at_once=at_once)
        moved: dict[Reference, Digest | None] = {}
        resolved = {pair.source: self._tally.source_root(pair) for pair in put}
        looking = moved_tags(resolved, world.source_at, Lane(LANE), moved)
        wrong = await beside(looking, verification.check(roots, level))
        if self._audit is not None:
            sources = {pair: self._tally.source_root(pair) for pair in roots}
            wrong |= await self._audit.look_again(roots, sources)
        for pair, error in wrong.items():
            doubt(world.journal, pair, self._tally.source_root(pair).digest, roots[pair].digest)
            self._tally.not_verified(pair, error)
            self._observe(Warned(f"{pair.target} is not what it should be: {error}"))
        self._tally.moved(moved)
        for reference, digest in sorted(moved.items()):
            now = f"names {digest}" if digest else "is gone"
            self._observe(Warned(f"{reference} moved during the run: it {now} now; the next run takes it up"))

    async def plan(self, world: World) -> Planned:
        """Resolve, survey and plan; nothing is changed anywhere."""
        lane = Lane(LANE)
        failures: dict[Pair, BlobflowError] = {}

        def good() -> list[Pair]:
            return [pair for pair in self._pairs if pair not in failures]

        def drop(failed: Mapping[Reference, BlobflowError]) -> None:
            failures.update((pair, failed[pair.source]) for pair in good() if pair.source in failed)

        self._observe(PhaseStarted("resolve", len(self._pairs)))
        targets = Targets(self._pairs, world.sink_at)
        sources = (pair.source for pair in self._pairs)
        resolved = await resolve_roots(sources, world.source_at, lane, targets.look_ahead)
        self._tally.roots(resolved.roots)
        drop(resolved.failures)
        failures.update(clashes(good(), resolved.roots))

        self._observe(PhaseStarted("survey", len(self._pairs)))
        tags = await self._survey_tags(world, good(), resolved.roots, targets, lane)
        failures.update(tags.failures)
        tags = await self._audited(world, good(), tags, resolved.roots)
        stale = [pair for pair in good() if pair not in tags.current]
        wanted = {pair.source: resolved.roots[pair.source] for pair in stale}
        quota = Quota(
            world.allowance_of, world.source_at, self._observe, world.sleep, waits=self._policy.wait
        )
        foreign = self._policy.foreign_layers
        reading = read_graph(
            wanted, world.source_at, lane, quota.permit, choices=choices_of(good()), foreign=foreign
        )
        referrals = Referrals(world.source_at)
        asking = self._look_ahead(world, stale, resolved.roots, targets, referrals, lane)
        read = await beside(asking, reading)
        drop(read.failures)
        graph = msgspec.structs.replace(read.graph, roots=resolved.roots)
        shapes = shape_pairs(
            good(), graph, tags.tags, tags.current, lambda host: refuses_sparse(world.journal, host)
        )
        failures.update(shapes.failures)
        moved = [p for p in good() if p not in tags.current and self._lookup(p) != "off"]
        hung = await hang_referrers(
            moved, shapes.of, graph, world.source_at, world.sink_at, lane, referrals, quota.permit
        )
        failures.update(hung.failures)
        deep = self._policy.verify != "roots" or self._policy.audit == "all"
        content = await survey_content(good(), hung.shapes, tags, targets, world.sink_at, lane, deep=deep)
        failures.update(content.failures)
        final = yielding(hung.shapes, content.inventory) if self._policy.no_overwrite else hung.shapes
        plan = make_plan(good(), hung.graph, content.inventory, final)
        reads = dict(sorted(quota.reads.items()))
        planned = Planned(
            self._pairs, plan, hung.graph, final, content.inventory, failures, reads, quota.allowances
        )
        self.planned = planned
        self._tell_price(planned.price)
        return planned

    async def _look_ahead(
        self,
        world: World,
        pairs: Collection[Pair],
        roots: Mapping[Reference, Descriptor],
        targets: Targets,
        referrals: Referrals,
        lane: Lane,
    ) -> None:
        """Ask for what will be wanted to know once the manifests of these pairs have been read."""
        subjects = {
            (site_of(pair.source), roots[pair.source].digest)
            for pair in pairs
            if self._lookup(pair) != "off" and holds_referrers(pair, world.sink_at)
        }
        await beside(
            targets.look_for_vacant({site_of(pair.target) for pair in pairs}, lane),
            referrals.look_ahead(subjects, lane),
        )

    async def _survey_tags(
        self,
        world: World,
        pairs: Iterable[Pair],
        roots: Mapping[Reference, Descriptor],
        targets: Targets,
        lane: Lane,
    ) -> TagSurvey:
        return await survey_tags(
            pairs,
            roots,
            targets,
            world.journal if self._policy.verify == "roots" else NullJournal(),
            lane,
            no_overwrite=self._policy.no_overwrite,
            trust_root=self._policy.trust_root,
            foreign=self._policy.foreign_layers,
            referrers=self._lookup,
        )

    async def _audited(
        self, world: World, pairs: Collection[Pair], tags: TagSurvey, roots: Mapping[Reference, Descriptor]
    ) -> TagSurvey:
        if self._policy.verify == "roots":  # else everything is asked for
            policy = self._policy
            self._audit = Audit(world, self._pairs, policy.audit, trust_root=policy.trust_root)
            tags = await self._audit.look(pairs, tags, roots)
        self._current = tags.current
        return tags

    def _tell_price(self, price: Price) -> None:
        self._observe(
            PlanMade(
                images=len(self._pairs),
                copies=sum(target.copies for target in price.targets.values()),
                mounts=price.mounts,
                puts=price.manifests,
                bytes_to_read=price.bytes_to_read,
                bytes_to_write=price.bytes_to_write,
            )
        )

    def _tell(self, record: ImageRecord) -> None:
        self._told += 1
        self._observe(
            ImageDone(
                source=record.source,
                target=record.target,
                digest=record.digest,
                status=record.status,
                error=record.error,
                done=self._told,
                images=self._tally.images,
            )
        )

    def _found_whole(self, goal: Goal) -> bool:
        """Whether an image that needs nothing is news: the journal has most that do already."""
        return not goal.steps and (self._policy.trust_root or goal.pair not in self._current)

    def _remember(self, world: World, goals: Iterable[Goal]) -> None:
        for goal in goals:
            pair = goal.pair
            if pair.target.transport:  # files are at hand, and anyone may change them: they are asked
                continue
            put, source = self._tally.final(pair).digest, self._tally.source_root(pair).digest
            chosen = recorded_as(
                pair.choice,
                source,
                put,
                foreign=self._policy.foreign_layers,
                referrers=self._lookup(pair) != "off" and pair not in self._current,
            )
            world.journal.record_put(site_of(pair.target), put, chosen)
            if self._audit is not None:
                self._audit.repaired(pair)


def _announce(plan: Plan, world: World) -> None:
    """Tell the sinks that want to know which blobs will come, in the order of the plan."""
    coming: dict[Site, list[Descriptor]] = {}
    for step in plan.steps:
        if isinstance(step, Copy):
            coming.setdefault(step.target, []).append(step.blob)
    for site, blobs in coming.items():
        if isinstance(sink := world.sink_at(site), Expects):
            sink.expect(blobs)
