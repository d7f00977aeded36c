"""The plan: what will be done, as a value, before the first byte moves.

Types
-----

A `Step` is one of three things done at one target site:

- `Copy`  a blob is read from `source` and pushed to `target`;
- `Mount` a blob that `origin`, another repository of the same registry, has (or will have) is taken over;
- `Put`   a manifest is put, under its digest or under `tags`; if the target refuses it, `fallback` is put
          instead (the pruned form of a sparse index; both byte strings are known when the plan is made).

A `Need` is an edge from a step to an earlier one:

- *hard*: the need must have succeeded, else this step is skipped (a manifest on its blobs and manifests);
- *settled*: the need must have ended, however (a mount on its origin: if the origin failed, the mount becomes
  a copy, and the blob's other mounts follow it to its new home).

A `Goal` is one pair with the root that its tag was pinned to, and the step that puts it (None: nothing to do).

Invariants (tests/unit/test_plan.py, by hypothesis)
---------------------------------------------------

- needs point backwards: `need.step < step`;
- a blob is in at most one Copy a target registry, and all its Copies name one source site, so it is read at
  most once a run; `reads` lists them;
- nothing that the inventory has is copied, mounted or put;
- bytes to read = the sum of the sizes of the unique blobs that some Copy moves;
- the same pairs, graph and inventory in any order give the same plan: every choice is a minimum in the total
  order of sites and digests;
- a root with a tag is put last among what it reaches, and a manifest after all its children.

Homes
-----

Within one target registry a missing blob goes to its *home*, the least site that needs it, and is mounted
from there into the others. If the inventory knows a site of the registry that already has it, the least such
site is the origin and nothing is copied. Mounts so go one way even at registries that let a blob be mounted
only when a manifest of the origin references it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from blobflow.content import Site
from blobflow.oci import Descriptor, Digest, Manifest, Reference


class Copy(msgspec.Struct, frozen=True, tag_field="step", tag="copy"):
    blob: Descriptor
    source: Site
    target: Site


class Mount(msgspec.Struct, frozen=True, tag_field="step", tag="mount"):
    blob: Descriptor
    origin: Site
    target: Site


class Put(msgspec.Struct, frozen=True, tag_field="step", tag="put"):
    manifest: Descriptor
    target: Site
    tags: tuple[str, ...] = ()
    fallback: Descriptor | None = None


Step = Copy | Mount | Put


class Need(msgspec.Struct, frozen=True, array_like=True):
    step: int
    kind: Literal["hard", "settled"] = "hard"


class Pair(msgspec.Struct, frozen=True, order=True):
    """One image wanted at one place. Fan-out is several pairs with one source.

    `target.tag` is the tag that will be written; "" puts the root under its digest alone.
    """

    source: Reference
    target: Reference


class Goal(msgspec.Struct, frozen=True):
    pair: Pair
    root: Descriptor
    step: int | None


class Graph(msgspec.Struct, frozen=True):
    """What the sources say: manifests by digest, the root of each source, and where content can be read.

    A graph may be partial: roots whose closure was not needed (they are present at every target) have no
    manifest in it.
    """

    manifests: dict[Digest, Manifest]
    roots: dict[Reference, Descriptor]
    origins: dict[Digest, tuple[Site, ...]]

    def closure(self, root: Digest) -> Sequence[Manifest]:
        """The manifests under `root`, children before parents, each once, in the order of first mention."""
        raise AssertionError


class Inventory(msgspec.Struct, frozen=True):
    """What the targets say. Three-valued: present, absent, or (in neither) unknown.

    `present` and `absent`: content by site. `complete`: roots whose whole closure is known to be at a site.
    `tags`: what each (site, tag) names now; None: it names nothing.
    """

    present: dict[Site, frozenset[Digest]]
    absent: dict[Site, frozenset[Digest]]
    tags: dict[tuple[Site, str], Digest | None]


class Plan(msgspec.Struct, frozen=True):
    """Steps in an order that respects their needs; `needs[i]` belongs to `steps[i]`."""

    steps: tuple[Step, ...]
    needs: tuple[tuple[Need, ...], ...]
    reads: dict[Digest, tuple[int, ...]]
    goals: tuple[Goal, ...]


def make_plan(pairs: Iterable[Pair], graph: Graph, inventory: Inventory) -> Plan:
    """Decide every step. Pure and deterministic; see the invariants above."""
    raise AssertionError
