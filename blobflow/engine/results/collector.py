"""The result collector: which images are done, failed or skipped, folded into the report. Sans-IO."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from blobflow.content import Referrer, Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.attachments import REPLACED
from blobflow.engine.plan.cost import blobs_present
from blobflow.engine.plan.desired import AttachedReferrer, DesiredImage
from blobflow.engine.plan.inventory import Inventory, merge_inventories
from blobflow.engine.plan.steps import Backup, Copy, Goal, Mount, Put, Step
from blobflow.engine.results.report import (
    ImageRecord,
    RangesRecord,
    ReferrerRecord,
    Report,
    Status,
    TargetRecord,
    Totals,
)
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.errors import BlobflowError
from blobflow.events import Meter
from blobflow.oci import Descriptor, Digest, Reference
from blobflow.oci.local_reference import ARCHIVES
from blobflow.oci.referrers import artifact_type_of

UNFINISHED = "not finished: the run ended before"


class ResultCollector:
    """The results of one run's images. Complete at any instant: an unfinished image is reported as skipped.

    `errors`: why each failed image failed, as the error itself.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = tuple(dict.fromkeys(pairs))
        self._records: dict[Pair, ImageRecord] = {}
        self.errors: dict[Pair, BlobflowError] = {}
        self._goals: dict[int, list[Goal]] = {}
        self._open: dict[Pair, int] = {}
        self._desired_images: dict[Pair, DesiredImage] = {}
        self._final: dict[Pair, Descriptor] = {}
        self._replaced: dict[Pair, frozenset[Digest]] = {}
        self._roots: Mapping[Reference, Descriptor] = {}
        self._inventory = Inventory({}, {}, {})
        self._moved: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._present = 0
        self._brought: set[tuple[Site, Digest]] = set()
        self._places_complete = False

    @property
    def images(self) -> int:
        return len(self._pairs)

    @property
    def cut_short(self) -> bool:
        """Whether there are images that neither failed nor have all that they need."""
        records = map(self._records.get, self._pairs)
        return any(record is None or (record.status == "skipped" and not record.reason) for record in records)

    def roots(self, roots: Mapping[Reference, Descriptor]) -> None:
        """Record what the sources' tags name."""
        self._roots = roots

    def failed(self, pair: Pair, error: BlobflowError) -> ImageRecord:
        """Record an image without a goal, since its source or target could not be asked."""
        self.errors[pair] = error
        return self._settle(pair, "failed", "", str(error))

    def skipped(self, pair: Pair, reason: str) -> ImageRecord:
        """Record an image that is skipped, because it may lack the wanted platforms, and does."""
        record = self._record(pair, "skipped", self._names_now(pair), "")
        self._records[pair] = record = msgspec.structs.replace(record, reason=reason)
        return record

    def planned(
        self, goals: Sequence[Goal], desired_images: Mapping[Pair, DesiredImage], inventory: Inventory
    ) -> list[ImageRecord]:
        """Record new goals of the plan, with their desired images and what their targets have. Returns the
        images that need no step."""
        self._desired_images |= desired_images
        self._inventory = merge_inventories((self._inventory, inventory))
        self._present += blobs_present(goals, desired_images, inventory, self._brought)
        for goal in goals:
            self._open[goal.pair] = len(goal.steps)
            for number in goal.steps:
                self._goals.setdefault(number, []).append(goal)
        current = [goal for goal in goals if not goal.steps]
        return [self._whole(goal, "present", goal.root) for goal in current]

    def ended(self, step_states: StepStates, number: int) -> list[tuple[Goal, ImageRecord]]:
        """Record a step that ended. Returns the images that it finished."""
        if step_states.states[number] is StepState.DONE:
            self.moved_by(step_states.step(number))
        settled = []
        for goal in self._goals.get(number, ()):
            self._open[goal.pair] -= 1
            if not self._open[goal.pair]:
                settled.append((goal, self._outcome(step_states, goal)))
        return settled

    def brought(self, steps: Iterable[Step]) -> None:
        """Count what was brought for these images before they were planned."""
        for step in steps:
            self.moved_by(step)
            if isinstance(step, Copy | Mount):
                self._brought.add((step.target, step.blob.digest))

    def moved_by(self, step: Step) -> None:
        """Count what a finished step has moved, whether the plan had it or it was found to be needed."""
        moved = self._moved[step.target.registry]
        match step:
            case Copy():
                moved["blobs_copied"] += 1
            case Mount():
                moved["blobs_mounted"] += 1
                moved["bytes_mounted"] += step.blob.size
            case Put(tags=tags):
                moved["manifests_put"] += max(1, len(tags))
            case Backup():
                moved["manifests_put"] += 1

    def not_verified(self, pair: Pair, error: BlobflowError) -> ImageRecord:
        """Record that a finished image failed its verification."""
        self.errors[pair] = error
        return self._settle(pair, "failed", "", str(error))

    def undone(self, error: BlobflowError | None) -> None:
        """Record that a later use of the images that arrived failed, or was not finished (None)."""
        for pair in self.verifiable(("done", "present")):
            if error is None:
                del self._records[pair]
            else:
                self.not_verified(pair, error)

    def places_complete(self) -> None:
        """Record that archives, which appear only when they are whole, are in place."""
        self._places_complete = True

    def moved(self, tags: Mapping[Reference, Digest | None]) -> None:
        """Record sources whose tag names something else by now."""
        for pair, record in self._records.items():
            if pair.source in tags:
                self._records[pair] = msgspec.structs.replace(record, moved=tags[pair.source] or "nothing")

    def verifiable(self, statuses: tuple[Status, ...]) -> dict[Pair, Descriptor]:
        """Finished images of these statuses, with the roots that their target tags should name."""
        return {pair: self._final[pair] for pair, r in self._records.items() if r.status in statuses}

    def images_of(self, pairs: Iterable[Pair]) -> dict[Pair, frozenset[Digest]]:
        """The image manifests that are wanted of each pair, as far as they were read."""
        return {pair: self._desired_images[pair].images for pair in pairs if pair in self._desired_images}

    def attached_to(self, pairs: Iterable[Pair]) -> dict[Pair, tuple[AttachedReferrer, ...]]:
        """What was brought with each image because it refers to it, as far as targets took its subject."""
        found: dict[Pair, tuple[AttachedReferrer, ...]] = {}
        for pair in pairs:
            if pair in self._desired_images:
                gone, kept = set(self._replaced.get(pair, frozenset())), []
                for each in self._desired_images[pair].attached:
                    if each.referrer.subject in gone:
                        gone.update(manifest.descriptor.digest for manifest in each.manifests)
                    else:
                        kept.append(each)
                found[pair] = tuple(kept)
        return found

    def final(self, pair: Pair) -> Descriptor:
        """The root of a finished image, as its target has it."""
        return self._final[pair]

    def source_root(self, pair: Pair) -> Descriptor:
        """The root of an image, as its source has it."""
        return self._roots[pair.source]

    def report(self, meter: Meter, seconds: float) -> Report:
        """The report as of now: after so many seconds, and with what the run's meter has counted."""
        images, ranges = tuple(map(self._so_far, self._pairs)), meter.ranges
        statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for pair, image in zip(self._pairs, images, strict=True):
            statuses[pair.target.host][image.status] += 1
        return Report(
            totals=Totals(
                images=len(images),
                failed=sum(image.status == "failed" for image in images),
                skipped=sum(image.status == "skipped" for image in images),
                blobs_present=self._present,
                bytes_read=meter.bytes_read,
                bytes_written=meter.bytes_written,
                bytes_resent=meter.bytes_resent,
                requests=meter.requests,
                seconds=round(seconds, 3),
                **sum(self._moved.values(), Counter()),
            ),
            images=images,
            targets=tuple(
                TargetRecord(host, bytes_written=_written(meter, host), **counts, **self._moved[host])
                for host, counts in statuses.items()
            ),
            ranges=RangesRecord(ranges.blobs, ranges.requests, ranges.bytes, dict(ranges.fallbacks)),
        )

    def _so_far(self, pair: Pair) -> ImageRecord:
        record = self._records.get(pair)
        in_archive = pair.target.transport in ARCHIVES
        if record is None or (in_archive and record.status == "done" and not self._places_complete):
            return self._record(pair, "skipped", "", UNFINISHED)
        return record

    def _outcome(self, step_states: StepStates, goal: Goal) -> ImageRecord:
        self._replaced[goal.pair] = _replaced_at(step_states, site_of(goal.pair.target))
        for number in goal.steps:
            if step_states.states[number] is not StepState.DONE and not step_states.left(number):
                cause = step_states.root_cause(number)
                named = self._names_now(goal.pair)
                if cause is None:
                    return self._settle(goal.pair, "skipped", named, UNFINISHED)
                self.errors[goal.pair] = cause
                return self._settle(goal.pair, "failed", named, str(cause))
        return self._whole(goal, "done", _put_at_last(step_states, goal))

    def _whole(self, goal: Goal, status: Status, root: Descriptor) -> ImageRecord:
        self._final[goal.pair] = root
        return self._settle(goal.pair, status, root.digest)

    def _names_now(self, pair: Pair) -> str:
        """What the target tag named when it was asked, "" if nothing."""
        return self._inventory.tags.get((site_of(pair.target), pair.target.tag)) or ""

    def _settle(self, pair: Pair, status: Status, digest: str, error: str = "") -> ImageRecord:
        self._records[pair] = record = self._record(pair, status, digest, error)
        return record

    def _record(self, pair: Pair, status: Status, digest: str, error: str) -> ImageRecord:
        root = self._roots.get(pair.source)
        desired = self._desired_images.get(pair)
        return ImageRecord(
            source=str(pair.source),
            target=str(pair.target),
            digest=digest,
            source_digest=root.digest if root else "",
            platforms=desired.platforms if desired else (),
            status=status,
            error=error,
            referrers=referrer_records(desired, self._replaced.get(pair, frozenset())) if desired else (),
            signatures=desired.verdicts if desired else (),
        )


def _replaced_at(step_states: StepStates, site: Site) -> frozenset[Digest]:
    """The manifests in whose place a target took others."""
    steps = [step_states.step(number) for number in step_states.fell_back]
    return frozenset(s.manifest.digest for s in steps if isinstance(s, Put) and s.target == site)


def referrer_records(
    desired: DesiredImage, replaced: frozenset[Digest] = frozenset()
) -> tuple[ReferrerRecord, ...]:
    """The records of an image's referrers. `replaced`: manifests in whose place the target took others."""
    gone = set(replaced)
    records = []
    for each in desired.attached:
        lost = each.referrer.subject in gone
        if lost:
            gone.update(manifest.descriptor.digest for manifest in each.manifests)
        artifact_type = artifact_type_of(each.manifest)
        records.append(_referrer(each.referrer, artifact_type, REPLACED if lost else ""))
    for left in desired.left:
        artifact_type = left.referrer.manifest.artifact_type or ""
        records.append(_referrer(left.referrer, artifact_type, left.because))
    return tuple(records)


def _referrer(referrer: Referrer, artifact_type: str, left: str) -> ReferrerRecord:
    return ReferrerRecord(referrer.manifest.digest, artifact_type, referrer.subject, referrer.how, left)


def _put_at_last(step_states: StepStates, goal: Goal) -> Descriptor:
    """The root that the target took: the goal's, or what its Put fell back on."""
    for number in goal.steps:
        step = step_states.step(number)
        if (
            number in step_states.fell_back
            and isinstance(step, Put)
            and step.manifest.digest == goal.root.digest
        ):
            assert step.fallback is not None
            return step.fallback
    return goal.root


def _written(meter: Meter, host: str) -> int:
    """The bytes that were written to a host, of which maybe nothing was asked."""
    return meter.hosts[host].bytes_written if host in meter.hosts else 0
