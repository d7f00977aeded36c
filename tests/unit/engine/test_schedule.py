"""The schedule as a table: what is ready and in flight, and what starts."""

from __future__ import annotations

from collections import Counter

from blobflow.content import SMALL_BLOB, Site
from blobflow.engine.plan.steps import Copy, Mount
from blobflow.engine.transfer.schedule import Limits, Ready, SlotsInUse, Start, Waiting, schedule
from blobflow.oci import Descriptor, digest_of

SIZES = [10, 500, 20, 400, 30]


def copies(sizes: list[int], *, warm: bool = False) -> tuple[list[Waiting], list[Waiting]]:
    waiting = [Waiting(n, "t", "s", size, warm) for n, size in enumerate(sizes)]
    return sorted(waiting, key=lambda w: -w.size), waiting


def started(
    limits: Limits, flight: SlotsInUse, sizes: list[int] = SIZES, *, warm: bool = False
) -> list[Start]:
    by_size, by_order = copies(sizes, warm=warm)
    return schedule([], by_size, by_order, flight, lambda host: limits)


def test_half_the_slots_go_to_the_largest_and_half_to_the_plans_order() -> None:
    sizes = [*SIZES, 1, 2, 3, 4]
    assert started(Limits(blobs=4), SlotsInUse(), sizes) == [
        Start(1, True),
        Start(3, True),
        Start(0),
        Start(2),
    ]


def test_what_is_left_in_the_end_goes_largest_first_in_all_slots() -> None:
    largest = [Start(number, True) for number in (1, 3, 4, 2)]
    assert started(Limits(blobs=4), SlotsInUse()) == largest
    assert started(Limits(blobs=4), SlotsInUse(), [*SIZES, 1, 2, 3]) == largest


def test_slots_in_use_are_not_given_again() -> None:
    flight = SlotsInUse(writing=Counter(t=3), largest=Counter(t=2), reading=Counter(s=3))
    assert started(Limits(blobs=4), flight, [*SIZES, 1, 2, 3, 4]) == [Start(0)]
    assert started(Limits(blobs=4), flight) == [Start(1, True)]


def test_a_full_source_starts_nothing_cold() -> None:
    flight = SlotsInUse(reading=Counter(s=4))
    assert started(Limits(blobs=4), flight) == []


def test_a_warm_copy_needs_only_its_target() -> None:
    flight = SlotsInUse(reading=Counter(s=4))
    assert len(started(Limits(blobs=4), flight, warm=True)) == 4


def test_one_slot_still_moves_the_largest_first() -> None:
    assert started(Limits(blobs=1), SlotsInUse()) == [Start(1, True)]


def test_small_requests_have_their_own_lane() -> None:
    small = [Waiting(n, "t") for n in range(5)]
    flight = SlotsInUse(writing=Counter(t=8), small=Counter(t=1))
    assert schedule(small, [], [], flight, lambda host: Limits(blobs=8, small=3)) == [Start(0), Start(1)]


def test_streams_start_before_small_requests() -> None:
    small = [Waiting(9, "t")]
    by_size, by_order = copies([10])
    assert schedule(small, by_size, by_order, SlotsInUse(), lambda host: Limits()) == [
        Start(0, True),
        Start(9),
    ]


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


def shared(flight: SlotsInUse, *, slots: int, rivals: int) -> int:
    """How many cold copies start at a target, while others wait for the same source."""
    by_size, by_order = copies([1000] * 20)
    limits = Limits(blobs=slots)
    return len(schedule([], by_size, by_order, flight, lambda host: limits, lambda source: rivals))


def test_targets_that_wait_for_one_source_share_its_slots() -> None:
    assert shared(SlotsInUse(), slots=8, rivals=0) == 8
    assert shared(SlotsInUse(), slots=8, rivals=1) == 4
    assert shared(SlotsInUse(), slots=8, rivals=2) == 3
    assert shared(SlotsInUse(), slots=8, rivals=20) == 1


def test_a_target_that_has_its_share_of_a_source_gets_no_more_of_it() -> None:
    flight = SlotsInUse()
    flight.read("s", "t", 3)
    assert shared(flight, slots=8, rivals=1) == 1
    flight.read("s", "t", 1)
    assert shared(flight, slots=8, rivals=1) == 0
    flight.read("s", "t", -2)
    assert shared(flight, slots=8, rivals=1) == 2


def test_what_others_hold_counts_against_all() -> None:
    flight = SlotsInUse()
    flight.read("s", "another", 7)
    assert shared(flight, slots=8, rivals=1) == 1


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
