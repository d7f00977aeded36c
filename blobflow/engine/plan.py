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

A `Goal` is one pair with the root that its tag was pinned to, and the steps that complete it.

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

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from blobflow.content import Site
from blobflow.oci import Descriptor, Digest, Manifest, Platform, Reference
from blobflow.oci.choice import EVERYTHING, Choice


class Copy(msgspec.Struct, frozen=True, tag_field="step", tag="copy"):
    blob: Descriptor
    source: Site
    target: Site


class Mount(msgspec.Struct, frozen=True, tag_field="step", tag="mount"):
    """`source`: where the blob is read should the mount be refused."""

    blob: Descriptor
    origin: Site
    target: Site
    source: Site


class Put(msgspec.Struct, frozen=True, tag_field="step", tag="put"):
    """`sparse`: the manifest is an index, and not all of its children will be there."""

    manifest: Descriptor
    target: Site
    tags: tuple[str, ...] = ()
    fallback: Descriptor | None = None
    sparse: bool = False


Step = Copy | Mount | Put


class Need(msgspec.Struct, frozen=True, array_like=True):
    step: int
    kind: Literal["hard", "settled"] = "hard"


class Pair(msgspec.Struct, frozen=True, order=True):
    """One image, or some of its platforms, wanted at one place. Fan-out is several pairs with one source.

    `target.tag` is the tag that will be written; "" puts the root under its digest alone.
    """

    source: Reference
    target: Reference
    choice: Choice = EVERYTHING


class Goal(msgspec.Struct, frozen=True):
    """A pair, the root that its target tag shall name, and the steps whose success completes it.

    The root is the source's, or what pruning made of it. The steps are its Put; or, where it is there and
    only something below it is missing, the Puts of what is missing. No steps: the target has it all.
    """

    pair: Pair
    root: Descriptor
    steps: tuple[int, ...]


class Graph(msgspec.Struct, frozen=True):
    """What the sources say: manifests by digest, the root of each source, and where content can be read.

    A graph may be partial: a root that is known to be whole at all of its targets has no manifest in it, nor
    has a child that nobody wants. `platforms`: what configs say, of images whose parents did not.
    """

    manifests: dict[Digest, Manifest]
    roots: dict[Reference, Descriptor]
    origins: dict[Digest, tuple[Site, ...]]
    platforms: dict[Digest, Platform] = {}

    def closure(self, root: Digest) -> list[Manifest]:
        """The manifests reachable from `root`, each once, children before parents, in order of mention."""
        order: list[Manifest] = []
        seen: set[Digest] = set()

        def visit(digest: Digest) -> None:
            if digest in seen or digest not in self.manifests:
                return
            seen.add(digest)
            manifest = self.manifests[digest]
            for child in manifest.manifests:
                visit(child.digest)
            order.append(manifest)

        visit(root)
        return order


class Shape(msgspec.Struct, frozen=True):
    """What a pair wants to be at its target; made by `engine.shape`.

    `root` is what the target's tag shall name. `manifests`: each once, children before parents, the root
    last; none where the graph was not read, because the target is known to have it all. `sparse`: the
    digests of the indexes that lack children here; `fallbacks`: the pruned forms of these, by the digest of
    the sparse one, where they may be put instead. `platforms` of the images that are here.
    """

    root: Descriptor
    manifests: tuple[Manifest, ...] = ()
    sparse: frozenset[Digest] = frozenset()
    fallbacks: dict[Digest, Manifest] = {}
    platforms: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True):
    """What the targets say. Three-valued: present, absent, or (in neither) unknown.

    `tags`: what each (site, tag) names now; None: it names nothing. An image manifest that is present stands
    for its blobs, an index stands for nothing but itself: registries let children be deleted, and a sparse
    index has the full one's digest. `settled`: pairs whose target is known to have all that they want.
    """

    present: dict[Site, frozenset[Digest]]
    absent: dict[Site, frozenset[Digest]]
    tags: dict[tuple[Site, str], Digest | None]
    settled: frozenset[Pair] = frozenset()

    def has(self, site: Site, digest: Digest) -> bool:
        return digest in self.present.get(site, _NOTHING)


_NOTHING: frozenset[Digest] = frozenset()


class Plan(msgspec.Struct, frozen=True):
    """Steps in an order that respects their needs; `needs[i]` belongs to `steps[i]`.

    `made`: the manifests of steps that no source has: pruned indexes.
    """

    steps: tuple[Step, ...]
    needs: tuple[tuple[Need, ...], ...]
    reads: dict[Digest, tuple[int, ...]]
    goals: tuple[Goal, ...]
    made: dict[Digest, Manifest] = {}


def site_of(reference: Reference) -> Site:
    return Site(reference.host, reference.repository)


def make_plan(
    pairs: Iterable[Pair], graph: Graph, inventory: Inventory, shapes: Mapping[Pair, Shape]
) -> Plan:
    """Decide every step. Pure and deterministic; see the invariants above.

    Every pair has a shape; pairs that could not be resolved are left out by the caller.
    """
    return _Planner(sorted(set(pairs)), graph, inventory, shapes).plan()


class _Planner:
    def __init__(
        self, pairs: Sequence[Pair], graph: Graph, inventory: Inventory, shapes: Mapping[Pair, Shape]
    ) -> None:
        self._pairs = pairs
        self._graph = graph
        self._inventory = inventory
        self._shapes = shapes
        self._steps: list[Step] = []
        self._needs: list[tuple[Need, ...]] = []
        self._made: dict[Digest, Manifest] = {}
        self._blob_steps: dict[tuple[Site, Digest], int] = {}
        self._put_steps: dict[tuple[Site, Digest], int] = {}
        self._tags = self._wanted_tags()
        self._homes = self._choose_homes()

    def plan(self) -> Plan:
        goals = tuple(self._goal(pair) for pair in self._pairs)
        reads: dict[Digest, list[int]] = {}
        for number, step in enumerate(self._steps):
            if isinstance(step, Copy):
                reads.setdefault(step.blob.digest, []).append(number)
        return Plan(
            steps=tuple(self._steps),
            needs=tuple(self._needs),
            reads={digest: tuple(numbers) for digest, numbers in reads.items()},
            goals=goals,
            made=self._made,
        )

    def _root(self, pair: Pair) -> Descriptor:
        return self._shapes[pair].root

    def _wanted_tags(self) -> dict[tuple[Site, Digest], tuple[str, ...]]:
        """Tags that are still to be written, by the site and root that they shall name."""
        wanted: dict[tuple[Site, Digest], set[str]] = {}
        for pair in self._pairs:
            site, tag, root = site_of(pair.target), pair.target.tag, self._root(pair).digest
            if tag and self._inventory.tags.get((site, tag)) != root:
                wanted.setdefault((site, root), set()).add(tag)
        return {key: tuple(sorted(tags)) for key, tags in wanted.items()}

    def _missing(self, pair: Pair) -> Iterable[Manifest]:
        """Manifests of the pair that its target lacks, children first."""
        if pair in self._inventory.settled:
            return ()
        site = site_of(pair.target)
        return (m for m in self._shapes[pair].manifests if not self._inventory.has(site, m.descriptor.digest))

    def _choose_homes(self) -> dict[tuple[str, Digest], tuple[Site, bool]]:
        """For each blob wanted at a registry: its home or origin, and whether that one has it already."""
        homes: dict[tuple[str, Digest], tuple[Site, bool]] = {}
        held = self._holders()
        for pair in self._pairs:
            site = site_of(pair.target)
            for manifest in self._missing(pair):
                for blob in manifest.blobs:
                    key = (site.registry, blob.digest)
                    if key in held:
                        homes[key] = (held[key], True)
                    elif key not in homes or site < homes[key][0]:
                        homes[key] = (site, False)
        return homes

    def _holders(self) -> dict[tuple[str, Digest], Site]:
        """The least site of each target registry that is known to hold each blob.

        A source repository at the same registry is one too: what is there need not be uploaded again.
        """
        registries = {pair.target.host for pair in self._pairs}
        held: dict[tuple[str, Digest], Site] = {}
        everywhere = [(site, digests) for site, digests in self._inventory.present.items()]
        for digest, sites in self._graph.origins.items():
            everywhere += [(site, frozenset({digest})) for site in sites if site.registry in registries]
        for site, digests in everywhere:
            for digest in digests:
                key = (site.registry, digest)
                if key not in held or site < held[key]:
                    held[key] = site
        return held

    def _goal(self, pair: Pair) -> Goal:
        site, root, shape = site_of(pair.target), self._root(pair), self._shapes[pair]
        puts = [self._put(site, manifest, shape) for manifest in self._missing(pair)]
        if not self._inventory.has(site, root.digest) or (site, root.digest) in self._tags:
            return Goal(pair, root, (self._tag_root(site, root, shape),))
        return Goal(pair, root, tuple(puts))

    def _tag_root(self, site: Site, root: Descriptor, shape: Shape) -> int:
        """The Put of a root: already emitted with its tags if it was missing, else only its tags."""
        if (site, root.digest) in self._put_steps:
            return self._put_steps[site, root.digest]
        waits = {self._put_steps.get((site, m.descriptor.digest)) for m in shape.manifests} - {None}
        return self._emit_put(site, root, shape, [number for number in waits if number is not None])

    def _put(self, site: Site, manifest: Manifest, shape: Shape) -> int:
        key = (site, manifest.descriptor.digest)
        if key not in self._put_steps:
            hard = [number for blob in manifest.blobs if (number := self._blob(site, blob)) is not None]
            for child in manifest.manifests:
                number = self._put_steps.get((site, child.digest))
                if number is not None:
                    hard.append(number)
            if manifest.descriptor.digest not in self._graph.manifests:
                self._made[manifest.descriptor.digest] = manifest
            self._emit_put(site, manifest.descriptor, shape, hard)
        return self._put_steps[key]

    def _emit_put(self, site: Site, manifest: Descriptor, shape: Shape, hard: Iterable[int]) -> int:
        fallback = shape.fallbacks.get(manifest.digest)
        if fallback is not None:
            self._made[fallback.descriptor.digest] = fallback
        step = Put(
            manifest,
            site,
            self._tags.get((site, manifest.digest), ()),
            fallback.descriptor if fallback is not None else None,
            manifest.digest in shape.sparse,
        )
        self._put_steps[site, manifest.digest] = self._emit(step, [Need(n) for n in sorted(set(hard))])
        return self._put_steps[site, manifest.digest]

    def _blob(self, site: Site, blob: Descriptor) -> int | None:
        """The step that brings a blob to a site; None if it is there."""
        key = (site, blob.digest)
        if self._inventory.has(site, blob.digest):
            return None
        if key in self._blob_steps:
            return self._blob_steps[key]
        home, held = self._homes[site.registry, blob.digest]
        source = min(self._graph.origins[blob.digest])
        if home == site:
            if held:
                return None
            number = self._emit(Copy(blob, source, site), ())
        else:
            brought = None if held else self._blob(home, blob)
            needs = () if brought is None else (Need(brought, "settled"),)
            number = self._emit(Mount(blob, home, site, source), needs)
        self._blob_steps[key] = number
        return number

    def _emit(self, step: Step, needs: Sequence[Need]) -> int:
        self._steps.append(step)
        self._needs.append(tuple(needs))
        return len(self._steps) - 1
