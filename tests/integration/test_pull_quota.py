"""Docker Hub's way of counting, played by the faulty registry: what a run does where little is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.content import Allowance
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.planned import Planned
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.sources.pull_quota import ASK_AGAIN
from blobflow.errors import Throttled
from blobflow.events import Event, Warned
from blobflow.oci import Reference, parse_digest, parse_manifest
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.transports.store import Store
from tests.library import plan_pairs
from tests.scenarios.limited_registry import LimitedRegistries, pairs_of
from tests.scenarios.registries import fill
from tools.registry.faulty import Fault, JournallingRegistry, Rationed, Status, journalling

HOURS_6 = 21600


class Hub(LimitedRegistries):
    """A source that counts, a target that does not, and a run between them on one clock."""

    def __init__(self, store: Store, source: JournallingRegistry, target: JournallingRegistry) -> None:
        super().__init__(store)
        self.source, self.target = source, target
        self.events: list[Event] = []

    def image_pairs(self, images: SampleSet, count: int) -> list[Pair]:
        """`count` pairs whose sources are image manifests: one GET each."""
        found = []
        for name, index in sorted(images.images.items())[:count]:
            repository, _, tag = name.rpartition(":")
            child = parse_manifest(index.raw, index.media_type).manifests[0]
            source = Reference(self.source.host, repository, digest=parse_digest(child.digest))
            found.append(Pair(source, Reference(self.target.host, repository, tag)))
        return found

    async def mirror(self, pairs: list[Pair], policy: Policy = KEEP_GOING) -> Report:
        return await run_of_pairs(pairs, policy, observe=self.events.append, meter=self.meter).execute(
            self.services()
        )

    async def plan(self, pairs: list[Pair]) -> Planned:
        return await plan_pairs(pairs, self.services(), observe=self.events.append)

    @property
    def pulls(self) -> int:
        return self.source.journal.count("GET", "/manifests/")

    @property
    def refusals(self) -> int:
        return self.source.journal.count(status=429)

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


IMAGES = sample_set(5, images=12, architectures=("amd64", "arm64"), layer_size=64)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "cache")
    yield opened
    opened.close()


@asynccontextmanager
async def hub(folder: Path, store: Store, left: int, limit: int = 100) -> AsyncIterator[Hub]:
    """A registry that has the images, and lets `left` of their manifests be read."""
    async with journalling(folder / "target") as target:
        ration = Fault("*", "/manifests/", times=0, act=Rationed(limit, left, HOURS_6))
        counting: list[Hub] = []
        async with journalling(folder / "hub", [ration], clock=lambda: counting[0].clock()) as source:
            fill(source.store, IMAGES)
            counting.append(made := Hub(store, source, target))
            try:
                yield made
            finally:
                await made.registries.close()


async def test_twelve_manifests_with_ten_left_stop_before_the_first_is_read(
    tmp_path: Path, store: Store
) -> None:
    async with hub(tmp_path, store, left=10) as h:
        with pytest.raises(Throttled) as raised:
            await h.mirror(h.image_pairs(IMAGES, 12))
        assert raised.value.exit_code == 5
        assert str(raised.value) == (
            f"source: {h.source.host} lets 10 more manifests be read for now (100 in 6 h), and this run has"
            " at least 12 to read; run it later, for fewer images, or with --wait"
        )
        assert h.pulls == 0
        assert h.target.journal.count("PUT") == h.target.journal.count("POST") == 0


async def test_ten_manifests_with_ten_left_are_mirrored(tmp_path: Path, store: Store) -> None:
    async with hub(tmp_path, store, left=10) as h:
        report = await h.mirror(h.image_pairs(IMAGES, 10))
        assert report.ok
        assert (h.pulls, h.refusals) == (10, 0)
        assert h.clock.slept == []


async def test_with_wait_twelve_are_mirrored_as_soon_as_the_window_is_over(
    tmp_path: Path, store: Store
) -> None:
    async with hub(tmp_path, store, left=10) as h:
        began = h.clock()
        report = await h.mirror(h.image_pairs(IMAGES, 12), Policy(wait=True))
        assert report.ok
        assert (h.pulls, h.refusals) == (12, 0)
        assert HOURS_6 <= h.clock() - began <= HOURS_6 + ASK_AGAIN
        assert h.warnings == [
            f"{h.source.host} lets no more manifests be read for now (100 in 6 h); waiting, and asking again"
            " every 5 min"
        ]


async def test_with_wait_a_set_larger_than_the_limit_is_read_in_portions(
    tmp_path: Path, store: Store
) -> None:
    async with hub(tmp_path, store, left=5, limit=5) as h:
        began = h.clock()
        report = await h.mirror(h.image_pairs(IMAGES, 12), Policy(wait=True))
        assert report.ok
        assert (h.pulls, h.refusals) == (12, 0)
        assert 2 * HOURS_6 <= h.clock() - began <= 2 * (HOURS_6 + ASK_AGAIN)
        assert len(h.warnings) == 2


async def test_an_index_counts_its_children_before_they_are_read(tmp_path: Path, store: Store) -> None:
    """Six indexes have at least six children; that they have twelve is known when they are read."""
    pairs = 6
    async with hub(tmp_path, store, left=11) as h:
        with pytest.raises(Throttled, match=r"lets 11 more .* at least 12 to read"):
            await h.mirror(pairs_of(IMAGES, h.source.host, h.target.host)[:pairs])
        assert h.pulls == 0
    async with hub(tmp_path / "more", store, left=17) as h:
        with pytest.raises(Throttled, match=r"lets 11 more .* at least 12 to read"):
            await h.mirror(pairs_of(IMAGES, h.source.host, h.target.host)[:pairs])
        assert h.pulls == pairs
    async with hub(tmp_path / "enough", store, left=18) as h:
        assert (await h.mirror(pairs_of(IMAGES, h.source.host, h.target.host)[:pairs])).ok
        assert (h.pulls, h.refusals) == (18, 0)


async def test_a_mirror_that_is_current_reads_nothing_and_so_is_never_stopped(
    tmp_path: Path, store: Store
) -> None:
    async with hub(tmp_path, store, left=12) as h:
        pairs = h.image_pairs(IMAGES, 12)
        await h.mirror(pairs)
        report = await h.mirror(pairs, Policy(trust_root=True))
        assert [image.status for image in report.images] == ["present"] * 12
        assert h.pulls == 12


async def test_a_plan_says_what_is_left_and_how_many_a_run_reads(tmp_path: Path, store: Store) -> None:
    async with hub(tmp_path, store, left=20) as h:
        planned = await h.plan(h.image_pairs(IMAGES, 12))
        assert planned.reads == {h.source.host: 12}
        assert planned.allowances == {h.source.host: Allowance(100, 8, HOURS_6, "192.0.2.1")}


async def test_while_waiting_a_source_that_went_away_ends_the_wait_with_its_own_error(
    tmp_path: Path, store: Store
) -> None:
    async with hub(tmp_path, store, left=0) as h:
        pairs = h.image_pairs(IMAGES, 1)
        sleep = h.clock.sleep

        async def locked_out(seconds: float) -> None:
            await sleep(seconds)
            h.source.faults.clear()
            h.source.faults.add(Fault("*", "/manifests/", times=0, act=Status(403)))

        report = await run_of_pairs(pairs, Policy(wait=True)).execute(h.services(sleep=locked_out))
        assert [image.status for image in report.images] == ["failed"]
        assert "denies manifest" in report.images[0].error
        assert h.clock() - 1000 == ASK_AGAIN


async def test_registries_that_do_not_count_stop_nothing(tmp_path: Path, store: Store) -> None:
    async with journalling(tmp_path / "s") as source, journalling(tmp_path / "t") as target:
        fill(source.store, IMAGES)
        net = LimitedRegistries(store)
        report = await run_of_pairs(pairs_of(IMAGES, source.host, target.host)).execute(net.services())
        assert report.ok
        assert net.registries.allowance(source.host) is None
        await net.registries.close()
