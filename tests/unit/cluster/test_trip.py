"""A carriage over several workers: what is tried again elsewhere, and when it is over."""

from __future__ import annotations

import pytest

from blobflow.cluster.dispatch import Others
from blobflow.cluster.members import Member
from blobflow.cluster.trip import MAX_DEATHS, Trip
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Arrival, Carriage
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    Denied,
    DigestMismatch,
    NotFound,
    StorageFull,
    TimedOut,
    Unauthorized,
)
from tests.fakes.registry import blob_of

SOURCE, TARGET, OTHER = Site("from", "app"), Site("to", "app"), Site("too", "app")


@pytest.fixture
async def members() -> list[Member]:
    return [Member(f"tcp://{name}", name, 4, at) for at, name in enumerate(("one", "two", "three"))]


def trip(*targets: Site) -> Trip:
    return Trip(Carriage(blob_of(b"content"), SOURCE, targets or (TARGET,)))


def failed(error: BlobflowError, side: str = "source", target: Site = TARGET) -> Arrival:
    error.side = "source" if side == "source" else "target"
    return Arrival(target, error, "one")


async def test_what_arrived_is_over(members: list[Member]) -> None:
    way, reached = trip(TARGET, OTHER), set[str]()
    way.take(
        members[0], [Arrival(TARGET, None), Arrival(OTHER, None)], reached=reached, others=Others(any=True)
    )
    assert not way.todo.targets
    assert reached == {"from", "to", "too"}
    assert not way.blamed()


@pytest.mark.parametrize("error", [ConnectFailed("refused"), Unauthorized("who"), StorageFull("full")])
async def test_what_may_be_a_workers_own_reason_is_tried_at_another_which_shows_whose_it_was(
    members: list[Member], error: BlobflowError
) -> None:
    way, reached = trip(), set[str]()
    way.take(members[0], [failed(error)], reached=reached, others=Others(any=True))
    assert way.todo.targets == (TARGET,)
    assert way.not_at == {"tcp://one"}
    way.take(members[1], [Arrival(TARGET, None, "two")], reached=reached, others=Others(any=True))
    (blamed,) = way.blamed()
    assert blamed.member is members[0]
    assert blamed.host == ("" if isinstance(error, StorageFull) else "from")
    assert way.found[TARGET].error is None


@pytest.mark.parametrize(
    "error", [NotFound("gone"), DigestMismatch("blob", expected="a", actual="b"), TimedOut("silent")]
)
async def test_what_is_no_workers_reason_is_not_tried_again(
    members: list[Member], error: BlobflowError
) -> None:
    way = trip()
    way.take(members[0], [failed(error)], reached=set(), others=Others(any=True))
    assert not way.todo.targets
    assert way.found[TARGET].error is error


async def test_only_the_target_that_failed_is_tried_again(members: list[Member]) -> None:
    way = trip(TARGET, OTHER)
    refused = failed(ConnectFailed("refused"), "target", OTHER)
    way.take(members[0], [Arrival(TARGET, None), refused], reached=set(), others=Others(any=True))
    assert way.todo.targets == (OTHER,)


async def test_a_host_that_nobody_reaches_is_tried_twice_and_one_that_others_reach_everywhere(
    members: list[Member],
) -> None:
    way, known = trip(), trip()
    for member in members[:2]:
        way.take(member, [failed(ConnectFailed("refused"))], reached=set(), others=Others(any=True))
        known.take(member, [failed(ConnectFailed("refused"))], reached={"from"}, others=Others(any=True))
    assert not way.todo.targets
    assert not way.blamed()
    assert known.todo.targets == (TARGET,)


@pytest.mark.parametrize("error", [ConnectFailed("refused"), Denied("no"), StorageFull("full")])
async def test_while_there_are_workers_with_which_nothing_failed_they_are_tried(
    members: list[Member], error: BlobflowError
) -> None:
    """However many failed before: they may be those that came first, and the others take longer."""
    way = trip()
    for member in members:
        way.take(member, [failed(error)], reached=set(), others=Others(any=True, fresh=True))
        assert way.todo.targets
    way.take(members[0], [failed(error)], reached=set(), others=Others(any=True))
    assert not way.todo.targets


@pytest.mark.parametrize("error", [TimedOut("silent"), ConnectionLost("cut")])
async def test_what_took_all_time_outs_is_tried_once_more_where_others_reach_that_host(
    members: list[Member], error: BlobflowError
) -> None:
    way, fresh = trip(), Others(any=True, fresh=True)
    way.take(members[0], [failed(error)], reached={"from"}, others=fresh)
    assert way.todo.targets
    way.take(members[1], [failed(error)], reached={"from"}, others=fresh)
    assert not way.todo.targets


@pytest.mark.parametrize(("error", "lasts"), [(ConnectFailed("refused"), True), (TimedOut("silent"), False)])
async def test_who_failed_where_another_did_not_is_set_aside_and_after_an_outage_for_a_while(
    members: list[Member], error: BlobflowError, lasts: bool
) -> None:
    way = trip()
    way.take(members[0], [failed(error)], reached={"from"}, others=Others(any=True, fresh=True))
    way.take(members[1], [Arrival(TARGET, None, "two")], reached={"from"}, others=Others(any=True))
    [told] = way.set_aside()
    assert told.startswith(f"{error}; ") and ("from now on" in told) == lasts
    assert members[0].is_away(("from",)) == lasts
    assert members[0].is_doubted(("from",)) != lasts
    members[0].trust(("from",))
    assert not members[0].is_doubted(("from",))


async def test_a_worker_is_doubted_until_it_goes_well_with_that_host(members: list[Member]) -> None:
    way = trip()
    assert way.judge(members[0], [failed(ConnectFailed("refused"))])
    assert members[0].is_doubted(("from", "to")) and not members[0].is_doubted(("to",))
    assert not way.judge(members[0], [Arrival(TARGET, None)])
    assert not members[0].is_doubted()
    assert not way.judge(members[1], [failed(NotFound("gone"))])
    assert not members[1].is_doubted()
    assert way.judge(members[2], [failed(StorageFull("full"))])
    way.judge(members[2], [Arrival(TARGET, None)])
    assert members[2].is_doubted(("elsewhere",)), "its disk, where a small blob still fits"


async def test_what_no_other_worker_is_there_for_has_failed(members: list[Member]) -> None:
    way = trip()
    way.take(members[0], [failed(ConnectFailed("refused"))], reached={"from"}, others=Others())
    assert not way.todo.targets


async def test_what_kills_worker_after_worker_fails_and_names_them(members: list[Member]) -> None:
    way = trip()
    for _ in range(MAX_DEATHS):
        way.came_back(members[0], died=True)
    assert way.todo.targets
    way.came_back(members[1], died=True)
    assert not way.todo.targets
    assert "4 workers died while they had blob sha256:" in str(way.found[TARGET].error)
    assert "one, one, one, two" in str(way.found[TARGET].error)


async def test_workers_that_close_are_no_deaths(members: list[Member]) -> None:
    way = trip()
    for _ in range(50):
        way.came_back(members[0], died=False)
    assert way.todo.targets


async def test_what_a_worker_was_not_given_is_read_where_the_blob_is_by_now_and_else_at_its_source(
    members: list[Member],
) -> None:
    way, reached = trip(TARGET, OTHER), set[str]()
    way.take(members[0], [Arrival(TARGET, None)], reached=reached, others=Others(any=True))
    assert (way.todo.source, way.todo.targets) == (TARGET, (OTHER,))
    way.take(members[0], [failed(NotFound("gone"), target=OTHER)], reached=reached, others=Others())
    assert (way.todo.source, way.todo.targets) == (SOURCE, (OTHER,))
    way.take(members[0], [failed(NotFound("gone"), target=OTHER)], reached=reached, others=Others())
    assert not way.todo.targets
    assert way.found[OTHER].error is not None
