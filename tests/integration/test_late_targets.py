"""Targets that answer late: what comes of them then, and what it does to those under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from blobflow.content import Allowance, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.planning import plan_made
from blobflow.engine.policy import Policy
from blobflow.engine.saved.planning import run_of_saved
from blobflow.engine.transfer.staging_area import StagingArea
from blobflow.errors import ConnectionLost, Throttled
from blobflow.events import Event, PlanMade
from blobflow.oci import Descriptor, Reference, digest_of, media
from blobflow.permits import FixedLimiters
from blobflow.transports.store import Store, StoreCache
from blobflow.transports.store.partial_files import KEPT_FROM
from tests.deadlines import HANGS_AFTER
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry, ReferringPlace
from tests.fakes.registry import Bytes
from tests.scenarios.hanging_targets import Hanging, Late, go, hang, until, when_done
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.referrers import ReferrersScenario
from tests.scenarios.saved_plans import put_something, saved_by
from tests.scenarios.signed_images import Content, item_of


async def test_a_failure_that_a_late_target_has_not_told_yet_ends_no_execution_unsaid(
    bench: MirrorScenario,
) -> None:
    hanging, healthy = hang(bench, "is_empty", "has"), bench.target("well")
    hanging.let.set()
    saved = await saved_by(bench, Policy(keep_going=False, no_overwrite=True))
    hanging.let.clear()
    put_something(hanging, bench.pairs[0].target)
    observe, _ = when_done("well", 4, hanging.let.set)
    async with asyncio.timeout(HANGS_AFTER):
        report = await run_of_saved(saved, observe=observe).execute(bench.services(patience=0))
    bench.assert_whole(healthy)
    assert [i.status for i in report.images if i.target.startswith("hanging/")].count("failed") == 1


async def test_a_source_that_lets_too_little_be_read_for_a_late_target_fails_that_alone(
    bench: MirrorScenario,
) -> None:
    """What is under way is not given up for it."""
    hanging, healthy = hang(bench, "resolve"), bench.target("well")
    for name in ("hanging", "well"):
        bench.targets[name].push_from.clear()
    allowed = [True]
    mine = [p for p in bench.pairs if p.target.host == "well"][:2]
    late = [p for p in bench.pairs if p.target.host == "hanging"][2:]

    def allowance(host: str) -> Allowance | None:
        return None if host != "source" or allowed[0] else Allowance(remaining=0, limit=100, window=21600)

    run = run_of_pairs([*mine, *late])
    going = asyncio.create_task(go(bench, run, allowance_of=allowance))
    await until(lambda: healthy.count("push") > 0)
    allowed[0] = False
    hanging.let.set()
    await until(lambda: bool(run.errors) or going.done())
    healthy.push_from.set()
    report = await going
    assert {i.target.partition("/")[0]: i.status for i in report.images} == {
        "well": "done",
        "hanging": "failed",
    }
    assert all(isinstance(error, Throttled) for error in run.errors.values())


async def test_what_an_earlier_run_left_is_still_known_when_a_late_target_was_added(store: Store) -> None:
    first, second = (Descriptor("", digest_of(content), 2 * KEPT_FROM) for content in (b"a", b"b"))
    store.paths.partial(first.digest, "0" * 16).write_bytes(bytes(KEPT_FROM))
    shelf = StagingArea(StoreCache(store), keep=False)
    await shelf.find_held({first.digest: first})
    assert shelf.begun(first.digest)
    await shelf.find_held({second.digest: second})
    assert shelf.begun(first.digest)


class SlowSource(MemoryRegistry):
    """A registry that gives one manifest, `slow`, only when it is let."""

    slow = ""

    def __init__(self) -> None:
        super().__init__("source", refers="api")
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    def at(self, site: Site) -> MemoryPlace:
        return SlowPlace(self, site)


class SlowPlace(ReferringPlace):
    async def read(self, manifest: Descriptor) -> bytes:
        source = self._registry
        assert isinstance(source, SlowSource)
        if manifest.digest == source.slow:
            source.asked.set()
            await source.let.wait()
        return await super().read(manifest)


class HangingReferring(Hanging):
    def at(self, site: Site) -> MemoryPlace:
        return LateReferring(self, site, self.calls_late, self.let, self.held)


class LateReferring(Late, ReferringPlace):
    pass


async def test_a_referrer_that_is_just_being_read_for_another_target_comes_whole(store: Store) -> None:
    """An index that refers to an image: it is known before its children are."""
    stand, content = ReferrersScenario(store), Content()
    image = content.image("amd64")
    content.tags["1"] = image.descriptor.digest
    child = content.image("s390x")
    document = {
        "manifests": [item_of(child.descriptor)],
        "subject": item_of(image.descriptor),
        "artifactType": "application/vnd.example.evidence",
    }
    bundle = content.manifest(document, media.OCI_INDEX)
    stand.source = source = SlowSource()
    stand.load(content)
    source.slow = child.descriptor.digest
    stand.targets["late"] = late = HangingReferring("late", ("is_empty",))
    pairs = [Pair(Reference("source", "app", "1"), Reference(host, "app", "1")) for host in stand.targets]
    going = asyncio.create_task(go(stand, run_of_pairs(pairs)))
    await source.asked.wait()
    late.let.set()
    for _ in range(300):
        await asyncio.sleep(0)
    source.let.set()
    report = await going
    assert report.ok, report.images
    for target in (stand.there, late):
        held = target.manifests[Site(target.name, "app")].keys()
        assert {bundle.descriptor.digest, child.descriptor.digest} <= held


async def test_what_is_told_of_a_plan_part_by_part_comes_to_the_price_of_the_whole(
    bench: MirrorScenario,
) -> None:
    first, second = hang(bench, "resolve", name="a"), hang(bench, "is_empty", name="b")
    bench.target("well", mounts=False)
    told: list[PlanMade] = []
    observers = [when_done("well", 4, first.let.set)[0], when_done("a", 4, second.let.set)[0]]

    def observe(event: Event) -> None:
        for each in observers:
            each(event)
        if isinstance(event, PlanMade):
            told.append(event)

    run = run_of_pairs(bench.pairs, observe=observe)
    assert (await go(bench, run)).ok
    assert run.planned is not None
    assert len(told) == 3
    assert told[-1] == plan_made(run.planned.cost, len(bench.pairs))


async def test_what_is_kept_for_a_late_target_takes_no_room_from_those_under_way(
    bench: MirrorScenario,
) -> None:
    hanging, one, other = hang(bench, "resolve"), bench.target("one"), bench.target("other")
    sizes = sorted(map(len, bench.sample.blobs.values()), reverse=True)
    opened: list[dict[str, int]] = []

    def both_done() -> None:
        opened.append(bench.opened())
        hanging.let.set()

    arrived = [when_done(name, 4, lambda: ended.append(""))[0] for name in ("one", "other")]
    ended: list[str] = []

    def observe(event: Event) -> None:
        before = len(ended)
        for each in arrived:
            each(event)
        if before < len(ended) == 2:
            both_done()

    services = msgspec.structs.replace(
        bench.services(patience=0, staging_bytes=sum(sizes[:4])), limiter_at=FixedLimiters(1, 1).at
    )
    async with asyncio.timeout(HANGS_AFTER):
        assert (await run_of_pairs(bench.pairs, observe=observe).execute(services)).ok
    for target in (hanging, one, other):
        bench.assert_whole(target)
    assert opened == [dict.fromkeys(bench.blobs(), 1)]


async def test_cancelled_while_only_a_late_target_is_waited_for(bench: MirrorScenario) -> None:
    """What is kept for it is let go, and the run ends as every cancelled one does."""
    hang(bench, "resolve")
    bench.target("well")

    def cancel() -> None:
        asyncio.get_running_loop().call_soon(running.cancel)

    observe, _ = when_done("well", 4, cancel)
    before = asyncio.all_tasks()
    run = run_of_pairs(bench.pairs, observe=observe)
    running = asyncio.create_task(go(bench, run))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [image.status for image in run.report().images].count("done") == 4
    assert asyncio.all_tasks() == before


async def test_a_blob_whose_holder_was_cancelled_can_still_be_let_go(store: Store) -> None:
    """In which order the tasks of a run are cancelled is nobody's choice."""
    content = b"some bytes"
    shelf, blob = StagingArea(StoreCache(store), keep=False), Descriptor("", digest_of(content), len(content))

    async def hold() -> None:
        async with asyncio.TaskGroup() as tasks:
            assert shelf.hold(blob, Bytes(content), tasks)

    holding = asyncio.create_task(hold())
    for _ in range(20):
        await asyncio.sleep(0)
    holding.cancel()
    await asyncio.wait([holding])
    shelf.release(blob.digest, arrived=True)
    assert not shelf.on(blob.digest)


async def test_a_copy_that_waits_for_its_next_attempt_is_not_begun_again_after_winding_down(
    bench: MirrorScenario,
) -> None:
    """Nor is it waited for: a source that is to be left alone for a minute may be left at once."""
    target = bench.target("well")
    for_ever, delays = asyncio.Event(), []
    bench.source.fault = lambda call, *_: ConnectionLost("cut") if call == "open" else None

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        await for_ever.wait()

    run = run_of_pairs(bench.pairs)
    services = msgspec.structs.replace(bench.services(patience=0), sleep=sleep)
    before = asyncio.all_tasks()
    going = asyncio.create_task(run.execute(services))
    await until(lambda: bool(delays))
    begun = target.count("push")
    assert run.wind_down()
    async with asyncio.timeout(HANGS_AFTER):
        report = await going
    assert target.count("push") == begun
    assert asyncio.all_tasks() == before
    assert {image.status for image in report.images} <= {"failed", "skipped"}


async def test_what_is_kept_for_a_late_target_has_no_more_files_open_than_there_may_be(
    bench: MirrorScenario, tmp_path: Path
) -> None:
    hanging, healthy = hang(bench, "resolve"), bench.target("well")
    kept: list[int] = []

    def done() -> None:
        kept.append(len(list((tmp_path / "store" / "partials").iterdir())))
        hanging.let.set()

    observe, _ = when_done("well", 4, done)
    assert (await go(bench, run_of_pairs(bench.pairs, observe=observe), staging_blobs=3)).ok
    bench.assert_whole(healthy)
    bench.assert_whole(hanging)
    assert kept == [3]
    assert sum(bench.opened().values()) == 2 * len(bench.blobs()) - 3
