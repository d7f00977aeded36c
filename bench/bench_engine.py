"""Micro benchmarks of what is done for every byte or every step: hashing by chunk size, planning by scale.

    python -m pytest bench/bench_engine.py

They time; nothing here can fail on a clock, and continuous integration does not run them.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.graphs import NOTHING, synthetic
from blobflow.content import Verifier
from blobflow.engine.plan.desired import build_desired_images
from blobflow.engine.plan.planner import make_plan
from blobflow.engine.plan.steps import Plan
from blobflow.oci import Descriptor, digest_of, media


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
        return make_plan(pairs, graph, NOTHING, build_desired_images(pairs, graph, {}).by_pair)

    plan: Plan = benchmark(plan_all)
    assert len(plan.goals) == images
