"""The rest of a saved plan: its steps without those whose content the targets have by now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from blobflow.content import Site
from blobflow.engine.plan.steps import Attach, Copy, Goal, Mount, Need, NeedKind, Plan, Put, Step
from blobflow.engine.saved.plan import SavedImage, SavedPlan
from blobflow.errors import BlobflowError
from blobflow.oci import Descriptor, Digest

# A tag at a site, or the digest of a root that gets none.
TagAt = tuple[Site, str]


class SavedProgress:
    """The state of the steps of a saved plan, by their numbers in it.

    `over`: steps that need not run any more. `fell_back`: those of them in whose place the target has their
    fallback. `left`: those of them that are skipped because of that, or so as not to overwrite a tag, and
    why. `present`: blobs that the targets have. `without`: tags that a Put must not write any more. `tags`:
    what the targets' tags name. `failures`: images that can't be completed.
    """

    def __init__(self) -> None:
        self.over: set[int] = set()
        self.fell_back: set[int] = set()
        self.left: dict[int, str] = {}
        self.present: set[int] = set()
        self.without: dict[int, frozenset[str]] = {}
        self.tags: dict[TagAt, Digest | None] = {}
        self.failures: dict[int, BlobflowError] = {}


def remaining_plan(saved: SavedPlan, found: SavedProgress, images: Sequence[int]) -> Plan:
    """The plan of what remains for some of the images, given by their numbers."""
    goals = [(saved.images[n], list(dict.fromkeys(_frontier(saved, found, n)))) for n in images]
    kept: set[int] = set()
    todo = [number for _, steps in goals for number in steps]
    while todo:
        number = todo.pop()
        if number not in kept:
            kept.add(number)
            needs = (need for need in saved.needs[number] if need.kind != NeedKind.AFTER)
            todo += [each for need in needs for each in _under(saved, found, need.step)]
    order = sorted(kept)
    new = {number: position for position, number in enumerate(order)}
    steps = [_without_tags(saved.steps[number], found.without.get(number)) for number in order]
    reads: dict[Digest, tuple[int, ...]] = {}
    for position, step in enumerate(steps):
        if isinstance(step, Copy):
            reads[step.blob.digest] = (*reads.get(step.blob.digest, ()), position)
    return Plan(
        steps=tuple(steps),
        needs=tuple(_needs_now(saved, found, number, new) for number in order),
        reads=reads,
        goals=tuple(
            Goal(image.pair, _root_now(saved, found, image), tuple(new[number] for number in steps))
            for image, steps in goals
        ),
        made={digest: saved.manifest_of(digest) for digest in _made_for(saved, steps)},
    )


def steps_of(saved: SavedPlan, images: Iterable[SavedImage]) -> set[int]:
    """The numbers of all steps that the images need."""
    found: set[int] = set()
    todo = [number for image in images for number in image.steps]
    while todo:
        number = todo.pop()
        if number not in found:
            found.add(number)
            todo += [need.step for need in saved.needs[number] if need.kind != NeedKind.AFTER]
    return found


def _frontier(saved: SavedPlan, found: SavedProgress, image: int) -> Iterator[int]:
    for number in saved.images[image].steps:
        yield from _under(saved, found, number)


def _under(saved: SavedPlan, found: SavedProgress, number: int) -> Sequence[int]:
    """The step itself if it remains; if not, the remaining steps below it: an index that is there implies
    nothing but itself."""
    if number not in found.over:
        return (number,)
    if isinstance(saved.steps[number], Copy | Mount):
        return ()
    below: list[int] = []
    met, todo = set[int](), [number]
    while todo:
        number = todo.pop()
        if number in met:
            continue
        met.add(number)
        if number not in found.over:
            below.append(number)
        elif number not in found.left and isinstance(saved.steps[number], Put | Attach):
            todo += [need.step for need in saved.needs[number] if need.kind == NeedKind.SUCCEEDED]
    return below


def _needs_now(saved: SavedPlan, found: SavedProgress, number: int, new: dict[int, int]) -> tuple[Need, ...]:
    before = [n for n in saved.needs[number] if n.kind != NeedKind.AFTER or n.step in new]
    if all(need.step not in found.over for need in before):
        return tuple(Need(new[need.step], need.kind) for need in before)
    needs: dict[Need, None] = {}
    for need in before:
        for each in _under(saved, found, need.step):
            needs[Need(new[each], need.kind if each == need.step else NeedKind.SUCCEEDED)] = None
    return tuple(sorted(needs))


def _without_tags(step: Step, taken: frozenset[str] | None) -> Step:
    if not taken or not isinstance(step, Put):
        return step
    tags = tuple(tag for tag in step.tags if tag not in taken)
    return Put(step.manifest, step.target, tags, step.fallback, step.sparse)


def _root_now(saved: SavedPlan, found: SavedProgress, image: SavedImage) -> Descriptor:
    """The root, or the fallback that the target took before."""
    for number in image.steps:
        step = saved.steps[number]
        if number in found.fell_back and isinstance(step, Put) and step.manifest.digest == image.root.digest:
            assert step.fallback is not None
            return step.fallback
    return image.root


def _made_for(saved: SavedPlan, steps: Iterable[Step]) -> Iterator[Digest]:
    for step in steps:
        if isinstance(step, Put):
            for manifest in (step.manifest, step.fallback):
                if manifest is not None and manifest.digest in saved.made:
                    yield manifest.digest
