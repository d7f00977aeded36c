"""One host's limiter: how the window opens and closes, who is let in when, and how fast."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.content import BlobStream
from blobflow.events import HostMeter
from blobflow.permits import MAX_REQUESTS, PermitKind, try_acquire_all
from blobflow.transports.registry.http.congestion_window import CongestionWindow
from blobflow.transports.registry.http.limiter import HostLimiter, HostPermit
from blobflow.transports.registry.http.rate_limit import (
    BURST_SECONDS,
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


def test_answers_that_come_ever_later_close_the_window_by_little_and_no_further_than_told() -> None:
    window = CongestionWindow(64, 64)
    for _ in range(64):
        window.crowded(16)
    assert window.size == 62
    for _ in range(5000):
        window.crowded(16)
    assert window.size == 16


def test_a_window_under_a_lower_ceiling_is_that_small_at_once() -> None:
    window = CongestionWindow(64, 64)
    window.ceiling = 16
    assert window.size == 16
    window.answered(full=True)
    window.ceiling = 64
    assert window.size == 16


# The permits


def limiter_of(connections: int = 8, *, size: int | None = None) -> HostLimiter:
    """A limiter whose window is as wide as it gets, or of `size`."""
    limiter = HostLimiter(connections, Clock())
    if size is not None:
        limiter.window = CongestionWindow(size, size)
    else:
        for _ in range(10 * connections):
            limiter.window.answered(full=True)
    return limiter


Acquiring = asyncio.Task[HostPermit]


async def acquiring(limiter: HostLimiter, *kinds: PermitKind) -> list[Acquiring]:
    """Tasks that want permits, in this order; those that are done have them."""
    tasks = [asyncio.create_task(limiter.acquire(kind)) for kind in kinds]
    await asyncio.sleep(0)
    return tasks


async def cancel(tasks: list[Acquiring]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_each_kind_has_its_limit_and_all_together_twice_the_connections() -> None:
    limiter = limiter_of(8)
    for kind, most in ((PermitKind.REQUEST, MAX_REQUESTS), (PermitKind.READ, 8), (PermitKind.WRITE, 8)):
        alone = limiter_of(8)
        tasks = await acquiring(alone, *[kind] * 40)
        assert sum(task.done() for task in tasks) == most
        await cancel(tasks)
    tasks = await acquiring(limiter, *[*PermitKind] * 20)
    assert sum(task.done() for task in tasks) == 16
    await cancel(tasks)


async def test_streams_leave_a_place_for_a_small_request() -> None:
    limiter = limiter_of(size=6)
    streams = await acquiring(limiter, *[PermitKind.WRITE] * 10)
    assert sum(task.done() for task in streams) == 5
    small = await acquiring(limiter, PermitKind.REQUEST)
    assert small[0].done()
    await cancel(streams)


async def test_a_small_request_goes_before_streams_that_wait_and_streams_before_nobody() -> None:
    limiter = limiter_of(size=2)
    held = await acquiring(limiter, PermitKind.REQUEST, PermitKind.REQUEST)
    write, read = await acquiring(limiter, PermitKind.WRITE, PermitKind.READ)
    assert write.done() and read.done()  # the first of a kind always
    waiting = await acquiring(limiter, PermitKind.WRITE, PermitKind.READ, PermitKind.REQUEST)
    for each in held:
        each.result().release()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [False, False, True]
    await cancel([*held, *waiting])


async def test_within_a_kind_who_came_first_is_let_in_first() -> None:
    limiter = limiter_of(size=1)
    inside = await acquiring(limiter, PermitKind.READ)
    waiting = await acquiring(limiter, *[PermitKind.READ] * 3)
    for place in range(3):
        inside[-1].result().release()
        inside.append(waiting[place])
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True] * (place + 1) + [False] * (2 - place)


async def test_who_gives_up_waiting_takes_no_permit_also_at_the_very_moment_of_being_let_in() -> None:
    limiter = limiter_of(size=1)
    [inside] = await acquiring(limiter, PermitKind.READ)
    first, second, third = await acquiring(limiter, *[PermitKind.READ] * 3)
    first.cancel()  # while waiting
    inside.result().release()  # lets the second in …
    second.cancel()  # … which is cancelled before it runs
    await asyncio.gather(first, second, return_exceptions=True)
    await asyncio.sleep(0)
    assert third.done() and limiter.in_flight == 1
    third.result().release()
    assert limiter.in_flight == 0


async def test_a_closing_window_lets_those_inside_finish_and_then_holds_to_its_size() -> None:
    limiter = limiter_of(8)
    inside = await acquiring(limiter, *[PermitKind.WRITE] * 8)
    assert all(task.done() for task in inside)
    limiter.congested(sent=0.0)
    limiter.congested(sent=2000.0)
    size = limiter.window.size
    assert size < 8
    waiting = await acquiring(limiter, *[PermitKind.WRITE] * 8)
    for each in inside:
        each.result().release()
        await asyncio.sleep(0)
    assert limiter.in_flight == size - 1
    await cancel(waiting)


def limits_of(limiter: HostLimiter) -> tuple[int, int]:
    """The streams each way that there may be now, and the small requests."""
    assert limiter.limit(PermitKind.READ) == limiter.limit(PermitKind.WRITE)
    return limiter.limit(PermitKind.WRITE), limiter.limit(PermitKind.REQUEST)


def test_what_the_schedule_is_told_shrinks_with_the_window_and_never_to_nothing() -> None:
    assert limits_of(HostLimiter(8, Clock())) == (8, 9)
    assert limits_of(limiter_of(8)) == (8, 16)
    assert limits_of(limiter_of(size=5)) == (4, 5)
    assert limits_of(limiter_of(size=1)) == (1, 1)
    assert limits_of(limiter_of(32)) == (32, 16)


async def test_with_fewer_connections_what_is_over_them_ends_before_more_begins() -> None:
    limiter = limiter_of(4)
    held = [limiter.try_acquire(PermitKind.READ) for _ in range(4)]
    limiter.resize(2, 0)
    assert limits_of(limiter) == (2, 3)
    for permit in held[:2]:
        assert permit is not None
        permit.release()
        assert limiter.try_acquire(PermitKind.READ) is None
    assert held[2] is not None
    held[2].release()
    assert limiter.try_acquire(PermitKind.READ) is not None


async def test_with_more_connections_those_who_wait_are_let_in() -> None:
    limiter = limiter_of(1)
    first, second = await acquiring(limiter, PermitKind.WRITE, PermitKind.WRITE)
    await asyncio.sleep(0)
    assert (first.done(), second.done()) == (True, False)
    limiter.resize(2, 0)
    await asyncio.sleep(0)
    assert second.done()


def answered(limiter: HostLimiter, seconds: float, times: int = 200) -> None:
    """Answers that took so long, while the whole window was in use."""
    held = []
    for _ in range(times):
        while (permit := limiter.try_acquire(PermitKind.REQUEST)) is not None:
            held.append(permit)
        limiter.answered(seconds)
    for permit in held:
        permit.release()


@pytest.mark.parametrize(("connections", "near", "far"), [(8, 16, 64), (32, 16, 64), (3, 6, 24), (1, 2, 8)])
def test_small_requests_grow_with_the_round_trip_and_streams_do_not(
    connections: int, near: int, far: int
) -> None:
    for seconds, requests in ((0.001, near), (0.02, far), (0.2, far)):
        limiter = HostLimiter(connections, Clock())
        answered(limiter, seconds)
        assert limits_of(limiter) == (connections, requests)
        assert limiter.window.ceiling == 2 * connections + requests - near
        streams = [limiter.try_acquire(kind) for kind in (PermitKind.READ, PermitKind.WRITE) * 40]
        assert sum(permit is not None for permit in streams) <= 2 * connections


def test_a_host_that_turns_out_to_be_near_gets_no_more_than_near_ones() -> None:
    limiter = HostLimiter(8, Clock())
    answered(limiter, 0.02)
    answered(limiter, 0.001, times=1)
    assert limits_of(limiter) == (8, 16)


def test_answers_that_come_ever_later_leave_a_far_host_as_many_requests_as_a_near_one() -> None:
    limiter = HostLimiter(8, Clock())
    answered(limiter, 0.02)
    answered(limiter, 0.1, times=3000)
    assert limits_of(limiter) == (8, 16)
    answered(limiter, 0.02)
    assert limits_of(limiter) == (8, 64)


def test_a_far_host_that_has_enough_closes_the_window_as_a_near_one_does() -> None:
    limiter = HostLimiter(8, Clock())
    answered(limiter, 0.04)
    limiter.congested(2000.0)
    assert limiter.window.size < 64


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("hosts", [1, 2, 3])
async def test_copies_between_and_within_hosts_never_wait_for_each_other(size: int, hosts: int) -> None:
    """Every copy takes a write permit, then a read permit elsewhere or here, then asks both small things."""
    limiters = [limiter_of(8, size=size) for _ in range(hosts)]
    done: Counter[int] = Counter()

    async def copy(number: int) -> None:
        shuffled = random.Random(number)
        target, source = shuffled.choice(limiters), shuffled.choice(limiters)
        async with target.permit(PermitKind.REQUEST):
            await asyncio.sleep(0)
        async with target.permit(PermitKind.WRITE), source.permit(PermitKind.READ):
            for limiter in (source, target):
                async with limiter.permit(PermitKind.REQUEST):
                    await asyncio.sleep(0)
            for _ in range(shuffled.randrange(5)):
                await asyncio.sleep(0)
        done[number] += 1

    async with asyncio.timeout(HANGS_AFTER), asyncio.TaskGroup() as tasks:
        for number in range(200):
            tasks.create_task(copy(number))
    assert len(done) == 200
    assert all(limiter.in_flight == 0 for limiter in limiters)


async def test_a_stream_that_only_waits_for_its_answer_lets_the_next_one_in() -> None:
    limiter = limiter_of(2)
    async with limiter.permit(PermitKind.WRITE) as first, limiter.permit(PermitKind.WRITE):
        [waiting] = await acquiring(limiter, PermitKind.WRITE)
        assert not waiting.done()
        first.downgrade()
        first.downgrade()
        await asyncio.sleep(0)
        assert waiting.done()
        assert limiter.in_flight == 3  # the answer to come is still one of the host's requests
        waiting.result().release()
    assert limiter.in_flight == 0


async def test_where_there_is_to_be_one_stream_at_a_time_the_next_waits_for_the_answer_too() -> None:
    limiter = limiter_of(8, size=2)
    async with limiter.permit(PermitKind.WRITE) as first:
        [waiting] = await acquiring(limiter, PermitKind.WRITE)
        first.downgrade()
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.sleep(0)
    assert waiting.done()


async def test_streams_that_wait_for_their_answers_leave_room_for_small_requests() -> None:
    limiter = limiter_of(4)
    for _ in range(6):
        (await limiter.acquire(PermitKind.WRITE)).downgrade()
    [more] = await acquiring(limiter, PermitKind.WRITE)
    assert not more.done()  # two have left, and four are as good as under way
    assert limiter.admits(PermitKind.REQUEST)
    await cancel([more])


async def test_a_permit_that_was_released_is_released_once() -> None:
    limiter = limiter_of(2)
    async with limiter.permit(PermitKind.READ) as permit:
        permit.release()
        permit.downgrade()
        assert limiter.in_flight == 0
        permit.release()
    assert limiter.in_flight == 0


async def test_copies_within_a_host_share_its_window_between_both_ways() -> None:
    limiter = limiter_of(8, size=8)
    together: list[int] = []
    reading = 0

    async def copy() -> None:
        nonlocal reading
        async with limiter.permit(PermitKind.WRITE), limiter.permit(PermitKind.READ):
            reading += 1
            together.append(reading)
            for _ in range(20):
                await asyncio.sleep(0)
            reading -= 1

    async with asyncio.timeout(HANGS_AFTER), asyncio.TaskGroup() as tasks:
        for _ in range(100):
            tasks.create_task(copy())
    assert Counter(together[20:]).keys() == {1, 2, 3}  # of eight places four write, and one is left for HEADs


async def test_a_permit_that_is_held_already_is_used_and_left_to_its_holder() -> None:
    limiter = limiter_of(2)
    held = limiter.try_acquire(PermitKind.WRITE)
    assert held is not None
    for kind in (PermitKind.REQUEST, PermitKind.WRITE):
        async with limiter.permit(kind, held) as permit:
            assert permit is held
    assert (held.kind, limiter.in_flight) == (PermitKind.WRITE, 1)


async def test_another_stream_after_the_one_of_a_held_permit_waits_without_that_permit() -> None:
    limiter = limiter_of(2)
    held = limiter.try_acquire(PermitKind.WRITE)
    assert held is not None
    held.downgrade()
    async with limiter.permit(PermitKind.WRITE, held) as permit:
        assert permit is not held
        assert (held.kind, limiter.in_flight) == (None, 1)
    assert limiter.in_flight == 0


async def test_who_asks_for_a_permit_at_once_overtakes_nobody() -> None:
    limiter = limiter_of(size=1)
    [inside] = await acquiring(limiter, PermitKind.READ)
    [waiting] = await acquiring(limiter, PermitKind.READ)
    called: list[str] = []
    for _ in range(2):
        limiter.on_room(PermitKind.READ, partial(called.append, "room"))
    inside.result().release()
    assert limiter.try_acquire(PermitKind.READ) is None
    assert called == []
    await asyncio.sleep(0)
    waiting.result().release()
    assert called == ["room"] * 2
    assert limiter.try_acquire(PermitKind.READ) is not None


async def test_what_was_refused_goes_again_only_as_often_at_once_as_the_window_has_become() -> None:
    limiter = limiter_of(8)
    held = [await limiter.acquire(PermitKind.REQUEST) for _ in range(12)]
    for sent in (0.0, 2000.0, 4000.0):
        limiter.congested(sent)
    at_once: list[int] = []
    going = 0

    async def again(permit: HostPermit) -> None:
        nonlocal going
        async with limiter.retry(permit):
            going += 1
            at_once.append(going)
            try:
                for _ in range(5):
                    await asyncio.sleep(0)
            finally:
                going -= 1

    given_up = asyncio.create_task(again(held[0]))
    async with asyncio.TaskGroup() as tasks:
        for permit in held:
            tasks.create_task(again(permit))
        await asyncio.sleep(0)
        given_up.cancel()
    assert max(at_once) == limiter.window.size < 8
    assert len(at_once) >= 12


@pytest.mark.parametrize("full", [0, 1])
def test_of_several_permits_all_are_granted_or_none_is_held(full: int) -> None:
    limiters = [limiter_of(size=1), limiter_of(size=1)]
    needs = list(zip(limiters, (PermitKind.WRITE, PermitKind.READ), strict=True))
    taken = limiters[full].try_acquire(needs[full][1])
    assert taken is not None
    assert try_acquire_all(needs) is None
    taken.release()
    assert [limiter.in_flight for limiter in limiters] == [0, 0]
    granted = try_acquire_all(needs)
    assert granted is not None
    assert [permit.kind for permit in granted] == [PermitKind.WRITE, PermitKind.READ]


# The rate


def test_a_rate_is_kept_evenly_whatever_the_amounts() -> None:
    clock = Clock()
    limit = RateLimit(1000.0, clock)
    for amount in (1, 5000, 100, 0, 2000):
        clock.now += limit.reserve(amount)
    assert clock.now - 1000.0 == pytest.approx((1 + 5000 + 100) / 1000 - BURST_SECONDS, abs=1e-6)


def test_a_pause_saves_up_next_to_nothing() -> None:
    clock = Clock()
    limit = RateLimit(10.0, clock)
    clock.now += 3600
    began = clock.now
    for _ in range(21):
        clock.now += limit.reserve(1)
    assert clock.now - began == pytest.approx(2.0 - BURST_SECONDS)


def test_those_who_ask_at_once_are_given_turns() -> None:
    limit = RateLimit(2.0, Clock())
    assert [limit.reserve(1) for _ in range(4)] == pytest.approx(
        [0.0, 0.5 - BURST_SECONDS, 1.0 - BURST_SECONDS, 1.5 - BURST_SECONDS]
    )


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 5000)), min_size=1, max_size=50))
def test_no_span_of_time_sees_more_than_its_share_and_one_amount(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    limit = RateLimit(100.0, clock)
    passed: list[tuple[float, int]] = []
    for idle, amount in steps:
        clock.now += idle
        clock.now += limit.reserve(amount)
        passed.append((clock.now, amount))
    for first in range(len(passed)):
        total = 0
        for time, amount in passed[first:]:
            assert total <= 100.0 * (time - passed[first][0] + BURST_SECONDS) + 1e-6
            total += amount


async def test_the_slower_of_two_rates_counts() -> None:
    clock = Clock()
    throttle = Throttle([RateLimit(100.0, clock), RateLimit(10.0, clock)], clock.sleep)
    for _ in range(3):
        await throttle.wait(10)
    assert clock.now - 1000.0 == pytest.approx(2.0 - BURST_SECONDS)


def test_no_limit_is_no_throttle() -> None:
    clock = Clock()
    assert rate_limit_of(0, clock) is None
    assert throttle_of([None, rate_limit_of(0, clock)], clock.sleep) is None
    assert throttle_of([None, rate_limit_of(1, clock)], clock.sleep) is not None


@pytest.mark.parametrize("throttled", [True, False])
async def test_standing_still_because_of_a_throttle_is_not_the_peers_fault(throttled: bool) -> None:
    async def chunks() -> BlobStream:
        yield b"first"
        yield b"second"

    async def for_ever(seconds: float) -> None:
        await asyncio.Event().wait()

    feed = UploadBody(chunks(), 11, "a blob", HostMeter())

    async def peer() -> None:
        """Takes the first chunk, and asks for the second only where a throttle holds that back."""
        feed.begin()
        assert await feed.pull() == b"first"
        if throttled:
            limit = RateLimit(1.0, Clock())
            limit.reserve(100)
            feed.throttle = Throttle([limit], for_ever)
            await feed.pull()
        await asyncio.Event().wait()

    taking = asyncio.create_task(peer())
    await asyncio.sleep(0)
    async with asyncio.timeout(None) as deadline:
        feed.watch(deadline, -1000.0)  # whatever time has passed is too long
        assert (deadline.when() is not None) is not throttled
        deadline.reschedule(None)
        await feed.stop()
    assert taking.done()


# What can be done without


def test_a_spare_permit_is_only_for_what_nobody_wants() -> None:
    limiter = HostLimiter(3, Clock())
    held = [limiter.try_acquire_spare(PermitKind.READ) for _ in range(4)]
    assert [permit is not None for permit in held] == [True, True, True, False]
    assert limiter.free(PermitKind.READ) == 0 and not limiter.is_wanted
    called: list[int] = []
    limiter.on_room(PermitKind.READ, lambda: called.append(1))
    assert limiter.is_wanted, "the schedule wants to be called"
    first = held[0]
    assert first is not None
    first.release()
    assert called == [1] and not limiter.is_wanted
    assert limiter.free(PermitKind.READ) == 1
    limiter.on_room(PermitKind.WRITE, lambda: None)
    assert limiter.try_acquire_spare(PermitKind.READ) is None
    assert limiter.try_acquire(PermitKind.READ) is not None


async def test_who_waits_is_let_in_before_a_spare_permit_is_given() -> None:
    limiter = HostLimiter(1, Clock())
    held = limiter.try_acquire_spare(PermitKind.READ)
    assert held is not None
    waiting = asyncio.create_task(limiter.acquire(PermitKind.READ))
    await asyncio.sleep(0)
    assert limiter.is_wanted
    held.release()
    assert limiter.try_acquire_spare(PermitKind.READ) is None
    (await waiting).release()


def test_a_window_that_has_closed_has_more_permits_than_there_are_to_be() -> None:
    clock = Clock()
    limiter = HostLimiter(8, clock)
    held = [limiter.try_acquire(PermitKind.READ) for _ in range(8)]
    assert not limiter.is_over(PermitKind.READ)
    limiter.congested(clock.now)
    assert limiter.is_over(PermitKind.READ) and limiter.free(PermitKind.READ) == 0
    for permit in held[: 8 - limiter.limit(PermitKind.READ)]:
        assert permit is not None
        permit.release()
    assert not limiter.is_over(PermitKind.READ)
