"""The planner: from pairs, their desired images, the graph and the inventory to a plan. A pure function.

Homes
-----

Within one target registry a missing blob goes to its *home*, the least site that needs it, and is mounted
from there into the others. If the inventory knows a site of the registry that already has it, the least such
site is the origin and nothing is copied. If it knows one that had it in an earlier run, the home mounts it
from there: should the registry refuse, that is one request, and the others mount from the home all the same.

Mounts so go one way. Where a registry mounts only what a manifest of the origin names, sites are planned in
their order, and a mount comes after the first manifest of its origin that names the blob.

Backups
-------

Where the inventory says that what a tag names is to be kept, it is put under its other tag before the Put
that overwrites the tag, which is skipped if that fails.

Attached
--------

A referrer is put after its subject. A tag of cosign's is a tag like any other, written with the manifest that
it names; a manifest with a subject is attached to it last, in one step a subject: where the inventory says
that the target lists it no step is needed, nor where the list itself is mirrored as an image (its tag is the
fallback tag).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from blobflow.content import Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import AttachedReferrer, DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.plan.steps import Attach, Copy, Goal, Mount, Need, NeedKind, Plan, Put, Step
from blobflow.engine.sources.graph import Graph
from blobflow.oci import Descriptor, Digest, Manifest
from blobflow.oci.referrers import fallback_tag, referrer_descriptor

# Characters of a referrer's annotations that are listed. A list of referrers is a manifest of 4 MiB at most.
_MAX_NOTES = 16 * 1024


def make_plan(
    pairs: Iterable[Pair], graph: Graph, inventory: Inventory, desired_images: Mapping[Pair, DesiredImage]
) -> Plan:
    """Decide every step. Pure and deterministic; see the invariants above.

    Every pair has a desired image; pairs that could not be resolved are left out by the caller.
    """
    return _Planner(sorted(set(pairs)), graph, inventory, desired_images).plan()


def _site_where(pair: Pair, registries: Collection[str]) -> Site:
    """The pair's target where its registry is one of these, else one that is the same for all."""
    return site_of(pair.target) if pair.target.host in registries else Site("", "")


class _Planner:
    def __init__(
        self,
        pairs: Sequence[Pair],
        graph: Graph,
        inventory: Inventory,
        desired_images: Mapping[Pair, DesiredImage],
    ) -> None:
        self._pairs = pairs
        self._graph = graph
        self._inventory = inventory
        self._desired_images = desired_images
        self._steps: list[Step] = []
        self._needs: list[tuple[Need, ...]] = []
        self._reads: dict[Digest, tuple[int, ...]] = {}
        self._made: dict[Digest, Manifest] = {}
        self._blob_steps: defaultdict[Site, dict[Digest, int]] = defaultdict(dict)
        self._put_steps: dict[tuple[Site, Digest], int] = {}
        self._attach_steps: dict[Attach, int] = {}
        self._naming_steps: dict[tuple[Site, Digest], int] = {}  # blobs, and the first Put that names each
        self._subjects = self._find_subjects()
        self._aimed = {(site_of(pair.target), pair.target.tag) for pair in pairs}
        self._tags = self._wanted_tags()
        self._homes = self._choose_homes()

    def plan(self) -> Plan:
        goals = {pair: self._goal(pair) for pair in self._in_order()}
        return Plan(
            steps=tuple(self._steps),
            needs=tuple(self._needs),
            reads=self._reads,
            goals=tuple(goals[pair] for pair in self._pairs),
            made=self._made,
        )

    def _in_order(self) -> Sequence[Pair]:
        """The pairs, so that homes come before what is mounted from them where their manifests must."""
        named = self._inventory.mounts_named
        if not named:
            return self._pairs
        return sorted(self._pairs, key=lambda p: (p.target.host in named, _site_where(p, named)))

    def _root(self, pair: Pair) -> Descriptor:
        return self._desired_images[pair].root

    def _wanted_tags(self) -> dict[tuple[Site, Digest], tuple[str, ...]]:
        """Tags that are still to be written, by the site and the root that they should name."""
        wanted: dict[tuple[Site, Digest], set[str]] = {}
        for pair in self._pairs:
            site, tag, root = site_of(pair.target), pair.target.tag, self._root(pair).digest
            named = [(tag, root)] if tag else []
            named += [
                (a.referrer.tag, a.referrer.manifest.digest) for a in self._desired_images[pair].attached
            ]
            for tag, digest in named:
                if tag and self._inventory.tags.get((site, tag)) != digest:
                    wanted.setdefault((site, digest), set()).add(tag)
        return {key: tuple(sorted(tags)) for key, tags in wanted.items()}

    def _find_subjects(self) -> dict[tuple[Site, Digest], set[Digest]]:
        """The subjects of each attached manifest, over all pairs of a site."""
        subjects: dict[tuple[Site, Digest], set[Digest]] = {}
        for pair in self._pairs:
            for each in self._desired_images[pair].attached:
                key = (site_of(pair.target), each.manifest.descriptor.digest)
                subjects.setdefault(key, set()).add(each.referrer.subject)
        return subjects

    def _missing(self, pair: Pair, manifests: Iterable[Manifest]) -> Iterable[Manifest]:
        """Those of a pair's manifests that its target lacks."""
        if pair in self._inventory.settled:
            return ()
        site = site_of(pair.target)
        return (m for m in manifests if not self._inventory.has(site, m.descriptor.digest))

    def _choose_homes(self) -> Mapping[str, Mapping[Digest, tuple[Site, bool]]]:
        """For each blob wanted at a registry: its home or origin, and whether that one has it already."""
        everywhere = self._holders()
        for pair in self._pairs:
            site = site_of(pair.target)
            homes, mine = everywhere[site.registry], (site, False)
            for manifest in self._missing(pair, self._desired_images[pair].everything):
                for blob in manifest.blobs:
                    home, held = homes.setdefault(blob.digest, mine)
                    if not held and site < home:
                        homes[blob.digest] = mine
        return everywhere

    def _holders(self) -> dict[str, dict[Digest, tuple[Site, bool]]]:
        """The least site of each target registry that is known to hold each blob.

        A source repository at the same registry is one too: what is there need not be uploaded again.
        """
        everywhere: dict[str, dict[Digest, tuple[Site, bool]]] = {
            pair.target.host: {} for pair in self._pairs
        }
        found = [(site, digest) for site, digests in self._inventory.present.items() for digest in digests]
        origins = self._graph.origins.items()
        found += [
            (site, digest) for digest, sites in origins for site in sites if site.registry in everywhere
        ]
        for site, digest in found:
            held = everywhere.get(site.registry)
            if held is not None and (digest not in held or site < held[digest][0]):
                held[digest] = (site, True)
        return everywhere

    def _goal(self, pair: Pair) -> Goal:
        site, root, desired = site_of(pair.target), self._root(pair), self._desired_images[pair]
        steps = [self._put(site, manifest, desired) for manifest in self._missing(pair, desired.manifests)]
        if not self._inventory.has(site, root.digest) or (site, root.digest) in self._tags:
            steps = [self._tag_root(site, root, desired)]
        steps += self._hang(pair, desired)
        return Goal(pair, root, tuple(dict.fromkeys(steps)))

    def _hang(self, pair: Pair, desired: DesiredImage) -> Iterable[int]:
        """The steps that put an image's referrers and attach them."""
        site = site_of(pair.target)
        unlisted: dict[Digest, list[Manifest]] = {}
        for each in desired.attached:
            digest = each.manifest.descriptor.digest
            for manifest in self._missing(pair, each.manifests):
                after = self._after_subject(site, each) if manifest is each.manifest else ()
                number = self._put(site, manifest, desired, after)
                if manifest is each.manifest:
                    yield number
            if self._inventory.has(site, digest) and (site, digest) in self._tags:
                if (site, digest) not in self._put_steps:
                    after = self._after_subject(site, each)
                    self._emit_put(site, each.manifest.descriptor, desired, after)
                yield self._put_steps[site, digest]
        for each in (*desired.attached, *desired.referring):
            digest, subject = each.manifest.descriptor.digest, each.referrer.subject
            listed = (subject, digest) in self._inventory.listed.get(site, ())
            if not each.referrer.tag and not listed:
                unlisted.setdefault(subject, []).append(each.manifest)
        for subject, manifests in unlisted.items():
            if (site, fallback_tag(subject)) not in self._aimed:
                yield self._attach(site, subject, manifests)

    def _after_subject(self, site: Site, each: AttachedReferrer) -> Sequence[Need]:
        """The need of a referrer on its subject's Put. One that has several subjects needs none of them, so
        that no image fails because of another."""
        subjects = self._subjects[site, each.manifest.descriptor.digest]
        number = self._put_steps.get((site, each.referrer.subject))
        return [Need(number, NeedKind.UNLESS_REPLACED)] if number is not None and len(subjects) == 1 else []

    def _attach(self, site: Site, subject: Digest, manifests: Iterable[Manifest]) -> int:
        mentions = sorted(map(self._mention, manifests), key=lambda mention: mention.digest)
        step = Attach(subject, tuple(mentions), site)
        if step not in self._attach_steps:
            puts = {self._put_steps.get((site, mention.digest)) for mention in mentions} - {None}
            needs = {Need(number) for number in puts if number is not None}
            if (site, subject) in self._put_steps:
                needs.add(Need(self._put_steps[site, subject], NeedKind.UNLESS_REPLACED))
            self._attach_steps[step] = self._emit(step, sorted(needs))
        return self._attach_steps[step]

    def _mention(self, manifest: Manifest) -> Descriptor:
        """A referrer's descriptor in a list of referrers; without annotations where these are too long for
        any list."""
        if manifest.raw:
            return referrer_descriptor(manifest)
        whole = referrer_descriptor(self._graph.whole(manifest.descriptor.digest))
        notes = sum(len(key) + len(value) for key, value in (whole.annotations or {}).items())
        return whole if notes <= _MAX_NOTES else referrer_descriptor(manifest)

    def _tag_root(self, site: Site, root: Descriptor, desired: DesiredImage) -> int:
        """The Put of a root: already emitted with its tags if it was missing, else only its tags."""
        if (site, root.digest) in self._put_steps:
            return self._put_steps[site, root.digest]
        waits = {self._put_steps.get((site, m.descriptor.digest)) for m in desired.manifests} - {None}
        for manifest in desired.manifests:
            if manifest.descriptor.digest == root.digest:
                self._note_made(manifest)
        return self._emit_put(site, root, desired, [Need(number) for number in waits if number is not None])

    def _put(self, site: Site, manifest: Manifest, desired: DesiredImage, after: Iterable[Need] = ()) -> int:
        """The Put of a manifest, with the steps that bring its blobs."""
        key = (site, manifest.descriptor.digest)
        if key not in self._put_steps:
            hard = [number for number in self._bring(site, manifest.blobs) if number is not None]
            for child in manifest.manifests:
                number = self._put_steps.get((site, child.digest))
                if number is not None:
                    hard.append(number)
            self._note_made(manifest)
            number = self._emit_put(site, manifest.descriptor, desired, [*map(Need, hard), *after])
            if site.registry in self._inventory.mounts_named:
                for blob in manifest.blobs:
                    self._naming_steps.setdefault((site, blob.digest), number)
        return self._put_steps[key]

    def _note_made(self, manifest: Manifest) -> None:
        """Keep the manifest of a Put that no source has."""
        if manifest.descriptor.digest not in self._graph.manifests:
            self._made[manifest.descriptor.digest] = manifest

    def _emit_put(
        self, site: Site, manifest: Descriptor, desired: DesiredImage, needs: Iterable[Need]
    ) -> int:
        fallback = desired.fallbacks.get(manifest.digest)
        if fallback is not None:
            self._made[fallback.descriptor.digest] = fallback
        step = Put(
            manifest,
            site,
            self._tags.get((site, manifest.digest), ()),
            fallback.descriptor if fallback is not None else None,
            manifest.digest in desired.sparse,
        )
        kept = (self._inventory.backups.get((site, tag)) for tag in step.tags)
        needs = {*needs, *(Need(self._emit(backup, ())) for backup in kept if backup is not None)}
        self._put_steps[site, manifest.digest] = self._emit(step, sorted(needs))
        return self._put_steps[site, manifest.digest]

    def _bring(self, site: Site, blobs: Iterable[Descriptor]) -> Iterator[int | None]:
        """The step that brings each blob to a site; None for one that is there."""
        there = self._inventory.at(site)
        steps, homes = self._blob_steps[site], self._homes[site.registry]
        for blob in blobs:
            digest = blob.digest
            number = steps.get(digest)
            if number is None and digest not in there:
                home, held = homes[digest]
                if home != site:
                    number = steps[digest] = self._mount(blob, home, site, held=held)
                elif not held:
                    number = steps[digest] = self._bring_home(blob, site)
            yield number

    def _bring_home(self, blob: Descriptor, site: Site) -> int:
        """The step that brings a blob to the first site of its registry that will have it."""
        digest, source = blob.digest, min(self._graph.origins[blob.digest])
        for origin in self._inventory.remembered.get(site, {}).get(digest, ()):
            if origin != site and digest not in self._inventory.absent.get(origin, ()):
                return self._emit(Mount(blob, origin, site, source, remembered=True), ())
        number = self._emit(Copy(blob, source, site), ())
        self._reads[digest] = (*self._reads.get(digest, ()), number)
        return number

    def _mount(self, blob: Descriptor, home: Site, site: Site, *, held: bool) -> int:
        (brought,) = (None,) if held else self._bring(home, (blob,))
        needs = [] if brought is None else [Need(brought, NeedKind.FINISHED)]
        if (home, blob.digest) in self._naming_steps:
            needs.append(Need(self._naming_steps[home, blob.digest], NeedKind.AFTER))
        return self._emit(Mount(blob, home, site, min(self._graph.origins[blob.digest])), needs)

    def _emit(self, step: Step, needs: Sequence[Need]) -> int:
        self._steps.append(step)
        self._needs.append(tuple(needs))
        return len(self._steps) - 1
