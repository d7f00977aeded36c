"""The schedule as a table: what is ready and in flight, and what starts."""

from __future__ import annotations

from collections.abc import Sequence

from blobflow.content import SMALL_BLOB, Site
from blobflow.engine.plan.steps import Copy, Mount
from blobflow.engine.transfer.schedule import Candidates, InUse, Ready, Start, Waiting, needs_of, schedule
from blobflow.oci import Descriptor, digest_of
from blobflow.permits import MAX_REQUESTS, FixedLimiter, PermitKind, try_acquire_all

SIZES = [10, 500, 20, 400, 30]


class Hosts:
    """A target "t" and a source "s", each with so many streams each way, and what is in use there."""

    def __init__(self, streams: int, *, small: int = MAX_REQUESTS) -> None:
        self.limiters = {host: FixedLimiter(streams, small) for host in ("t", "s")}
        self.in_use = InUse()

    def hold(self, host: str, kind: PermitKind, permits: int) -> Hosts:
        for _ in range(permits):
            assert self.limiters[host].try_acquire(kind) is not None
        return self

    def writing(self, streams: int, *, largest: int = 0) -> Hosts:
        self.in_use.largest = largest
        return self.hold("t", PermitKind.WRITE, streams)

    def reading(self, streams: int, *, target: str = "t") -> Hosts:
        self.in_use.shares["s", target] += streams
        return self.hold("s", PermitKind.READ, streams)

    def start(
        self,
        small: Sequence[Waiting],
        by_size: Sequence[Waiting] = (),
        by_order: Sequence[Waiting] = (),
        *,
        rivals: int = 0,
    ) -> list[Start]:
        candidates, target = Candidates(small, by_size, by_order), self.limiters["t"]
        source_at = self.limiters.__getitem__
        return list(schedule(candidates, self.in_use, target, source_at, lambda source: rivals))


def copies(sizes: list[int], *, warm: bool = False) -> tuple[list[Waiting], list[Waiting]]:
    waiting = [Waiting(n, "t", "s", size, warm) for n, size in enumerate(sizes)]
    return sorted(waiting, key=lambda w: -w.size), waiting


def started(hosts: Hosts, sizes: list[int] = SIZES, *, warm: bool = False) -> list[Start]:
    return hosts.start([], *copies(sizes, warm=warm))


def test_half_the_slots_go_to_the_largest_and_half_to_the_plans_order() -> None:
    sizes = [*SIZES, 1, 2, 3, 4]
    assert started(Hosts(4), sizes) == [Start(1, True), Start(3, True), Start(0), Start(2)]


def test_what_is_left_in_the_end_goes_largest_first_in_all_slots() -> None:
    largest = [Start(number, True) for number in (1, 3, 4, 2)]
    assert started(Hosts(4)) == largest
    assert started(Hosts(4), [*SIZES, 1, 2, 3]) == largest


def test_slots_in_use_are_not_given_again() -> None:
    assert started(Hosts(4).writing(3, largest=2).reading(3), [*SIZES, 1, 2, 3, 4]) == [Start(0)]
    assert started(Hosts(4).writing(3, largest=2).reading(3)) == [Start(1, True)]


def test_a_full_source_starts_nothing_cold() -> None:
    assert started(Hosts(4).reading(4)) == []


def test_a_warm_copy_needs_only_its_target() -> None:
    assert len(started(Hosts(4).reading(4), warm=True)) == 4


def test_one_slot_still_moves_the_largest_first() -> None:
    assert started(Hosts(1)) == [Start(1, True)]


def test_small_requests_have_their_own_lane() -> None:
    small = [Waiting(n, "t") for n in range(5)]
    hosts = Hosts(8, small=3).writing(8).hold("t", PermitKind.REQUEST, 1)
    assert hosts.start(small) == [Start(0), Start(1)]


def test_streams_start_before_small_requests() -> None:
    small = [Waiting(9, "t")]
    assert Hosts(8).start(small, *copies([10])) == [Start(0, True), Start(9)]


def test_small_blobs_whose_source_is_full_hold_up_no_other_small_step() -> None:
    small = [Waiting(0, "t", "s", 1), Waiting(1, "t", "s", 1, warm=True), Waiting(2, "t")]
    assert Hosts(8, small=3).hold("s", PermitKind.REQUEST, 3).start(small) == [Start(1), Start(2)]


def test_a_small_blob_is_copied_within_a_host_that_takes_one_small_request_at_a_time() -> None:
    host = FixedLimiter(1, 1)
    needs = needs_of(host, host, small=True)
    assert [kind for _, kind in needs] == [PermitKind.REQUEST, PermitKind.READ]
    assert try_acquire_all(needs) is not None


def test_a_blob_that_the_store_begins_to_read_makes_its_other_copies_warm() -> None:
    size = SMALL_BLOB + 1
    blob = Descriptor(media_type="layer", digest=digest_of(b"x"), size=size)
    ready = Ready("t")
    ready.add(3, Copy(blob, Site("s", "a"), Site("t", "a")))
    ready.add(4, Mount(blob, Site("t", "b"), Site("t", "a"), Site("s", "a")))
    ready.warmed(blob.digest)
    small, by_size, by_order = ready.candidates()
    assert [w.number for w in small] == [4]
    assert by_size == by_order == [Waiting(3, "t", "s", size, True)]
    ready.remove(3)
    ready.remove(4)
    assert ready.candidates() == ([], [], [])


def test_a_small_blob_waits_among_the_small_requests() -> None:
    small, large = (
        Copy(Descriptor("layer", digest_of(b"x"), size), Site("s", "a"), Site("t", "a"))
        for size in (SMALL_BLOB, SMALL_BLOB + 1)
    )
    ready = Ready("t")
    ready.add(1, large)
    ready.add(0, small)
    waiting, by_size, _ = ready.candidates()
    assert ([w.number for w in waiting], [w.number for w in by_size]) == ([0], [1])
    ready.remove(0)
    assert ready.candidates()[0] == []


def shared(hosts: Hosts, *, rivals: int) -> int:
    """How many cold copies start at a target, while others wait for the same source."""
    return len(hosts.start([], *copies([1000] * 20), rivals=rivals))


def test_targets_that_wait_for_one_source_share_its_slots() -> None:
    assert shared(Hosts(8), rivals=0) == 8
    assert shared(Hosts(8), rivals=1) == 4
    assert shared(Hosts(8), rivals=2) == 3
    assert shared(Hosts(8), rivals=20) == 1


def test_a_target_that_has_its_share_of_a_source_gets_no_more_of_it() -> None:
    assert shared(Hosts(8).reading(3), rivals=1) == 1
    assert shared(Hosts(8).reading(4), rivals=1) == 0
    assert shared(Hosts(8).reading(2), rivals=1) == 2


def test_what_others_hold_counts_against_all() -> None:
    assert shared(Hosts(8).reading(7, target="another"), rivals=1) == 1


def test_ready_copies_want_their_source_until_they_are_warm_or_begun() -> None:
    ready = Ready("t")
    blobs = [Descriptor("layer", digest_of(name), SMALL_BLOB + 1) for name in (b"1", b"2")]
    for number, blob in enumerate(blobs):
        ready.add(number, Copy(blob, Site("s", "x"), Site("t", "a")))
    assert ready.wants("s")
    assert not ready.wants("t")
    ready.warmed(blobs[0].digest)
    assert ready.wants("s")
    ready.remove(1)
    assert not ready.wants("s")
    ready.remove(0)
    assert not ready.wants("s")
