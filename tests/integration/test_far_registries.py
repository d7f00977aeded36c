"""Small requests to registries near and far, counted there while they are in flight.

The clock is one that each turn of the event loop moves by as much: how far a registry is depends on how many
turns an answer takes, and not on how fast the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.content import Sink, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.oci import Reference
from blobflow.oci.sample_images import sample_set
from blobflow.transports.registry.http.host_client import MAX_BODIES
from blobflow.transports.store import Store
from tests.fakes.guarded_registry import BLOB, guarded
from tests.fakes.registry import Clock, blob_of, world
from tests.scenarios.limited_registry import LimitedRegistries, pairs_of
from tests.scenarios.registries import fill
from tools.registry.faulty import Crowded, Fault, journalling

TURNS = 40
SLOW = Fault("*", "/v2/", times=0, act=Crowded(1000, turns=TURNS))
FAR, NEAR = 0.04 / TURNS, 0.001 / TURNS
MORE = range(48, 65)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "cache")
    yield opened
    opened.close()


@asynccontextmanager
async def turning(
    clock: Clock, seconds: float, look: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """While inside, each turn of the event loop takes so many seconds of the clock, and `look` is called."""

    async def turn() -> None:
        while True:
            clock.now += seconds
            look()
            await asyncio.sleep(0)

    task = asyncio.create_task(turn())
    try:
        yield
    finally:
        task.cancel()


async def ask_of_a_thousand(sink: Sink, *, at_once: int) -> None:
    """Ask for a thousand blobs that are not there, so many at once."""
    left = iter(range(1000))

    async def ask() -> None:
        for number in left:
            assert not await sink.has(blob_of(b"%d" % number))

    await asyncio.gather(*(ask() for _ in range(at_once)))


@pytest.mark.parametrize(("turn", "at_once"), [(NEAR, range(16, 17)), (FAR, MORE)])
async def test_of_a_thousand_questions_as_many_are_in_flight_as_the_way_is_long(
    turn: float, at_once: range, tmp_path: Path, store: Store
) -> None:
    net = LimitedRegistries(store)
    async with journalling(tmp_path / "registry", [SLOW]) as registry, turning(net.clock, turn):
        sink = net.registries.sink(Site(registry.host, "app"))
        await ask_of_a_thousand(sink, at_once=200)
        await net.registries.close()
        assert registry.journal.peak() in at_once
        assert len(registry.journal) == 1000


async def test_answers_with_a_body_are_fewer_at_once_than_those_without(tmp_path: Path, store: Store) -> None:
    net = LimitedRegistries(store)
    images = sample_set(3, images=1)
    async with journalling(tmp_path / "registry", [SLOW]) as registry, turning(net.clock, FAR):
        fill(registry.store, images)
        [pair] = pairs_of(images, registry.host, registry.host)
        source = net.registries.repository(Site(registry.host, pair.source.repository))
        root = await source.resolve(pair.source.tag)
        await asyncio.gather(*(source.has(blob_of(b"%d" % number)) for number in range(300)))
        await asyncio.gather(*(source.read(root) for _ in range(300)))
        await net.registries.close()
        assert registry.journal.peak("HEAD") in MORE
        assert registry.journal.peak("GET") == MAX_BODIES


async def test_two_far_registries_are_asked_side_by_side(tmp_path: Path, store: Store) -> None:
    """Neither waits for the other: there are moments when both have all that they may have."""
    net = LimitedRegistries(store)
    images = sample_set(3, images=1)
    together: list[int] = []

    def look() -> None:
        together.append(min(net.in_flight(host) for host in (source.host, target.host)))

    async with (
        journalling(tmp_path / "source", [SLOW]) as source,
        journalling(tmp_path / "target", [SLOW]) as target,
        turning(net.clock, FAR, look),
    ):
        fill(source.store, images)
        fill(target.store, images)
        [pair] = pairs_of(images, source.host, target.host)
        root = source.store.repositories.resolve(pair.source.repository, pair.source.tag)
        assert root is not None
        pairs = []
        for number in range(400):
            for registry in (source, target):
                registry.store.repositories.set_tag(pair.source.repository, f"t{number}", root)
            there, here = (
                Reference(end.host, pair.source.repository, f"t{number}") for end in (source, target)
            )
            pairs.append(Pair(there, here))
        report = await run_of_pairs(pairs, Policy(trust_root=True)).execute(net.services())
        await net.registries.close()
        assert report.ok
        assert source.journal.count("HEAD") == target.journal.count("HEAD") == 400
        assert source.journal.peak() in MORE
        assert target.journal.peak() in MORE
        assert max(together) in MORE


async def test_however_many_begin_at_once_one_token_is_asked_for() -> None:
    async with guarded() as (_, server), world(connections=64) as w:
        source = w.source(server.host)
        assert all(await asyncio.gather(*(source.has(BLOB) for _ in range(64))))
    asked = server.asked()
    assert sum("/token" in each for each in asked) == 1


async def test_a_far_registry_with_eight_slots_refuses_next_to_nothing(tmp_path: Path, store: Store) -> None:
    net = LimitedRegistries(store)
    eight = Fault("*", "/v2/", times=0, act=Crowded(8, turns=TURNS))
    async with journalling(tmp_path / "registry", [eight]) as registry, turning(net.clock, FAR):
        sink = net.registries.sink(Site(registry.host, "app"))
        await ask_of_a_thousand(sink, at_once=64)
        await net.registries.close()
        assert registry.journal.count(status=429) <= 0.02 * len(registry.journal)
        assert registry.journal.peak() <= 10
