"""A preview of what a plan would do for each image. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.engine.plan.planned import Planned
from blobflow.engine.plan.steps import Attach, Backup, Copy, Goal, Mount, Put
from blobflow.errors import BlobflowError

PreviewStatus = Literal["mirror", "current", "failed", "skipped"]


class ImagePreview(msgspec.Struct, frozen=True):
    """One pair. `digest` is what its target should name, and `made` is true if no source has that: then
    `platforms` are those that are in it. `sparse`: an index is put that lacks children. `bare`: platforms
    were chosen, and it has none, so that all of it goes along. `reason`: why it is skipped. `backup`:
    the tag under which what its target's tag names now is kept.

    `copies`, `mounts`, `manifests` and `attached` count steps, a manifest once a tag; `bytes_to_write` is as
    in `Cost`. A step that several images need is counted for the first of them, so that the sums over all
    images are the plan's cost.
    """

    pair: Pair
    status: PreviewStatus
    digest: str = ""
    made: bool = False
    sparse: bool = False
    platforms: tuple[str, ...] = ()
    copies: int = 0
    mounts: int = 0
    manifests: int = 0
    attached: int = 0
    bytes_to_write: int = 0
    error: BlobflowError | None = None
    bare: bool = False
    reason: str = ""
    backup: str = ""


def preview_images(planned: Planned) -> Iterator[ImagePreview]:
    """One for each pair, in the order of the pairs."""
    goals = {goal.pair: goal for goal in planned.plan.goals}
    counted: set[int] = set()
    for pair in planned.pairs:
        if pair in planned.failures:
            yield ImagePreview(pair, "failed", error=planned.failures[pair])
        elif pair in planned.skipped:
            yield ImagePreview(pair, "skipped", reason=planned.skipped[pair])
        elif pair in goals:
            yield _preview(planned, goals[pair], counted)


def _preview(planned: Planned, goal: Goal, counted: set[int]) -> ImagePreview:
    desired, named = planned.desired_images[goal.pair], planned.graph.roots[goal.pair.source]
    bare = bool(desired.manifests and goal.pair.choice.platforms and not desired.platforms)
    platforms = desired.platforms or (() if bare else tuple(map(str, goal.pair.choice.platforms)))
    copies = mounts = manifests = attached = size = 0
    sparse, backup = False, ""
    todo = list(goal.steps)
    while todo:
        number = todo.pop()
        if number in counted:
            continue
        counted.add(number)
        todo += [need.step for need in planned.plan.needs[number]]
        match planned.plan.steps[number]:
            case Copy(blob=blob):
                copies, size = copies + 1, size + blob.size
            case Mount():
                mounts += 1
            case Put(manifest=manifest, tags=tags, sparse=lacks):
                times = max(1, len(tags))
                manifests, size = manifests + times, size + times * manifest.size
                sparse = sparse or lacks
            case Attach(referrers=referrers):
                attached += len(referrers)
            case Backup(manifest=manifest, tag=tag, kept=kept):
                manifests, size = manifests + 1, size + manifest.size
                backup = kept if tag == goal.pair.target.tag else backup
    return ImagePreview(
        goal.pair,
        "mirror" if goal.steps else "current",
        goal.root.digest,
        goal.root.digest != named.digest,
        sparse,
        platforms,
        copies,
        mounts,
        manifests,
        attached,
        size,
        bare=bare and goal.pair.choice.index != "only",
        backup=backup,
    )
