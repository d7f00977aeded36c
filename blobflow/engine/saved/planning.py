"""The planning of a saved plan: which of its steps remain to be done.

    check the targets ─► read manifests (sources, by digest) ─► the plan without what is there

No tag is looked up at a source, nor what to bring along of referrers: all that was decided when the plan was
made. Content that the targets have by now is skipped; an image whose source has lost something fails alone.
Where a signature policy is demanded, the images are judged anew, by the digests that the plan has.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from blobflow.content import Referrer, Site
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.execution import Run
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.attachments import REPLACED
from blobflow.engine.plan.cost import Cost, cost_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.plan.planned import Planned, PlanPart
from blobflow.engine.plan.steps import Copy, Goal, Mount, Plan, Put, Step
from blobflow.engine.planning import Planning, plan_made
from blobflow.engine.policy import Policy
from blobflow.engine.results.collector import ResultCollector
from blobflow.engine.results.report import ImageRecord, ReferrerRecord, Report, with_records
from blobflow.engine.saved.plan import SavedImage, SavedPlan, SavedSkip
from blobflow.engine.saved.remaining import SavedProgress, remaining_plan, steps_of
from blobflow.engine.saved.source_check import find_images, one_at_a_time, read_manifests
from blobflow.engine.saved.target_check import TargetCheck
from blobflow.engine.services import Services
from blobflow.engine.signature_checks import SignatureChecks
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.pull_quota import PullQuota
from blobflow.engine.sources.reader import GraphReader
from blobflow.engine.sources.referrers import ReferrerLookups, SkippedReferrer
from blobflow.engine.targets.known_platforms import note_platforms
from blobflow.engine.targets.survey import put_record
from blobflow.engine.transfer.step_states import StepStates
from blobflow.errors import BlobflowError, Rejected, SignatureRejected, UsageError, own_copy
from blobflow.events import Meter, Observer, PhaseStarted, ignore
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, media
from blobflow.oci.hanging import would_run
from blobflow.signatures.contract import Verdict

_ANEW = "; the target had it when the plan was made: make the plan anew"


def run_of_saved(
    saved: SavedPlan,
    policy: Policy | None = None,
    *,
    observe: Observer = ignore,
    meter: Meter | None = None,
) -> Run:
    """A run that carries out a saved plan. `policy`: in place of the plan's own."""
    return Run(SavedPlanning(saved, policy, observe), meter)


class SavedPlanning(Planning[list[int]]):
    """Plans what remains of a saved plan. An answer is the images of one target host, by their numbers; the
    progress, which all hosts share, has what was found out about them."""

    follows_tags = False

    def __init__(self, saved: SavedPlan, policy: Policy | None = None, observe: Observer = ignore) -> None:
        """`policy`: in place of the plan's own."""
        super().__init__(saved.pairs, policy or saved.policy, observe)
        _check_judged(saved, self.policy)
        self.origins = saved.origins()
        self._saved = saved
        self._progress = SavedProgress()
        self._quota: PullQuota
        self._reader: GraphReader
        self._signatures: SignatureChecks
        self._verdicts: dict[Pair, tuple[Verdict, ...]] = {}

    def questions(self, services: Services) -> Iterator[Coroutine[Any, Any, list[int]]]:
        self.observe(PhaseStarted("survey", len(self._saved.images)))
        self.roots |= self._saved.roots
        self._quota = PullQuota(
            services.allowance_of,
            services.source_at,
            self.observe,
            services.sleep,
            services.meter.waits if self.policy.wait else None,
        )
        admit = one_at_a_time(self._quota)
        self._reader = GraphReader(
            services.source_at,
            admit,
            services.manifest_budget,
            self.observe,
            services.meter.counts["manifests"],
        )
        lookups = ReferrerLookups(services.source_at)
        self._signatures = SignatureChecks(self.policy, services, lookups, self._reader)
        hosts = dict.fromkeys(pair.target.host for pair in self._saved.pairs)
        return (self._ask(services, host) for host in hosts)

    async def _ask(self, services: Services, host: str) -> list[int]:
        saved, progress, runner = self._saved, self._progress, BoundedRunner(MAX_SMALL_REQUESTS)
        images = [n for n, pair in enumerate(saved.pairs) if pair.target.host == host]
        try:
            await TargetCheck(saved, host, self.policy, services, BoundedRunner(MAX_LOOKUPS), progress).go()
            await find_images(saved, progress, self._good(images), services, runner)
            await self._judge(self._good(images), runner)
            await read_manifests(saved, progress, self._good(images), services, self._reader, runner)
            self._refuse_images_along(self._good(images))
        except BlobflowError as error:
            if not self.is_transferring:
                raise
            progress.failures.update((number, own_copy(error)) for number in self._good(images))
        return images

    async def _judge(self, images: Sequence[int], runner: BoundedRunner) -> None:
        """Judge the images by the digests that the plan has; what is rejected is a failure. One that is whole
        at its target, and was judged under the same policy when the plan was made, need not be again."""
        numbers = {self._saved.images[number].pair: number for number in images}
        demanded = self._signatures.demanded(numbers)
        if not demanded:
            return
        goals = {goal.pair: goal for goal in remaining_plan(self._saved, self._progress, images).goals}
        manifests: dict[Pair, list[Descriptor]] = {}
        puts = {step.manifest.digest: step.manifest for step in self._saved.steps if isinstance(step, Put)}
        for pair in demanded:
            image = self._saved.images[numbers[pair]]
            if not goals[pair].steps and _is_judged(self._saved, image, self.policy):
                self._verdicts[pair] = image.verdicts
            else:
                manifests[pair] = _judged(self._saved, image, puts, self.policy)
        checked = await self._signatures.check(manifests, runner)
        self._verdicts |= checked.verdicts
        self._progress.failures.update((numbers[pair], error) for pair, error in checked.failures.items())

    def _refuse_images_along(self, images: Sequence[int]) -> None:
        """Fail images with others that hang on them and would be put, which no policy has accepted: a plan
        that was made under one has none (see `plan.attachments`)."""
        numbers = {self._saved.images[number].pair: number for number in images}
        read = self._reader.manifests
        for pair in self._signatures.demanded(numbers):
            for each in self._saved.images[numbers[pair]].referrers:
                digest = Digest(each.digest)
                if not each.left and digest in read and would_run(read[digest]):
                    self._progress.failures[numbers[pair]] = SignatureRejected(
                        f"the plan brings the image {digest} along, which the signature policy has not"
                        f" accepted; make the plan of {pair.source} anew under the policy, which leaves it",
                        side="source",
                    )

    def _good(self, images: Iterable[int]) -> list[int]:
        """The images that can be completed, as far as is known."""
        return [number for number in images if number not in self._progress.failures]

    def is_useful(self, answer: list[int]) -> bool:
        return bool(self._good(answer))

    def graph(self) -> Graph:
        return self._reader.graph(self._saved.roots)

    def take(self, answers: Sequence[list[int]]) -> PlanPart:
        saved, progress = self._saved, self._progress
        images = sorted(number for numbers in answers for number in numbers)
        made = remaining_plan(saved, progress, self._good(images))
        roots = {goal.pair: goal.root for goal in made.goals}
        told = [saved.images[n] for n in (images if self.planned is not None else range(len(saved.images)))]
        records = self._referrer_records(told, None)
        desired = {
            image.pair: DesiredImage(
                roots.get(image.pair, image.root),
                platforms=image.platforms,
                left=_skipped_referrers(records[image.pair]),
                verdicts=self._verdicts.get(image.pair, ()),
            )
            for image in told
        }
        failures = {saved.images[n].pair: progress.failures[n] for n in images if n in progress.failures}
        part = PlanPart(made, desired, Inventory({}, {}, dict(progress.tags)), failures)
        first = Planned(
            (*saved.pairs, *(each.pair for each in saved.skipped)),
            made,
            self.graph(),
            desired,
            part.inventory,
            failures,
            dict(sorted(self._quota.reads.items())),
            self._quota.allowances,
            self.policy,
            skipped={each.pair: each.reason for each in saved.skipped},
            along=sum(not each.left for goal in made.goals if goal.steps for each in records[goal.pair]),
        )
        part = self._add(part, first)
        assert self.planned is not None
        self.planned = msgspec.structs.replace(self.planned, counted=self._cost(self.planned.plan))
        self.observe(plan_made(self.planned.cost, len(saved.images)))
        return part

    def _cost(self, plan: Plan) -> Cost:
        """The cost of what remains. It counts the blobs that the saved plan has steps for, of images that can
        be completed."""
        saved = self._saved
        goals = {goal.pair for goal in plan.goals}
        wanted = steps_of(saved, (image for image in saved.images if image.pair in goals))
        steps = (saved.steps[number] for number in wanted)
        blobs = {step.blob.digest for step in steps if isinstance(step, Copy | Mount)}
        read = {step.blob.digest for step in plan.steps if isinstance(step, Copy)}
        return msgspec.structs.replace(
            cost_of(plan, Graph({}, {}, {})),
            blobs_unique=len(blobs),
            blobs_shared=min(len(blobs), saved.cost.blobs_shared),
            blobs_present=len(blobs - read),
        )

    def record(self, goal: Goal, collector: ResultCollector, services: Services) -> None:
        """Record an image whose root was put now; of one that was there the content was not checked."""
        assert self.planned is not None
        pair, policy, plan = goal.pair, self._saved.policy, self.planned.plan
        steps = (plan.steps[number] for number in goal.steps)
        was_put = any(isinstance(s, Put) and s.manifest.digest == goal.root.digest for s in steps)
        if pair.target.transport or not was_put:
            return
        if pair.source.transport and goal.root.media_type in media.INDEXES:
            return  # the source may have had only a part of it, see `DesiredImage.lacking`
        put, source = collector.final(pair).digest, collector.source_root(pair).digest
        looked_up = policy.lookup(pair) != "off"
        chosen = put_record(pair.choice, source, put, foreign=policy.foreign_layers, referrers=looked_up)
        services.journal.record_put(site_of(pair.target), put, chosen)
        note_platforms(services.journal, pair, put, self.planned.desired_images[pair].platforms)

    def explain(self, error: BlobflowError, step: Step) -> None:
        """Explain content that a target lacks and no step brings: it was there when the plan was made."""
        lacks = isinstance(error, Rejected) and error.missing and isinstance(step, Put) and not step.sparse
        if lacks and not error.message.endswith(_ANEW):
            error.message += _ANEW

    # The report

    def complete(self, report: Report, step_states: StepStates | None) -> Report:
        referrers = self._referrer_records(self._saved.images, step_states)
        images = tuple(
            msgspec.structs.replace(record, referrers=referrers[image.pair])
            for record, image in zip(report.images, self._saved.images, strict=True)
        )
        totals = msgspec.structs.replace(report.totals, blobs_present=len(self._progress.present))
        report = msgspec.structs.replace(report, images=images, totals=totals)
        return with_records(report, {each.pair: _skipped(each) for each in self._saved.skipped})

    def _referrer_records(
        self, images: Iterable[SavedImage], step_states: StepStates | None
    ) -> dict[Pair, tuple[ReferrerRecord, ...]]:
        """The records of these images' referrers, with those that were skipped after all."""
        replaced, left = self._replaced(step_states), self._left()
        return {image.pair: _referrers(image, replaced, left) for image in images}

    def _replaced(self, step_states: StepStates | None) -> dict[Site, set[Digest]]:
        """The manifests, by site, in whose place a target took others, now or before."""
        steps = [self._saved.steps[number] for number in self._progress.fell_back]
        if step_states is not None:
            steps += [step_states.step(number) for number in step_states.fell_back]
        replaced: dict[Site, set[Digest]] = {}
        for step in steps:
            if isinstance(step, Put):
                replaced.setdefault(step.target, set()).add(step.manifest.digest)
        return replaced

    def _left(self) -> dict[tuple[Site, Digest], str]:
        """Why manifests are not put at a site although the plan has them, according to the target check."""
        steps = [(self._saved.steps[number], why) for number, why in self._progress.left.items()]
        return {(step.target, step.manifest.digest): why for step, why in steps if isinstance(step, Put)}


def _check_judged(saved: SavedPlan, policy: Policy) -> None:
    """Raise UsageError if the plan's images were judged, and would not be now."""
    for pair in saved.pairs:
        if pair.signature_policy in saved.demanded and policy.judge_of(pair) is None:
            raise UsageError(
                "the plan was made under a signature policy, and is carried out under one: load it, as"
                " `Policy.signatures`"
            )


def _is_judged(saved: SavedPlan, image: SavedImage, policy: Policy) -> bool:
    """Whether the plan has the verdicts of the policy that is asked now."""
    judge, then = policy.judge_of(image.pair), saved.demanded.get(image.pair.signature_policy)
    same = judge and then and judge.fingerprint == then.fingerprint and policy.judged == saved.policy.judged
    return bool(image.verdicts and same)


def _judged(
    saved: SavedPlan, image: SavedImage, puts: Mapping[Digest, Descriptor], policy: Policy
) -> list[Descriptor]:
    """The manifests of an image that are judged: those that were when the plan was made, and its root unless
    images alone are judged; where more are to be than were then, also those that the plan puts as their
    sources have them. `puts`: what it puts for any image."""
    root, images = image.source_root, policy.judged == "images"
    as_then = policy.judged == saved.policy.judged and bool(image.verdicts)
    found = dict.fromkeys(Digest(each.digest) for each in image.verdicts if as_then or not images)
    if policy.judged != "root" and not as_then:
        others = {*saved.made, *(each.digest for each in image.referrers)}
        own = [saved.steps[number] for number in sorted(steps_of(saved, [image]))]
        put = [step.manifest for step in own if isinstance(step, Put)]
        wanted = [each for each in put if not images or each.media_type not in media.INDEXES]
        found |= dict.fromkeys(each.digest for each in wanted if each.digest not in others)
    if not images or not found:
        found = dict.fromkeys((root.digest, *found))
    unknown = Descriptor(media.OCI_MANIFEST, root.digest, UNKNOWN_SIZE)
    known = {root.digest: root, **puts}
    return [known.get(digest) or msgspec.structs.replace(unknown, digest=digest) for digest in found]


def _skipped(each: SavedSkip) -> ImageRecord:
    pair, digest = each.pair, each.source_root.digest
    return ImageRecord(str(pair.source), str(pair.target), "", digest, (), "skipped", reason=each.reason)


def _skipped_referrers(records: Iterable[ReferrerRecord]) -> tuple[SkippedReferrer, ...]:
    """What the records say of referrers that are left."""
    return tuple(
        SkippedReferrer(
            Referrer(
                Descriptor(
                    media.OCI_MANIFEST,
                    Digest(each.digest),
                    UNKNOWN_SIZE,
                    artifact_type=each.artifact_type or None,
                ),
                Digest(each.subject),
                each.how,
            ),
            each.left,
        )
        for each in records
        if each.left
    )


def _referrers(
    image: SavedImage, replaced: Mapping[Site, set[Digest]], left: Mapping[tuple[Site, Digest], str]
) -> tuple[ReferrerRecord, ...]:
    """The records of an image's referrers, with those that were skipped after all."""
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
