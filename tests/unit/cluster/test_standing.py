"""What stands still at a worker while others get further with its hosts, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.cluster.members import Member
from blobflow.cluster.standing import LOAD_STANDS_SECONDS, MOVES_SECONDS, Load, StandingLoads
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Carriage
from tests.fakes.registry import blob_of

SOURCE, TARGET, OTHER = Site("from", "app"), Site("to", "app"), Site("too", "app")
HALF = MOVES_SECONDS / 2


class Hall:
    """Two workers with a load each, and what time it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *targets: Site) -> None:
        self.now = 1000.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        self.loads = StandingLoads()
        carriage = Carriage(blob_of(bytes(100)), SOURCE, targets or (TARGET,))
        self.still, self.other = (Load(Member(name, name, 1, 1), carriage) for name in ("a", "b"))
        self.still.bytes = {TARGET: 10}

    def move(self, *targets: Site, seconds: float, step: float = 5.0) -> None:
        """The other one gets further for a while."""
        until = self.now + seconds
        while self.now < until:
            self.now += step
            self.loads.moved(self.other, targets or (TARGET,))

    @property
    def stands(self) -> bool:
        return self.loads.stands(self.still)


@pytest.fixture
async def hall(monkeypatch: pytest.MonkeyPatch) -> Hall:
    return Hall(monkeypatch)


async def test_what_stands_while_another_gets_further_stands(hall: Hall) -> None:
    hall.move(seconds=LOAD_STANDS_SECONDS - 5)
    assert not hall.stands
    hall.move(seconds=5)
    assert hall.stands
    hall.loads.moved(hall.still, (TARGET,))
    assert not hall.stands


async def test_nobody_stands_where_all_do_or_have_begun_again_just_now(hall: Hall) -> None:
    hall.move(seconds=HALF)
    hall.now += 5 * LOAD_STANDS_SECONDS
    assert not hall.stands
    hall.move(seconds=HALF)
    assert not hall.stands
    hall.move(seconds=HALF)
    assert hall.stands


@pytest.mark.parametrize("sent", [{}, {TARGET: 100}], ids=["waits at its worker", "is hashed at its target"])
async def test_what_need_not_move_does_not_stand(hall: Hall, sent: dict[Site, int]) -> None:
    hall.still.bytes = sent
    hall.move(seconds=2 * LOAD_STANDS_SECONDS)
    assert not hall.stands


async def test_others_have_to_get_further_with_each_of_its_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    hall = Hall(monkeypatch, TARGET, OTHER)
    hall.move(seconds=2 * LOAD_STANDS_SECONDS)
    assert not hall.stands
    hall.move(TARGET, OTHER, seconds=LOAD_STANDS_SECONDS)
    assert hall.stands
    hall.still.arrived(TARGET)
    assert not hall.stands, "what is left waits for its own time-outs"
