"""Desired images: the manifests that a pair wants at its target, where only some platforms are wanted. Pure.

A desired image is made of a root and a choice. Where the choice leaves something out, every index above that
is sparse (kept as it is, some children absent) or pruned (made anew without them). In mode `auto` the sparse
form is put first, and each sparse index has its pruned form as fallback: both are known before anything
moves.
An index that lists one digest for several platforms loses nothing by a choice of one of them: only `prune`
takes the other entries out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from blobflow.content import Referrer, Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.referrers import SkippedReferrer
from blobflow.errors import BlobflowError, NoSuchPlatform, UnsupportedContent
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, Manifest, Platform, Reference
from blobflow.oci.docker_conversion import convert_manifest
from blobflow.oci.manifest import children
from blobflow.oci.platform_choice import (
    Match,
    PlatformChoice,
    attested_digest,
    chosen,
    combine_matches,
    declared_platform,
    entries,
    prune_index,
)
from blobflow.signatures.contract import Verdict


class AttachedReferrer(msgspec.Struct, frozen=True, gc=False):
    """A referrer of one of an image's manifests, or of another referrer: with all manifests below it,
    children first and itself last."""

    referrer: Referrer
    manifests: tuple[Manifest, ...]

    @property
    def manifest(self) -> Manifest:
        return self.manifests[-1]


class DesiredImage(msgspec.Struct, frozen=True):
    """What a pair's target should have.

    `root` is what the target's tag should name. `manifests`: each once, children before parents, the root
    last; none where the graph was not read, because the target is known to have it all. `sparse`: the
    digests of the indexes that lack children here; `fallbacks`: their pruned forms, by the digest of the
    sparse one, where they may be put instead. `platforms` of the images that are here. `replaced`: the source
    manifests that rebuilt ones stand in for. `lacking`: wanted children that the source, a layout or archive
    of a part of an index, does not have. `attached` and `left`: the referrers that are mirrored and those
    that are skipped, subjects first, as far as they were looked up. `referring`: those of `manifests` that
    have a subject themselves, and must be listed for it. `verdicts`: why a signature policy accepts it, if
    there is one.
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
    verdicts: tuple[Verdict, ...] = ()

    @property
    def images(self) -> frozenset[Digest]:
        """The image manifests, which are the same in every form of the indexes above them."""
        return frozenset(each.descriptor.digest for each in self.manifests if not each.is_index)

    @property
    def everything(self) -> tuple[Manifest, ...]:
        """All manifests that the target should have, each once: the image's, then the attached ones."""
        found = {manifest.descriptor.digest: manifest for manifest in self.manifests}
        for each in self.attached:
            for manifest in each.manifests:
                found.setdefault(manifest.descriptor.digest, manifest)
        return tuple(found.values())


def build_desired_image(
    graph: Graph, root: Descriptor, choice: PlatformChoice, *, prune: bool
) -> DesiredImage:
    """The desired image of `root` under a choice; `prune`: in mode `auto`, take the pruned form at once.

    Raises NoSuchPlatform where the choice leaves nothing: the message lists the platforms that there are.
    """
    if root.digest not in graph.manifests:
        return DesiredImage(root)
    return _Builder(graph, choice).desired(
        root, prune=prune or choice.index == "prune" or bool(choice.format)
    )


class _Builder:
    def __init__(self, graph: Graph, choice: PlatformChoice) -> None:
        self._graph = graph
        self._choice = choice
        self._matches: dict[Digest, Match] = {}
        self._kept: dict[Digest, tuple[Descriptor, ...]] = {}
        self._lacking: dict[Digest, bool] = {}
        self._pruned: dict[Digest, Manifest] = {}
        self._gone: list[Digest] = []

    def desired(self, root: Descriptor, *, prune: bool) -> DesiredImage:
        manifest = self._graph.manifests[root.digest]
        if self._choice.index == "only" and manifest.is_index:
            sparse = frozenset({root.digest}) if children(manifest) else frozenset[Digest]()
            alone = msgspec.structs.replace(manifest, layers=())
            return DesiredImage(manifest.descriptor, (alone,), sparse)
        if self._match_entry(root) == "other":
            raise NoSuchPlatform(f"there is no {self._wanted()} here; there is {self._offered(root.digest)}")
        order = self._order(root.digest)
        platforms = tuple(dict.fromkeys(map(str, self._platforms(order))))
        lacking = tuple(dict.fromkeys(self._gone))
        if prune:
            made = {each.descriptor.digest: self._form(each.descriptor.digest) for each in order}
            replaced = tuple(old for old, form in made.items() if form.descriptor.digest != old)
            return DesiredImage(
                made[root.digest].descriptor,
                tuple(made.values()),
                platforms=platforms,
                replaced=replaced,
                lacking=lacking,
            )
        sparse = frozenset(each.descriptor.digest for each in order if self._lacks(each.descriptor.digest))
        fallbacks = {digest: self._form(digest) for digest in sparse if self._choice.index == "auto"}
        return DesiredImage(manifest.descriptor, tuple(order), sparse, fallbacks, platforms, lacking=lacking)

    def _match(self, digest: Digest) -> Match:
        """How the choice matches a manifest, by its own platform or by what is below it."""
        if digest not in self._matches:
            self._matches[digest] = "other"  # an index that claims to contain itself matches nothing
            manifest = self._graph.manifests.get(digest)
            if manifest is not None and manifest.is_index:
                self._matches[digest] = combine_matches(map(self._match_entry, entries(manifest)))
            elif manifest is not None:
                self._matches[digest] = self._choice.match(self._graph.platforms.get(digest))
        return self._matches[digest]

    def _match_entry(self, child: Descriptor) -> Match:
        """How the choice matches an entry of an index: by its `platform` there, else by the manifest."""
        if not self._choice.platforms:
            return "chosen"
        told, read = declared_platform(child), self._graph.manifests.get(child.digest)
        nested = read is not None and read.is_index
        if told is not None and not (nested and self._choice.wants(told)):
            return self._choice.match(told)
        return self._match(child.digest)

    def _children(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The chosen entries of a manifest."""
        if digest not in self._kept:
            manifest = self._graph.manifests[digest]
            self._kept[digest] = ()
            if manifest.is_index:
                whole = self._choice.whole
                wanted = manifest.manifests if whole else chosen(manifest, self._choice, self._match_entry)
                self._kept[digest] = self._held(wanted)
        return self._kept[digest]

    def _held(self, wanted: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
        """The children that were read, without attestations of those that are lacking (see `read_graph`)."""
        gone = {child.digest for child in wanted if child.digest not in self._graph.manifests}
        self._gone += (child.digest for child in wanted if child.digest in gone)
        return tuple(
            child for child in wanted if child.digest not in gone and attested_digest(child) not in gone
        )

    def _lacks(self, digest: Digest) -> bool:
        """Whether the choice leaves out anything below an index."""
        if self._choice.whole and not self._gone:
            return False
        if digest not in self._lacking:
            self._lacking[digest] = False
            kept = {child.digest for child in self._children(digest)}
            listed = {child.digest for child in self._graph.manifests[digest].manifests}
            self._lacking[digest] = listed != kept or any(map(self._lacks, kept))
        return self._lacking[digest]

    def _order(self, root: Digest) -> list[Manifest]:
        order: dict[Digest, Manifest] = {}

        def visit(digest: Digest) -> None:
            if digest not in order:
                for child in self._children(digest):
                    visit(child.digest)
                order[digest] = self._graph.manifests[digest]

        visit(root)
        return list(order.values())

    def _form(self, digest: Digest) -> Manifest:
        """The pruned form; the manifest itself where nothing below it is left out."""
        if digest not in self._pruned:
            manifest, kept = self._graph.manifests[digest], self._children(digest)
            forms = {child.digest: self._form(child.digest) for child in kept}
            replaced = {old: form.descriptor for old, form in forms.items() if form.descriptor.digest != old}
            uncut = len(kept) == len(manifest.manifests)
            uncut = uncut or (self._choice.index != "prune" and not self._lacks(digest))
            if self._choice.format:
                read = self._graph.whole(digest)
                fitting = read if uncut and not replaced else prune_index(read, kept, {})
                made = convert_manifest(fitting, self._choice.format, replaced)
                self._pruned[digest] = manifest if made is read else made
            elif uncut and not replaced:
                self._pruned[digest] = manifest
            else:
                self._pruned[digest] = prune_index(self._graph.whole(digest), kept, replaced)
        return self._pruned[digest]

    def _platforms(self, manifests: Iterable[Manifest]) -> Iterable[Platform]:
        """The platforms of the chosen images, where they are known."""
        for manifest in manifests:
            for child in self._children(manifest.descriptor.digest):
                platform = declared_platform(child) or self._graph.platforms.get(child.digest)
                if platform is not None and not attested_digest(child):
                    yield platform
            if not manifest.is_index and manifest.descriptor.digest in self._graph.platforms:
                yield self._graph.platforms[manifest.descriptor.digest]

    def _wanted(self) -> str:
        return " or ".join(map(str, self._choice.platforms))

    def _offered(self, root: Digest) -> str:
        """The platforms of all images that were read, and of those that an index names."""
        there: dict[str, None] = {}
        for manifest in self._graph.closure(root):
            own = self._graph.platforms.get(manifest.descriptor.digest)
            told = map(declared_platform, entries(manifest))
            there |= dict.fromkeys(str(platform) for platform in (own, *told) if platform is not None)
        return ", ".join(there) or "nothing that says what it runs on"


class DesiredImages(msgspec.Struct, frozen=True):
    """The desired image of every pair, and why some have none. `skipped`: pairs that may lack the wanted
    platforms, and do."""

    by_pair: dict[Pair, DesiredImage]
    failures: dict[Pair, BlobflowError]
    skipped: dict[Pair, NoSuchPlatform] = {}


def build_desired_images(
    pairs: Iterable[Pair],
    graph: Graph,
    tags: Mapping[tuple[Site, str], Digest | None],
    current: Collection[Pair] = (),
    refuses_sparse: Callable[[str], bool] = lambda host: False,
    known_platforms: Callable[[Pair, Digest], tuple[str, ...]] = lambda pair, root: (),
) -> DesiredImages:
    """Decide the desired image of each pair.

    In mode `auto` the pruned form is taken where the target's tag names it already, or the target's registry
    is known to refuse sparse indexes. Where a target is known to have it all (`current`), its image is just
    the root that its tag names, with its `known_platforms`: the graph need not have it.
    """
    made: dict[tuple[Digest, PlatformChoice, bool], DesiredImage] = {}
    desired_images: dict[Pair, DesiredImage] = {}
    failures: dict[Pair, BlobflowError] = {}
    skipped: dict[Pair, NoSuchPlatform] = {}

    def desired(root: Descriptor, choice: PlatformChoice, *, prune: bool) -> DesiredImage:
        key = (root.digest, choice, prune)
        if key not in made:
            made[key] = build_desired_image(graph, root, choice, prune=prune)
        return made[key]

    for pair in pairs:
        root, choice = graph.roots[pair.source], pair.choice
        named = tags.get((site_of(pair.target), pair.target.tag))
        if pair in current:
            found = named or root.digest
            other = Descriptor(root.media_type, found, UNKNOWN_SIZE)
            platforms = known_platforms(pair, found)
            desired_images[pair] = DesiredImage(root if found == root.digest else other, platforms=platforms)
            continue
        try:
            prune = choice.index == "auto" and bool(choice.platforms) and root.digest in graph.manifests
            if prune and not refuses_sparse(pair.target.host):
                prune = named is not None and named == desired(root, choice, prune=True).root.digest
            desired_images[pair] = desired(root, choice, prune=prune)
        except NoSuchPlatform as error:
            if pair.missing_platform == "skip":
                skipped[pair] = error
            else:
                failures[pair] = NoSuchPlatform(f"{pair.source}: {error.message}", side="source")
        except UnsupportedContent as error:
            failures[pair] = UnsupportedContent(f"{pair.source}: {error.message}", side="source")
    return DesiredImages(desired_images, failures, skipped)


def choices_of(pairs: Iterable[Pair]) -> dict[Reference, list[PlatformChoice]]:
    """The platform choices that apply to each source."""
    choices: dict[Reference, list[PlatformChoice]] = {}
    for pair in pairs:
        choices.setdefault(pair.source, []).append(pair.choice)
    return {source: sorted(set(wanted)) for source, wanted in choices.items()}
