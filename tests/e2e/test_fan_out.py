"""One source and four targets: two on a fast line, one on a slow one, and one that dies midway.

The targets are docker-registries behind relays (tools/network_path.py); what was read and uploaded stands in
the registries' access logs. The short form has no clock in it: the slow line stands still once it has
carried a part of the set, until the run has told that both fast targets have everything. The soak measures
them against a run with the two alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from blobflow.transports.store.partial_files import KEPT_FROM
from tests.e2e.conftest import StartsRegistries
from tests.scenarios.child_process import Child, child, held, partials, store_of
from tools import imageset
from tools.imageset import Layout
from tools.network_path import LongPath, Shape, long_path
from tools.processes import Registry

PREFIX = "m"
FAST, SLOW = Shape(total_rate=30e6), Shape(total_rate=2e6)
# The fast targets may take so much longer beside a slow and a dying one than without them.
AT_MOST = 1.3


class Brake:
    """A relay's sleep: its line stands still once it has carried `after` bytes, until `released`."""

    def __init__(self, after: int) -> None:
        self.path: LongPath | None = None
        self.released = asyncio.Event()
        self._after = after

    async def sleep(self, seconds: float) -> None:
        if self.path is not None and self.path.up >= self._after:
            await self.released.wait()
        await asyncio.sleep(seconds)


def dying(layout: Layout) -> Shape:
    """A line that is gone before a single image can be whole behind it."""
    return Shape(dies_after=min(sum(image.blobs.values()) for image in layout.images.values()) // 2)


@asynccontextmanager
async def syncing(
    layout: Layout, source: Registry, paths: Sequence[LongPath], home: Path
) -> AsyncIterator[Child]:
    """`blobflow sync` of the whole set to the far ends of the paths."""
    targets = [f"{path.host}/{PREFIX}" for path in paths]
    async with child(home=home, images=[*layout.images], source=source.host, targets=targets) as run:
        yield run


def told(run: Child, path: LongPath) -> Counter[str]:
    """How many images behind the path the run has told to be done, present, failed or skipped."""
    return Counter(run.images(path.host).values())


async def until_done(run: Child, paths: Sequence[LongPath], images: int) -> None:
    """Wait until the run has told that every image is behind each of the paths."""
    await run.until(lambda _: all(told(run, path)["done"] == images for path in paths))


def rows(run: Child, path: LongPath) -> Counter[str]:
    """The statuses of the path's images in the report."""
    images = run.report()["images"]
    return Counter(image["status"] for image in images if image["target"].startswith(f"{path.host}/"))


def assert_whole(registry: Registry, layout: Layout) -> None:
    for image in layout.images.values():
        assert registry.digest_of(f"{PREFIX}/{image.repository}", image.tag) == image.digest


def left_whole(home: Path, layout: Layout) -> set[str]:
    """The blobs that the store has every byte of."""
    found = partials(store_of(home))
    whole = {digest for digest, size in layout.blobs.items() if found.get(digest) == size}
    return whole | held(store_of(home))


async def test_a_slow_target_stalls_nobody_and_a_dead_one_is_caught_up_from_the_store(
    start_registry: StartsRegistries, tmp_path: Path, home: Path
) -> None:
    layout = imageset.synthetic(tmp_path / "set", seed=4, images=3, layer_size=1_100_000)
    images, blobs = len(layout.images), layout.blobs
    source = start_registry("source")
    imageset.push(layout.path, source.host)
    source.forget()
    registries = [start_registry(name) for name in ("one", "two", "slow", "dead")]
    brake = Brake(layout.unique_bytes // 4)
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(long_path(registry.host, FAST)) for registry in registries[:2]
        ]
        slow = brake.path = await stack.enter_async_context(
            long_path(registries[2].host, SLOW, sleep=brake.sleep)
        )
        dead = await stack.enter_async_context(long_path(registries[3].host, dying(layout)))
        paths = [one, two, slow, dead]

        async with syncing(layout, source, paths, home) as run:
            await until_done(run, [one, two], images)
            assert slow.up < layout.unique_bytes // 2
            brake.released.set()
            assert await run.ended() == 3
            assert [rows(run, path) for path in paths] == [{"done": images}] * 3 + [{"failed": images}]
            failed = [image["error"] for image in run.report()["images"] if image["status"] == "failed"]
            assert all(error.startswith("target: ") and dead.host in error for error in failed)
        assert dead.dead
        assert source.requests().reads_of_blobs() == Counter(blobs.keys())
        for registry in registries[:3]:
            assert registry.requests().uploads() == Counter(blobs.keys())
            assert_whole(registry, layout)
        lacking = blobs.keys() - registries[3].requests().uploads().keys()
        kept = left_whole(home, layout)
        assert {digest for digest in lacking if blobs[digest] >= KEPT_FROM} <= kept

        for registry in (source, *registries):
            registry.forget()
        await stack.enter_async_context(long_path(registries[3].host, Shape(), listen=dead.host))
        async with syncing(layout, source, paths, home) as run:
            assert await run.ended() == 0
            assert [rows(run, path) for path in paths] == [{"present": images}] * 3 + [{"done": images}]
        # docker-registry 2.8.2 knows no repository without a manifest, and then gets its blobs again.
        taken = registries[3].requests().uploads()
        assert lacking <= taken.keys()
        assert set(taken.values()) == {1}
        assert source.requests().reads_of_blobs() == Counter(taken.keys() - kept)
        assert not any(registry.requests().uploads() for registry in registries[:3])
        assert_whole(registries[3], layout)


@pytest.mark.soak
async def test_the_fast_targets_hardly_notice_the_slow_and_the_dying_one(
    start_registry: StartsRegistries, tmp_path: Path
) -> None:
    layout = imageset.synthetic(tmp_path / "set", seed=4, images=4, layer_size=4_000_000)
    assert 50e6 < layout.unique_bytes <= 60e6
    source = start_registry("source")
    imageset.push(layout.path, source.host)

    async def measured(name: str, *others: Shape) -> float:
        """Seconds from the start of a run until both fast targets have everything."""
        async with AsyncExitStack() as stack:
            paths = [
                await stack.enter_async_context(long_path(start_registry(f"{name}-{number}").host, shape))
                for number, shape in enumerate([FAST, FAST, *others])
            ]
            began = time.monotonic()
            async with syncing(layout, source, paths, tmp_path / name) as run:
                await until_done(run, paths[:2], len(layout.images))
                seconds = time.monotonic() - began
                assert await run.ended() == (3 if others else 0)
            assert [rows(run, path)["done"] for path in paths[:3]] == [len(layout.images)] * len(paths[:3])
            return seconds

    alone, beside = await measured("alone"), await measured("beside", SLOW, dying(layout))
    print(f"alone {alone:.2f} s, beside a slow and a dying one {beside:.2f} s: {beside / alone:.2f} x")
    assert beside <= AT_MOST * alone
