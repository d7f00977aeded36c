"""Which worker gets a carriage: the least laden that has room, within the limits of hosts."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.cluster import members, standing
from blobflow.cluster.dispatch import AHEAD, Dispatch, Others
from blobflow.cluster.members import Member
from blobflow.cluster.shares import share_out
from blobflow.cluster.standing import Load
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Carriage
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings
from blobflow.waits import Waits
from tests.fakes.registry import blob_of


def carriage(size: int = 10, source: str = "from") -> Carriage:
    return Carriage(blob_of(bytes(size)), Site(source, "app"), (Site("to", "app"),))


class Crew:
    """Workers, and what hands them carriages."""

    def __init__(self, names: str, settings: Settings = Settings()) -> None:  # noqa: B008  frozen
        self.members = [Member(name, name, 8, at) for at, name in enumerate(names.split())]
        self.settings = settings
        self.waits = Waits()
        self.dispatch = Dispatch(lambda: self.members, settings, self.waits, "dask://scheduler")
        self.given: list[Load] = []
        self.share()

    def share(self) -> None:
        shares = share_out(self.settings, [each.address for each in self.members])
        for each in self.members:
            each.fit, each.shares = True, shares[each.address]

    async def give(self, *carriages: Carriage, not_at: tuple[str, ...] = ()) -> list[str]:
        """Who gets them, of those that are given to anybody at once."""
        asked = [asyncio.create_task(self.dispatch.worker_for(each, not_at)) for each in carriages]
        await asyncio.sleep(0)
        self.given += [each.result() for each in asked if each.done()]
        given = [each.result().member.name for each in asked if each.done()]
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        return given


async def test_the_worker_with_the_fewest_bytes_is_next() -> None:
    crew = Crew("a b c")
    assert await crew.give(carriage(50), carriage(30), carriage(10), carriage(5), carriage(5)) == [
        "a",
        "b",
        "c",
        "c",
        "c",
    ]


async def test_connections_that_were_set_are_never_exceeded() -> None:
    crew = Crew("a b", Settings(hosts={"from": HostSettings(connections=3)}))
    given = await crew.give(*(carriage() for _ in range(9)))
    assert sorted(given) == ["a", "a", "b"]
    assert await crew.give(carriage(source="elsewhere")) == ["b"]


async def test_a_worker_without_a_connection_gets_nothing_of_that_host() -> None:
    crew = Crew("a b c", Settings(concurrency=1))
    assert await crew.give(carriage(), carriage()) == ["a"]


async def test_who_came_late_gets_no_more_than_others_have_left() -> None:
    crew = Crew("a", Settings(concurrency=2))
    assert await crew.give(carriage(), carriage()) == ["a", "a"]
    crew.members.append(Member("b", "b", 8, 1))
    crew.share()
    assert await crew.give(carriage()) == []
    crew.dispatch.ended(crew.given[0])
    assert await crew.give(carriage()) == ["b"]


@pytest.mark.parametrize("state", ["rests", "leaves"])
async def test_a_worker_that_rests_or_leaves_gets_nothing(state: str) -> None:
    crew = Crew("a b")
    setattr(crew.members[0], state, True)
    assert await crew.give(carriage(), carriage()) == ["b", "b"]


async def test_what_failed_at_one_goes_to_another_and_in_the_end_to_anybody() -> None:
    crew = Crew("a b")
    assert await crew.give(carriage(), not_at=("a",)) == ["b"]
    crew.members[1].away_from.add("from")
    assert await crew.give(carriage()) == ["a"]
    crew.members[0].away_from.add("from")
    assert len(await crew.give(carriage())) == 1


async def test_where_something_failed_nothing_more_goes_while_there_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who fails at once is the one with the most room."""
    crew = Crew("a b", Settings(hosts={"from": HostSettings(connections=4)}))
    crew.members[0].doubt(["from"])
    assert await crew.give(*(carriage() for _ in range(4))) == ["b", "b"]
    assert crew.dispatch.others(carriage(), ("b",)) == Others(any=True)
    crew.members[1].doubt(["from"])
    assert await crew.give(carriage()) == ["a"], "all are alike"
    monkeypatch.setattr(members, "DOUBT_SECONDS", 0)
    crew.members[0].doubt(["from"])
    assert crew.dispatch.others(carriage(), ()) == Others(any=True, fresh=True), "it is forgotten"


async def test_nobody_waits_for_a_worker_that_has_no_connection() -> None:
    crew = Crew("a b", Settings(concurrency=1))
    crew.members[0].doubt(["from"])
    assert crew.dispatch.others(carriage(), ("a",)) == Others()
    assert await crew.give(carriage()) == ["a"]


async def test_it_is_said_that_there_is_no_worker_as_long_as_there_is_none() -> None:
    crew = Crew("")
    waiting = asyncio.create_task(crew.dispatch.worker_for(carriage(), ()))
    await asyncio.sleep(0)
    assert [wait.what for wait in crew.waits.now()] == ["waiting for a worker of dask://scheduler"]
    assert crew.dispatch.wanting == 1
    crew.members.append(Member("a", "a", 8, 0))
    crew.share()
    crew.dispatch.serve()
    assert (await waiting).member.name == "a"
    assert not crew.waits.now()
    assert crew.dispatch.wanting == 0


async def test_one_that_is_cancelled_while_it_waits_takes_nobodys_place() -> None:
    crew = Crew("a", Settings(concurrency=1))
    assert await crew.give(carriage(), carriage(), carriage()) == ["a"]
    crew.dispatch.ended(crew.given[0])
    assert crew.members[0].carriages == 0
    assert await crew.give(carriage()) == ["a"]


async def test_capacity_follows_the_workers() -> None:
    crew = Crew("a b", Settings(concurrency=4))
    assert crew.dispatch.capacity() == AHEAD + 2 * 3
    crew.members.pop()
    crew.share()
    assert crew.dispatch.capacity() == AHEAD + 5


BOTH = (Site("to", "app"), Site("too", "app"))


def for_both() -> Carriage:
    return Carriage(blob_of(bytes(10)), Site("from", "app"), BOTH)


async def test_what_is_for_a_full_target_that_stands_still_goes_to_the_others_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crew = Crew("a", Settings(hosts={"too": HostSettings(connections=1)}))
    assert await crew.give(for_both()) == ["a"]
    crew.dispatch.arrived(crew.given[0], BOTH[0])
    assert await crew.give(for_both()) == [], "full, and may only be slow"
    monkeypatch.setattr(standing, "STANDS_SECONDS", 0)
    assert await crew.give(for_both()) == ["a"]
    assert [each.carriage.targets for each in crew.given] == [BOTH, BOTH[:1]]
    monkeypatch.undo()
    crew.dispatch.moved(BOTH[1])
    assert await crew.give(for_both()) == []
    crew.dispatch.ended(crew.given[0])
    assert await crew.give(for_both()) == ["a"]
    assert crew.given[-1].carriage.targets == BOTH


async def test_a_target_that_stands_still_keeps_no_place_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew(
        "a", Settings(hosts={"too": HostSettings(connections=1), "from": HostSettings(connections=1)})
    )
    crew.members[0].places = 1
    before = crew.dispatch.capacity()
    assert await crew.give(for_both()) == ["a"]
    crew.dispatch.arrived(crew.given[0], BOTH[0])
    assert await crew.give(carriage()) == [], "its thread"
    monkeypatch.setattr(standing, "STANDS_SECONDS", 0)
    assert await crew.give(carriage()) == ["a"]
    assert crew.dispatch.capacity() == before + 1
    for load in crew.given:
        crew.dispatch.ended(load)
    assert crew.dispatch.capacity() == before
    assert (crew.members[0].carriages, crew.members[0].standing) == (0, 0)
    assert not +crew.members[0].at_hosts
