"""The plan: what will be done, as a value, before the first byte moves.

Types
-----

A `Step` is one of five things done at one target site:

- `Copy`  a blob is read from `source` and pushed to `target`;
- `Mount` a blob is mounted from `origin`, another repository of the same registry that has it, will have it,
          or had it in an earlier run;
- `Put`   a manifest is put, under its digest or under `tags`; if the target refuses it, `fallback` is put
          instead (the pruned form of a sparse index; both byte strings are known when the plan is made);
- `Attach` manifests at the target are listed as referrers of their subject. The target decides whether that
          takes a request: a registry with the referrers API listed them when they were put;
- `Backup` what a tag names is put under another tag too, before a Put has the tag name something else.

A `Need` is an edge from a step to an earlier one:

- *succeeded*: the earlier step must succeed, else this one is skipped (a manifest on its blobs and children,
  and on the backups of the tags that it writes);
- *unless replaced*: the same, and what it put must not have been its fallback (a referrer on its subject:
  a referrer whose subject is not there is skipped);
- *finished*: the earlier step must end, however (a mount on its origin: if that fails, the mount becomes
  a copy, and the blob's other mounts follow it to its new home);
- *after*: the earlier step must end, or be skipped, and nothing else follows from that (a mount on a manifest
  of its origin, where the registry mounts only what a manifest names).

A `Goal` is one pair with the root that its tag was pinned to, and the steps that complete it.

Invariants (tests/unit/engine/test_planner.py, by hypothesis)
---------------------------------------------------

- needs point backwards: `need.step < step`;
- a blob is in at most one Copy a target registry, and all its Copies name one source site, so it is read at
  most once a run; `reads` lists them;
- nothing that the inventory has is copied, mounted or put;
- bytes to read = the sum of the sizes of the unique blobs that some Copy moves;
- the same pairs, graph and inventory in any order give the same plan: every choice is a minimum in the total
  order of sites and digests;
- a root with a tag is put last among what it reaches, and a manifest after all its children;
- a referrer is put after its subject, and attached after it was put.
"""

from __future__ import annotations

import enum
from collections.abc import Container

import msgspec

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.oci import Descriptor, Digest, Manifest


class Copy(msgspec.Struct, frozen=True, gc=False, tag_field="step", tag="copy"):
    blob: Descriptor
    source: Site
    target: Site


class Mount(msgspec.Struct, frozen=True, gc=False, tag_field="step", tag="mount"):
    """`source`: where the blob is read should the mount be refused. `remembered`: that the origin has the
    blob is known from an earlier run alone."""

    blob: Descriptor
    origin: Site
    target: Site
    source: Site
    remembered: bool = False


class Attach(msgspec.Struct, frozen=True, gc=False, tag_field="step", tag="attach"):
    subject: Digest
    referrers: tuple[Descriptor, ...]
    target: Site


class Put(msgspec.Struct, frozen=True, gc=False, tag_field="step", tag="put"):
    """`sparse`: the manifest is an index, and not all of its children will be there."""

    manifest: Descriptor
    target: Site
    tags: tuple[str, ...] = ()
    fallback: Descriptor | None = None
    sparse: bool = False


class Backup(msgspec.Struct, frozen=True, gc=False, tag_field="step", tag="backup"):
    """`tag` will name `replaced_by`, and `manifest`, which it named when the plan was made, stays under the
    tag `kept`. What it names by the time of the step is what is kept."""

    manifest: Descriptor
    target: Site
    tag: str
    kept: str
    replaced_by: Digest


Step = Copy | Mount | Put | Attach | Backup


class NeedKind(enum.StrEnum):
    """What a step needs of an earlier one; the values are the words of saved plans."""

    SUCCEEDED = "hard"
    UNLESS_REPLACED = "kept"
    FINISHED = "settled"
    AFTER = "after"


class Need(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    step: int
    kind: NeedKind = NeedKind.SUCCEEDED


class Goal(msgspec.Struct, frozen=True, gc=False):
    """A pair, the root that its target tag shall name, and the steps whose success completes it.

    The root is the source's, or what pruning made of it. The steps are its Put; or, where it is there and
    only something below it is missing, the Puts of what is missing; and those of what is attached to it. No
    steps: the target has it all.
    """

    pair: Pair
    root: Descriptor
    steps: tuple[int, ...]


class Plan(msgspec.Struct, frozen=True):
    """Steps in an order that respects their needs; `needs[i]` belongs to `steps[i]`.

    `reads`: for each blob that is read from a source, the numbers of the Copies which that is for. `goals`: a
    pair each, and which steps complete it. `made`: the manifests of steps that no source has: pruned indexes.
    """

    steps: tuple[Step, ...]
    needs: tuple[tuple[Need, ...], ...]
    reads: dict[Digest, tuple[int, ...]]
    goals: tuple[Goal, ...]
    made: dict[Digest, Manifest] = {}


def blobs_alone(plan: Plan, without: Container[tuple[str, Digest]] = ()) -> Plan:
    """The steps of a plan that bring blobs, without those that need a manifest to be there first. They can be
    carried out before it is known what manifests there will be; whoever plans after that finds the blobs.

    `without`: blobs that are left out, each with the registry that it is not brought to.
    """
    kept: dict[int, int] = {}
    for number, (step, needs) in enumerate(zip(plan.steps, plan.needs, strict=True)):
        if not isinstance(step, Copy | Mount) or (step.target.registry, step.blob.digest) in without:
            continue
        if all(need.step in kept for need in needs):
            kept[number] = len(kept)
    return Plan(
        steps=tuple(plan.steps[number] for number in kept),
        needs=tuple(
            tuple(Need(kept[need.step], need.kind) for need in plan.needs[number]) for number in kept
        ),
        reads={
            digest: tuple(kept[number] for number in numbers if number in kept)
            for digest, numbers in plan.reads.items()
        },
        goals=(),
    )


def renumbered(plan: Plan, first: int) -> Plan:
    """The same plan, its steps counted from `first` on: a part that is to be appended to so many others."""
    return Plan(
        steps=plan.steps,
        needs=tuple(tuple(Need(n.step + first, n.kind) for n in needs) for needs in plan.needs),
        reads={digest: tuple(number + first for number in steps) for digest, steps in plan.reads.items()},
        goals=tuple(Goal(g.pair, g.root, tuple(number + first for number in g.steps)) for g in plan.goals),
        made=plan.made,
    )


def appended(plan: Plan, part: Plan) -> Plan:
    """A plan with a part after it that was made later, of other targets, and is renumbered to fit."""
    reads = dict(plan.reads)
    for digest, steps in part.reads.items():
        reads[digest] = (*reads.get(digest, ()), *steps)
    return Plan(
        steps=(*plan.steps, *part.steps),
        needs=(*plan.needs, *part.needs),
        reads=reads,
        goals=(*plan.goals, *part.goals),
        made=plan.made | part.made,
    )
