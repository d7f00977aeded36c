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

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from blobflow.content import Referrer, Site
from blobflow.engine.sources.manifests import Manifests
from blobflow.oci import Descriptor, Digest, Manifest, Platform, Reference
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice


class Copy(msgspec.Struct, frozen=True, gc=False, tag_field="step", tag="copy"):
    blob: Descriptor
    source: Site
    target: Site


class Mount(msgspec.Struct, frozen=True, gc=False, tag_field="step", tag="mount"):
    """`source`: where the blob is read should the mount be refused."""

    blob: Descriptor
    origin: Site
    target: Site
    source: Site


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


Step = Copy | Mount | Put | Attach
NeedKind = Literal["hard", "kept", "settled"]


class Need(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    step: int
    kind: NeedKind = "hard"


# When what refers to an image is looked up:
#   auto    when it moves, or if that was never done
#   always  again for images that have not changed, too
#   off     never
Lookup = Literal["auto", "always", "off"]
# What becomes of an image that has none of the platforms that are wanted: an error, or left out and told.
MissingPlatform = Literal["fail", "skip"]


class Pair(msgspec.Struct, frozen=True, order=True, gc=False):
    """One image, or some of its platforms, wanted at one place. Fan-out is several pairs with one source.

    `target.tag` is the tag that will be written; "" puts the root under its digest alone. `referrers`: what
    is wanted of what refers to it, where the run's policy does not say. `missing_platform`: what becomes of
    it if it is an image for other platforms than those of `choice`.
    """

    source: Reference
    target: Reference
    choice: PlatformChoice = EVERYTHING
    referrers: Lookup = "auto"
    missing_platform: MissingPlatform = "fail"


class Goal(msgspec.Struct, frozen=True, gc=False):
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
    has a child that nobody wants. Where there are many manifests they are lean, see `engine.documents`: ask
    `raw` and `whole` for the rest. `platforms`: what configs say, of images whose parents did not.
    """

    manifests: Mapping[Digest, Manifest]
    roots: dict[Reference, Descriptor]
    origins: dict[Digest, tuple[Site, ...]]
    platforms: dict[Digest, Platform] = {}

    def raw(self, digest: Digest) -> bytes:
        """The bytes of a manifest, wherever they are held. Raises StorageError, DigestMismatch."""
        held = self.manifests
        return held.raw(digest) if isinstance(held, Manifests) else held[digest].raw

    def whole(self, digest: Digest) -> Manifest:
        """A manifest with its bytes and annotations, wherever they are held. Raises as `raw`."""
        held = self.manifests
        return held.whole(digest) if isinstance(held, Manifests) else held[digest]

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


class AttachedReferrer(msgspec.Struct, frozen=True, gc=False):
    """What refers to one of a shape's manifests, or to what is attached already: the referrer with all that
    is below it, children first and itself last."""

    referrer: Referrer
    manifests: tuple[Manifest, ...]

    @property
    def manifest(self) -> Manifest:
        return self.manifests[-1]


class SkippedReferrer(msgspec.Struct, frozen=True):
    """A referrer that is left where it is; `because` is a clause."""

    referrer: Referrer
    because: str


class DesiredImage(msgspec.Struct, frozen=True):
    """What a pair wants to be at its target; made by `engine.shape`.

    `root` is what the target's tag shall name. `manifests`: each once, children before parents, the root
    last; none where the graph was not read, because the target is known to have it all. `sparse`: the
    digests of the indexes that lack children here; `fallbacks`: the pruned forms of these, by the digest of
    the sparse one, where they may be put instead. `platforms` of the images that are here. `replaced`: the
    manifests of the source that forms made anew are here in place of. `lacking`: children that are wanted and
    that the source, a layout or archive of a part of an index, does not have. `attached` and `left`: what
    refers to all that, subjects before referrers, as far as it was looked up. `referring`: those of
    `manifests` that refer to others themselves, and are to be listed for these.
    """

    root: Descriptor
    manifests: tuple[Manifest, ...] = ()
    sparse: frozenset[Digest] = frozenset()
    fallbacks: dict[Digest, Manifest] = {}
    platforms: tuple[str, ...] = ()
    replaced: tuple[Digest, ...] = ()
    lacking: tuple[Digest, ...] = ()
    attached: tuple[AttachedReferrer, ...] = ()
    left: tuple[SkippedReferrer, ...] = ()
    referring: tuple[AttachedReferrer, ...] = ()

    @property
    def images(self) -> frozenset[Digest]:
        """The image manifests, which are the same in every form of the indexes above them."""
        return frozenset(each.descriptor.digest for each in self.manifests if not each.is_index)

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
        return digest in self.at(site)

    def at(self, site: Site) -> frozenset[Digest]:
        """What is known to be at a site."""
        return self.present.get(site, _NOTHING)


_NOTHING: frozenset[Digest] = frozenset()


def merge_inventories(inventories: Iterable[Inventory]) -> Inventory:
    """What several targets say, each of which speaks for its own sites."""
    present: dict[Site, frozenset[Digest]] = {}
    absent: dict[Site, frozenset[Digest]] = {}
    tags: dict[tuple[Site, str], Digest | None] = {}
    settled: frozenset[Pair] = frozenset()
    listed: dict[Site, frozenset[tuple[Digest, Digest]]] = {}
    for each in inventories:
        present |= each.present
        absent |= each.absent
        tags |= each.tags
        settled |= each.settled
        listed |= each.listed
    return Inventory(present, absent, tags, settled, listed)


class Plan(msgspec.Struct, frozen=True):
    """Steps in an order that respects their needs; `needs[i]` belongs to `steps[i]`.

    `made`: the manifests of steps that no source has: pruned indexes.
    """

    steps: tuple[Step, ...]
    needs: tuple[tuple[Need, ...], ...]
    reads: dict[Digest, tuple[int, ...]]
    goals: tuple[Goal, ...]
    made: dict[Digest, Manifest] = {}


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


def site_of(reference: Reference) -> Site:
    return Site(reference.host, reference.repository)
