"""Registries that do not know a repository before it has a manifest: what a run that was ended put there is
found by the next one all the same."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.content import Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.transfer.carrying import Carriage
from blobflow.errors import BlobflowError, EngineLost, Unavailable
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry, MountingPlace
from tests.scenarios.carried import mirrored, workers_here
from tests.scenarios.hanging_targets import until
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.saved_plans import applied, saved_by


class Distribution(MemoryRegistry):
    def __init__(self, name: str) -> None:
        super().__init__(name, logins=lambda repository: "joe")

    def at(self, site: Site) -> MemoryPlace:
        assert self.logins is not None
        return DistributionPlace(self, site, self.logins)


class DistributionPlace(MountingPlace):
    async def is_empty(self) -> bool:
        self._call("is_empty", "")
        return not self._manifests()


def distribution(bench: MirrorScenario) -> Distribution:
    target = bench.targets["target"] = Distribution("target")
    return target


def pushes(target: MemoryRegistry) -> dict[str, int]:
    return {name: n for (call, name), n in target.calls.items() if call == "push"}


async def ended_early(bench: MirrorScenario, target: Distribution) -> set[str]:
    """A run that was cancelled before any manifest was put; returns the blobs that have arrived."""

    def fault(call: str, site: Site, name: str) -> BlobflowError | None:
        if call == "push" and target.count("push") > 8:
            target.push_from.clear()
        return None

    target.fault = fault
    running = asyncio.create_task(run_of_pairs(bench.pairs).execute(bench.services()))
    await until(lambda: not target.push_from.is_set())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    target.push_from.set()
    target.fault = lambda call, site, name: None
    assert not any(target.manifests.values())
    there = {digest for held in target.blobs.values() for digest in held}
    assert there
    target.calls.clear()
    return set(there)


async def test_what_arrived_is_not_sent_again(bench: MirrorScenario) -> None:
    target = distribution(bench)
    there = await ended_early(bench, target)
    report = await bench.mirror()
    assert report.ok
    bench.assert_whole(target)
    assert pushes(target) == dict.fromkeys(bench.blobs() - there, 1)
    assert report.totals.blobs_present >= len(there)


async def test_a_saved_plan_does_not_send_it_again_either(bench: MirrorScenario) -> None:
    target = distribution(bench)
    saved = await saved_by(bench)
    there = await ended_early(bench, target)
    assert (await applied(bench, saved)).ok
    bench.assert_whole(target)
    assert pushes(target) == dict.fromkeys(bench.blobs() - there, 1)


async def test_what_is_gone_since_then_is_sent_again(bench: MirrorScenario) -> None:
    target = distribution(bench)
    await ended_early(bench, target)
    target.blobs.clear()
    assert (await bench.mirror()).ok
    bench.assert_whole(target)
    assert pushes(target) == dict.fromkeys(bench.blobs(), 1)


async def test_a_registry_that_does_not_say_whether_it_has_them_gets_them(bench: MirrorScenario) -> None:
    target = distribution(bench)
    await ended_early(bench, target)
    target.fault = lambda call, site, name: Unavailable("later") if call == "has" else None
    assert (await bench.mirror()).ok
    bench.assert_whole(target)


async def test_nothing_more_is_asked_of_what_is_new(bench: MirrorScenario) -> None:
    target = distribution(bench)
    assert (await bench.mirror()).ok
    assert target.count("has") == 0


async def test_after_a_carrier_was_lost_nothing_is_uploaded_twice(bench: MirrorScenario) -> None:
    target = distribution(bench)
    async with workers_here(bench) as carrier:

        def fault(carriage: Carriage) -> BlobflowError | None:
            if len(carrier.carried) > 8:
                carrier.lost = EngineLost("the scheduler is gone")
            return None

        carrier.fault = fault
        with pytest.raises(EngineLost):
            await mirrored(bench, carrier)
        carrier.lost, carrier.fault = None, lambda carriage: None
        assert (await mirrored(bench, carrier)).ok
    bench.assert_whole(target)
    assert pushes(target) == dict.fromkeys(bench.blobs(), 1)
