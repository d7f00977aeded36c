"""The execution of a saved plan: what it says, and nothing else.

    survey (targets) → read manifests (sources, by digest) → transfer → verify → report

No tag is looked up at a source, nor what refers to anything: all that was decided when the plan was made.
What is at the targets by now is skipped; an image of which a source has lost something fails alone.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from blobflow.content import Site
from blobflow.engine.closing import (
    announce,
    complete_places,
    plan_made,
    verify_targets,
)
from blobflow.engine.concurrency.batches import in_batches
from blobflow.engine.concurrency.bounded import BoundedRunner, run_alongside
from blobflow.engine.execution import Planned
from blobflow.engine.plan.cost import Cost, cost_of
from blobflow.engine.plan.steps import (
    Copy,
    DesiredImage,
    Goal,
    Graph,
    Inventory,
    Mount,
    Plan,
    Put,
    Step,
    appended,
    renumbered,
    site_of,
)
from blobflow.engine.planning import MAX_SMALL_REQUESTS
from blobflow.engine.policy import Policy
from blobflow.engine.results.report import ImageRecord, ReferrerRecord, Report, with_records
from blobflow.engine.saved.plan import SavedImage, SavedPlan, SavedSkip
from blobflow.engine.saved.remaining import SavedProgress, remaining_plan, steps_of
from blobflow.engine.saved.source_check import find_images, one_at_a_time, read_manifests
from blobflow.engine.saved.target_check import TargetCheck
from blobflow.engine.sources.pull_quota import PullQuota
from blobflow.engine.sources.reader import GraphReader
from blobflow.engine.sources.referrers import REPLACED
from blobflow.engine.targets.survey import put_record
from blobflow.engine.transfer.runner import Services, Transfer
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.engine.undertaking import Undertaking
from blobflow.errors import BlobflowError, Rejected, own_copy
from blobflow.events import Meter, Observer, PhaseStarted, ignore
from blobflow.oci import Digest, media

_ANEW = "; the target had it when the plan was made: make the plan anew"


class SavedRun(Undertaking[list[int]]):
    """One execution of a saved plan; to be asked as a `Run` is. `policy`: in place of the plan's own.

    `planned`: what was left to be done, once it is known.
    """

    def __init__(
        self,
        saved: SavedPlan,
        policy: Policy | None = None,
        *,
        observe: Observer = ignore,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(saved.pairs, policy or saved.policy, observe, meter)
        self._saved = saved
        self._found = SavedProgress()
        self._quota: PullQuota
        self._reader: GraphReader
        self.planned: Planned | None = None

    def report(self) -> Report:
        """What has become of every image so far."""
        report = super().report()
        replaced, left = self._replaced(), self._left()
        images = tuple(
            msgspec.structs.replace(record, referrers=_referrers(image, replaced, left))
            for record, image in zip(report.images, self._saved.images, strict=True)
        )
        totals = msgspec.structs.replace(report.totals, blobs_present=len(self._found.present))
        report = msgspec.structs.replace(report, images=images, totals=totals)
        return with_records(report, {each.pair: _skipped(each) for each in self._saved.skipped})

    async def plan(self, services: Services) -> Planned:
        """Find out what is left to be done; nothing is changed anywhere.

        Asks the targets for what the plan has steps for, and reads the manifests that are to be put.
        """
        async with in_batches(self._questions(services)) as batches:
            self._plan(await batches.first(self._any_good))
        assert self.planned is not None
        return self.planned

    async def go(self, services: Services) -> Report:
        """Do it. Failures of images are in the report; what is raised concerns the whole run.

        A target that keeps the others waiting for its answers for longer than `services.patience` is begun
        with when it has given them.
        """
        async with in_batches(self._questions(services)) as self._batches:
            part = self._take(await self._batches.first(self._any_good, services.patience), services)
            if self._tally.errors and not self._policy.keep_going:
                return self.report()
            self._observe(PhaseStarted("transfer", len(self._saved.images)))
            ended, graph = partial(self._step_ended, services), self._reader.graph(self._saved.roots)
            keep_going, more = self._policy.keep_going, not self._batches.over
            origins = self._saved.origins()
            self._transfer = Transfer(
                part,
                graph,
                services,
                keep_going,
                ended,
                more=more,
                origins=origins,
                brought=self._tally.moved_by,
            )
            await run_alongside(self._take_late(self._transfer, services), self._transfer.run())
        await verify_targets(
            self._tally, self._policy.verify, services, self._observe, BoundedRunner(MAX_SMALL_REQUESTS)
        )
        await complete_places(self._tally, services, self._observe)
        return self.report()

    def _questions(self, services: Services) -> Iterator[Coroutine[Any, Any, list[int]]]:
        """What is to be asked of each target's host, and of the sources for it. The answer is the images
        there."""
        self._observe(PhaseStarted("survey", len(self._saved.images)))
        self._tally.roots(self._saved.roots)
        self._quota = PullQuota(
            services.allowance_of, services.source_at, self._observe, services.sleep, waits=self._policy.wait
        )
        self._reader = GraphReader(
            services.source_at, one_at_a_time(self._quota), services.documents, self._observe
        )
        hosts = dict.fromkeys(pair.target.host for pair in self._saved.pairs)
        return (self._ask(services, host) for host in hosts)

    async def _ask(self, services: Services, host: str) -> list[int]:
        """As `Run`: an error that ends the run fails only these images once others are moved."""
        runner = BoundedRunner(MAX_SMALL_REQUESTS)
        images = [n for n, pair in enumerate(self._saved.pairs) if pair.target.host == host]
        try:
            await TargetCheck(self._saved, host, self._policy, services, runner, self._found).go()
            await find_images(self._saved, self._found, self._good(images), services, runner)
            await read_manifests(self._saved, self._found, self._good(images), services, self._reader, runner)
        except BlobflowError as error:
            if self._transfer is None:
                raise
            self._found.failures.update((number, own_copy(error)) for number in self._good(images))
        return images

    def _good(self, images: Iterable[int]) -> list[int]:
        """Those of the images that can be completed, as far as is known."""
        return [number for number in images if number not in self._found.failures]

    def _any_good(self, images: Iterable[int]) -> bool:
        return bool(self._good(images))

    async def _take_late(self, transfer: Transfer, services: Services) -> None:
        """Add what is known only now to what runs."""
        assert self._batches is not None
        try:
            async for answers in self._batches.late():
                part = self._take(answers, services)
                if self._tally.errors and not self._policy.keep_going:
                    self.wind_down()
                await transfer.add(part)
        finally:
            transfer.no_more()

    def _take(self, answers: Sequence[list[int]], services: Services) -> Plan:
        """Plan what is left for the images of these targets, and tell it. Returns what is new, numbered after
        what was planned before."""
        part = self._plan(answers)
        assert self.planned is not None
        for number in sorted(number for images in answers for number in images):
            if error := self._found.failures.get(number):
                self._tell(self._tally.failed(self._saved.images[number].pair, error))
        now = self.planned
        for record in self._tally.planned(part.goals, now.desired_images, now.inventory):
            self._tell(record)
        announce(part, services)
        return part

    def _step_ended(self, services: Services, agenda: StepStates, number: int) -> None:
        assert self.planned is not None
        failed = agenda.states[number] is StepState.FAILED
        if failed:
            _explain(agenda.errors[number], agenda.step(number))
        for goal, record in self._tally.ended(agenda, number):
            self._tell(record)
            if record.status == "done":
                self._remember(services, self.planned.plan, goal)
        if failed and not self._policy.keep_going and self._batches is not None:
            self._batches.stop()

    # What it comes to

    def _plan(self, answers: Sequence[list[int]]) -> Plan:
        """Plan what is left for the images of these targets, beside what is planned already. Returns what is
        new, numbered after that."""
        saved, found = self._saved, self._found
        part = remaining_plan(saved, found, self._good(sorted(n for images in answers for n in images)))
        whole = part
        if self.planned is not None:
            part = renumbered(part, len(self.planned.plan.steps))
            whole = appended(self.planned.plan, part)
        roots = {goal.pair: goal.root for goal in whole.goals}
        desired_images = {
            image.pair: DesiredImage(roots.get(image.pair, image.root), platforms=image.platforms)
            for image in saved.images
        }
        self.planned = Planned(
            (*saved.pairs, *(each.pair for each in saved.skipped)),
            whole,
            self._reader.graph(saved.roots),
            desired_images,
            Inventory({}, {}, dict(found.tags)),
            {saved.images[number].pair: error for number, error in sorted(found.failures.items())},
            dict(sorted(self._quota.reads.items())),
            self._quota.allowances,
            self._policy,
            self._cost(whole),
            {each.pair: each.reason for each in saved.skipped},
        )
        self._observe(plan_made(self.planned.price, len(self._saved.images)))
        return part

    def _cost(self, plan: Plan) -> Cost:
        """The price of what is left. Blobs are counted that the saved plan has steps for, as far as they are
        of images that can be completed."""
        price = cost_of(plan, Graph({}, {}, {}))
        goals = {goal.pair for goal in plan.goals}
        wanted = steps_of(self._saved, (image for image in self._saved.images if image.pair in goals))
        steps = (self._saved.steps[number] for number in wanted)
        blobs = {step.blob.digest for step in steps if isinstance(step, Copy | Mount)}
        read = {step.blob.digest for step in plan.steps if isinstance(step, Copy)}
        return msgspec.structs.replace(
            price,
            blobs_unique=len(blobs),
            blobs_shared=min(len(blobs), self._saved.price.blobs_shared),
            blobs_present=len(blobs - read),
        )

    def _remember(self, services: Services, plan: Plan, goal: Goal) -> None:
        """Have later runs know an image whose root was put now; one that was there was not looked into."""
        pair, policy = goal.pair, self._saved.policy
        steps = (plan.steps[number] for number in goal.steps)
        was_put = any(isinstance(s, Put) and s.manifest.digest == goal.root.digest for s in steps)
        if pair.target.transport or not was_put:
            return
        if pair.source.transport and goal.root.media_type in media.INDEXES:
            return  # the source may have had only a part of it, see `DesiredImage.lacking`
        put, source = self._tally.final(pair).digest, self._tally.source_root(pair).digest
        looked_up = policy.lookup(pair) != "off"
        chosen = put_record(pair.choice, source, put, foreign=policy.foreign_layers, referrers=looked_up)
        services.journal.record_put(site_of(pair.target), put, chosen)

    # The report

    def _replaced(self) -> dict[Site, set[Digest]]:
        """The manifests, by site, in whose place a target took others, now or before."""
        steps = [self._saved.steps[number] for number in self._found.fell_back]
        if self._transfer is not None:
            agenda = self._transfer.agenda
            steps += [agenda.step(number) for number in agenda.fell_back]
        replaced: dict[Site, set[Digest]] = {}
        for step in steps:
            if isinstance(step, Put):
                replaced.setdefault(step.target, set()).add(step.manifest.digest)
        return replaced

    def _left(self) -> dict[tuple[Site, Digest], str]:
        """Why manifests that should be put at a site are left, by the look at the targets."""
        steps = [(self._saved.steps[number], why) for number, why in self._found.left.items()]
        return {(step.target, step.manifest.digest): why for step, why in steps if isinstance(step, Put)}


def _skipped(each: SavedSkip) -> ImageRecord:
    pair, digest = each.pair, each.source_root.digest
    return ImageRecord(str(pair.source), str(pair.target), "", digest, (), "skipped", reason=each.reason)


def _referrers(
    image: SavedImage, replaced: Mapping[Site, set[Digest]], left: Mapping[tuple[Site, Digest], str]
) -> tuple[ReferrerRecord, ...]:
    """What refers to an image, and what of that was left after all."""
    site = site_of(image.pair.target)
    gone: set[str] = set(replaced.get(site, ()))
    records = []
    for each in image.referrers:
        why = left.get((site, Digest(each.digest)), REPLACED if each.subject in gone else "")
        if why and not each.left:
            gone.add(each.digest)
            records.append(msgspec.structs.replace(each, left=why))
        else:
            records.append(each)
    return tuple(records)


def _explain(error: BlobflowError, step: Step) -> None:
    """What a target lacks that no step brings was there when the plan was made."""
    lacks = isinstance(error, Rejected) and error.missing and isinstance(step, Put) and not step.sparse
    if lacks and not error.message.endswith(_ANEW):
        error.message += _ANEW
