"""The arguments of `blobflow copy`, as pairs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.errors import UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.local_reference import ARCHIVES
from blobflow.oci.reference import check_tag, split_name


def copy_pairs(source: str, targets: Sequence[str]) -> list[Pair]:
    """The pairs of `blobflow copy`. A target without a tag takes the source's, or `latest`.

    Raises InvalidReference; UsageError for a target given twice, the source among the targets, or a target
    with a digest, which nobody can choose.
    """
    origin = parse_reference(source)
    pairs = []
    for text in targets:
        goal = parse_reference(text)
        if goal.digest and goal.digest != origin.digest:
            raise UsageError(
                f"{text[:300]!r} has a digest that the source's name does not; content decides the digest:"
                " give the source by it as well, or the target a tag"
            )
        if goal.transport and goal.tag.startswith("@"):
            raise UsageError(f"{text[:300]!r} numbers an image; give the one that is written a name")
        named = goal.tag if goal.transport else split_name(text.removeprefix("docker://"))[2]
        if not named and not goal.digest:
            goal = msgspec.structs.replace(goal, tag=_default_name(origin, goal))
        pair = Pair(origin, goal)
        if (origin.host, origin.repository, origin.name) == (goal.host, goal.repository, goal.name):
            raise UsageError(f"{origin} is both source and target")
        if pair in pairs:
            raise UsageError(f"the target {goal} is given twice")
        pairs.append(pair)
    return pairs


def with_additional_tags(source: str, targets: Sequence[str], tags: Sequence[str]) -> list[str]:
    """The targets, each also under these tags of its repository, or names in its archive.

    Raises as `copy_pairs`.
    """
    found = list(targets)
    for pair in copy_pairs(source, targets) if tags else ():
        for tag in tags:
            goal = pair.target
            name = tag if goal.transport else check_tag(tag)
            found.append(str(msgspec.structs.replace(goal, tag=name, digest="")))
    return found


def _default_name(origin: Reference, goal: Reference) -> str:
    """What a copy is called at a target that was given no name: as its source, fully so in an archive."""
    if origin.transport:
        tag = origin.tag if not origin.tag.startswith("@") else ""
        if goal.transport:
            return tag or "latest"
        return tag.rpartition(":")[2] if ":" in tag else "latest"
    if goal.transport not in ARCHIVES:
        return origin.tag or "latest"
    name = f"{origin.host}/{origin.repository}"
    return f"{name}:{origin.tag}" if origin.tag else f"{name}@{origin.digest}"
