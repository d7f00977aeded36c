"""Graphs of many images, made without a registry: for what is done once a step."""

from __future__ import annotations

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.sources.graph import Graph
from blobflow.oci import Descriptor, Digest, Manifest, Reference, digest_of, media

PLATFORMS = 4
LAYERS = 8
NOTHING = Inventory(present={}, absent={}, tags={})


def synthetic(images: int) -> tuple[list[Pair], Graph]:
    """Images of PLATFORMS x LAYERS layers; half of each image's layers are shared with its neighbours."""
    manifests: dict[Digest, Manifest] = {}
    roots: dict[Reference, Descriptor] = {}
    origins: dict[Digest, tuple[Site, ...]] = {}
    pairs: list[Pair] = []
    for number in range(images):
        source = Reference("source", f"images/{number}", "1")
        site = Site(source.host, source.repository)
        children = []
        for platform in range(PLATFORMS):
            names = [f"{number // 10 if n % 2 else number}/{platform}/{n}" for n in range(LAYERS)]
            raw = f"image {names}".encode()
            layers = tuple(described(name.encode(), media.OCI_LAYER_GZIP) for name in names)
            config = described(raw + b" config", media.OCI_CONFIG)
            child = Manifest(described(raw, media.OCI_MANIFEST), raw, config=config, layers=layers)
            children.append(child)
        raw = f"index {number}".encode()
        index = Manifest(
            described(raw, media.OCI_INDEX), raw, manifests=tuple(child.descriptor for child in children)
        )
        for manifest in (*children, index):
            manifests[manifest.descriptor.digest] = manifest
            for blob in (manifest.descriptor, *manifest.blobs):
                origins[blob.digest] = tuple(sorted({*origins.get(blob.digest, ()), site}))
        roots[source] = index.descriptor
        pairs.append(Pair(source, Reference("target", source.repository, "1")))
    return pairs, Graph(manifests, roots, origins)


def described(content: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, digest_of(content), len(content))
