"""What stands around every transfer: telling what will be done and what was, to places and observers, and
seeing to it that it is there."""

from __future__ import annotations

from blobflow.content import Expects, Site
from blobflow.engine.audit import Audit, doubt
from blobflow.engine.lane import Lane
from blobflow.engine.plan import Copy, Plan, site_of
from blobflow.engine.price import Price, Sums
from blobflow.engine.report import ImageRecord
from blobflow.engine.tally import Tally
from blobflow.engine.transfer import World
from blobflow.engine.verify import Level, Verification
from blobflow.events import ImageDone, Observer, PhaseStarted, PlanMade, Warned
from blobflow.oci import Descriptor


def announce(plan: Plan, world: World) -> None:
    """Tell the sinks that want to know which blobs will come, in the order of the plan."""
    coming: dict[Site, list[Descriptor]] = {}
    for step in plan.steps:
        if isinstance(step, Copy):
            coming.setdefault(step.target, []).append(step.blob)
    for site, blobs in coming.items():
        if isinstance(sink := world.sink_at(site), Expects):
            sink.expect(blobs)


async def verify_targets(
    tally: Tally, level: Level, world: World, observe: Observer, lane: Lane, *, audit: Audit | None = None
) -> None:
    """Ask the targets for what was put, or, closer than "roots", for every image that should be there.

    What the `audit` of this run found incomplete is looked at again.
    """
    roots = tally.verifiable(("done",) if level == "roots" else ("done", "present"))
    if not roots:
        return
    observe(PhaseStarted("verify", len(roots)))
    at_once = min(world.limits(pair.target.host).blobs for pair in roots)
    verification = Verification(
        world.source_at, world.sink_at, lane, read_at_once=at_once, documents=world.documents
    )
    wrong = await verification.check(roots, level, tally.images_of(roots))
    if audit is not None:
        wrong |= await audit.look_again(roots, {pair: tally.source_root(pair) for pair in roots})
    for pair, error in wrong.items():
        doubt(world.journal, pair, tally.source_root(pair).digest, roots[pair].digest)
        tally.not_verified(pair, error)
        observe(Warned(f"{pair.target} is not what it should be: {error}"))


async def complete_places(tally: Tally, world: World, observe: Observer) -> None:
    """Let archives take their places; the images of one that can't are failed."""
    failures = await world.complete()
    for pair in tally.verifiable(("done",)) if failures else ():
        if error := failures.get(site_of(pair.target)):
            tally.not_verified(pair, error)
            observe(Warned(f"{pair.target} is not there: {error}"))
    tally.places_complete()


def plan_made(price: Price | Sums, images: int) -> PlanMade:
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
