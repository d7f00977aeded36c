"""A worker brings blobs, one carriage like another, and keeps nothing of those that have ended."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow.client import Client
from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.transfer.carrying import Arrival, Carriage, Moved
from blobflow.engine.transfer.copy_worker import CopyWorker, WorkerStopped
from blobflow.errors import BlobflowError, ConnectionLost, Denied, StorageError
from blobflow.events import Retrying
from blobflow.oci import Descriptor, Reference, digest_of, parse_digest
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from tests.deadlines import HANGS_AFTER
from tests.fakes.carrier import WorkersHere
from tests.scenarios.hanging_targets import until
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.registries import fill, registries
from tools.registry.faults import Fault, RefuseMount, Stall

SOURCE = Site("source", "app")


def filled(bench: MirrorScenario, number: int = 1, size: int = 300_000) -> list[Descriptor]:
    """So many blobs at the source."""
    held = bench.source.blobs.setdefault(SOURCE, {})
    blobs = []
    for each in range(number):
        content = each.to_bytes(4, "big") * (size // 4)
        digest = digest_of(content)
        held[digest] = content
        blobs.append(Descriptor("application/octet-stream", digest, len(content)))
    return blobs


def to(blob: Descriptor, *targets: str) -> Carriage:
    return Carriage(blob, SOURCE, tuple(Site(target, "app") for target in targets or ("target",)))


async def test_a_blob_is_read_once_for_all_its_targets(bench: MirrorScenario) -> None:
    names = ["one", "two", "three"]
    targets = [bench.target(name) for name in names]
    [blob] = filled(bench)
    news: list[Moved | Arrival] = []
    async with CopyWorker(bench.services(), "w1") as worker:
        arrivals = await worker.bring(to(blob, *names), tell=news.append)
    assert arrivals == [Arrival(Site(name, "app"), None, "w1") for name in names]
    assert bench.source.count("open") == 1
    assert all(target.blobs[Site(target.name, "app")].keys() == {blob.digest} for target in targets)
    begun = [each for each in news if isinstance(each, Moved)]
    assert {each.target.registry for each in begun} == set(names) and {each.bytes for each in begun} == {0}
    assert [each for each in news if isinstance(each, Arrival)] == sorted(
        arrivals, key=lambda each: [n for n in news if isinstance(n, Arrival)].index(each)
    )


async def test_what_fails_is_said_with_side_attempts_and_the_workers_name(bench: MirrorScenario) -> None:
    bench.target("good")
    bad = bench.target("bad")
    [blob] = filled(bench)
    bad.fault = lambda call, site, name: Denied("not here", status=403) if call == "push" else None
    async with CopyWorker(bench.services(), "w1") as worker:
        good, refused = await worker.bring(to(blob, "good", "bad"))
        bench.source.fault = lambda call, site, name: ConnectionLost("gone") if call == "open" else None
        [other] = filled(bench, size=50_000)
        [lost] = await worker.bring(to(other, "good"))
    assert good.error is None
    assert str(refused.error) == "target: worker w1: not here"
    assert isinstance(refused.error, Denied) and refused.error.status == 403
    assert str(lost.error) == "source: worker w1: gone (after 5 attempts)"


async def test_a_blob_that_the_store_has_no_room_for_fails_its_carriage_alone(
    bench: MirrorScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["one", "two"]
    targets = [bench.target(name) for name in names]
    large, small = filled(bench, 2)
    services = bench.services(cache_mode="all")
    has = type(services.cache).has

    async def has_room_for_small_ones(self: Any, blob: Descriptor) -> bool:
        if blob.digest == large.digest:
            raise StorageError("the store would need room")
        return bool(await has(self, blob))

    monkeypatch.setattr(type(services.cache), "has", has_room_for_small_ones)
    told: list[Moved | Arrival] = []
    async with CopyWorker(services, "w1") as worker:
        refused = await worker.bring(to(large, *names), tell=told.append)
        brought = await worker.bring(to(small, *names))
    assert [str(each.error) for each in refused] == ["worker w1: the store would need room"] * 2
    assert told == list(refused)
    assert [each.error for each in brought] == [None, None]
    assert all(target.blobs[Site(target.name, "app")].keys() == {small.digest} for target in targets)


async def test_its_own_limits_hold_however_many_carriages_it_has(bench: MirrorScenario) -> None:
    target = bench.target()
    blobs = filled(bench, 12)
    target.push_from.clear()
    async with CopyWorker(bench.services()) as worker:  # 4 streams a host
        tasks = [asyncio.create_task(worker.bring(to(blob))) for blob in blobs]
        await until(lambda: target.count("push") >= 4)
        for _ in range(100):
            await asyncio.sleep(0)
        assert target.count("push") == 4 == len(list(worker.moved()))
        assert {moved.bytes for _, moved in worker.moved()} == {0}
        target.push_from.set()
        await asyncio.wait_for(asyncio.gather(*tasks), HANGS_AFTER)
    assert target.count("push") == 12 == bench.source.count("open")


async def test_a_target_that_hangs_takes_nothing_from_the_others(bench: MirrorScenario) -> None:
    hanging, target = bench.target("hanging"), bench.target()
    hanging.push_from.clear()
    blobs = filled(bench, 12)
    news: list[Moved | Arrival] = []
    async with CopyWorker(bench.services()) as worker:
        both = [
            asyncio.create_task(worker.bring(to(blob, "hanging", "target"), tell=news.append))
            for blob in blobs
        ]
        await until(lambda: sum(isinstance(each, Arrival) for each in news) == 12)
        assert target.count("push") == 12 and not any(task.done() for task in both)
        hanging.push_from.set()
        await asyncio.wait_for(asyncio.gather(*both), HANGS_AFTER)
    assert bench.source.count("open") == 12


@pytest.mark.parametrize("under_way", [True, False])
async def test_a_cancelled_carriage_is_stopped_and_the_others_go_on(
    bench: MirrorScenario, under_way: bool
) -> None:
    target = bench.target()
    target.push_from.clear()
    blobs = filled(bench, 6)
    async with CopyWorker(bench.services()) as worker:
        tasks = [asyncio.create_task(worker.bring(to(blob))) for blob in blobs]
        await until(lambda: target.count("push") >= 4)
        pushed = {name for call, name in target.calls if call == "push"}
        chosen = next(n for n, blob in enumerate(blobs) if (blob.digest in pushed) == under_way)
        tasks[chosen].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[chosen]
        assert blobs[chosen].digest not in {digest for digest, _ in worker.moved()}
        target.push_from.set()
        others = [task for n, task in enumerate(tasks) if n != chosen]
        for arrivals in await asyncio.wait_for(asyncio.gather(*others), HANGS_AFTER):
            assert [each.error for each in arrivals] == [None]
        assert blobs[chosen].digest not in target.blobs[Site("target", "app")]
        [arrival] = await asyncio.wait_for(worker.bring(to(blobs[chosen])), HANGS_AFTER)
        assert arrival.error is None


async def test_at_its_end_whoever_waits_is_told_that_it_stopped(bench: MirrorScenario) -> None:
    target = bench.target()
    target.push_from.clear()
    worker = CopyWorker(bench.services(), "w1")
    async with worker:
        tasks = [asyncio.create_task(worker.bring(to(blob))) for blob in filled(bench, 6)]
        await until(lambda: target.count("push") >= 4)
    for task in tasks:
        with pytest.raises(WorkerStopped, match="worker w1 was stopped before"):
            await asyncio.wait_for(task, HANGS_AFTER)
    with pytest.raises(WorkerStopped):
        await worker.bring(to(filled(bench)[0]))
    assert not target.blobs.get(Site("target", "app"))


async def test_it_may_be_ended_by_another_task_than_began_it(bench: MirrorScenario) -> None:
    bench.target()
    worker = CopyWorker(bench.services())
    await asyncio.create_task(worker.__aenter__())
    [arrival] = await worker.bring(to(filled(bench)[0]))
    assert arrival.error is None
    await asyncio.create_task(worker.__aexit__())


async def test_nothing_is_tried_again_once_it_winds_down(bench: MirrorScenario) -> None:
    target = bench.target()
    [blob] = filled(bench)
    events: list[Any] = []
    services = bench.services()

    def lost(call: str, site: Site, name: str) -> BlobflowError | None:
        return ConnectionLost("gone") if call == "push" else None

    target.fault = lost
    async with CopyWorker(type(services)(**_with(services, observe=events.append))) as worker:
        worker.wind_down()
        [arrival] = await worker.bring(to(blob))
    assert isinstance(arrival.error, ConnectionLost) and target.count("push") == 1
    assert not [each for each in events if isinstance(each, Retrying)]


def _with(services: Any, **changes: Any) -> dict[str, Any]:
    return {name: getattr(services, name) for name in services.__struct_fields__} | changes


async def test_the_same_blob_in_two_carriages_is_read_once(bench: MirrorScenario) -> None:
    names = ["one", "two", "three"]
    for name in names:
        bench.target(name)
    [blob] = filled(bench)
    for target in bench.targets.values():
        target.push_from.clear()
    async with CopyWorker(bench.services()) as worker:
        first = asyncio.create_task(worker.bring(to(blob, "one", "two")))
        await until(lambda: bench.targets["one"].count("push") >= 1)
        second = asyncio.create_task(worker.bring(to(blob, "three")))
        await until(lambda: bench.targets["three"].count("push") >= 1)
        for target in bench.targets.values():
            target.push_from.set()
        await asyncio.wait_for(asyncio.gather(first, second), HANGS_AFTER)
    assert bench.source.count("open") == 1


def held(*roots: object) -> int:
    """How many things of ours can be reached from these, without what they share with the test."""
    met: set[int] = set()
    todo: list[object] = list(roots)
    while todo:
        each = todo.pop()
        if id(each) not in met and not isinstance(each, type):
            met.add(id(each))
            if type(each).__module__.startswith("blobflow.engine.transfer") or isinstance(
                each, dict | list | set | tuple
            ):
                todo += gc.get_referents(each)
    return len(met)


async def test_it_stays_small_however_much_it_brings(bench: MirrorScenario) -> None:
    bench.target("one")
    two = bench.target("two")
    blobs = filled(bench, 60, size=400)
    two.fault = lambda call, site, name: (
        Denied("no", status=403) if call == "push" and name == blobs[7].digest else None
    )

    async def bring(some: Sequence[Descriptor], worker: CopyWorker) -> None:
        await asyncio.gather(*(worker.bring(to(blob, "one", "two")) for blob in some))

    async with CopyWorker(bench.services(cache_mode="all")) as worker:
        parts = [value for name, value in vars(worker).items() if name not in ("_services", "_running")]
        await bring(blobs[:10], worker)
        after_ten = held(*parts)
        await bring(blobs[10:], worker)
        await until(lambda: held(*parts) < after_ten + 10)  # and not 50 blobs and 100 copies more
        assert not list(worker.moved())


async def test_a_cancelled_carriage_leaves_no_upload_session_behind(tmp_path: Path) -> None:
    sample = sample_set(3, images=1)
    name = max(sample.blobs, key=lambda digest: len(sample.blobs[digest]))
    blob = Descriptor("application/octet-stream", parse_digest(name), len(sample.blobs[name]))
    repository = next(iter(sample.images)).rpartition(":")[0]
    reached, until_then = asyncio.Event(), asyncio.Event()
    stall = Fault("PUT", f"digest={name}", act=Stall(after=1000, until=until_then, reached=reached))
    async with (
        registries(tmp_path, ("source", "target"), [stall]) as [source, target],
        Client(Settings(cache_dir=tmp_path / "cache")) as client,
        client.services() as services,
        CopyWorker(services, "w1") as worker,
    ):
        fill(source.store, sample)
        carriage = Carriage(blob, Site(source.host, repository), (Site(target.host, "app"),))
        task = asyncio.create_task(worker.bring(carriage))
        await asyncio.wait_for(reached.wait(), HANGS_AFTER)
        [(digest, moved)] = worker.moved()
        assert (digest, moved.target, moved.worker) == (name, carriage.targets[0], "w1")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        journal = target.journal
        async with asyncio.timeout(HANGS_AFTER):
            await journal.until(lambda seen: seen.count("DELETE", "/blobs/uploads/") == 1)
        assert journal.count("POST", status=202) == 1
        until_then.set()
        [arrival] = await worker.bring(carriage)
        assert arrival.error is None
        assert (journal.uploads_of(name), source.journal.reads(name)) == (1, 2)


async def test_what_a_refused_mount_has_begun_is_given_up_at_once_as_a_worker_uploads(tmp_path: Path) -> None:
    sample = sample_set(7, images=3, architectures=("amd64",), layer_size=1024)
    refuse = Fault("POST", "mount=", times=1000, act=RefuseMount())
    own = Settings(cache_dir=tmp_path / "coordinator")
    async with (
        registries(tmp_path, ("source", "target"), [refuse]) as [source, target],
        Client(Settings(cache_dir=tmp_path / "worker")) as elsewhere,
        elsewhere.services() as theirs,
        CopyWorker(theirs, "w1") as worker,
        Client(own) as client,
        client.services() as services,
    ):
        fill(source.store, sample)
        pairs = [
            Pair(Reference(source.host, name, tag), Reference(target.host, name, tag))
            for name, _, tag in (each.rpartition(":") for each in sample.images)
        ]
        carrier = WorkersHere([worker])
        report = await run_of_pairs(pairs).execute(msgspec.structs.replace(services, carrier=carrier))
        assert report.ok
        journal = target.journal
        refused = journal.count("POST", "mount=", status=202)
        assert refused > 0 and len(carrier.carried) > len(sample.blobs)
        async with asyncio.timeout(HANGS_AFTER):  # and not only when the client closes
            await journal.until(lambda seen: seen.count("DELETE", "/blobs/uploads/") == refused)
        assert all(source.journal.reads(name) == 1 for name in sample.blobs)
