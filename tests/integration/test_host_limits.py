"""The gate against a registry with eight slots: what it costs to find that out, counted by the registry.

The clock is a counter that only sleeping moves, so back-offs take no time; requests overlap because each
stays inside the registry for some turns of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.events import Event, StepDone, StepFailed, StepStarted
from blobflow.oci import Reference
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store
from blobflow.version import __version__
from tests.deadlines import HANGS_AFTER
from tests.fakes.registry import Bytes, blob_of
from tests.library import mirror
from tests.scenarios.limited_registry import LimitedRegistries, pairs_of
from tests.scenarios.registries import fill
from tools.registry.faulty import Crowded, Fault, JournallingRegistry, Refuse, Status, journalling
from tools.registry.journal import Exchange

SLOTS = 8
# So many turns that the way there and back, which is not counted as under way, is next to nothing beside it.
EIGHT = Fault("*", "/v2/", times=0, act=Crowded(SLOTS, turns=240))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "cache")
    yield opened
    opened.close()


def at_once(exchanges: Iterable[Exchange]) -> list[int]:
    """How many exchanges were under way when each began, itself included, in their order."""
    marks = [mark for each in exchanges for mark in ((each.begun, 1), (each.ended or each.begun, -1))]
    under_way, found = 0, []
    for _, step in sorted(marks):
        under_way += step
        if step > 0:
            found.append(under_way)
    return found


def refused(registry: JournallingRegistry) -> int:
    return sum(exchange.status == 429 for exchange in registry.journal)


async def test_at_a_registry_with_eight_slots_requests_settle_at_seven_to_nine_for_next_to_no_429(
    tmp_path: Path, store: Store
) -> None:
    net = LimitedRegistries(store)
    async with journalling(tmp_path / "registry", [EIGHT]) as registry:
        sink = net.registries.sink(Site(registry.host, "app"))
        left = iter(range(3000))
        sizes: list[int] = []

        async def ask() -> None:
            for number in left:
                sizes.append(net.requests_at_once(registry.host))
                assert not await sink.has(blob_of(b"%d" % number))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(ask())
        await net.registries.close()
        settled = at_once(registry.journal)[500:]
        assert len(registry.journal) >= 3000
        assert 7 <= sum(settled) / len(settled) <= 9
        assert max(settled) <= 9
        assert set(sizes[500:]) <= {7, 8, 9}
        assert refused(registry) <= 0.02 * len(registry.journal)
        assert refused(registry) >= 1  # or nothing was found out
        assert len(net.clock.slept) == refused(registry)


async def test_a_whole_run_into_a_registry_with_eight_slots_arrives_with_next_to_no_429(
    tmp_path: Path, store: Store
) -> None:
    images = sample_set(3, images=24)
    net = LimitedRegistries(store)
    async with journalling(tmp_path / "source") as source, journalling(tmp_path / "t", [EIGHT]) as target:
        fill(source.store, images)
        report = await run_of_pairs(pairs_of(images, source.host, target.host)).execute(net.services())
        await net.registries.close()
        assert [image.error for image in report.images if image.error] == []
        assert refused(target) <= 0.02 * len(target.journal)
        for digest in images.blobs:
            assert target.journal.uploads_of(digest) == 1


async def test_a_503_and_a_request_that_hangs_close_the_window_and_a_500_does_not(
    tmp_path: Path, store: Store
) -> None:
    net = LimitedRegistries(store)
    async with journalling(tmp_path / "registry") as registry:
        sink = net.registries.sink(Site(registry.host, "app"))
        blob = blob_of(b"absent")
        for status, closes in ((500, False), (502, False), (503, True), (408, True), (429, True)):
            before = net.requests_at_once(registry.host)
            registry.faults.add(Fault("HEAD", "/blobs/", nth=1, act=Status(status)))
            assert not await sink.has(blob)
            assert (net.requests_at_once(registry.host) < before) is closes
            registry.faults.clear()
        await net.registries.close()


@pytest.mark.parametrize(("connections", "copies"), [(1, {1}), (2, {2, 3, 4, 5})])
async def test_the_schedule_starts_only_as_many_steps_as_the_gate_has_room_for(
    connections: int, copies: set[int], tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two blobs at once the bytes pass, while as many as are allowed in all may wait for their answers; a
    single one is answered before the next begins."""
    monkeypatch.setattr("blobflow.content.streams.SMALL_BLOB", 0)
    images = sample_set(3, images=4)
    net = LimitedRegistries(store, connections=connections)
    under_way: dict[bool, set[int]] = {True: set(), False: set()}
    most = {True: 0, False: 0}

    def observe(event: Event) -> None:
        match event:
            case StepStarted(step=step, kind=kind):
                under_way[kind == "copy"].add(step)
            case StepDone(step=step, kind=kind):
                under_way[kind == "copy"].discard(step)
        for copies, steps in under_way.items():
            most[copies] = max(most[copies], len(steps))

    async with journalling(tmp_path / "source") as source, journalling(tmp_path / "t") as target:
        fill(source.store, images)
        # Into several repositories: mounts and manifests are left when the last blob has come.
        pairs = [
            Pair(pair.source, Reference(target.host, f"{team}/{pair.target.repository}", pair.target.tag))
            for pair in pairs_of(images, source.host, target.host)
            for team in ("a", "b", "c", "d")
        ]
        report = await run_of_pairs(pairs).execute(net.services(observe=observe))
        await net.registries.close()
        assert report.ok
        assert most[True] in copies
        assert most[False] == 2 * connections
        assert max(at_once(target.journal)) <= 2 * connections
        assert max(at_once(source.journal)) <= 2 * connections


async def test_blobs_that_are_sent_again_keep_others_from_starting(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every answer is an error after the bytes have gone, not all blobs are tried at once."""
    monkeypatch.setattr("blobflow.content.streams.SMALL_BLOB", 0)
    images = sample_set(3, images=12)
    net = LimitedRegistries(store, connections=2)
    under_way: set[int] = set()
    most = 0

    def observe(event: Event) -> None:
        nonlocal most
        match event:
            case StepStarted(step=step, kind="copy"):
                under_way.add(step)
            case StepDone(step=step) | StepFailed(step=step):
                under_way.discard(step)
        most = max(most, len(under_way))

    broken = Fault("PUT", "/blobs/uploads/", times=0, act=Status(500))
    async with journalling(tmp_path / "source") as source, journalling(tmp_path / "t", [broken]) as target:
        fill(source.store, images)
        report = await run_of_pairs(pairs_of(images, source.host, target.host)).execute(
            net.services(observe=observe)
        )
        await net.registries.close()
        assert not report.ok
        assert most <= 5


@pytest.mark.parametrize("connections", [1, 8])
async def test_small_blobs_for_a_registry_that_takes_no_single_put_never_wait_for_each_other(
    connections: int, tmp_path: Path, store: Store
) -> None:
    """Some of them are read at their source once more, while others hold all permits for that."""
    images = sample_set(3, images=12, layer_size=2048)
    net = LimitedRegistries(store, connections=connections)
    no_puts = Fault("PUT", "/blobs/uploads/", times=0, act=Refuse(404, over=0))
    async with journalling(tmp_path / "source") as source, journalling(tmp_path / "t", [no_puts]) as target:
        fill(source.store, images)
        async with asyncio.timeout(HANGS_AFTER):
            pairs = pairs_of(images, source.host, target.host)
            report = await run_of_pairs(pairs).execute(net.services())
        await net.registries.close()
        assert report.ok


@pytest.mark.parametrize("connections", [1, 8])
async def test_small_blobs_from_a_mirror_that_is_their_target_too_never_wait_for_each_other(
    connections: int, tmp_path: Path, store: Store
) -> None:
    images = sample_set(3, images=12, layer_size=2048)
    async with journalling(tmp_path / "source") as source, journalling(tmp_path / "t") as target:
        net = LimitedRegistries(store, {source.host: (target.host,)}, connections=connections)
        fill(source.store, images)
        fill(target.store, images)
        async with asyncio.timeout(HANGS_AFTER):
            pairs = [
                Pair(pair.source, Reference(target.host, f"copies/{pair.target.repository}", pair.target.tag))
                for pair in pairs_of(images, source.host, target.host)
            ]
            report = await run_of_pairs(pairs).execute(net.services())
        await net.registries.close()
        assert report.ok
        assert not source.journal.count("GET", "/blobs/")


async def test_small_blobs_for_two_targets_of_which_one_is_their_mirror_never_wait_for_each_other(
    tmp_path: Path, store: Store
) -> None:
    """What goes to the mirror is read behind what comes from it."""
    images = sample_set(3, images=12, layer_size=2048)
    async with (
        journalling(tmp_path / "source") as source,
        journalling(tmp_path / "first") as first,
        journalling(tmp_path / "mirror") as near,
    ):
        net = LimitedRegistries(store, {source.host: (near.host,)}, connections=1)
        fill(source.store, images)
        fill(near.store, images)
        async with asyncio.timeout(HANGS_AFTER):
            pairs = [
                Pair(pair.source, Reference(host, f"copies/{pair.target.repository}", pair.target.tag))
                for pair in pairs_of(images, source.host, near.host)
                for host in (first.host, near.host)
            ]
            report = await run_of_pairs(pairs).execute(net.services())
        await net.registries.close()
        assert report.ok


async def test_requests_a_second_are_kept_by_all_requests_of_the_host_together(
    tmp_path: Path, store: Store
) -> None:
    net = LimitedRegistries(store, requests_per_second=50)
    async with journalling(tmp_path / "registry") as registry:
        sink = net.registries.sink(Site(registry.host, "app"))

        async def use(number: int) -> None:
            content = b"%d" % number
            await sink.push(blob_of(content), Bytes(content))
            assert await sink.has(blob_of(content))

        await asyncio.gather(*(use(number) for number in range(40)))
        await net.registries.close()
        assert len(registry.journal) >= 120
        assert len(registry.journal) / (net.clock() - 1000) == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("limit", ["bytes_per_second", "in_all"])
async def test_bytes_a_second_hold_for_reads_and_writes_and_nothing_times_out_meanwhile(
    tmp_path: Path, store: Store, limit: str
) -> None:
    rate = 10_000
    images = sample_set(3, images=3, layer_size=32 * 1024)
    net = LimitedRegistries(store, **{limit: rate})
    async with journalling(tmp_path / "source") as source, journalling(tmp_path / "t") as target:
        fill(source.store, images)
        report = await run_of_pairs(pairs_of(images, source.host, target.host)).execute(net.services())
        await net.registries.close()
        assert report.ok
        moved = max(report.totals.bytes_read, report.totals.bytes_written)
        took = net.clock() - 1000
        assert took >= moved / rate * 0.9
        assert target.journal.count(status=201) > 0
        for digest in images.blobs:
            assert source.journal.reads(digest) == target.journal.uploads_of(digest) == 1


async def test_a_limit_for_the_run_is_shared_by_its_hosts(tmp_path: Path, store: Store) -> None:
    rate, size = 1000, 5000
    net = LimitedRegistries(store, in_all=rate)
    async with AsyncExitStack() as stack:
        for name in ("a", "b", "c"):
            registry = await stack.enter_async_context(journalling(tmp_path / name))
            content = name.encode() * size
            await net.registries.sink(Site(registry.host, "app")).push(blob_of(content), Bytes(content))
        await net.registries.close()
    assert net.clock() - 1000 == pytest.approx(2 * size / rate, abs=0.5)


async def test_requests_say_who_asks(tmp_path: Path) -> None:
    async with journalling(tmp_path / "registry") as registry:
        reference = Reference(registry.host, "app", "1")
        report = await mirror([Pair(reference, Reference(registry.host, "copy", "1"))])
        assert not report.ok
        assert {each.asked["User-Agent"] for each in registry.journal} == {f"blobflow/{__version__}"}
