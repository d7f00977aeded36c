"""What stands around every transfer: telling what will be done and what was, to places and observers, and
seeing to it that it is there."""

from __future__ import annotations

from blobflow.content import Expects, Site
from blobflow.engine.concurrency.bounded import BoundedRunner
from blobflow.engine.plan.cost import Cost, RunningCost
from blobflow.engine.plan.steps import Copy, Plan, site_of
from blobflow.engine.results.collector import ResultCollector
from blobflow.engine.results.report import ImageRecord
from blobflow.engine.targets.audit import Audit, mark_doubtful
from blobflow.engine.targets.verification import Verification, VerifyLevel
from blobflow.engine.transfer.admission import HostLimiters
from blobflow.engine.transfer.runner import Services
from blobflow.events import ImageDone, Observer, PhaseStarted, PlanMade, Warned
from blobflow.oci import Descriptor
from blobflow.permits import PermitKind


def announce(plan: Plan, services: Services) -> None:
    """Tell the sinks that want to know which blobs will come, in the order of the plan."""
    coming: dict[Site, list[Descriptor]] = {}
    for step in plan.steps:
        if isinstance(step, Copy):
            coming.setdefault(step.target, []).append(step.blob)
    for site, blobs in coming.items():
        if isinstance(sink := services.sink_at(site), Expects):
            sink.expect(blobs)


async def verify_targets(
    tally: ResultCollector,
    level: VerifyLevel,
    services: Services,
    observe: Observer,
    runner: BoundedRunner,
    *,
    audit: Audit | None = None,
) -> None:
    """Ask the targets for what was put, or, closer than "roots", for every image that should be there.

    What the `audit` of this run found incomplete is looked at again.
    """
    roots = tally.verifiable(("done",) if level == "roots" else ("done", "present"))
    if not roots:
        return
    observe(PhaseStarted("verify", len(roots)))
    limiters = HostLimiters(services.source_at, services.sink_at, services.limiter_at)
    at_once = min(limiters.target(site_of(pair.target)).limit(PermitKind.READ) for pair in roots)
    verification = Verification(
        services.source_at, services.sink_at, runner, read_at_once=at_once, documents=services.documents
    )
    wrong = await verification.check(roots, level, tally.images_of(roots))
    if audit is not None:
        wrong |= await audit.look_again(roots, {pair: tally.source_root(pair) for pair in roots})
    for pair, error in wrong.items():
        mark_doubtful(services.journal, pair, tally.source_root(pair).digest, roots[pair].digest)
        tally.not_verified(pair, error)
        observe(Warned(f"{pair.target} is not what it should be: {error}"))


async def complete_places(tally: ResultCollector, services: Services, observe: Observer) -> None:
    """Let archives take their places; the images of one that can't are failed."""
    failures = await services.complete()
    for pair in tally.verifiable(("done",)) if failures else ():
        if error := failures.get(site_of(pair.target)):
            tally.not_verified(pair, error)
            observe(Warned(f"{pair.target} is not there: {error}"))
    tally.places_complete()


def plan_made(price: Cost | RunningCost, images: int) -> PlanMade:
    """The event of a plan for so many images."""
    return PlanMade(
        images=images,
        copies=price.copies,
        mounts=price.mounts,
        puts=price.manifests,
        bytes_to_read=price.bytes_to_read,
        bytes_to_write=price.bytes_to_write,
    )


def image_done(record: ImageRecord, done: int, images: int) -> ImageDone:
    """The event of the `done`-th of so many images that is settled."""
    return ImageDone(
        source=record.source,
        target=record.target,
        digest=record.digest,
        status=record.status,
        error=record.error,
        done=done,
        images=images,
        reason=record.reason,
    )
