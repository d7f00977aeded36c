"""Admission: who gets the permits of hosts, who waits for them, and when they are given back."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.content import SMALL_BLOB, Site
from blobflow.engine.plan.steps import Copy, Mount, Step
from blobflow.engine.transfer.admission import Admission, HostLimiters, StepPermits
from blobflow.oci import Descriptor, digest_of
from blobflow.permits import FixedLimiter, Permit, PermitKind
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry

HERE, THERE = Site("source", "app"), Site("target", "app")


def copy_of(number: int, *, small: bool = False, target: Site = THERE) -> Copy:
    size = SMALL_BLOB if small else SMALL_BLOB + 1
    return Copy(Descriptor("layer", digest_of(b"%d" % number), size), HERE, target)


class Place(MemoryPlace):
    """One that takes permits."""

    def __init__(self, site: Site, limiter: FixedLimiter, permit: Permit | None = None) -> None:
        super().__init__(MemoryRegistry(site.registry), site)
        self.limiter = limiter
        self.permit = permit

    def with_permit(self, permit: Permit) -> Place:
        return Place(self._site, self.limiter, permit)


class Hosts:
    """A source and targets, each with its limiter, and the steps that start there in one go."""

    def __init__(self, *, source: FixedLimiter | None = None, target: FixedLimiter | None = None) -> None:
        self.limiters = {"source": source or FixedLimiter(), "target": target or FixedLimiter()}
        self.changes = 0
        self.steps: list[Step] = []
        at = HostLimiters(self.place, self.place, self._limiter_at)
        self.admission = Admission(at, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def _limiter_at(self, host: str) -> FixedLimiter:
        return self.limiters.setdefault(host, FixedLimiter())

    def place(self, site: Site) -> MemoryPlace:
        return MemoryPlace(MemoryRegistry(site.registry), site)

    def add(self, *steps: Step, warm: bool = False) -> None:
        for step in steps:
            self.admission.add(len(self.steps), step, warm=warm)
            self.steps.append(step)

    def started(self) -> dict[int, StepPermits]:
        return dict(self.admission.starts(self.steps.__getitem__))

    def used(self, host: str, kind: PermitKind) -> int:
        """How many permits of a kind are held: as many as can't be had."""
        limiter, free = self.limiters[host], 0
        taken = []
        while (permit := limiter.try_acquire(kind)) is not None:
            taken.append(permit)
            free += 1
        for each in taken:
            each.release()
        return limiter.limit(kind) - free


@pytest.mark.parametrize("full", ["source", "target"])
def test_a_copy_gets_both_of_its_permits_or_none(full: str) -> None:
    hosts = Hosts(source=FixedLimiter(1), target=FixedLimiter(1))
    kind = PermitKind.READ if full == "source" else PermitKind.WRITE
    taken = hosts.limiters[full].try_acquire(kind)
    assert taken is not None
    hosts.add(copy_of(1))
    assert hosts.started() == {}
    assert hosts.used("target" if full == "source" else "source", PermitKind.WRITE) == 0
    assert hosts.used("source", PermitKind.READ) == (full == "source")
    before = hosts.changes
    taken.release()
    assert hosts.changes > before, "it is told that it may start now"
    assert list(hosts.started()) == [0]


def test_permits_are_given_back_as_the_bytes_pass_and_in_the_end() -> None:
    hosts = Hosts()
    hosts.add(copy_of(1))
    [permits] = hosts.started().values()
    assert (hosts.used("source", PermitKind.READ), hosts.used("target", PermitKind.WRITE)) == (1, 1)
    permits.bytes_read()
    assert (hosts.used("source", PermitKind.READ), hosts.used("target", PermitKind.WRITE)) == (0, 1)
    permits.bytes_sent()
    assert hosts.used("target", PermitKind.WRITE) == 0
    permits.release()
    permits.release()
    assert all(hosts.used(host, kind) == 0 for host in hosts.limiters for kind in PermitKind)


def test_where_one_blob_goes_at_a_time_the_next_waits_for_the_answer() -> None:
    hosts = Hosts(target=FixedLimiter(1))
    hosts.add(copy_of(1), copy_of(2))
    [permits] = hosts.started().values()
    permits.bytes_sent()
    assert hosts.started() == {}
    permits.release()
    assert list(hosts.started()) == [1]


def test_a_place_that_takes_permits_is_asked_under_them_and_others_as_they_are() -> None:
    limiter = FixedLimiter()
    hosts = Hosts(source=limiter)
    hosts.add(copy_of(1))
    [permits] = hosts.started().values()
    plain, limited, other = hosts.place(HERE), Place(HERE, limiter), Place(HERE, FixedLimiter())
    assert permits.reading(plain) is plain
    read = permits.reading(limited)
    assert isinstance(read, Place) and read.permit is permits.source
    assert permits.reading(other) is other, "a permit of another limiter is none there"
    written = permits.writing(Place(THERE, hosts.limiters["target"]))
    assert isinstance(written, Place) and written.permit is permits.target


def test_who_waits_at_a_source_holds_no_small_request_at_its_target() -> None:
    hosts = Hosts()
    hosts.add(copy_of(1, small=True), copy_of(2), warm=True)
    small, stream = hosts.started()[0], hosts.started()
    assert stream == {}
    assert small.target.kind is PermitKind.REQUEST
    small.reading(hosts.place(HERE))
    assert small.target.kind is None


def test_a_streams_permit_at_its_target_is_kept_while_it_waits_at_its_source() -> None:
    hosts = Hosts()
    hosts.add(copy_of(1), warm=True)
    [permits] = hosts.started().values()
    permits.reading(hosts.place(HERE))
    assert permits.target.kind is PermitKind.WRITE


async def renewing(hosts: Hosts, permits: StepPermits, *, read: bool) -> asyncio.Task[None]:
    task = asyncio.create_task(hosts.admission.renew(permits, read=read))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("read", [True, False])
async def test_a_copy_that_begins_again_keeps_what_it_has_and_gets_what_it_gave_back(read: bool) -> None:
    hosts = Hosts(source=FixedLimiter(1), target=FixedLimiter(2))
    hosts.add(copy_of(1))
    [permits] = hosts.started().values()
    target = permits.target
    assert (await renewing(hosts, permits, read=read)).done()
    assert permits.target is target, "nothing was given back"
    permits.bytes_read()
    permits.bytes_sent()
    assert (await renewing(hosts, permits, read=read)).done()
    assert permits.reads is read
    assert permits.target.kind is PermitKind.WRITE


async def test_what_begins_again_goes_before_what_has_not_begun() -> None:
    hosts = Hosts(target=FixedLimiter(2))
    hosts.add(copy_of(1), copy_of(2), copy_of(3))
    first, second = hosts.started().values()
    first.bytes_sent()
    hosts.started()  # the third takes the place
    again = await renewing(hosts, first, read=False)
    assert not again.done()
    hosts.add(copy_of(4))
    assert hosts.started() == {}
    second.release()
    assert hosts.started() == {}
    await asyncio.sleep(0)
    assert again.done()
    assert first.target.kind is PermitKind.WRITE


async def test_a_permit_that_one_waits_for_is_taken_by_nobody_although_another_lacks() -> None:
    """It needs both ends: what is free at one of them is kept for it."""
    hosts = Hosts(source=FixedLimiter(1), target=FixedLimiter(2))
    hosts.add(copy_of(1))
    [permits] = hosts.started().values()
    permits.bytes_read()
    permits.bytes_sent()
    elsewhere = Site("elsewhere", "app")
    hosts.add(copy_of(2, target=elsewhere))
    [reading] = hosts.started().values()
    again = await renewing(hosts, permits, read=True)
    hosts.add(copy_of(3), warm=True)
    hosts.add(Mount(copy_of(4).blob, THERE, Site("target", "b"), HERE))
    assert list(hosts.started()) == [3], "the mount needs none of them"
    reading.release()
    assert hosts.started().keys() == {2}, "one of two places is left for it"
    await asyncio.sleep(0)
    assert again.done() and permits.reads


@pytest.mark.parametrize("granted", [True, False])
async def test_who_is_cancelled_while_it_waits_holds_nothing(granted: bool) -> None:
    hosts = Hosts(target=FixedLimiter(2))
    hosts.add(copy_of(1), copy_of(2), copy_of(3))
    first, second = hosts.started().values()
    first.bytes_sent()
    [third] = hosts.started().values()
    again = await renewing(hosts, first, read=False)
    if granted:
        second.release()
        hosts.started()
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    for each in (first, second, third):
        each.release()
    assert hosts.started() == {}
    assert all(hosts.used(host, kind) == 0 for host in hosts.limiters for kind in PermitKind)


async def test_what_is_no_step_of_the_plan_waits_for_its_permits_too() -> None:
    hosts = Hosts(target=FixedLimiter(1))
    hosts.add(copy_of(1))
    [permits] = hosts.started().values()
    beside = asyncio.create_task(hosts.admission.admit(copy_of(2), warm=False))
    await asyncio.sleep(0)
    assert hosts.started() == {} and not beside.done()
    permits.release()
    hosts.started()
    held = await beside
    assert held.reads and held.target.kind is PermitKind.WRITE


def test_targets_that_want_the_same_source_get_their_shares_of_it() -> None:
    hosts = Hosts(source=FixedLimiter(4))
    other = Site("other", "app")
    hosts.add(*(copy_of(n) for n in range(9)), *(copy_of(n, target=other) for n in range(10, 19)))
    started: list[Site] = [permits.step.target for permits in hosts.started().values()]
    assert sorted(started) == [other, other, THERE, THERE]
