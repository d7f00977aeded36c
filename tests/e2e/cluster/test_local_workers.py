"""`--engine local:N`: worker processes of this machine, that come and go with the run."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.deadlines import HANGS_AFTER
from tests.e2e.cluster.conftest import (
    PREFIX,
    SOME,
    Source,
    assert_uploaded_once,
    assert_whole,
    open_sessions,
    processes_below,
    read_again,
    told,
)
from tests.e2e.cluster.gate import Gate
from tests.e2e.conftest import StartsRegistries
from tests.scenarios.child_process import Child, child
from tools.imageset import Layout
from tools.processes import Registry


@asynccontextmanager
async def syncing(
    source: Source, gate: Gate, layout: Layout, target: Registry, home: Path
) -> AsyncIterator[Child]:
    """A sync by two processes, one blob at a time each, which reach the source through the gate."""
    config = home / ".config" / "blobflow" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f'[registry."{source.registry.host}"]\nproxy = "http://{gate.host}"\n')
    words = ["--engine", "local:2", "--concurrency", "2"]
    places = [f"{target.host}/{PREFIX}"]
    async with child(
        *words, home=home, images=[*layout.images], source=source.registry.host, targets=places
    ) as run:
        yield run


def workers_of(run: Child) -> list[int]:
    """The processes below the run that are workers."""
    below = processes_below(run.process.pid)
    return [pid for pid in below if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_one_of_two_processes_dies_in_mid_blob_and_the_other_brings_the_rest(
    source: Source, start_registry: StartsRegistries, home: Path
) -> None:
    layout, target, gate = source.fill(), start_registry("target"), source.way()
    gate.hold_after(SOME)
    async with syncing(source, gate, layout, target, home) as run:
        await gate.until_held()
        workers = workers_of(run)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        gate.release()
        assert await run.ended() == 0, told(run)
    assert read_again(source.registry, layout).total() <= 1
    assert_uploaded_once(target, layout)
    assert_whole(target, layout)
    await asyncio.to_thread(assert_gone, workers)


async def test_ctrl_c_ends_the_processes_too(
    source: Source, start_registry: StartsRegistries, home: Path
) -> None:
    layout, target, gate = source.fill(), start_registry("target"), source.way()
    gate.hold_after(SOME)
    async with syncing(source, gate, layout, target, home) as run:
        await gate.until_held()
        workers = processes_below(run.process.pid)
        run.signal(signal.SIGINT)
        assert await run.ended() == 130, told(run)
    assert open_sessions(target) == 0
    await asyncio.to_thread(assert_gone, workers)


def assert_gone(processes: list[int]) -> None:
    """They have ended, or do now."""
    deadline = time.monotonic() + HANGS_AFTER
    while living := [pid for pid in processes if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, living
        time.sleep(0.05)
