"""Micro benchmarks of what is done for every byte or every step: hashing by chunk size, planning by scale.

    python -m pytest bench/bench_engine.py

They time; nothing here can fail on a clock, and continuous integration does not run them.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from blobflow.content import Site, Verifier
from blobflow.engine.plan import Graph, Inventory, Pair, Plan
from blobflow.engine.planner import make_plan
from blobflow.engine.shape import shape_pairs
from blobflow.oci import Descriptor, Digest, Manifest, Reference, digest_of, media

PLATFORMS = 4
LAYERS = 8
NOTHING = Inventory(present={}, absent={}, tags={})


@pytest.mark.parametrize("chunk", [64 * 1024, 1024 * 1024, 4 * 1024 * 1024])
def test_verify_64_mib(benchmark: BenchmarkFixture, chunk: int) -> None:
    content = bytes(64 * 1024 * 1024)
    blob = Descriptor(media.OCI_LAYER_GZIP, digest_of(content), len(content))
    pieces = [memoryview(content)[at : at + chunk] for at in range(0, len(content), chunk)]

    def verify() -> None:
        verifier = Verifier(blob)
        for piece in pieces:
            verifier.feed(piece)
        verifier.finish()

    benchmark(verify)


@pytest.mark.parametrize("images", [100, 1000])
def test_plan(benchmark: BenchmarkFixture, images: int) -> None:
    pairs, graph = synthetic(images)

    def plan_all() -> Plan:
        return make_plan(pairs, graph, NOTHING, shape_pairs(pairs, graph, {}).of)

    plan: Plan = benchmark(plan_all)
    assert len(plan.goals) == images


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
