"""The graph of the sources' manifests. A node is a digest; an edge is how a parent describes a child."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from blobflow.content import Site
from blobflow.engine.sources.blobs_at_hand import BlobsAtHand
from blobflow.engine.sources.manifests import Manifests
from blobflow.oci import Descriptor, Digest, Manifest, Platform, Reference


class Graph(msgspec.Struct, frozen=True):
    """What the sources have: manifests by digest, the root of each source, and where content can be read.

    A graph may be partial: it has no manifest of a root that is known to be complete at all of its targets,
    nor of a child that no pair wants. Where there are many manifests they are lean, see
    `engine.sources.manifests`: `raw` and `whole` return the rest. `platforms`: according to configs, for
    images whose parents did not name one. `blobs`: those that were read already.
    """

    manifests: Mapping[Digest, Manifest]
    roots: dict[Reference, Descriptor]
    origins: dict[Digest, tuple[Site, ...]]
    platforms: dict[Digest, Platform] = {}
    blobs: BlobsAtHand = msgspec.field(default_factory=BlobsAtHand)

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
