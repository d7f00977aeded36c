"""Asks the sources of a saved plan: manifests by their digests, and archives for the images they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blobflow.content import Source
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.engine.plan.steps import NeedKind, Plan, Put
from blobflow.engine.saved.plan import SavedImage, SavedPlan
from blobflow.engine.saved.remaining import SavedProgress, remaining_plan
from blobflow.engine.services import Services
from blobflow.engine.sources.pull_quota import AdmitReads, DescriptorAt, PullQuota
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.errors import BlobflowError, NotFound, error_side
from blobflow.oci import Descriptor, Digest, Reference, media
from blobflow.oci.local_reference import DOCKER_ARCHIVE
from blobflow.oci.platform_choice import PlatformChoice

# A manifest that is read by its digest, and nothing below it.
_ALONE = PlatformChoice(index="only")


def one_at_a_time(quota: PullQuota) -> AdmitReads:
    """The quota for manifests that are read without what is below them: an index counts as one."""

    async def admit(wanted: Sequence[DescriptorAt]) -> Sequence[DescriptorAt]:
        plain = [(site, Descriptor(media.OCI_MANIFEST, each.digest, each.size)) for site, each in wanted]
        now = {(site, each.digest) for site, each in await quota.admit(plain)}
        return [(site, each) for site, each in wanted if (site, each.digest) in now]

    return admit


async def find_images(
    saved: SavedPlan, found: SavedProgress, images: Sequence[int], services: Services, runner: BoundedRunner
) -> None:
    """Have layouts and archives look for the images that are not complete. Those that they no longer have
    become failures."""
    placed = [number for number in images if saved.images[number].pair.source.transport]
    goals = remaining_plan(saved, found, placed).goals

    async def look(number: int) -> None:
        error = await _look_for(saved.images[number], services)
        if error is not None:
            found.failures[number] = error

    await runner.for_each(look, [number for number, goal in zip(placed, goals, strict=True) if goal.steps])


async def read_manifests(
    saved: SavedPlan,
    found: SavedProgress,
    images: Sequence[int],
    services: Services,
    reader: GraphReader,
    runner: BoundedRunner,
) -> None:
    """Read the manifests that are to be put for the images, each from wherever it is. Images that lack one
    are failures. Raises what the quota does."""
    plan = remaining_plan(saved, found, images)
    roots: dict[Reference, Descriptor] = {}
    places: dict[Digest, list[Reference]] = {}
    for step in plan.steps:
        if not isinstance(step, Put) or step.manifest.digest in places:
            continue
        for site in saved.sources.get(step.manifest.digest, ()):
            place = Reference(site.registry, site.repository, digest=step.manifest.digest)
            roots[place] = step.manifest
            places.setdefault(step.manifest.digest, []).append(place)
    choices = dict.fromkeys(roots, (_ALONE,))
    read = await read_graph(roots, services.source_at, runner, choices=choices, reader=reader)
    missing = {
        digest: read.failures[tried[0]]
        for digest, tried in places.items()
        if all(place in read.failures for place in tried)
    }
    if missing:
        for number, error in _without(missing, images, plan):
            found.failures.setdefault(number, error)


def _without(
    missing: Mapping[Digest, BlobflowError], images: Sequence[int], plan: Plan
) -> list[tuple[int, BlobflowError]]:
    """The images of a plan that need a manifest which can't be read, and why it can't."""
    errors: dict[int, BlobflowError] = {}
    for position, step in enumerate(plan.steps):
        if isinstance(step, Put) and step.manifest.digest in missing:
            errors[position] = missing[step.manifest.digest]
        for need in plan.needs[position]:
            if need.kind != NeedKind.FINISHED and need.step in errors:
                errors.setdefault(position, errors[need.step])
    return [
        (number, errors[position])
        for number, goal in zip(images, plan.goals, strict=True)
        for position in goal.steps
        if position in errors
    ]


async def _look_for(image: SavedImage, services: Services) -> BlobflowError | None:
    """Have a layout or archive look for an image: images of a docker archive are converted when asked for.
    Returns why it can't be read, or None.

    By its name first, since to find a digest all images of such an archive may have to be converted.
    """
    source, wanted = services.source_at(site_of(image.pair.source)), image.source_root.digest
    try:
        with error_side("source"):
            if not await _names(source, image.pair.source.name, wanted):
                await source.resolve(wanted)
    except NotFound as error:
        otherwise = " (or its layers are compressed otherwise here)" if _is_docker(image) else ""
        error.message += f"; {image.pair.source} is not what it was when the plan was made{otherwise}"
        return error
    except BlobflowError as error:
        return error
    return None


def _is_docker(image: SavedImage) -> bool:
    return image.pair.source.transport == DOCKER_ARCHIVE


async def _names(source: Source, name: str, wanted: Digest) -> bool:
    try:
        return (await source.resolve(name)).digest == wanted
    except NotFound:
        return False  # it may have another name by now
