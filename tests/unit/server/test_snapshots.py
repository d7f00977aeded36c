"""Pages and figures are found out once for all who ask, by one thread, and what nobody waits for is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from blobflow.errors import StorageError
from blobflow.server.admin.snapshots import (
    _WAITING,
    Abandoned,
    ShouldStop,
    Snapshot,
    SnapshotCache,
    _UnderWay,
)
from blobflow.server.errors import ApiError
from tests.deadlines import HANGS_AFTER


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Gathers `value`; stays in it until let go, or until it is told to stop."""

    def __init__(self, value: str = "found", *, at_once: bool = True) -> None:
        self.value = value
        self.times = 0
        self.under_way = threading.Event()
        self.let_go = threading.Event()
        self.gave_up = threading.Event()
        if at_once:
            self.let_go.set()

    def __call__(self, stopped: ShouldStop) -> str:
        self.times += 1
        self.under_way.set()
        while not self.let_go.wait(0.001):
            if stopped():
                self.gave_up.set()
                raise Abandoned
        return self.value


def here() -> bool:
    return False


async def happened(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, HANGS_AFTER)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def gatherings(clock: Clock) -> AsyncIterator[SnapshotCache]:
    made = SnapshotCache(kept=5.0, max_bytes=100, clock=clock)
    yield made
    await made.close()


def asked(gatherings: SnapshotCache, key: str, work: Work) -> asyncio.Task[Snapshot[str]]:
    return asyncio.create_task(gatherings.get(key, work, gone=here, weigh=len))


async def test_who_asks_while_it_is_gathered_waits_for_that(gatherings: SnapshotCache) -> None:
    work = Work(at_once=False)
    tasks = [asked(gatherings, "a", work) for _ in range(8)]
    await happened(work.under_way)
    tasks.append(asked(gatherings, "a", work))
    work.let_go.set()
    assert {(await task).value for task in tasks} == {"found"}
    assert work.times == 1


async def test_it_holds_for_some_seconds_and_is_then_gathered_anew(
    gatherings: SnapshotCache, clock: Clock
) -> None:
    work = Work()
    await asked(gatherings, "a", work)
    clock.now += 4.9
    found = await asked(gatherings, "a", work)
    assert (work.times, round(gatherings.age(found), 1)) == (1, 4.9)
    clock.now += 0.2
    assert gatherings.age(await asked(gatherings, "a", work)) == 0
    assert work.times == 2


async def test_what_took_long_holds_ten_times_as_long(gatherings: SnapshotCache, clock: Clock) -> None:
    times = 0

    def slow(stopped: ShouldStop) -> str:
        nonlocal times
        times += 1
        clock.now += 60
        return "found"

    for seconds in (0.0, 599.0, 2.0):
        clock.now += seconds
        await gatherings.get("a", slow, gone=here, weigh=len)
    assert times == 2


async def test_one_thing_is_gathered_at_a_time(gatherings: SnapshotCache) -> None:
    first, second = Work(at_once=False), Work("other")
    tasks = [asked(gatherings, "a", first), asked(gatherings, "b", second)]
    await happened(first.under_way)
    assert second.times == 0
    first.let_go.set()
    assert [(await task).value for task in tasks] == ["found", "other"]


async def test_what_is_forgotten_is_gathered_anew(gatherings: SnapshotCache) -> None:
    work = Work()
    await asked(gatherings, "a", work)
    gatherings.forget()
    await asked(gatherings, "a", work)
    assert work.times == 2


async def test_what_is_kept_is_bounded(gatherings: SnapshotCache) -> None:
    works = {key: Work("x" * 40) for key in "abc"}
    for key in "abcc":
        await asked(gatherings, key, works[key])
    await asked(gatherings, "a", works["a"])
    assert [works[key].times for key in "abc"] == [2, 1, 1]
    await asked(gatherings, "d", Work("x" * 101))
    await asked(gatherings, "c", works["c"])
    assert works["c"].times == 2


async def test_an_error_reaches_all_who_wait_and_is_not_kept(gatherings: SnapshotCache) -> None:
    def fails(stopped: ShouldStop) -> str:
        raise StorageError("the disk is gone")

    tasks = [asyncio.create_task(gatherings.get("a", fails, gone=here, weigh=len)) for _ in range(3)]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [StorageError] * 3
    assert (await asked(gatherings, "a", Work())).value == "found"


async def test_what_nobody_waits_for_any_more_is_given_up(gatherings: SnapshotCache) -> None:
    work, later = Work(at_once=False), Work("other")
    gone = threading.Event()
    tasks = [
        asyncio.create_task(gatherings.get("a", work, gone=gone.is_set, weigh=len)),
        asyncio.create_task(gatherings.get("b", later, gone=gone.is_set, weigh=len)),
    ]
    await happened(work.under_way)
    gone.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [ConnectionAbortedError] * 2
    assert work.gave_up.is_set()
    assert later.times == 0, "what was in line is not even begun"


async def test_who_was_cancelled_counts_no_more_and_takes_nothing_from_others(
    gatherings: SnapshotCache,
) -> None:
    work = Work(at_once=False)
    first, second = asked(gatherings, "a", work), asked(gatherings, "a", work)
    await happened(work.under_way)
    first.cancel()
    await asyncio.wait([first])
    assert not work.gave_up.is_set()
    work.let_go.set()
    assert (await second).value == "found"
    alone = Work(at_once=False)
    only = asked(gatherings, "b", alone)
    await happened(alone.under_way)
    only.cancel()
    await happened(alone.gave_up)


async def test_who_comes_just_as_it_was_given_up_gets_it_all_the_same(gatherings: SnapshotCache) -> None:
    """Between the end of a gathering and what follows from it, who asks must let the loop go on."""
    times = 0

    def still_here() -> bool:
        nonlocal times
        times += 1
        assert times < 1000, "it asks and asks"
        return False

    loop = asyncio.get_running_loop()
    ended = _UnderWay(still_here)
    ended.future = loop.create_future()
    ended.future.set_exception(Abandoned())
    gatherings._under_way["a"] = ended
    loop.call_soon(gatherings._under_way.pop, "a")
    assert (await gatherings.get("a", Work(), gone=still_here, weigh=len)).value == "found"


async def test_too_many_questions_at_once_are_refused_for_the_moment(gatherings: SnapshotCache) -> None:
    work = Work(at_once=False)
    tasks = [asked(gatherings, f"{number}", work) for number in range(_WAITING)]
    await happened(work.under_way)
    with pytest.raises(ApiError) as refused:
        await asked(gatherings, "one more", work)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
    same = asked(gatherings, "0", work)
    work.let_go.set()
    assert len(await asyncio.gather(*tasks, same)) == _WAITING + 1


async def test_when_it_ends_what_is_under_way_is_given_up(gatherings: SnapshotCache) -> None:
    work = Work(at_once=False)
    task = asked(gatherings, "a", work)
    await happened(work.under_way)
    gatherings.stop()
    with pytest.raises(ApiError):
        await task
    assert work.gave_up.is_set()
    with pytest.raises(ApiError):
        await asked(gatherings, "b", Work())
    await gatherings.close()
    await gatherings.close()
