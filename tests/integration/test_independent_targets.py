"""Targets apart: one that hangs or refuses holds up no other, and what they share is still read once."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from blobflow.content import SMALL_BLOB, Site
from blobflow.engine.execution import Run, run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Copy
from blobflow.engine.policy import Policy
from blobflow.errors import BlobflowError, ConnectFailed, ConnectionLost, Denied, TimedOut
from blobflow.events import Event, PlanMade
from blobflow.oci import Reference, digest_of
from blobflow.oci.sample_images import sample_set
from blobflow.permits import FixedLimiters
from blobflow.transports.store import Store
from tests.deadlines import HANGS_AFTER
from tests.library import plan_pairs
from tests.scenarios.hanging_targets import go, hang, until, when_done
from tests.scenarios.mirror import MirrorScenario

ASKED_BEFORE = ("resolve", "is_empty", "has")


@pytest.mark.parametrize("call", [*ASKED_BEFORE, "push", "mount", "put"])
async def test_a_healthy_target_is_done_before_another_answers_at_all(
    bench: MirrorScenario, call: str
) -> None:
    hanging = hang(bench, call)
    for pair in bench.pairs if call == "has" else ():  # something is there, so that more is asked
        hanging.blobs[hanging.site(pair.target.repository)] = {digest_of(b"other"): b"other"}
    refusing, healthy = bench.target("refusing"), bench.target("well")
    refusing.fault = lambda *_: ConnectFailed("connection refused")
    observe, arrived = when_done("well", 4, hanging.let.set)
    report = await go(bench, run_of_pairs(bench.pairs, observe=observe))
    assert len(arrived) == 4
    bench.assert_whole(healthy)
    for repository in {pair.target.repository for pair in bench.pairs}:
        hanging.blobs[hanging.site(repository)].pop(digest_of(b"other"), None)
    bench.assert_whole(hanging)
    assert {i.target.partition("/")[0] for i in report.images if i.status == "failed"} == {"refusing"}
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1), "what the late one wants was kept for it"
    assert bench.source.count("resolve") == 2 * len(bench.sample.images), "once, and whether it moved"
    reads = [n for (made, _), n in bench.source.calls.items() if made == "read"]
    assert set(reads) == {1}


async def test_what_times_out_at_last_fails_its_own_images_alone(bench: MirrorScenario) -> None:
    hanging, healthy = hang(bench, "resolve"), bench.target("well")
    hanging.fault = lambda *_: TimedOut("no answer for 60 s")
    observe, _ = when_done("well", 4, hanging.let.set)
    report = await go(bench, run_of_pairs(bench.pairs, observe=observe))
    bench.assert_whole(healthy)
    assert sorted(image.status for image in report.images) == ["done"] * 4 + ["failed"] * 4
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)


async def test_two_late_ones_come_one_after_the_other(bench: MirrorScenario) -> None:
    first, second, healthy = (
        hang(bench, "resolve", name="a"),
        hang(bench, "is_empty", name="b"),
        bench.target("well"),
    )
    observe, _ = when_done("well", 4, first.let.set)
    then, _ = when_done("a", 4, second.let.set)
    prices: list[PlanMade] = []

    def both(event: Event) -> None:
        observe(event)
        then(event)
        if isinstance(event, PlanMade):
            prices.append(event)

    run = run_of_pairs(bench.pairs, observe=both)
    report = await go(bench, run)
    assert report.ok
    for target in (first, second, healthy):
        bench.assert_whole(target)
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)
    blobs = len(bench.blobs())
    assert [cost.copies for cost in prices] == [blobs, 2 * blobs, 3 * blobs]
    assert run.planned is not None
    assert len(run.planned.plan.goals) == 12
    steps = run.planned.plan.steps
    for digest, numbers in run.planned.plan.reads.items():
        for number in numbers:
            step = steps[number]
            assert isinstance(step, Copy)
            assert step.blob.digest == digest
    for number, needs in enumerate(run.planned.plan.needs):
        assert all(
            need.step < number and steps[need.step].target.registry == steps[number].target.registry
            for need in needs
        )


async def test_answers_within_the_patience_make_one_plan(bench: MirrorScenario) -> None:
    bench.target("one"), bench.target("two")
    prices: list[PlanMade] = []
    run = run_of_pairs(bench.pairs, observe=lambda e: prices.append(e) if isinstance(e, PlanMade) else None)
    assert (await run.execute(bench.services())).ok
    assert [cost.copies for cost in prices] == [2 * len(bench.blobs())]


async def test_a_plan_waits_for_all_of_its_targets(bench: MirrorScenario) -> None:
    hanging = hang(bench, "is_empty")
    bench.target("well")
    planning = asyncio.create_task(plan_pairs(bench.pairs, bench.services(patience=0)))
    await until(lambda: bench.targets["well"].count("is_empty") > 0)
    assert not planning.done()
    hanging.let.set()
    planned = await planning
    assert {goal.pair for goal in planned.plan.goals} == set(bench.pairs)


async def test_winding_down_asks_the_late_one_no_more(bench: MirrorScenario) -> None:
    hang(bench, "resolve")
    healthy = bench.target("well")
    runs: list[Run] = []
    observe, _ = when_done("well", 1, lambda: wound_down.append(runs[0].wind_down()))
    wound_down: list[bool] = []
    runs.append(run_of_pairs(bench.pairs, observe=observe))
    report = await go(bench, runs[0])
    assert wound_down == [True]
    statuses = {i.target: i.status for i in report.images}
    assert {s for t, s in statuses.items() if t.startswith("hanging/")} == {"skipped"}
    assert healthy.count("put") > 0


async def test_fail_fast_does_not_wait_for_the_late_one(bench: MirrorScenario) -> None:
    hang(bench, "resolve")
    bench.target("well").fault = lambda call, *_: Denied("no", status=403) if call == "push" else None
    report = await go(bench, run_of_pairs(bench.pairs, Policy(keep_going=False)))
    assert {i.status for i in report.images if i.target.startswith("hanging/")} == {"skipped"}


async def test_a_late_failure_ends_a_run_that_is_to_fail_fast(bench: MirrorScenario) -> None:
    hanging, healthy = hang(bench, "resolve"), bench.target("well")
    hanging.fault = lambda *_: Denied("no", status=403)
    healthy.push_from.clear()
    run = run_of_pairs(bench.pairs, Policy(keep_going=False))

    async def refuse() -> None:
        await until(lambda: healthy.count("push") > 0)
        hanging.let.set()
        await until(lambda: bool(run.errors))
        healthy.push_from.set()

    refusing = asyncio.create_task(refuse())
    report = await go(bench, run)
    await refusing
    assert "done" not in {image.status for image in report.images}
    assert healthy.count("put") == 0


async def test_a_cancelled_run_leaves_no_question_open(bench: MirrorScenario) -> None:
    hang(bench, "resolve")
    healthy = bench.target("well")
    healthy.push_from.clear()
    before = asyncio.all_tasks()
    running = asyncio.create_task(go(bench, run_of_pairs(bench.pairs)))
    await until(lambda: healthy.count("push") > 0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == before


async def test_a_cancel_after_the_others_are_done_is_a_cancel(bench: MirrorScenario) -> None:
    """What they needed is still kept for the late one, which is asked no more."""
    hang(bench, "resolve")
    done = asyncio.Event()
    observe, arrived = when_done("well", 4, done.set)
    bench.target("well")
    run = run_of_pairs(bench.pairs, observe=observe)
    running = asyncio.create_task(go(bench, run))
    async with asyncio.timeout(HANGS_AFTER):
        await done.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(arrived) == 4
    assert sorted(image.status for image in run.report().images) == ["done"] * 4 + ["skipped"] * 4


async def test_what_nobody_late_wants_is_let_go_when_that_is_known(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "store")) as store:
        bench = MirrorScenario(store)
        hanging = hang(bench, "resolve")
        bench.target("well")
        hanging.fault = lambda call, *_: TimedOut("no answer") if call == "resolve" else None
        observe, _ = when_done("well", 4, hanging.let.set)
        await go(bench, run_of_pairs(bench.pairs, observe=observe))
    assert list((tmp_path / "store" / "partials").iterdir()) == []


async def test_a_full_shelf_makes_the_late_one_read_anew_and_stops_nobody(bench: MirrorScenario) -> None:
    hanging, healthy = hang(bench, "resolve"), bench.target("well")
    observe, _ = when_done("well", 4, hanging.let.set)
    report = await go(bench, run_of_pairs(bench.pairs, observe=observe), staging_bytes=0)
    assert report.ok
    bench.assert_whole(healthy)
    bench.assert_whole(hanging)
    assert bench.opened() == dict.fromkeys(bench.blobs(), 2)


async def test_tags_of_one_target_wait_for_no_other_though_there_are_many(bench: MirrorScenario) -> None:
    """More questions than are asked at once: the ones that get no answer must not take all the places."""
    hanging, healthy = hang(bench, "resolve"), bench.target("well")
    first = bench.pairs[0].source
    copies = [
        Pair(first, Reference(name, f"copy/{n}", "1")) for name in ("hanging", "well") for n in range(100)
    ]
    observe, arrived = when_done("well", 100, hanging.let.set)
    report = await go(bench, run_of_pairs(copies, observe=observe))
    assert report.ok
    assert len(arrived) == 100
    assert msgspec.to_builtins(report.totals)["failed"] == 0
    assert healthy.count("push") == hanging.count("push")


async def test_mounts_that_are_refused_after_winding_down_start_no_upload(bench: MirrorScenario) -> None:
    target = hang(bench, "mount", name="well")
    target.mounts = False
    run = run_of_pairs(bench.pairs)
    services = msgspec.structs.replace(bench.services(), limiter_at=FixedLimiters(100, 1000).at)
    going = asyncio.create_task(run.execute(services))
    await until(lambda: target.count("push") == len(bench.blobs()))
    await until(lambda: target.held["mount"] > 0)
    assert run.wind_down()
    target.let.set()
    report = await going
    assert target.count("mount") > 0
    assert target.count("push") == len(bench.blobs())
    assert {image.status for image in report.images} <= {"done", "skipped"}


async def test_a_copy_that_breaks_after_winding_down_is_not_begun_again(bench: MirrorScenario) -> None:
    target = bench.target("well")
    target.push_from.clear()
    run = run_of_pairs(bench.pairs)
    going = asyncio.create_task(go(bench, run))
    await until(lambda: target.count("push") > 0)
    begun = target.count("push")
    assert run.wind_down()
    bench.source.fault = lambda call, *_: ConnectionLost("cut") if call == "open" else None
    target.push_from.set()
    report = await going
    assert target.count("push") == begun
    assert begun > 0
    assert {i.error for i in report.images if i.status == "skipped"} <= {"not finished: the run ended before"}
    assert bench.delays == []
    assert "done" not in {image.status for image in report.images}


async def test_a_blob_that_is_sent_again_takes_its_slot_at_the_source_again(store: Store) -> None:
    """One slot at the source: while a broken copy waits for its next attempt, nothing else is read that takes
    a slot."""
    bench = MirrorScenario(store, sample_set(7, images=2, layer_size=8 * SMALL_BLOB))
    target = bench.target("well")
    streamed = {digest: len(c) for digest, c in bench.sample.blobs.items() if len(c) > SMALL_BLOB}
    assert len(streamed) > 2
    blob = max(streamed, key=streamed.__getitem__)
    opened: list[str] = []
    broken = iter([True])

    def source(call: str, site: Site, name: str) -> BlobflowError | None:
        if call == "open" and name in streamed:
            opened.append(name)
            if name == blob and next(broken, False):
                return ConnectionLost("cut")
        return None

    async def sleep(seconds: float) -> None:
        for _ in range(500):
            await asyncio.sleep(0)

    bench.source.fault = source
    one, eight = FixedLimiters(1), FixedLimiters(8)
    services = msgspec.structs.replace(
        bench.services(), limiter_at=lambda host: (one if host == "source" else eight).at(host), sleep=sleep
    )
    assert (await run_of_pairs(bench.pairs).execute(services)).ok
    bench.assert_whole(target)
    first = opened.index(blob)
    assert opened[first + 1] == blob


async def test_one_target_that_lost_all_beside_one_that_has_all(bench: MirrorScenario) -> None:
    """What is read for the one is not what the other was found to have."""
    lost, whole = bench.target("lost"), bench.target("whole")
    assert (await bench.mirror()).ok
    lost.tags.clear()
    lost.manifests.clear()
    lost.blobs.clear()
    bench.forget_calls()
    report = await bench.mirror()
    assert report.ok
    bench.assert_whole(lost)
    assert {call for call, _ in whole.calls} == {"resolve"}
    assert bench.opened() == dict.fromkeys(bench.blobs(), 1)
