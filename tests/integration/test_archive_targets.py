"""Whole runs of the engine into archives, as their files tell it afterwards."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.content import Cache, NullJournal, Site
from blobflow.engine.execution import Run, run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.errors import BlobflowError
from blobflow.events import Event, Meter, Warned
from blobflow.oci import Reference
from blobflow.oci.sample_images import sample_set
from blobflow.permits import FixedLimiters
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store, StoreCache
from tests.deadlines import HANGS_AFTER
from tests.fakes.memory_registry import MemoryRegistry

SAMPLE = sample_set(7, images=4)


class Bench:
    """A source in memory with the sample set, and a world in which archives can be written."""

    def __init__(self, store: Store) -> None:
        self.source = MemoryRegistry("source")
        self.source.fill(SAMPLE)
        self.local = LocalTransports(store, Meter())
        self.events: list[Event] = []
        self._cache: Cache = StoreCache(store)

    async def completing(self) -> Mapping[Site, BlobflowError]:
        return await self.local.complete()

    def services(self, blobs: int = 4) -> Services:
        return Services(
            source_at=lambda site: self.source.at(site),
            sink_at=self.local.sink,
            cache=self._cache,
            journal=NullJournal(),
            observe=self.events.append,
            meter=Meter(),
            limiter_at=FixedLimiters(blobs).at,
            complete=self.completing,
        )

    def run(self, path: Path) -> Run:
        pairs = []
        for name in SAMPLE.images:
            repository, _, tag = name.rpartition(":")
            pairs.append(
                Pair(Reference("source", repository, tag), Reference(f"oci-archive:{path}", "", name))
            )
        return run_of_pairs(pairs, observe=self.events.append)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    with closing(Store.open(tmp_path / "store")) as store:
        made = Bench(store)
        yield made
        made.local.close()


@pytest.mark.parametrize("blobs", [1, 3, 16])
async def test_an_archive_of_a_set_is_the_same_whatever_comes_first(
    bench: Bench, tmp_path: Path, blobs: int
) -> None:
    found = set()
    for number in range(2):
        path = tmp_path / f"{number}.tar"
        report = await bench.run(path).execute(bench.services(blobs if number else 4))
        assert report.ok
        assert report.totals.blobs_copied == len(SAMPLE.blobs)
        found.add(path.read_bytes())
    assert len(found) == 1


async def test_images_of_an_archive_that_cannot_take_its_place_have_failed(
    bench: Bench, tmp_path: Path
) -> None:
    """All came, and then the folder was gone."""
    (tmp_path / "folder").mkdir()

    async def completing() -> Mapping[Site, BlobflowError]:
        shutil.rmtree(tmp_path / "folder")
        return await bench.local.complete()

    bench.completing = completing  # type: ignore[method-assign]
    report = await bench.run(tmp_path / "folder" / "a.tar").execute(bench.services())
    assert [image.status for image in report.images] == ["failed"] * len(SAMPLE.images)
    assert all("a.tar" in image.error for image in report.images)
    assert sum(isinstance(event, Warned) for event in bench.events) == len(SAMPLE.images)


async def test_nothing_is_done_in_an_archive_that_an_interrupted_run_did_not_complete(
    bench: Bench, tmp_path: Path
) -> None:
    """All images came, and the run is cancelled before their archive takes its place."""
    path, closing_up = tmp_path / "a.tar", asyncio.Event()

    async def completing() -> Mapping[Site, BlobflowError]:
        closing_up.set()
        await asyncio.Event().wait()
        return {}

    bench.completing = completing  # type: ignore[method-assign]
    run = bench.run(path)
    going = asyncio.create_task(run.execute(bench.services()))
    async with asyncio.timeout(HANGS_AFTER):
        await closing_up.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    report = run.report()
    assert not path.exists()
    assert {(image.status, image.digest) for image in report.images} == {("skipped", "")}
    assert sum(target.done for target in report.targets) == 0
