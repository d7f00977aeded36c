"""Workers and schedulers that are stopped as a machine stops that hangs: they keep what they have, and answer
nothing. All is counted; whom the run gave up says its warnings.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster.conftest import (
    SOME,
    Field,
    assert_whole,
    open_sessions,
    read_again,
    told,
    until_closed,
)
from tests.e2e.conftest import StartsRegistries
from tests.scenarios.child_process import Child
from tools.cluster import Part


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASK_BLOBFLOW__WORKER_SILENCE", "4")


@contextmanager
def standing(part: Part) -> Iterator[None]:
    """A process that does not run meanwhile."""
    part.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        part.process.send_signal(signal.SIGCONT)


def silences(run: Child) -> list[str]:
    """What the run said of workers that do not answer."""
    said = [event["message"] for event in run.events if event["event"] == "warning"]
    return [sentence for sentence in said if "has not answered" in sentence]


def named(run: Child, worker: str) -> bool:
    return any(f"worker {worker} " in sentence for sentence in silences(run))


async def test_what_a_worker_has_that_stands_still_is_brought_by_another_and_given_up_when_it_wakes(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    workers = field.have(2)
    layout, target = field.filled.fill(), start_registry("target")
    field.hold_after(workers, SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held(workers)
        with standing(field.workers[workers[0]]):
            field.gates[workers[1]].release()
            assert await run.ended() == 0, told(run)
        field.gates[workers[0]].release()
    assert named(run, workers[0]), told(run)
    lost = len(silences(run))
    assert read_again(field.source, layout).total() <= lost
    uploads = target.requests().uploads()
    assert uploads.keys() == layout.blobs.keys()
    assert (uploads - Counter(layout.blobs.keys())).total() <= lost
    assert_whole(target, layout)
    await until_closed(target)


async def test_a_worker_that_wakes_in_a_run_stops_what_it_had_and_works_on(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    """The other one stands before its gate meanwhile: whatever arrives then is brought by this one."""
    workers = field.have(2)
    layout, target = field.filled.fill(), start_registry("target")
    field.hold_after(workers, SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held(workers)
        with standing(field.workers[workers[0]]):
            await run.until(lambda events: named(run, workers[0]))
        field.gates[workers[0]].release()
        await run.until(lambda events: sum(event["event"] == "done" for event in events) >= 5)
        field.gates[workers[1]].release()
        assert await run.ended() == 0, told(run)
    assert read_again(field.source, layout).total() <= len(silences(run))
    assert target.requests().uploads().keys() == layout.blobs.keys()
    assert_whole(target, layout)
    await until_closed(target)


async def test_a_worker_that_stands_still_at_the_start_is_named_and_holds_nobody_up(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    workers = field.have(2)
    layout, target = field.filled.fill(), start_registry("target")
    with standing(field.workers[workers[0]]):
        async with field.syncing(layout, [target], home) as run:
            assert await run.ended() == 0, told(run)
    assert not any(event.get("worker") == workers[0] for event in run.events)
    assert read_again(field.source, layout).total() <= len(silences(run))
    assert_whole(target, layout)


async def test_ctrl_c_ends_a_run_one_of_whose_workers_stands_still(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    workers = field.have(2)
    layout, target = field.filled.fill(), start_registry("target")
    field.hold_after(workers, SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held(workers)
        with standing(field.workers[workers[0]]):
            run.signal(signal.SIGINT)
            assert await run.ended() == 130, told(run)
    for name in workers:
        field.gates[name].release()
    await until_closed(target)


async def test_a_scheduler_that_stands_still_ends_the_run_with_a_sentence(
    field: Field, start_registry: StartsRegistries, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASK_BLOBFLOW__WORKER_SILENCE", "0.5")
    workers = field.have(1)
    layout, target = field.filled.fill(), start_registry("target")
    field.gates[workers[0]].hold_after(SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.gates[workers[0]].until_held()
        with standing(field.scheduler):
            assert await run.ended() == 4, told(run)
    field.gates[workers[0]].release()
    assert any("scheduler" in str(event) and "has not answered" in str(event) for event in run.events)
    await asyncio.to_thread(field.cluster.wait_for, field.workers[workers[0]])
    await until_closed(target)
    assert not open_sessions(target)
