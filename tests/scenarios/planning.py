"""What the planner is asked for, drawn by hypothesis or written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from hypothesis import strategies as st

from blobflow.content import Referrer, Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import AttachedReferrer, DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.sources.graph import Graph
from blobflow.oci import Descriptor, Digest, Manifest, Reference, digest_of, media
from blobflow.oci.referrers import cosign_tags


def hang(shape: DesiredImage, attached: Mapping[Digest, Sequence[AttachedReferrer]]) -> DesiredImage:
    found: list[AttachedReferrer] = []
    for manifest in shape.manifests:
        found += attached.get(manifest.descriptor.digest, ())
    for each in found:  # and what refers to that, as it comes up
        found += attached.get(each.manifest.descriptor.digest, ())
    return msgspec.structs.replace(shape, attached=tuple(found))


NOTHING = Inventory(present={}, absent={}, tags={})


def blob(name: str, size: int = 100) -> Descriptor:
    return Descriptor(media_type=media.OCI_LAYER_GZIP, digest=digest_of(name.encode()), size=size)


def image(*layers: str) -> Manifest:
    raw = ("image " + " ".join(layers)).encode()
    descriptor = Descriptor(media_type=media.OCI_MANIFEST, digest=digest_of(raw), size=len(raw))
    return Manifest(descriptor, raw, config=blob(f"config of {layers}", 7), layers=tuple(map(blob, layers)))


def index(*children: Manifest) -> Manifest:
    raw = ("index " + " ".join(child.descriptor.digest for child in children)).encode()
    descriptor = Descriptor(media_type=media.OCI_INDEX, digest=digest_of(raw), size=len(raw))
    return Manifest(descriptor, raw, manifests=tuple(child.descriptor for child in children))


class World:
    """Builds pairs and their graph."""

    def __init__(self) -> None:
        self.manifests: dict[Digest, Manifest] = {}
        self.roots: dict[Reference, Descriptor] = {}
        self.origins: dict[Digest, set[Site]] = {}
        self.pairs: list[Pair] = []
        self.attached: dict[Digest, list[AttachedReferrer]] = {}

    def refer(self, subject: Manifest, name: str, tag: str = "") -> AttachedReferrer:
        """A referrer of a manifest, at every site of the source that has that; by its tag, if it has one."""
        digest = subject.descriptor.digest
        manifest = image(f"{name} of {digest}")
        for each in [manifest.descriptor.digest, *(b.digest for b in manifest.blobs)]:
            self.origins.setdefault(each, set()).update(self.origins[digest])
        self.manifests[manifest.descriptor.digest] = manifest
        referrer = Referrer(manifest.descriptor, digest, "cosign" if tag else "api", tag)
        attached = AttachedReferrer(referrer, (manifest,))
        self.attached.setdefault(digest, []).append(attached)
        return attached

    def want(
        self, source: str, targets: list[str], root: Manifest, children: tuple[Manifest, ...] = ()
    ) -> None:
        repository, _, tag = source.partition(":")
        reference = Reference("source", repository, tag)
        self.roots[reference] = root.descriptor
        for manifest in (root, *children):
            self.manifests[manifest.descriptor.digest] = manifest
            for digest in [manifest.descriptor.digest, *(b.digest for b in manifest.blobs)]:
                self.origins.setdefault(digest, set()).add(site_of(reference))
        for target in targets:
            self.pairs.append(Pair(reference, Reference(target, repository, tag)))

    @property
    def graph(self) -> Graph:
        return Graph(self.manifests, self.roots, {d: tuple(sorted(s)) for d, s in self.origins.items()})


layers = st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=4).map(tuple)
images = st.lists(
    st.tuples(
        st.sampled_from(["app/a", "app/b", "lib/c", "lib/d"]),
        st.sampled_from(["1", "2", "latest"]),
        st.lists(layers, min_size=1, max_size=3, unique=True),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda item: item[:2],
)
Wanted = list[tuple[str, str, list[tuple[str, ...]], bool]]
hosts = st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=3, unique=True)


def build(wanted: Wanted, targets: list[str]) -> World:
    world = World()
    for repository, tag, variants, single in wanted:
        children = tuple(image(*variant) for variant in variants)
        if single:
            world.want(f"{repository}:{tag}", targets, children[0])
        else:
            world.want(f"{repository}:{tag}", targets, index(*children), children)
    return world


@st.composite
def referrers(draw: st.DrawFn, world: World) -> None:
    """Hang something on some of the manifests, and on some of that."""
    subjects = sorted(world.manifests.values(), key=lambda manifest: manifest.descriptor.digest)
    for subject in subjects:
        for number in range(draw(st.integers(0, 2))):
            digest = subject.descriptor.digest
            tag = draw(st.sampled_from(["", cosign_tags(digest)[number]]))
            attached = world.refer(subject, f"signature {number}", tag)
            if draw(st.booleans()):
                world.refer(attached.manifest, "counter-signature")


@st.composite
def inventories(draw: st.DrawFn, world: World) -> Inventory:
    """What an earlier, perhaps broken run may have left: any blobs, and manifests only with what is below."""
    present: dict[Site, set[Digest]] = {}
    listed: dict[Site, set[tuple[Digest, Digest]]] = {}
    tags: dict[tuple[Site, str], Digest | None] = {}
    for pair in world.pairs:
        site = site_of(pair.target)
        here = present.setdefault(site, set())
        for manifest in world.graph.closure(world.roots[pair.source].digest):
            kept = [b.digest for b in manifest.blobs if draw(st.booleans())]
            here.update(kept)
            if not manifest.is_index and draw(st.integers(0, 3)) == 0:
                here.update(b.digest for b in manifest.blobs)
                here.add(manifest.descriptor.digest)
    for site, here in present.items():
        for subject, attached in world.attached.items():
            for each in attached:
                if draw(st.integers(0, 3)) == 0:
                    here.update(b.digest for b in each.manifest.blobs)
                    here.add(each.manifest.descriptor.digest)
                if draw(st.integers(0, 3)) == 0 and not each.referrer.tag:
                    listed.setdefault(site, set()).add((subject, each.manifest.descriptor.digest))
    known = {s: frozenset(pairs) for s, pairs in listed.items()}
    return Inventory({s: frozenset(d) for s, d in present.items()}, {}, tags, frozenset(), known)
