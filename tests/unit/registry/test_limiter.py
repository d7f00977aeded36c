"""One host's gate: how the window opens and closes, who is let in when, and how fast."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.content import BlobStream
from blobflow.events import HostMeter
from blobflow.transports.registry.http.limiter import (
    BURST_SECONDS,
    MAX_REQUESTS,
    Capacity,
    CongestionWindow,
    HostLimiter,
    Permit,
    PermitKind,
    RateLimit,
    Throttle,
    rate_limit_of,
    throttle_of,
)
from blobflow.transports.registry.http.upload_body import UploadBody
from tests.deadlines import HANGS_AFTER
from tests.fakes.registry import Clock

# The window


class Simulation:
    """A host with so many slots, and a client that always has more to ask than its window lets it.

    Every request over the slots is refused at once; the others take a random time. After a refusal the client
    pauses, as the shared back-off makes it.
    """

    def __init__(self, slots: int, window: CongestionWindow, seed: int, pause: float = 0.2) -> None:
        self.slots = slots
        self.window = window
        self.now = 1.0
        self.sizes: list[int] = []
        self.served = self.refused = 0
        self._random = random.Random(seed)
        self._pause = pause
        self._held_until = 0.0
        self._busy: list[float] = []  # when each ends

    def run(self, requests: int) -> None:
        end = self.served + self.refused + requests
        while self.served + self.refused < end:
            if len(self._busy) < self.window.size and self.now >= self._held_until:
                self._ask()
            elif self._busy and (self.now >= self._held_until or self._busy[0] <= self._held_until):
                self._finish()
            else:
                self.now = self._held_until

    def _ask(self) -> None:
        self.sizes.append(self.window.size)
        self.now += 0.0001
        if len(self._busy) < self.slots:
            heapq.heappush(self._busy, self.now + self._random.uniform(0.01, 0.1))
            return
        self.refused += 1
        self.window.congested(self.now, self.now)
        self._held_until = self.now + self._pause

    def _finish(self) -> None:
        full = len(self._busy) >= self.window.size - 1
        self.now = max(self.now, heapq.heappop(self._busy))
        self.served += 1
        self.window.answered(full=full)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ceiling", [16, 32, 128])
def test_at_a_host_with_eight_slots_the_window_settles_at_seven_to_nine(seed: int, ceiling: int) -> None:
    simulation = Simulation(8, CongestionWindow(ceiling // 2 + 1, ceiling), seed)
    simulation.run(500)
    simulation.sizes.clear()
    simulation.run(5000)
    assert set(simulation.sizes) <= {7, 8, 9}
    assert simulation.refused / (simulation.served + simulation.refused) <= 0.02


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 13])
def test_any_number_of_slots_is_found_from_either_side(slots: int) -> None:
    for start in (2, 32):
        simulation = Simulation(slots, CongestionWindow(start, 64), seed=slots)
        simulation.run(1500)
        simulation.sizes.clear()
        simulation.run(2000)
        assert max(simulation.sizes) <= slots + 1
        assert min(simulation.sizes) >= max(1, slots * 4 // 5 - 1)


def test_slots_that_come_free_are_taken_and_slots_that_go_are_left() -> None:
    simulation = Simulation(8, CongestionWindow(9, 64), seed=1)
    simulation.run(2000)
    simulation.slots = 24
    simulation.run(4000)
    assert simulation.window.size >= 20
    simulation.slots = 4
    simulation.run(500)
    assert simulation.window.size <= 5


def test_where_nothing_is_refused_the_window_opens_to_its_ceiling_at_once_and_no_further() -> None:
    window = CongestionWindow(9, 16)
    for _ in range(7):
        window.answered(full=True)
    assert window.size == 16
    window.answered(full=True)
    assert window.size == 16


def test_a_window_that_is_not_used_does_not_open() -> None:
    window = CongestionWindow(4, 16)
    for _ in range(1000):
        window.answered(full=False)
    assert window.size == 4


def test_a_burst_of_refusals_is_one_decrease() -> None:
    window = CongestionWindow(16, 16)
    for _ in range(8):
        window.congested(sent=1.0, now=2.0)
    assert window.size == 8
    window.congested(sent=2.5, now=3.0)
    assert window.size == 4


def test_a_storm_leaves_one_and_the_way_back_is_not_a_crawl() -> None:
    window = CongestionWindow(16, 16)
    for time in range(50):
        window.congested(sent=time, now=time + 0.5)
    assert window.size == 1
    answers = 0
    while window.size < 15:
        window.answered(full=True)
        answers += 1
    assert answers < 300


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 40), st.integers(1, 80))
def test_the_window_stays_between_one_and_its_ceiling(answers: list[bool], start: int, ceiling: int) -> None:
    window = CongestionWindow(start, ceiling)
    for time, good in enumerate(answers):
        if good:
            window.answered(full=True)
        else:
            window.congested(sent=time, now=time + 0.5)
        assert 1 <= window.size <= ceiling


# The lanes


def gate_of(connections: int = 8, *, size: int | None = None) -> HostLimiter:
    """A gate whose window is as wide as it gets, or of `size`."""
    gate = HostLimiter(connections, Clock())
    if size is not None:
        gate.window = CongestionWindow(size, size)
    else:
        for _ in range(10 * connections):
            gate.window.answered(full=True)
    return gate


async def entered(gate: HostLimiter, *kinds: PermitKind) -> list[asyncio.Task[None]]:
    """Tasks that want in, in this order; those that are done are in."""
    tasks = [asyncio.create_task(gate.enter(kind)) for kind in kinds]
    await asyncio.sleep(0)
    return tasks


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_lane_has_its_limit_and_all_together_twice_the_connections() -> None:
    gate = gate_of(8)
    for kind, most in ((PermitKind.SMALL, MAX_REQUESTS), (PermitKind.READ, 8), (PermitKind.WRITE, 8)):
        alone = gate_of(8)
        tasks = await entered(alone, *[kind] * 40)
        assert sum(task.done() for task in tasks) == most
        await cancel(tasks)
    tasks = await entered(gate, *[*PermitKind] * 20)
    assert sum(task.done() for task in tasks) == 16
    await cancel(tasks)


async def test_streams_leave_a_place_for_a_small_request() -> None:
    gate = gate_of(size=6)
    streams = await entered(gate, *[PermitKind.WRITE] * 10)
    assert sum(task.done() for task in streams) == 5
    small = await entered(gate, PermitKind.SMALL)
    assert small[0].done()
    await cancel(streams)


async def test_a_small_request_goes_before_streams_that_wait_and_streams_before_nobody() -> None:
    gate = gate_of(size=2)
    held = await entered(gate, PermitKind.SMALL, PermitKind.SMALL)
    write, read = await entered(gate, PermitKind.WRITE, PermitKind.READ)
    assert write.done() and read.done()  # the first of a lane always
    waiting = await entered(gate, PermitKind.WRITE, PermitKind.READ, PermitKind.SMALL)
    for _ in range(2):
        gate.leave(PermitKind.SMALL)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [False, False, True]
    await cancel([*held, *waiting])


async def test_within_a_lane_who_came_first_is_let_in_first() -> None:
    gate = gate_of(size=1)
    await entered(gate, PermitKind.READ)
    waiting = await entered(gate, *[PermitKind.READ] * 3)
    for place in range(3):
        gate.leave(PermitKind.READ)
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True] * (place + 1) + [False] * (2 - place)


async def test_who_gives_up_waiting_takes_no_place_also_at_the_very_moment_of_being_let_in() -> None:
    gate = gate_of(size=1)
    await entered(gate, PermitKind.READ)
    first, second, third = await entered(gate, *[PermitKind.READ] * 3)
    first.cancel()  # while waiting
    gate.leave(PermitKind.READ)  # lets the second in …
    second.cancel()  # … which is cancelled before it runs
    await asyncio.gather(first, second, return_exceptions=True)
    await asyncio.sleep(0)
    assert third.done() and gate.in_flight == 1
    gate.leave(PermitKind.READ)
    assert gate.in_flight == 0


async def test_a_closing_window_lets_those_inside_finish_and_then_holds_to_its_size() -> None:
    gate = gate_of(8)
    inside = await entered(gate, *[PermitKind.WRITE] * 8)
    assert all(task.done() for task in inside)
    gate.congested(sent=0.0)
    gate.congested(sent=2000.0)
    size = gate.window.size
    assert size < 8
    waiting = await entered(gate, *[PermitKind.WRITE] * 8)
    for _ in range(8):
        gate.leave(PermitKind.WRITE)
        await asyncio.sleep(0)
    assert gate.in_flight == size - 1
    await cancel(waiting)


def test_what_the_schedule_is_told_shrinks_with_the_window_and_never_to_nothing() -> None:
    assert HostLimiter(8, Clock()).room == Capacity(blobs=8, small=9)
    assert gate_of(8).room == Capacity(blobs=8, small=16)
    assert gate_of(size=5).room == Capacity(blobs=4, small=5)
    assert gate_of(size=1).room == Capacity(blobs=1, small=1)
    assert gate_of(32).room == Capacity(blobs=32, small=16)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("hosts", [1, 2, 3])
async def test_copies_between_and_within_hosts_never_wait_for_each_other(size: int, hosts: int) -> None:
    """Every copy takes a write slot, then a read slot elsewhere or here, then asks small things of both."""
    gates = [gate_of(8, size=size) for _ in range(hosts)]
    done: Counter[int] = Counter()

    async def copy(number: int) -> None:
        shuffled = random.Random(number)
        target, source = shuffled.choice(gates), shuffled.choice(gates)
        async with target.small:
            await asyncio.sleep(0)
        async with target.writes, source.reads:
            for gate in (source, target):
                async with gate.small:
                    await asyncio.sleep(0)
            for _ in range(shuffled.randrange(5)):
                await asyncio.sleep(0)
        done[number] += 1

    async with asyncio.timeout(HANGS_AFTER), asyncio.TaskGroup() as tasks:
        for number in range(200):
            tasks.create_task(copy(number))
    assert len(done) == 200
    assert all(gate.in_flight == 0 for gate in gates)


async def test_a_stream_that_only_waits_for_its_answer_lets_the_next_one_in() -> None:
    gate = gate_of(2)
    async with gate.writes.permit() as first, gate.writes.permit():
        [waiting] = await entered(gate, PermitKind.WRITE)
        assert not waiting.done()
        first.downgrade()
        first.downgrade()
        await asyncio.sleep(0)
        assert waiting.done()
        assert gate.in_flight == 3  # the answer to come is still one of the host's requests
        gate.leave(PermitKind.WRITE)
    assert gate.in_flight == 0


async def test_where_there_is_to_be_one_stream_at_a_time_the_next_waits_for_the_answer_too() -> None:
    gate = gate_of(8, size=2)
    async with gate.writes.permit() as first:
        [waiting] = await entered(gate, PermitKind.WRITE)
        first.downgrade()
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.sleep(0)
    assert waiting.done()


async def test_streams_that_wait_for_their_answers_leave_room_for_small_requests() -> None:
    gate = gate_of(4)
    for _ in range(6):
        await gate.enter(PermitKind.WRITE)
        Permit(gate, PermitKind.WRITE).downgrade()
    [more] = await entered(gate, PermitKind.WRITE)
    assert not more.done()  # two have left, and four are as good as under way
    assert gate.admits(PermitKind.SMALL)
    await cancel([more])


async def test_a_turn_that_was_left_is_left_once() -> None:
    gate = gate_of(2)
    async with gate.reads.permit() as permit:
        permit.leave()
        permit.downgrade()
        assert gate.in_flight == 0
        permit.leave()
    assert gate.in_flight == 0


async def test_copies_within_a_host_share_its_window_between_both_ways() -> None:
    gate = gate_of(8, size=8)
    together: list[int] = []
    reading = 0

    async def copy() -> None:
        nonlocal reading
        async with gate.writes, gate.reads:
            reading += 1
            together.append(reading)
            for _ in range(20):
                await asyncio.sleep(0)
            reading -= 1

    async with asyncio.timeout(HANGS_AFTER), asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(copy())
    assert Counter(together[20:]).keys() == {1, 2, 3}  # of eight places four write, and one is left for HEADs


# The pace


def test_a_pace_is_kept_evenly_whatever_the_amounts() -> None:
    clock = Clock()
    pace = RateLimit(1000.0, clock)
    for amount in (1, 5000, 100, 0, 2000):
        clock.now += pace.reserve(amount)
    assert clock.now - 1000.0 == pytest.approx((1 + 5000 + 100) / 1000 - BURST_SECONDS, abs=1e-6)


def test_a_pause_saves_up_next_to_nothing() -> None:
    clock = Clock()
    pace = RateLimit(10.0, clock)
    clock.now += 3600
    began = clock.now
    for _ in range(21):
        clock.now += pace.reserve(1)
    assert clock.now - began == pytest.approx(2.0 - BURST_SECONDS)


def test_those_who_ask_at_once_are_given_turns() -> None:
    pace = RateLimit(2.0, Clock())
    assert [pace.reserve(1) for _ in range(4)] == pytest.approx(
        [0.0, 0.5 - BURST_SECONDS, 1.0 - BURST_SECONDS, 1.5 - BURST_SECONDS]
    )


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5000)), min_size=1, max_size=50))
def test_no_span_of_time_sees_more_than_its_share_and_one_amount(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    pace = RateLimit(100.0, clock)
    passed: list[tuple[float, int]] = []
    for idle, amount in steps:
        clock.now += idle
        clock.now += pace.reserve(amount)
        passed.append((clock.now, amount))
    for first in range(len(passed)):
        total = 0
        for time, amount in passed[first:]:
            assert total <= 100.0 * (time - passed[first][0] + BURST_SECONDS) + 1e-6
            total += amount


async def test_the_slower_of_two_paces_counts() -> None:
    clock = Clock()
    throttle = Throttle([RateLimit(100.0, clock), RateLimit(10.0, clock)], clock.sleep)
    for _ in range(3):
        await throttle.wait(10)
    assert clock.now - 1000.0 == pytest.approx(2.0 - BURST_SECONDS)


def test_no_limit_is_no_brake() -> None:
    clock = Clock()
    assert rate_limit_of(0, clock) is None
    assert throttle_of([None, rate_limit_of(0, clock)], clock.sleep) is None
    assert throttle_of([None, rate_limit_of(1, clock)], clock.sleep) is not None


@pytest.mark.parametrize("braked", [True, False])
async def test_standing_still_because_of_a_brake_is_not_the_peers_fault(braked: bool) -> None:
    async def chunks() -> BlobStream:
        yield b"first"
        yield b"second"

    async def for_ever(seconds: float) -> None:
        await asyncio.Event().wait()

    feed = UploadBody(chunks(), 11, "a blob", HostMeter())

    async def peer() -> None:
        """Takes the first chunk, and asks for the second only where a brake holds that back."""
        feed.begin()
        assert await feed.pull() == b"first"
        if braked:
            pace = RateLimit(1.0, Clock())
            pace.reserve(100)
            feed.throttle = Throttle([pace], for_ever)
            await feed.pull()
        await asyncio.Event().wait()

    taking = asyncio.create_task(peer())
    await asyncio.sleep(0)
    async with asyncio.timeout(None) as deadline:
        feed.watch(deadline, -1000.0)  # whatever time has passed is too long
        assert (deadline.when() is not None) is not braked
        deadline.reschedule(None)
        await feed.stop()
    assert taking.done()
