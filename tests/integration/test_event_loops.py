"""`mirror` where a library user calls it: in a thread, on any loop, again and again, several at once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from blobflow import Pair, Reference
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from tests.deadlines import HANGS_AFTER
from tests.library import mirror
from tests.scenarios.fault_rows import tag_at
from tests.scenarios.registries import fill, registries
from tools.registry.faulty import JournallingRegistry

IMAGES = sample_set(6, images=3, architectures=("amd64",), layer_size=8192)
LOOPS = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
TIMES = 8


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[JournallingRegistry, JournallingRegistry]]:
    async with registries(tmp_path, ["source", "target"]) as (source, target):
        fill(source.store, IMAGES)
        yield source, target


def pairs_of(source: JournallingRegistry, target: JournallingRegistry, prefix: str = "m") -> list[Pair]:
    pairs = []
    for name in IMAGES.images:
        repository, _, tag = name.rpartition(":")
        at = Reference(target.host, f"{prefix}/{repository}", tag)
        pairs.append(Pair(Reference(source.host, repository, tag), at))
    return pairs


def all_there(target: JournallingRegistry, prefix: str = "m") -> bool:
    return all(
        tag_at(target.store, f"{prefix}/{name}") == stored.digest for name, stored in IMAGES.images.items()
    )


def mirrored(pairs: list[Pair], settings: Settings, loop: object, policy: Policy = KEEP_GOING) -> Report:
    """A whole run in the thread that calls this, on a loop of its own."""
    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
        return runner.run(mirror(pairs, settings, policy))


@LOOPS
async def test_in_a_thread_beside_a_loop(tmp_path: Path, loop: object) -> None:
    async with two(tmp_path) as (source, target):
        report = await asyncio.to_thread(
            mirrored, pairs_of(source, target), Settings(cache_dir=tmp_path / "cache"), loop
        )
        assert report.ok
        assert all_there(target)


async def test_several_at_once_in_threads_and_on_this_loop_with_one_store(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path / "cache", cache="all")
    loops = [asyncio.new_event_loop, uvloop.new_event_loop] * 2
    async with two(tmp_path) as (source, target):
        running = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(loops)) as threads:
            runs = [
                running.run_in_executor(
                    threads, mirrored, pairs_of(source, target, f"t{number}"), settings, loop
                )
                for number, loop in enumerate(loops)
            ]
            here = [mirror(pairs_of(source, target, f"h{number}"), settings) for number in range(2)]
            reports = await asyncio.gather(*runs, *here)
        assert [report.ok for report in reports] == [True] * 6
        prefixes = [f"t{number}" for number in range(len(loops))] + ["h0", "h1"]
        assert all(all_there(target, prefix) for prefix in prefixes)


async def test_the_same_images_twice_at_once(tmp_path: Path) -> None:
    async with two(tmp_path) as (source, target):
        pairs = pairs_of(source, target)
        for settings in (Settings(), Settings(cache_dir=tmp_path / "cache")):
            reports = await asyncio.gather(mirror(pairs, settings), mirror(pairs, settings))
            assert [report.ok for report in reports] == [True, True]
        assert all_there(target)


def files(most: int, seconds: float) -> int:
    """Open files, of the registries here too: these close a connection a moment after its client did, and
    that long, until there are not more than `most`, is waited."""
    given_up = time.monotonic() + seconds
    while (found := len([*Path("/proc/self/fd").iterdir()])) > most and time.monotonic() < given_up:
        time.sleep(0.01)
    return found


def threads_of_ours() -> int:
    """Threads but for those of loops' own executors: these have as many as they ever had to do at once."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


# An audit asks the target for blobs, and wakes threads of the registry, which is in this process.
QUIET = Policy(audit="none")


@LOOPS
@pytest.mark.parametrize("one_loop", [True, False], ids=["one-loop", "a-loop-each"])
async def test_again_and_again_leaves_nothing(tmp_path: Path, loop: object, one_loop: bool) -> None:
    """Loops that are still there, open files and threads after each run of a library user."""
    settings = Settings(cache_dir=tmp_path / "cache")
    seen: list[tuple[int, int, int]] = []

    def count() -> None:
        gc.collect()
        loops = sum(isinstance(each, asyncio.AbstractEventLoop) for each in gc.get_objects())
        match len(seen):
            case 0 | 1:
                found = files(0, 0)
            case 2:  # what all others are held against
                found = files(0, 2)
            case _:
                found = files(seen[2][1], HANGS_AFTER)
        seen.append((loops, found, threads_of_ours()))

    async with two(tmp_path) as (source, target):
        pairs = pairs_of(source, target)

        async def times() -> None:
            for _ in range(TIMES):
                assert (await mirror(pairs, settings, QUIET)).ok
                count()

        def run() -> None:
            with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]
                runner.run(times())

        def runs() -> None:
            for _ in range(TIMES):
                assert mirrored(pairs, settings, loop, QUIET).ok
                count()

        await asyncio.to_thread(run if one_loop else runs)
    loops, most, threads = seen[2]
    assert [each for each in seen[2:] if each[0] != loops or each[1] > most or each[2] > threads] == []
