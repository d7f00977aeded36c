"""The plan: what will be done, as a value, before the first byte moves.

Types
-----

A `Step` is one of four things done at one target site:

- `Copy`  a blob is read from `source` and pushed to `target`;
- `Mount` a blob that `origin`, another repository of the same registry, has (or will have) is taken over;
- `Put`   a manifest is put, under its digest or under `tags`; if the target refuses it, `fallback` is put
          instead (the pruned form of a sparse index; both byte strings are known when the plan is made);
- `Attach` manifests that are there are made known as referrers of their subject. Whether that takes anything
          at all is the target's to know: a registry with the referrers API did it when they were put.

A `Need` is an edge from a step to an earlier one:

- *hard*: the need must have succeeded, else this step is skipped (a manifest on its blobs and manifests);
- *kept*: as hard, and the need's fallback must not have been what was put (a referrer on its subject: what
  refers to a manifest that is not there is left where it is);
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
- a root with a tag is put last among what it reaches, and a manifest after all its children;
- a referrer is put after its subject, and attached after it was put.

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

from blobflow.content import Referrer, Site
from blobflow.oci import Descriptor, Digest, Manifest, Platform, Reference
from blobflow.oci.choice import EVERYTHING, Choice
from blobflow.oci.referrers import fallback_tag, mention_of


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


class Attach(msgspec.Struct, frozen=True, tag_field="step", tag="attach"):
    subject: Digest
    referrers: tuple[Descriptor, ...]
    target: Site


class Put(msgspec.Struct, frozen=True, tag_field="step", tag="put"):
    """`sparse`: the manifest is an index, and not all of its children will be there."""

    manifest: Descriptor
    target: Site
    tags: tuple[str, ...] = ()
    fallback: Descriptor | None = None
    sparse: bool = False


Step = Copy | Mount | Put | Attach
Kind = Literal["hard", "kept", "settled"]


class Need(msgspec.Struct, frozen=True, array_like=True, order=True):
    step: int
    kind: Kind = "hard"


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
    only something below it is missing, the Puts of what is missing; and those of what is attached to it. No
    steps: the target has it all.
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


class Attached(msgspec.Struct, frozen=True):
    """What refers to one of a shape's manifests, or to what is attached already: the referrer with all that
    is below it, children first and itself last."""

    referrer: Referrer
    manifests: tuple[Manifest, ...]

    @property
    def manifest(self) -> Manifest:
        return self.manifests[-1]


class Left(msgspec.Struct, frozen=True):
    """A referrer that is left where it is; `because` is a clause."""

    referrer: Referrer
    because: str


class Shape(msgspec.Struct, frozen=True):
    """What a pair wants to be at its target; made by `engine.shape`.

    `root` is what the target's tag shall name. `manifests`: each once, children before parents, the root
    last; none where the graph was not read, because the target is known to have it all. `sparse`: the
    digests of the indexes that lack children here; `fallbacks`: the pruned forms of these, by the digest of
    the sparse one, where they may be put instead. `platforms` of the images that are here. `replaced`: the
    indexes of the source that pruned forms are here in place of. `attached` and `left`: what refers to all
    that, subjects before referrers, as far as it was looked up.
    """

    root: Descriptor
    manifests: tuple[Manifest, ...] = ()
    sparse: frozenset[Digest] = frozenset()
    fallbacks: dict[Digest, Manifest] = {}
    platforms: tuple[str, ...] = ()
    replaced: tuple[Digest, ...] = ()
    attached: tuple[Attached, ...] = ()
    left: tuple[Left, ...] = ()

    @property
    def everything(self) -> tuple[Manifest, ...]:
        """All manifests that shall be at the target, each once: the image's, then what is attached to it."""
        found = {manifest.descriptor.digest: manifest for manifest in self.manifests}
        for each in self.attached:
            for manifest in each.manifests:
                found.setdefault(manifest.descriptor.digest, manifest)
        return tuple(found.values())


class Inventory(msgspec.Struct, frozen=True):
    """What the targets say. Three-valued: present, absent, or (in neither) unknown.

    `tags`: what each (site, tag) names now; None: it names nothing. An image manifest that is present stands
    for its blobs, an index stands for nothing but itself: registries let children be deleted, and a sparse
    index has the full one's digest. `settled`: pairs whose target is known to have all that they want.
    `listed`: subjects, each with a manifest that is known there to refer to it.
    """

    present: dict[Site, frozenset[Digest]]
    absent: dict[Site, frozenset[Digest]]
    tags: dict[tuple[Site, str], Digest | None]
    settled: frozenset[Pair] = frozenset()
    listed: dict[Site, frozenset[tuple[Digest, Digest]]] = {}

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
        self._attach_steps: dict[Attach, int] = {}
        self._subjects = self._find_subjects()
        self._aimed = {(site_of(pair.target), pair.target.tag) for pair in pairs}
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
            named = [(tag, root)] if tag else []
            named += [(a.referrer.tag, a.referrer.manifest.digest) for a in self._shapes[pair].attached]
            for tag, digest in named:
                if tag and self._inventory.tags.get((site, tag)) != digest:
                    wanted.setdefault((site, digest), set()).add(tag)
        return {key: tuple(sorted(tags)) for key, tags in wanted.items()}

    def _find_subjects(self) -> dict[tuple[Site, Digest], set[Digest]]:
        """What each attached manifest refers to, over all pairs of a site."""
        subjects: dict[tuple[Site, Digest], set[Digest]] = {}
        for pair in self._pairs:
            for each in self._shapes[pair].attached:
                key = (site_of(pair.target), each.manifest.descriptor.digest)
                subjects.setdefault(key, set()).add(each.referrer.subject)
        return subjects

    def _missing(self, pair: Pair, manifests: Iterable[Manifest]) -> Iterable[Manifest]:
        """Those of a pair's manifests that its target lacks."""
        if pair in self._inventory.settled:
            return ()
        site = site_of(pair.target)
        return (m for m in manifests if not self._inventory.has(site, m.descriptor.digest))

    def _choose_homes(self) -> dict[tuple[str, Digest], tuple[Site, bool]]:
        """For each blob wanted at a registry: its home or origin, and whether that one has it already."""
        homes: dict[tuple[str, Digest], tuple[Site, bool]] = {}
        held = self._holders()
        for pair in self._pairs:
            site = site_of(pair.target)
            for manifest in self._missing(pair, self._shapes[pair].everything):
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
        steps = [self._put(site, manifest, shape) for manifest in self._missing(pair, shape.manifests)]
        if not self._inventory.has(site, root.digest) or (site, root.digest) in self._tags:
            steps = [self._tag_root(site, root, shape)]
        steps += self._hang(pair, shape)
        return Goal(pair, root, tuple(dict.fromkeys(steps)))

    def _hang(self, pair: Pair, shape: Shape) -> Iterable[int]:
        """The steps that bring what is attached to a shape, and make it known."""
        site = site_of(pair.target)
        unlisted: dict[Digest, list[Manifest]] = {}
        for each in shape.attached:
            digest, subject = each.manifest.descriptor.digest, each.referrer.subject
            for manifest in self._missing(pair, each.manifests):
                after = self._after_subject(site, each) if manifest is each.manifest else ()
                number = self._put(site, manifest, shape, after)
                if manifest is each.manifest:
                    yield number
            if self._inventory.has(site, digest) and (site, digest) in self._tags:
                if (site, digest) not in self._put_steps:
                    after = self._after_subject(site, each)
                    self._emit_put(site, each.manifest.descriptor, shape, after)
                yield self._put_steps[site, digest]
            listed = (subject, digest) in self._inventory.listed.get(site, ())
            if not each.referrer.tag and not listed:
                unlisted.setdefault(subject, []).append(each.manifest)
        for subject, manifests in unlisted.items():
            if (site, fallback_tag(subject)) not in self._aimed:
                yield self._attach(site, subject, manifests)

    def _after_subject(self, site: Site, each: Attached) -> Sequence[Need]:
        """The need of a referrer on its subject's Put. One that has several subjects needs none of them: no
        image is to fail for another."""
        subjects = self._subjects[site, each.manifest.descriptor.digest]
        number = self._put_steps.get((site, each.referrer.subject))
        return [Need(number, "kept")] if number is not None and len(subjects) == 1 else []

    def _attach(self, site: Site, subject: Digest, manifests: Iterable[Manifest]) -> int:
        mentions = sorted(map(mention_of, manifests), key=lambda mention: mention.digest)
        step = Attach(subject, tuple(mentions), site)
        if step not in self._attach_steps:
            puts = {self._put_steps.get((site, mention.digest)) for mention in mentions} - {None}
            needs = {Need(number) for number in puts if number is not None}
            if (site, subject) in self._put_steps:
                needs.add(Need(self._put_steps[site, subject], "kept"))
            self._attach_steps[step] = self._emit(step, sorted(needs))
        return self._attach_steps[step]

    def _tag_root(self, site: Site, root: Descriptor, shape: Shape) -> int:
        """The Put of a root: already emitted with its tags if it was missing, else only its tags."""
        if (site, root.digest) in self._put_steps:
            return self._put_steps[site, root.digest]
        waits = {self._put_steps.get((site, m.descriptor.digest)) for m in shape.manifests} - {None}
        return self._emit_put(site, root, shape, [Need(number) for number in waits if number is not None])

    def _put(self, site: Site, manifest: Manifest, shape: Shape, after: Iterable[Need] = ()) -> int:
        """The Put of a manifest, with the steps that bring its blobs."""
        key = (site, manifest.descriptor.digest)
        if key not in self._put_steps:
            hard = [number for blob in manifest.blobs if (number := self._blob(site, blob)) is not None]
            for child in manifest.manifests:
                number = self._put_steps.get((site, child.digest))
                if number is not None:
                    hard.append(number)
            if manifest.descriptor.digest not in self._graph.manifests:
                self._made[manifest.descriptor.digest] = manifest
            self._emit_put(site, manifest.descriptor, shape, [*map(Need, hard), *after])
        return self._put_steps[key]

    def _emit_put(self, site: Site, manifest: Descriptor, shape: Shape, needs: Iterable[Need]) -> int:
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
        self._put_steps[site, manifest.digest] = self._emit(step, sorted(set(needs)))
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
