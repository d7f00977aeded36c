"""Runs whose blobs a carrier brings: what is read, uploaded and told is as without one, as counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from blobflow.content import BlobReader, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.engine.transfer.carrying import Arrival, Carriage, Moved, Tell, tell_nobody
from blobflow.errors import BlobflowError, ConnectionLost, DigestMismatch, EngineLost, NotFound
from blobflow.events import StepDone, StepFailed
from blobflow.oci import Descriptor, Digest, Reference
from tests.deadlines import HANGS_AFTER
from tests.fakes.carrier import WorkersHere
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry
from tests.scenarios.carried import Begun, mirrored, run_with, workers_here
from tests.scenarios.hanging_targets import hang, until
from tests.scenarios.mirror import MirrorScenario


def once(bench: MirrorScenario) -> dict[str, int]:
    return dict.fromkeys(bench.blobs(), 1)


def pushed(bench: MirrorScenario, target: str = "target") -> dict[str, int]:
    return {name: n for (call, name), n in bench.targets[target].calls.items() if call == "push"}


async def test_workers_bring_each_blob_once_and_the_coordinator_does_the_rest(bench: MirrorScenario) -> None:
    target = bench.target()
    async with workers_here(bench) as carrier:
        report = await mirrored(bench, carrier)
        assert report.ok
        assert {each.blob.digest for each in carrier.carried} == bench.blobs()
        assert 1 < carrier.most <= carrier.capacity()
        assert carrier.size_left[0] == sum(each.blob.size for each in carrier.carried)
        assert all(
            left >= each.blob.size for each, left in zip(carrier.carried, carrier.size_left, strict=True)
        )
    bench.assert_whole(target)
    assert bench.opened() == once(bench) == pushed(bench)
    assert report.totals.blobs_copied == len(bench.blobs())
    assert report.totals.blobs_mounted == target.count("mount") > 0


async def test_a_blob_for_several_targets_goes_to_one_worker_and_is_read_once(bench: MirrorScenario) -> None:
    names = ("one", "two", "three")
    targets = [bench.target(name) for name in names]
    async with workers_here(bench) as carrier:
        report = await mirrored(bench, carrier)
        assert report.ok
        assert len(carrier.carried) == len(bench.blobs())
        assert {len(each.targets) for each in carrier.carried} == {3}
    for target in targets:
        bench.assert_whole(target)
        assert pushed(bench, target.name) == once(bench)
    assert bench.opened() == once(bench)


async def test_half_of_what_is_under_way_are_the_largest_and_in_the_end_all(bench: MirrorScenario) -> None:
    bench.target()
    async with workers_here(bench) as carrier:
        assert (await mirrored(bench, carrier)).ok
        sizes = [each.blob.size for each in carrier.carried]
    assert max(sizes) in sizes[:2]
    last = sizes[-2 * 4 :]
    assert last == sorted(last, reverse=True)


async def test_a_refused_mount_is_read_at_the_target_that_has_the_blob(bench: MirrorScenario) -> None:
    target = bench.target(mounts=False)
    async with workers_here(bench) as carrier:
        assert (await mirrored(bench, carrier)).ok
        again = [each for each in carrier.carried if each.source.registry == "target"]
        assert sum(len(each.targets) for each in again) == target.count("mount") > len(again) > 0
    bench.assert_whole(target)
    assert bench.opened() == once(bench)


async def test_what_a_target_does_not_let_us_read_is_read_at_the_source_again(bench: MirrorScenario) -> None:
    target = bench.target(mounts=False)
    refused: Counter[str] = Counter()

    def fault(call: str, site: Site, name: str) -> BlobflowError | None:
        if call == "open":
            refused[name] += 1
            return NotFound("nothing is read here", status=404)
        return None

    target.fault = fault
    async with workers_here(bench) as carrier:
        report = await mirrored(bench, carrier)
    assert report.ok
    bench.assert_whole(target)
    assert bench.opened() == {name: 2 if name in refused else 1 for name in bench.blobs()}
    assert refused


async def test_a_blob_that_is_not_what_its_digest_says_fails_its_images_alone(bench: MirrorScenario) -> None:
    bench.target()
    blob = min(bench.blobs(), key=lambda each: sum(each in m for m in manifests(bench).values()))
    content = bench.source.blobs
    for held in content.values():
        if blob in held:
            held[Digest(blob)] = b"\0" * len(held[Digest(blob)])
    async with workers_here(bench) as carrier:
        run, services = run_with(bench, carrier)
        report = await run.execute(services)
    failed = {image.source for image in report.images if image.status == "failed"}
    assert failed == {f"source/{name}" for name, named in manifests(bench).items() if blob in named}
    assert {image.status for image in report.images} == {"done", "failed"}
    errors = list(run.errors.values())
    assert all(isinstance(each, DigestMismatch) and each.side == "source" for each in errors)
    assert errors[0].attempts == 2 and errors[0].exit_code == 6
    assert "worker w" in str(errors[0])


def manifests(bench: MirrorScenario) -> dict[str, str]:
    """All that is below each image, as text."""
    below: dict[str, str] = {}
    for name in bench.sample.images:
        site = bench.source.site(name.rpartition(":")[0])
        below[name] = "".join(raw.decode() for _, raw in bench.source.manifests[site].values())
    return below


async def test_events_say_which_worker_brought_a_blob(bench: MirrorScenario) -> None:
    bench.target()
    seen = Begun()
    async with workers_here(bench) as carrier:
        run, services = run_with(bench, carrier, observe=seen)
        assert (await run.execute(services)).ok
    assert {each.worker for each in seen.copies} == {"w1", "w2"}
    assert len(seen.copies) == len(bench.blobs())
    assert not services.meter.active
    report = run.report()
    assert [each.worker for each in report.run.workers] == ["w1", "w2"]
    assert sum(each.copies for each in report.run.workers) == report.totals.blobs_copied
    assert sum(each.bytes for each in report.run.workers) == sum(map(len, bench.sample.blobs.values()))
    others = {type(each).__name__ for each in seen.events if getattr(each, "worker", "")}
    assert others == {"StepStarted"}


async def test_a_carrier_that_tells_only_the_end_is_enough(bench: MirrorScenario) -> None:
    target = bench.target()
    seen = Begun()
    async with workers_here(bench) as carrier:
        carrier.silent = True
        run, services = run_with(bench, carrier, observe=seen)
        assert (await run.execute(services)).ok
    bench.assert_whole(target)
    assert {each.worker for each in seen.copies} == {"w1", "w2"}
    done = [each.step for each in seen.events if isinstance(each, StepDone) and each.kind == "copy"]
    assert sorted(done) == sorted(each.step for each in seen.copies)


async def test_what_the_carrier_does_not_take_is_copied_here(bench: MirrorScenario) -> None:
    target = bench.target()
    theirs = set(sorted(bench.blobs())[::2])
    async with workers_here(bench) as carrier:
        carrier.refuses = lambda carriage: carriage.blob.digest not in theirs
        assert (await mirrored(bench, carrier)).ok
        assert {each.blob.digest for each in carrier.carried} == theirs
    bench.assert_whole(target)
    assert bench.opened() == once(bench)


async def test_a_blob_that_this_process_has_to_read_for_one_target_is_carried_to_none(
    bench: MirrorScenario,
) -> None:
    bench.target("one")
    bench.target("two")
    async with workers_here(bench) as carrier:
        carrier.refuses = lambda carriage: carriage.targets[0].registry == "two"
        assert (await mirrored(bench, carrier)).ok
        assert not carrier.carried
    assert bench.opened() == once(bench)


async def test_without_a_worker_the_run_waits_for_one(bench: MirrorScenario) -> None:
    target = bench.target()
    async with workers_here(bench) as carrier:
        each, carrier.each = carrier.each, 0
        run, services = run_with(bench, carrier)
        running = asyncio.create_task(run.execute(services))
        await until(lambda: target.count("is_empty") + target.count("has") > 0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not carrier.carried and not running.done()
        carrier.each = each
        carrier.has_room()
        assert (await asyncio.wait_for(running, HANGS_AFTER)).ok
    bench.assert_whole(target)


async def test_a_carrier_that_is_lost_ends_the_run_and_the_next_one_does_the_rest(
    bench: MirrorScenario,
) -> None:
    target = bench.target()
    async with workers_here(bench) as carrier:

        def fault(carriage: Carriage) -> BlobflowError | None:
            if len(carrier.carried) > len(bench.blobs()) // 2:
                carrier.lost = EngineLost("no connection to the scheduler any more")
            return None

        carrier.fault = fault
        seen = Begun()
        run, services = run_with(bench, carrier, observe=seen)
        with pytest.raises(EngineLost, match="no connection to the scheduler any more") as raised:
            await run.execute(services)
        assert raised.value.exit_code == 4
        report = run.report()
        assert not report.ok and {image.status for image in report.images} <= {"done", "failed", "skipped"}
        assert carrier.under_way == 0
        ended = [each.step for each in seen.events if isinstance(each, StepDone | StepFailed)]
        assert set(ended) >= {each.step for each in seen.copies}
        there = set(pushed(bench))
        carrier.lost, carrier.fault = None, lambda carriage: None
        assert (await mirrored(bench, carrier)).ok
    bench.assert_whole(target)
    assert pushed(bench) == once(bench)
    assert there < bench.blobs()


async def test_a_run_that_is_cancelled_cancels_what_is_carried_and_waits_for_it(
    bench: MirrorScenario,
) -> None:
    target = bench.target()
    target.push_from.clear()
    async with workers_here(bench) as carrier:
        run, services = run_with(bench, carrier)
        running = asyncio.create_task(run.execute(services))
        await until(lambda: target.count("push") >= 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert carrier.under_way == 0 and carrier.stopped > 1
        assert not [each for worker in carrier.workers for each in worker.moved()]
        target.push_from.set()
        target.calls.clear()
        assert (await mirrored(bench, carrier)).ok
    bench.assert_whole(target)


async def test_winding_down_takes_back_what_no_worker_has_begun(bench: MirrorScenario) -> None:
    bench.target()
    async with workers_here(bench) as carrier:
        carrier.gate.clear()
        run, services = run_with(bench, carrier)
        running = asyncio.create_task(run.execute(services))
        await until(lambda: carrier.under_way == carrier.capacity())
        run.wind_down()
        report = await asyncio.wait_for(running, HANGS_AFTER)
        assert carrier.stopped == carrier.capacity() == len(carrier.carried)
    assert report.totals.blobs_copied == 0
    assert "failed" not in {image.status for image in report.images}


async def test_winding_down_waits_for_what_workers_have_begun(bench: MirrorScenario) -> None:
    target = bench.target()
    target.push_from.clear()
    async with workers_here(bench) as carrier:
        run, services = run_with(bench, carrier)
        running = asyncio.create_task(run.execute(services))
        await until(lambda: target.count("push") >= 4)
        run.wind_down()
        target.push_from.set()
        report = await asyncio.wait_for(running, HANGS_AFTER)
    assert carrier.stopped == 0
    assert report.totals.blobs_copied == target.count("push") == len(carrier.carried) == 4


async def test_without_keep_going_the_first_failure_ends_the_run(bench: MirrorScenario) -> None:
    bench.target()
    async with workers_here(bench, 1) as carrier:
        carrier.each = 1
        error = ConnectionLost("gone", side="source")
        carrier.fault = lambda carriage: error
        report = await mirrored(bench, carrier, Policy(keep_going=False))
    assert len(carrier.carried) == 1
    assert not report.ok


async def test_a_target_that_is_done_does_not_wait_for_a_slow_one(bench: MirrorScenario) -> None:
    fast, slow = bench.target("fast"), bench.target("slow")
    slow.push_from.clear()
    async with workers_here(bench) as carrier:
        carrier.each = len(bench.blobs())
        run, services = run_with(bench, carrier)
        running = asyncio.create_task(run.execute(services))

        await until(lambda: len(fast.tags) == len(bench.sample.images))
        assert not slow.tags
        slow.push_from.set()
        assert (await asyncio.wait_for(running, HANGS_AFTER)).ok
    assert bench.opened() == once(bench)


class Forgetful(MemoryRegistry):
    """A registry that loses one blob after it was pushed first."""

    def __init__(self, name: str, loses: Digest) -> None:
        super().__init__(name)
        self.loses: Digest | None = loses

    def at(self, site: Site) -> MemoryPlace:
        return ForgetfulPlace(self, site)


class ForgetfulPlace(MemoryPlace):
    def __init__(self, registry: Forgetful, site: Site) -> None:
        super().__init__(registry, site)
        self._forgetful = registry

    async def push(self, blob: Descriptor, body: BlobReader) -> None:
        await super().push(blob, body)
        if blob.digest == self._forgetful.loses:
            self._forgetful.loses = None
            del self._blobs()[blob.digest]


async def test_a_blob_that_a_registry_says_it_lacks_is_carried_too(bench: MirrorScenario) -> None:
    name = min(bench.blobs(), key=lambda each: sum(each in below for below in manifests(bench).values()))
    target = bench.targets["target"] = Forgetful("target", Digest(name))
    async with workers_here(bench) as carrier:
        assert (await mirrored(bench, carrier)).ok
        carried = Counter(each.blob.digest for each in carrier.carried)
    bench.assert_whole(target)
    assert carried == {each: 2 if each == name else 1 for each in bench.blobs()}
    assert pushed(bench)[name] == 2


async def test_later_runs_mount_what_workers_have_brought(bench: MirrorScenario) -> None:
    target = bench.targets["target"] = MemoryRegistry("target", logins=lambda repository: "joe")
    async with workers_here(bench) as carrier:
        assert (await mirrored(bench, carrier)).ok
    bench.forget_calls()
    elsewhere = [
        Pair(pair.source, Reference("target", f"two/{pair.target.repository}", pair.target.tag))
        for pair in bench.pairs
    ]
    assert (await bench.mirror(pairs=elsewhere)).ok
    assert (target.count("push"), bench.source.count("open")) == (0, 0)


async def test_what_a_late_target_needs_is_read_at_one_that_has_it(bench: MirrorScenario) -> None:
    early = bench.target("early")
    late = hang(bench, "resolve", name="late")
    async with workers_here(bench) as carrier:
        run, services = run_with(bench, carrier, patience=0)
        running = asyncio.create_task(run.execute(services))
        await until(lambda: len(early.tags) == len(bench.sample.images))
        assert {each.source.registry for each in carrier.carried} == {"source"}
        before = len(carrier.carried)
        late.let.set()
        assert (await asyncio.wait_for(running, HANGS_AFTER)).ok
        assert {each.source.registry for each in carrier.carried[before:]} == {"early"}
    bench.assert_whole(late)
    assert bench.opened() == once(bench)


async def test_what_this_process_has_in_its_store_is_not_carried(bench: MirrorScenario) -> None:
    bench.target("one")
    assert (await run_of_pairs(bench.pairs).execute(bench.services(cache_mode="all"))).ok
    two = bench.target("two")
    async with workers_here(bench) as carrier:
        assert (await mirrored(bench, carrier)).ok
        assert not carrier.carried
    bench.assert_whole(two)
    assert bench.opened() == once(bench)


async def test_what_lies_in_files_is_not_carried(bench: MirrorScenario) -> None:
    layout = bench.target("oci:/mirror")
    async with workers_here(bench) as carrier:
        assert (await mirrored(bench, carrier)).ok
        assert not carrier.carried
    assert pushed(bench, layout.name) == once(bench)


class Scripted(WorkersHere):
    """A carrier that tells something of its own before the end, or leaves something out."""

    def __init__(
        self, carrier: WorkersHere, *, first: str = "", says: bool = True, cancels: bool = False
    ) -> None:
        super().__init__(carrier.workers, each=carrier.each)
        self._first = first
        self._says = says
        self._cancels = cancels

    async def carry(
        self, carriage: Carriage, *, size_left: int, tell: Tell = tell_nobody
    ) -> Sequence[Arrival]:
        if self._first:
            for target in carriage.targets:
                tell(Moved(target, self._first, 1))
            tell(Moved(Site("elsewhere", "app"), self._first))
        if self._cancels:
            raise asyncio.CancelledError  # of a future that somebody else cancelled
        if not self._says:
            return ()
        arrivals = await super().carry(carriage, size_left=size_left, tell=tell)
        return (*arrivals, *arrivals, Arrival(Site("elsewhere", "app"), None, "w1"))


async def test_a_copy_begins_again_where_its_worker_was_lost(bench: MirrorScenario) -> None:
    target = bench.target()
    seen = Begun()
    async with workers_here(bench) as carrier:
        run, services = run_with(bench, Scripted(carrier, first="lost"), observe=seen)
        report = await run.execute(services)
    assert report.ok
    bench.assert_whole(target)
    began = Counter(each.worker for each in seen.copies)
    assert began["lost"] == began["w1"] + began["w2"] == len(bench.blobs())
    assert sum(isinstance(each, StepDone) and each.kind == "copy" for each in seen.events) == len(
        bench.blobs()
    )
    assert {each.worker for each in report.run.workers} == {"w1", "w2"}


@pytest.mark.parametrize("cancels", [False, True])
async def test_a_carrier_that_says_nothing_fails_its_images_and_ends_the_run(
    bench: MirrorScenario, cancels: bool
) -> None:
    bench.target()
    async with workers_here(bench) as carrier:
        silent = Scripted(carrier, says=False, cancels=cancels)
        report = await asyncio.wait_for(mirrored(bench, silent), HANGS_AFTER)
    assert {image.status for image in report.images} == {"failed"}
    assert all("nobody said what became of blob" in image.error for image in report.images)


async def test_a_carrier_that_is_lost_under_a_put_that_waits_ends_the_run(bench: MirrorScenario) -> None:
    name = min(bench.blobs(), key=lambda each: sum(each in below for below in manifests(bench).values()))
    bench.targets["target"] = Forgetful("target", Digest(name))
    async with workers_here(bench) as carrier:

        def fault(carriage: Carriage) -> BlobflowError | None:
            if sum(each.blob.digest == name for each in carrier.carried) == 2:
                carrier.lost = EngineLost("the scheduler is gone")
            return None

        carrier.fault = fault
        run, services = run_with(bench, carrier)
        with pytest.raises(EngineLost, match="the scheduler is gone"):
            await asyncio.wait_for(run.execute(services), HANGS_AFTER)
    assert run.report().images


async def test_a_carrier_that_is_lost_ends_a_run_that_waits_for_late_targets(bench: MirrorScenario) -> None:
    bench.target("one")
    bench.target("two")
    hang(bench, "resolve", name="late")
    here = set(sorted(bench.blobs())[::2])
    async with workers_here(bench) as carrier:
        carrier.refuses = lambda carriage: carriage.blob.digest in here  # staged, and kept for the late one
        carrier.gate.clear()
        carrier.lost = EngineLost("the scheduler is gone")
        run, services = run_with(bench, carrier, patience=0)
        running = asyncio.create_task(run.execute(services))
        await until(lambda: sum(bench.opened().values()) == len(here) and carrier.under_way > 0)
        await until(lambda: here <= pushed(bench, "two").keys() & pushed(bench, "one").keys())
        carrier.gate.set()
        with pytest.raises(EngineLost, match="the scheduler is gone"):
            await asyncio.wait_for(running, HANGS_AFTER)
