"""What a run may cost at most, counted: requests, bytes, hashes. Benchmarks time; this keeps what they won.

Everything that a run asks for is in one of these tables. A request that is in none of them is a failure, and
so is one more than the table allows; who spends more has to say so here.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blobflow.engine.pairs import Pair
from blobflow.oci import Reference
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.settings import Settings
from tests.library import mirror
from tests.scenarios.registries import fill, registries
from tests.scenarios.request_kinds import counted
from tools.registry.faulty import JournallingRegistry
from tools.registry.zeros import zero_registry_process

SAMPLE = sample_set(3, images=6, layer_size=8 * 1024)
IMAGES = len(SAMPLE.images)
MANIFESTS = len(SAMPLE.manifests)
BLOBS = len(SAMPLE.blobs)


def pairs_between(source: str, targets: list[str], sample: SampleSet) -> list[Pair]:
    names = [name.rpartition(":") for name in sample.images]
    return [
        Pair(Reference(source, repository, tag), Reference(target, f"mirror/{repository}", tag))
        for repository, _, tag in names
        for target in targets
    ]


@asynccontextmanager
async def filled(folder: Path, *targets: str) -> AsyncIterator[list[JournallingRegistry]]:
    """A source that holds the sample set, and empty targets."""
    async with registries(folder, ["source", *targets]) as found:
        fill(found[0].store, SAMPLE)
        yield found


async def run(source: JournallingRegistry, targets: list[JournallingRegistry], folder: Path) -> None:
    pairs = pairs_between(source.host, [target.host for target in targets], SAMPLE)
    report = await mirror(pairs, Settings(cache_dir=folder / "cache"))
    assert report.ok, [image.error for image in report.images]


async def test_a_cold_run_asks_the_source_once_for_each_manifest_and_blob(tmp_path: Path) -> None:
    async with filled(tmp_path, "target") as [source, target]:
        await run(source, [target], tmp_path)
        asked = counted(source.journal)
        assert asked.pop("GET manifests") == MANIFESTS
        assert asked.pop("GET blobs") == BLOBS
        assert asked.pop("HEAD manifests") <= 2 * IMAGES, "what a tag names, and whether it still does"
        assert asked.pop("GET referrers", 0) <= MANIFESTS, "signatures"
        assert asked.pop("GET tags", 0) <= IMAGES, "signatures' tags"
        assert not asked


async def test_a_cold_run_costs_the_target_two_requests_a_blob_and_one_a_mount_and_a_manifest(
    tmp_path: Path,
) -> None:
    async with filled(tmp_path, "target") as [source, target]:
        await run(source, [target], tmp_path)
        asked = counted(target.journal)
        mounts = target.journal.mounts()
        assert asked.pop("POST uploads") == BLOBS
        assert asked.pop("PUT uploads") == BLOBS
        assert asked.pop("POST mount") == mounts > 0, "a mount was refused"
        assert asked.pop("PUT manifests") == MANIFESTS, "an index is put under its tag alone"
        assert asked.pop("HEAD manifests") <= 2 * IMAGES, "what a tag names before, and afterwards"
        assert asked.pop("GET tags", 0) <= IMAGES, "whether there is a repository"
        assert not asked


async def test_a_cold_run_moves_each_byte_once_each_way(tmp_path: Path) -> None:
    async with filled(tmp_path, "target") as [source, target]:
        await run(source, [target], tmp_path)
        for digest, content in SAMPLE.blobs.items():
            assert source.journal.bytes_out(digest) == len(content)
            assert target.journal.bytes_in(digest) == len(content)


async def test_a_second_target_costs_the_source_nothing_more(tmp_path: Path) -> None:
    async with filled(tmp_path / "one", "target") as [source, target]:
        await run(source, [target], tmp_path / "one")
        for_one = counted(source.journal)
    async with filled(tmp_path / "two", "here", "there") as [source, here, there]:
        await run(source, [here, there], tmp_path / "two")
        assert counted(source.journal) == for_one
        assert counted(here.journal) == counted(there.journal)


async def test_an_unchanged_run_costs_one_head_a_tag_at_each_end(tmp_path: Path) -> None:
    async with filled(tmp_path, "target") as [source, target]:
        await run(source, [target], tmp_path)
        for registry in (source, target):
            registry.journal.clear()
        await run(source, [target], tmp_path)
        for registry in (source, target):
            assert counted(registry.journal) == {"HEAD manifests": IMAGES}


class _Counting:
    """A sha256 that counts what it is fed, over all of its kind."""

    fed = 0

    def __init__(self, hashed: Any) -> None:
        self._hashed = hashed

    def update(self, chunk: bytes) -> None:
        type(self).fed += len(chunk)
        self._hashed.update(chunk)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hashed, name)


async def test_each_byte_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers, size = 3, 300_000
    new, sha256 = hashlib.new, hashlib.sha256
    monkeypatch.setattr(_Counting, "fed", 0)
    monkeypatch.setattr(hashlib, "new", lambda name, *a, **k: _Counting(new(name, *a, **k)))
    monkeypatch.setattr(hashlib, "sha256", lambda *a, **k: _Counting(sha256(*a, **k)))
    with zero_registry_process(layers, size) as source, zero_registry_process() as target:
        pair = Pair(Reference(source, "giant", "1"), Reference(target, "giant", "1"))
        report = await mirror([pair], Settings(cache_dir=tmp_path / "cache"))
        assert report.ok, [image.error for image in report.images]
        moved = report.totals.bytes_read
        assert moved > layers * size
        assert layers * size < _Counting.fed <= moved
