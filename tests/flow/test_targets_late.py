"""Targets that answer late: what comes of them then, and what it does to those under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.content import Allowance, Site
from blobflow.engine.execution import Execution
from blobflow.engine.flow import Policy, Run
from blobflow.engine.plan import Pair
from blobflow.engine.shelf import Shelf
from blobflow.errors import Throttled
from blobflow.oci import Descriptor, Reference, digest_of, media
from blobflow.transports.store import Store, StoreCache
from blobflow.transports.store.writer import KEPT_FROM
from tests.flow.test_engine import Bench
from tests.flow.test_referrers import Stand
from tests.flow.test_saved_plans import put_something, saved_by
from tests.flow.test_targets_apart import Hanging, Late, go, hang, until, when_done
from tests.memory import MemoryPlace, MemoryRegistry, ReferringPlace
from tests.signed import Content, item_of


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def bench(store: Store) -> Bench:
    return Bench(store)


async def test_a_failure_that_a_late_target_has_not_told_yet_ends_no_execution_unsaid(bench: Bench) -> None:
    hanging, healthy = hang(bench, "vacant", "has"), bench.target("well")
    hanging.let.set()
    saved = await saved_by(bench, Policy(keep_going=False, no_overwrite=True))
    hanging.let.clear()
    put_something(hanging, bench.pairs[0].target)
    observe, _ = when_done("well", 4, hanging.let.set)
    async with asyncio.timeout(60):
        report = await Execution(saved, observe=observe).go(bench.world(patience=0))
    bench.assert_whole(healthy)
    assert [i.status for i in report.images if i.target.startswith("hanging/")].count("failed") == 1


async def test_a_source_that_lets_too_little_be_read_for_a_late_target_fails_that_alone(bench: Bench) -> None:
    """What is under way is not given up for it."""
    hanging, healthy = hang(bench, "resolve"), bench.target("well")
    for name in ("hanging", "well"):
        bench.targets[name].push_from.clear()
    allowed = [True]
    mine = [p for p in bench.pairs if p.target.host == "well"][:2]
    late = [p for p in bench.pairs if p.target.host == "hanging"][2:]

    def allowance(host: str) -> Allowance | None:
        return None if host != "source" or allowed[0] else Allowance(remaining=0, limit=100, window=21600)

    run = Run([*mine, *late])
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
    store.layout.partial(first.digest, "0" * 16).write_bytes(bytes(KEPT_FROM))
    shelf = Shelf(StoreCache(store), keep=False)
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
        return LateReferring(self, site, self.calls_late, self.let)


class LateReferring(Late, ReferringPlace):
    pass


async def test_a_referrer_that_is_just_being_read_for_another_target_comes_whole(store: Store) -> None:
    """An index that refers to an image: it is known before its children are."""
    stand, content = Stand(store), Content()
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
    stand.targets["late"] = late = HangingReferring("late", ("vacant",))
    pairs = [Pair(Reference("source", "app", "1"), Reference(host, "app", "1")) for host in stand.targets]
    going = asyncio.create_task(go(stand, Run(pairs)))
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
