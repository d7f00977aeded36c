"""Micro benchmarks of what is done once a manifest or a name.

python -m pytest bench/bench_words.py
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from blobflow.oci import parse_digest, parse_manifest, parse_reference
from blobflow.oci.sample_images import sample_set

SAMPLE = sample_set(1)
INDEX = next(iter(SAMPLE.images.values()))
CHILD = next(iter(SAMPLE.manifests.values()))


@pytest.mark.parametrize("stored", [INDEX, CHILD], ids=["index", "image"])
def test_decode_manifest(benchmark: BenchmarkFixture, stored: object) -> None:
    chosen = INDEX if stored is INDEX else CHILD
    benchmark(parse_manifest, chosen.raw, chosen.media_type)


@pytest.mark.parametrize("text", ["alpine", f"registry.example.com:5000/a/b/c:1.2.3@{INDEX.digest}"])
def test_parse_reference(benchmark: BenchmarkFixture, text: str) -> None:
    benchmark(parse_reference, text)


def test_parse_digest(benchmark: BenchmarkFixture) -> None:
    benchmark(parse_digest, INDEX.digest)
