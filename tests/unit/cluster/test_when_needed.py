"""A carrier that is opened by what it is to carry, and closed however that went."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from blobflow.cluster.when_needed import FIRST, CarrierWhenNeeded
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Arrival, Carriage, Carrier
from blobflow.errors import ConnectFailed
from tests.fakes.registry import blob_of

TARGET = Site("to", "app")
CARRIAGE = Carriage(blob_of(b"content"), Site("from", "app"), (TARGET,))


class Opened:
    """How often the real carrier was opened and closed."""

    def __init__(self) -> None:
        self.begun = 0
        self.open = 0
        self.closed = 0
        self.ready = asyncio.Event()
        self.ready.set()
        self.error: Exception | None = None

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[Carrier]:
        self.begun += 1
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        self.open += 1
        try:
            yield Simple()
        finally:
            self.closed += 1

    def carrier(self) -> CarrierWhenNeeded:
        return CarrierWhenNeeded(self.opening, lambda site: site.registry != "own")


class Simple:
    """Brings everything at once."""

    def capacity(self) -> int:
        return 3

    def on_room(self, call: object) -> None:
        pass

    def takes(self, carriage: Carriage) -> bool:
        return True

    async def carry(self, carriage: Carriage, *, size_left: int, tell: object = None) -> list[Arrival]:
        return [Arrival(target, None, "one") for target in carriage.targets]


async def test_what_nobody_needs_is_not_opened() -> None:
    opened = Opened()
    async with opened.carrier() as carrier:
        assert carrier.capacity() == FIRST
        assert carrier.takes(CARRIAGE)
        assert not carrier.takes(Carriage(CARRIAGE.blob, Site("own", "app"), (TARGET,)))
    assert (opened.begun, opened.closed) == (0, 0)


async def test_the_first_of_several_carriages_opens_it_for_all() -> None:
    opened = Opened()
    async with opened.carrier() as carrier:
        brought = await asyncio.gather(*(carrier.carry(CARRIAGE, size_left=1) for _ in range(5)))
        assert {arrival.worker for each in brought for arrival in each} == {"one"}
        assert carrier.capacity() == 3
    assert (opened.open, opened.closed) == (1, 1)


async def test_that_it_can_not_be_opened_is_said_to_all_that_wait() -> None:
    opened = Opened()
    opened.error = ConnectFailed("nobody there")
    async with opened.carrier() as carrier:
        for _ in range(2):
            with pytest.raises(ConnectFailed, match="nobody there"):
                await carrier.carry(CARRIAGE, size_left=1)
    assert opened.begun == 1


async def test_a_run_that_is_cancelled_while_it_opens_leaves_nothing_open() -> None:
    opened = Opened()
    opened.ready.clear()
    async with opened.carrier() as carrier:
        waiting = asyncio.create_task(carrier.carry(CARRIAGE, size_left=1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
    assert opened.begun == 1
    assert opened.open == opened.closed == 0
