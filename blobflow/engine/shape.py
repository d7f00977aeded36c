"""What an image is at its target: the manifests to put, where only some platforms of it are wanted. Pure.

A shape is made of a root and a choice. Where the choice leaves something out, every index above that is
sparse (kept as it is, some children absent) or pruned (made anew without them). In mode `auto` the kept form
is put first, and each sparse index has its pruned form to fall back on: both are known before anything moves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from blobflow.content import Site
from blobflow.engine.plan import Graph, Pair, Shape, site_of
from blobflow.errors import BlobflowError, NotFound, UnsupportedContent
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, Manifest, Platform, Reference
from blobflow.oci.choice import Choice, attests, chosen, pruned
from blobflow.oci.convert import converted


def shape_of(graph: Graph, root: Descriptor, choice: Choice, *, prune: bool) -> Shape:
    """The shape of `root` under a choice; `prune`: in mode `auto`, take the pruned form at once.

    Raises NotFound where the choice leaves nothing: the sentence says what there is.
    """
    if root.digest not in graph.manifests:
        return Shape(root)
    return _Shaper(graph, choice).shape(root, prune=prune or choice.index == "prune" or bool(choice.format))


class _Shaper:
    def __init__(self, graph: Graph, choice: Choice) -> None:
        self._graph = graph
        self._choice = choice
        self._kept: dict[Digest, tuple[Descriptor, ...]] = {}
        self._pruned: dict[Digest, Manifest] = {}
        self._lacking: list[Digest] = []

    def shape(self, root: Descriptor, *, prune: bool) -> Shape:
        manifest = self._graph.manifests[root.digest]
        if self._choice.index == "only" and manifest.is_index:
            sparse = frozenset({root.digest}) if manifest.manifests else frozenset[Digest]()
            return Shape(manifest.descriptor, (manifest,), sparse)
        if not self._has(root.digest):
            raise NotFound(f"there is no {self._wanted()} here; there is {self._offered(manifest)}", status=0)
        order = self._order(root.digest)
        platforms = tuple(dict.fromkeys(filter(None, map(str, self._platforms(order)))))
        lacking = tuple(dict.fromkeys(self._lacking))
        if prune:
            made = {each.descriptor.digest: self._form(each.descriptor.digest) for each in order}
            replaced = tuple(old for old, form in made.items() if form.descriptor.digest != old)
            return Shape(
                made[root.digest].descriptor,
                tuple(made.values()),
                platforms=platforms,
                replaced=replaced,
                lacking=lacking,
            )
        sparse = frozenset(
            each.descriptor.digest for each in order if self._form(each.descriptor.digest) is not each
        )
        fallbacks = {digest: self._form(digest) for digest in sparse if self._choice.index == "auto"}
        return Shape(manifest.descriptor, tuple(order), sparse, fallbacks, platforms, lacking=lacking)

    def _children(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The chosen children of a manifest."""
        if digest not in self._kept:
            manifest = self._graph.manifests[digest]
            self._kept[digest] = ()  # an index can't contain itself, and one that says so gets no further
            if manifest.is_index:
                self._kept[digest] = self._held(chosen(manifest, self._choice, self._known, self._has))
        return self._kept[digest]

    def _held(self, children: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
        """The children that were read; of those that are lacking (see `read_graph`) no attestation either."""
        wanted = list(children)
        gone = {child.digest for child in wanted if child.digest not in self._graph.manifests}
        self._lacking += (child.digest for child in wanted if child.digest in gone)
        return tuple(child for child in wanted if child.digest not in gone and attests(child) not in gone)

    def _known(self, child: Descriptor) -> Platform | None:
        return self._graph.platforms.get(child.digest)

    def _has(self, digest: Digest) -> bool:
        """Whether anything below, or the manifest itself, is chosen."""
        manifest = self._graph.manifests.get(digest)
        if manifest is None:
            return False
        if not manifest.is_index:
            return self._choice.wants(self._graph.platforms.get(digest))
        return bool(self._children(digest)) or not self._choice.platforms

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
            whole = len(kept) == len(manifest.manifests) and not replaced
            if self._choice.format:
                read = self._graph.whole(digest)
                fitting = read if whole else pruned(read, kept, {})
                made = converted(fitting, self._choice.format, replaced)
                self._pruned[digest] = manifest if made is read else made
            elif whole:
                self._pruned[digest] = manifest
            else:
                self._pruned[digest] = pruned(self._graph.whole(digest), kept, replaced)
        return self._pruned[digest]

    def _platforms(self, manifests: Iterable[Manifest]) -> Iterable[Platform]:
        for manifest in manifests:
            for child in self._children(manifest.descriptor.digest):
                platform = child.platform or self._known(child)
                if platform is not None and not attests(child):
                    yield platform
            if not manifest.is_index and manifest.descriptor.digest in self._graph.platforms:
                yield self._graph.platforms[manifest.descriptor.digest]

    def _wanted(self) -> str:
        return " or ".join(map(str, self._choice.platforms))

    def _offered(self, manifest: Manifest) -> str:
        own = self._graph.platforms.get(manifest.descriptor.digest)
        there = (
            [str(own)]
            if own
            else [str(c.platform) for c in manifest.manifests if c.platform and not attests(c)]
        )
        return ", ".join(dict.fromkeys(there)) or "none that says what it runs on"


class Shapes(msgspec.Struct, frozen=True):
    """The shape of every pair, and why some have none."""

    of: dict[Pair, Shape]
    failures: dict[Pair, BlobflowError]


def shape_pairs(
    pairs: Iterable[Pair],
    graph: Graph,
    tags: Mapping[tuple[Site, str], Digest | None],
    current: Collection[Pair] = (),
    refuses_sparse: Callable[[str], bool] = lambda host: False,
) -> Shapes:
    """Decide each pair's shape.

    In mode `auto` the pruned form is taken where the target's tag names it already, or the target's registry
    is known to refuse sparse indexes. Where a target is known to have it all (`current`), its shape is what
    its tag names, and nothing below that: the graph need not have it.
    """
    made: dict[tuple[Digest, Choice, bool], Shape] = {}
    shapes: dict[Pair, Shape] = {}
    failures: dict[Pair, BlobflowError] = {}

    def shape(root: Descriptor, choice: Choice, *, prune: bool) -> Shape:
        key = (root.digest, choice, prune)
        if key not in made:
            made[key] = shape_of(graph, root, choice, prune=prune)
        return made[key]

    for pair in pairs:
        root, choice = graph.roots[pair.source], pair.choice
        named = tags.get((site_of(pair.target), pair.target.tag))
        if pair in current:
            found = named or root.digest
            other = Descriptor(root.media_type, found, UNKNOWN_SIZE)
            shapes[pair] = Shape(root if found == root.digest else other)
            continue
        try:
            prune = choice.index == "auto" and bool(choice.platforms) and root.digest in graph.manifests
            if prune and not refuses_sparse(pair.target.host):
                prune = named is not None and named == shape(root, choice, prune=True).root.digest
            shapes[pair] = shape(root, choice, prune=prune)
        except NotFound as error:
            failures[pair] = NotFound(f"{pair.source}: {error.message}", status=0)
            failures[pair].side = "source"
        except UnsupportedContent as error:
            failures[pair] = UnsupportedContent(f"{pair.source}: {error.message}", side="source")
    return Shapes(shapes, failures)


def choices_of(pairs: Iterable[Pair]) -> dict[Reference, list[Choice]]:
    """What is wanted of each source."""
    choices: dict[Reference, list[Choice]] = {}
    for pair in pairs:
        choices.setdefault(pair.source, []).append(pair.choice)
    return {source: sorted(set(wanted)) for source, wanted in choices.items()}
