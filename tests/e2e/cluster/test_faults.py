"""What dies in the middle of a run: workers, the scheduler, the run itself. All is counted, nothing timed.

Workers stand in mid-blob, each before a gate of its own (gate.py), when something happens to them; the
registries' access logs tell how often each blob was read and uploaded. Each worker carries one blob at a
time, so that its death costs one blob at most.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from distributed.core import rpc

from tests.e2e.cluster.conftest import (
    SOME,
    Field,
    assert_uploaded_once,
    assert_whole,
    largest_of_one,
    open_sessions,
    poison,
    read_again,
    statuses,
    told,
    until_closed,
)
from tests.e2e.conftest import StartsRegistries


async def retire(field: Field, addresses: list[str]) -> None:
    """As Dask's client and adaptive clusters do it: a word to the scheduler."""
    remote: Any = rpc
    async with remote(f"tcp://{field.cluster.address}") as scheduler:
        await scheduler.retire_workers(workers=addresses, close_workers=True)


async def test_each_blob_is_read_once_and_goes_to_two_registries_from_one_worker(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    field.have(4)
    layout = field.filled.fill()
    targets = [start_registry("one"), start_registry("two")]
    async with field.syncing(layout, targets, home) as run:
        assert await run.ended() == 0, told(run)
        assert Counter(image["status"] for image in run.report()["images"]) == {
            "done": 2 * len(layout.images)
        }
    assert read_again(field.source, layout) == Counter()
    for target in targets:
        assert_uploaded_once(target, layout)
        assert_whole(target, layout)


async def test_two_of_four_workers_are_killed_in_mid_blob_and_one_blob_each_is_read_again(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    workers = field.have(4)
    layout, target = field.filled.fill(), start_registry("target")
    field.hold_after(workers, SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held(workers)
        for name in workers[:2]:
            await asyncio.to_thread(field.kill, name)
        for name in workers[2:]:
            field.gates[name].release()
        assert await run.ended() == 0, told(run)
    again = read_again(field.source, layout)
    assert again.total() <= 2 and set(again.values()) <= {1}
    assert_uploaded_once(target, layout)
    assert_whole(target, layout)


async def test_workers_come_and_are_retired_in_the_middle_of_a_run(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    """One, then four, then one. Who is retired in mid-blob ends that blob or leaves it to others."""
    (first,) = field.have(1)
    layout, target = field.filled.fill(images=8), start_registry("target")
    field.gates[first].hold_after(SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held([first])
        more = await asyncio.to_thread(field.add, 3, hold=SOME)
        await field.until_held(more)
        addresses = [field.cluster.address_of(field.workers[name]) for name in more]
        await retire(field, addresses)
        for name in (first, *more):
            field.gates[name].release()
        assert await run.ended() == 0, told(run)
    for name in more:
        assert await asyncio.to_thread(field.workers.pop(name).ended) == 0
    again = read_again(field.source, layout)
    assert again.total() <= len(more)
    uploads = target.requests().uploads()
    assert uploads.keys() == layout.blobs.keys()
    assert (uploads - Counter(layout.blobs.keys())).total() <= len(more)
    assert_whole(target, layout)


async def test_without_its_scheduler_a_run_ends_with_a_sentence_and_the_next_one_completes_it(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    workers = field.have(4)
    layout, target = field.filled.fill(), start_registry("target")
    field.filled.make_known(target)
    field.hold_after(workers, SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held(workers)
        await asyncio.to_thread(field.cluster.stop, field.scheduler)
        assert await run.ended() == 4, told(run)
        assert "done" not in statuses(run).values()
        said = [str(event) for event in run.events if "scheduler" in str(event)]
        assert said and field.cluster.address in said[-1], told(run)
    for name in workers:
        field.gates[name].release()
        await asyncio.to_thread(field.workers[name].ended)
    assert open_sessions(target) == 0
    arrived = target.requests().uploads()
    target.forget()
    field.have(4)
    async with field.syncing(layout, [target], home) as run:
        assert await run.ended() == 0, told(run)
    assert arrived + target.requests().uploads() == Counter(layout.blobs.keys())
    assert_whole(target, layout)


async def test_a_blob_that_is_not_what_its_digest_says_fails_its_images_alone(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    field.have(4)
    layout, target = field.filled.fill(), start_registry("target")
    digest, owner = largest_of_one(layout)
    poison(field.source.root, digest)
    async with field.syncing(layout, [target], home) as run:
        assert await run.ended() == 3, told(run)
        assert statuses(run) == {name: "failed" if name == owner else "done" for name in layout.images}
        (error,) = (image["error"] for image in run.report()["images"] if image["error"])
        assert error.startswith("source: ") and digest in error
    assert digest not in target.requests().uploads()
    assert_whole(target, layout, [name for name in layout.images if name != owner])
    assert open_sessions(target) == 0


async def test_a_run_that_was_killed_goes_on_by_the_same_command(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    """What was under way at the workers is stopped, and nothing that arrived is uploaded again."""
    workers = field.have(4)
    layout, target = field.filled.fill(), start_registry("target")
    field.filled.make_known(target)
    field.gates[workers[0]].hold_after(SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held(workers[:1])
        await run.until(lambda events: sum(event["event"] == "done" for event in events) >= 8)
        run.kill()
        assert await run.ended() == -signal.SIGKILL
    field.gates[workers[0]].release()
    async with field.syncing(layout, [target], home) as run:
        assert await run.ended() == 0, told(run)
    uploads = target.requests().uploads()
    assert uploads.keys() == layout.blobs.keys()
    # What four workers had under way when the run died may have arrived after the next one had asked for it.
    assert (uploads - Counter(layout.blobs.keys())).total() <= 4
    assert_whole(target, layout)
    await until_closed(target)


async def test_ctrl_c_stops_every_worker_and_leaves_no_upload_session(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    workers = field.have(4)
    layout, target = field.filled.fill(), start_registry("target")
    field.filled.make_known(target)
    field.hold_after(workers, SOME)
    async with field.syncing(layout, [target], home) as run:
        await field.until_held(workers)
        run.signal(signal.SIGINT)
        assert await run.ended() == 130, told(run)
    assert open_sessions(target) == 0
    read, taken = field.source.requests().reads_of_blobs(), target.requests().uploads()
    for name in workers:
        field.gates[name].release()
    assert all(field.workers[name].process.poll() is None for name in workers), "the workers stay"
    async with field.syncing(layout, [target], home) as run:
        assert await run.ended() == 0, told(run)
    assert (field.source.requests().reads_of_blobs() - read).total() <= len(layout.blobs)
    assert target.requests().uploads() == Counter(layout.blobs.keys())
    assert taken.total() < len(layout.blobs)
    assert_whole(target, layout)
