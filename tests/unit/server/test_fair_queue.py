"""Checks in turn: who is served next, what is turned away, and how pauses grow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from blobflow.server.auth import failure_backoff, fair_queue
from blobflow.server.auth.failure_backoff import FailureBackoff
from blobflow.server.auth.fair_queue import FairQueue, QueueFull
from tests.deadlines import HANGS_AFTER


class Work:
    """Checks that note their order; the first of all is held until `gate` opens."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.gate = threading.Event()

    def check(self, name: str) -> Callable[[], bool]:
        def run() -> bool:
            self.gate.wait(HANGS_AFTER)
            self.order.append(name)
            return True

        return run


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


async def test_names_take_turns_and_under_a_name_those_who_ask(
    threads: ThreadPoolExecutor, work: Work
) -> None:
    lane = FairQueue(threads)
    asked = ["ann@1", "ann@1", "ann@1", "ann@2", "bob@1", "cid@1", "bob@1"]
    waiting = [lane.enter(each[:3], each[4:], work.check(each)) for each in asked]
    work.gate.set()
    assert await asyncio.gather(*waiting) == [True] * len(asked)
    assert work.order == ["ann@1", "ann@1", "bob@1", "cid@1", "ann@2", "bob@1", "ann@1"]


async def test_what_may_come_later_waits_for_all_else(threads: ThreadPoolExecutor, work: Work) -> None:
    lane = FairQueue(threads)
    waiting = [lane.enter("ann", 1, work.check("first"), later=True)]
    waiting += [
        lane.enter(name, 1, work.check(f"{name} later"), later=True) for name in ("ann", "ann", "bob")
    ]
    waiting += [lane.enter(name, 1, work.check(name)) for name in ("bob", "cid", "bob")]
    work.gate.set()
    await asyncio.gather(*waiting)
    assert work.order == ["first", "bob", "cid", "bob", "ann later", "bob later", "ann later"]


async def test_a_lane_does_one_thing_at_a_time(threads: ThreadPoolExecutor) -> None:
    lane, at_once, most = FairQueue(threads), 0, 0

    def check() -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        at_once -= 1
        return True

    await asyncio.gather(*(lane.enter(f"{n}", "", check) for n in range(200)))
    assert most == 1


async def test_full_queues_turn_away_only_what_is_theirs(
    threads: ThreadPoolExecutor, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_queue, "WAITING_UNDER_NAME", 6)
    monkeypatch.setattr(fair_queue, "WAITING", 8)
    lane = FairQueue(threads)
    kept = [lane.enter("first", "", work.check("first"))]
    kept += [lane.enter("ann", 1, work.check("ann")) for _ in range(fair_queue.WAITING_OF_ASKER)]
    with pytest.raises(QueueFull):
        lane.enter("ann", 1, work.check("too many of one"))
    kept += [lane.enter("ann", 2, work.check("ann")) for _ in range(2)]
    with pytest.raises(QueueFull):
        lane.enter("ann", 3, work.check("too many under a name"))
    kept += [lane.enter("bob", 1, work.check("bob")), lane.enter("cid", 1, work.check("cid"))]
    with pytest.raises(QueueFull):
        lane.enter("dan", 1, work.check("too many in all"))
    work.gate.set()
    await asyncio.gather(*kept)
    assert await lane.enter("dan", 1, work.check("dan"))
    assert len(work.order) == len(kept) + 1
    assert lane._now._names == {}


async def test_who_goes_away_is_not_served_and_errors_end_nothing(
    threads: ThreadPoolExecutor, work: Work
) -> None:
    def broken() -> bool:
        raise ValueError("broken")

    lane = FairQueue(threads)
    running = lane.enter("ann", 1, work.check("ann"))
    gone = lane.enter("bob", 1, work.check("bob"))
    failing = lane.enter("cid", 1, broken)
    last = lane.enter("dan", 1, work.check("dan"))
    gone.cancel()
    work.gate.set()
    with pytest.raises(ValueError, match="broken"):
        await failing
    assert await running
    assert await last
    assert work.order == ["ann", "dan"]


async def test_a_lane_that_is_closed_cancels_what_waits(threads: ThreadPoolExecutor, work: Work) -> None:
    lane = FairQueue(threads)
    running, waiting = (lane.enter(name, 1, work.check(name)) for name in ("ann", "bob"))
    lane.close()
    work.gate.set()
    assert await running
    assert waiting.cancelled()


# Pauses


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock) -> FailureBackoff:
    return FailureBackoff(least=0.5, first=1.0, most=10.0, wait=20.0, clock=clock)


def test_moments_lie_further_apart_with_each_failure_up_to_a_limit() -> None:
    clock = Clock()
    found = []
    for failures in (0, 1, 2, 3, 4, 50):
        each = made(clock)
        for _ in range(failures):
            each.fail("a")
        each.reserve("a")
        found.append(each.reserve("a"))
    assert found == [0.5, 1.5, 3.5, 7.5, 10.0, 10.0]


def test_nothing_is_reserved_too_far_ahead_and_time_frees_it() -> None:
    clock = Clock()
    each = made(clock)
    for _ in range(10):
        each.fail("a")
    assert [each.reserve("a") for _ in range(4)] == [0.0, 10.0, 20.0, None]
    assert each.ahead("a") == 30.0
    assert each.reserve("b") == 0.0
    clock.now = 10.0
    assert each.reserve("a") == 20.0


def test_failures_are_forgotten_after_a_while_and_on_pardon() -> None:
    clock = Clock()
    each = made(clock)
    for key in ("a", "b"):
        each.fail(key)
        assert each.has_failed(key)
    each.reset("b")
    assert not each.has_failed("b")
    clock.now = failure_backoff.FORGET_SECONDS + 1
    assert not each.has_failed("a")


def test_what_is_kept_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_backoff, "KEYS", 10)
    each = made(Clock())
    each.fail("kept")
    for number in range(100):
        each.reserve(number)
        assert each.has_failed("kept")
    assert len(each) == 10
