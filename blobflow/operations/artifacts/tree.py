"""The tree of what hangs on an image: on its index, on the manifests in it, and on what hangs there in turn.

What refers to what is found as a mirror finds it (`engine.sources.referrers`): each manifest is asked about
once, as deep as mirrors look, and a listed manifest counts if its own `subject` says the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from blobflow.content import Referrer, Refers, Site
from blobflow.engine.concurrency.bounded_runner import MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.engine.services import Services
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.engine.sources.referrers import FoundReferrers, ReferrerLookups, find_referrers
from blobflow.errors import UnsupportedContent, error_side
from blobflow.oci import Descriptor, Digest, Manifest, Reference
from blobflow.oci.referrers import artifact_type_of

_CREATED = "org.opencontainers.image.created"


class TreeNode(msgspec.Struct, frozen=True):
    """A manifest, with what is in it and what refers to it.

    `mention`: as its parent or a list of referrers has it. `manifest`: None where it is not there, or can't
    be read; `because` is then a clause that says why, also of what is listed and refers to something else.
    `referrer`: how it was found; None for the image itself and what is in it. `shown`: what hangs on it
    stands elsewhere in the tree.
    """

    mention: Descriptor
    manifest: Manifest | None = None
    referrer: Referrer | None = None
    because: str = ""
    shown: bool = False
    manifests: tuple[TreeNode, ...] = ()
    referrers: tuple[TreeNode, ...] = ()

    @property
    def artifact_type(self) -> str:
        """What kind of thing it is; as it is listed, where it can't be read."""
        return artifact_type_of(self.manifest) if self.manifest else self.mention.artifact_type or ""

    @property
    def created(self) -> str:
        """When it was made, as its annotation says; "" without one."""
        return self.manifest.annotations.get(_CREATED, "") if self.manifest else ""

    @property
    def size(self) -> int:
        """Bytes of the manifest and of its blobs, each blob once."""
        blobs = {blob.digest: blob.size for blob in self.manifest.blobs} if self.manifest else {}
        return self.mention.size + sum(blobs.values())

    def walk(self) -> Iterator[TreeNode]:
        """This node and all below it."""
        yield self
        for below in (*self.referrers, *self.manifests):
            yield from below.walk()


class ReferrerTree(msgspec.Struct, frozen=True):
    """What hangs on a reference's manifest, and on what is in it; `artifact_types`: of which types alone, if
    not of all."""

    reference: Reference
    root: TreeNode
    artifact_types: frozenset[str] = frozenset()

    @property
    def referrers(self) -> dict[Digest, TreeNode]:
        """What refers to something in the tree, each manifest once."""
        found: dict[Digest, TreeNode] = {}
        for node in self.root.walk():
            if node.referrer is not None and not node.because:
                found.setdefault(node.mention.digest, node)
        return found


async def referrer_tree(
    services: Services, reference: Reference, *, artifact_types: frozenset[str] = frozenset()
) -> ReferrerTree:
    """Read what hangs on an image. `artifact_types`: leave out others, but for those that these hang on.

    Manifests that a sparse index lacks are asked about nothing. Raises what the place answers, and
    UnsupportedContent for a place that knows of no referrers.
    """
    site = site_of(reference)
    source = services.source_at(site)
    with error_side("source"):
        root = await source.resolve(reference.name)
    if not isinstance(source, Refers):
        raise UnsupportedContent(f"{site} does not tell what refers to an image")
    runner = BoundedRunner(MAX_SMALL_REQUESTS)
    reader = GraphReader(
        services.source_at, manifest_budget=services.manifest_budget, observe=services.observe
    )
    read = await read_graph({reference: root}, services.source_at, runner, sparse=True, reader=reader)
    for error in read.failures.values():
        raise error
    places = [(site, manifest.descriptor.digest) for manifest in read.graph.closure(root.digest)]
    lookups = ReferrerLookups(services.source_at)
    found = await find_referrers(places, read.graph, services.source_at, runner, lookups, reader, advice="")
    for error in found.failures.values():
        raise error
    own = msgspec.structs.replace(root, size=found.graph.manifests[root.digest].descriptor.size)
    tree = _Tree(found, site, frozenset(digest for _, digest in places)).node(own)
    shown = _filtered(tree, artifact_types) if artifact_types else tree
    return ReferrerTree(reference, shown, artifact_types)


class _Tree:
    """Makes nodes of what was found; each manifest has what hangs on it in one place of the tree, and those
    of the image itself, `own`, in the image."""

    def __init__(self, found: FoundReferrers, site: Site, own: frozenset[Digest]) -> None:
        self._found = found
        self._site = site
        self._own = own
        self._met: set[Digest] = set()

    def node(
        self, mention: Descriptor, referrer: Referrer | None = None, *, hanging: bool = False
    ) -> TreeNode:
        """`hanging`: below something that refers to the image."""
        digest = mention.digest
        place = (self._site, digest)
        manifest = self._found.graph.manifests.get(digest)
        if manifest is None:
            error = self._found.unreadable.get(place)
            because = error.message if error else "not there: the index is sparse"
            return TreeNode(mention, None, referrer, because)
        if digest in self._met or (hanging and digest in self._own):
            return TreeNode(mention, manifest, referrer, shown=True)
        self._met.add(digest)
        referring = [
            self.node(each.manifest, each, hanging=True) for each in self._found.referrers.get(place, ())
        ]
        strangers = [
            TreeNode(each.referrer.manifest, None, each.referrer, each.because)
            for each in self._found.strangers.get(place, ())
        ]
        return TreeNode(
            mention,
            manifest,
            referrer,
            manifests=tuple(self.node(child, hanging=hanging) for child in manifest.manifests),
            referrers=tuple(sorted((*referring, *strangers), key=lambda each: each.artifact_type)),
        )


def _filtered(node: TreeNode, artifact_types: frozenset[str]) -> TreeNode:
    """The node without referrers of other types, but for those that wanted ones hang on."""
    below = (_filtered(each, artifact_types) for each in node.referrers)
    kept = (each for each in below if each.artifact_type in artifact_types or each.referrers)
    return msgspec.structs.replace(
        node,
        referrers=tuple(kept),
        manifests=tuple(_filtered(each, artifact_types) for each in node.manifests),
    )
