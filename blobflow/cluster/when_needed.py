"""A carrier that the first carriage opens: a run that moves nothing starts no processes for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from blobflow.content import Site
from blobflow.engine.transfer.carrying import Arrival, Carriage, Carrier, Tell, tell_nobody

# Carriages that are worth having before it is known how many workers there are.
FIRST = 64


class CarrierWhenNeeded:
    """A `Carrier`, and a context manager around it; `opening` makes the real one. `known`: which sites it
    takes."""

    def __init__(
        self, opening: Callable[[], AbstractAsyncContextManager[Carrier]], known: Callable[[Site], bool]
    ) -> None:
        self._opening = opening
        self._known = known
        self._calls: list[Callable[[], None]] = []
        self._over = asyncio.Event()
        self._holding: asyncio.Task[None] | None = None
        self._carrier: asyncio.Future[Carrier] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._holding is not None:
            if not self._carrier.done():
                self._holding.cancel()
            await asyncio.wait((self._holding,))

    def capacity(self) -> int:
        """See `Carrier.capacity`."""
        return self._carrier.result().capacity() if self._is_open else FIRST

    def on_room(self, call: Callable[[], None]) -> None:
        """See `Carrier.on_room`."""
        self._calls.append(call)
        if self._is_open:
            self._carrier.result().on_room(call)

    def takes(self, carriage: Carriage) -> bool:
        """See `Carrier.takes`."""
        return all(map(self._known, (carriage.source, *carriage.targets)))

    async def carry(
        self, carriage: Carriage, *, size_left: int, tell: Tell = tell_nobody
    ) -> Sequence[Arrival]:
        """See `Carrier.carry`. Raises BlobflowError also where it can't be opened."""
        if self._holding is None:
            self._holding = asyncio.create_task(self._hold())
        await asyncio.wait((self._carrier,))
        return await self._carrier.result().carry(carriage, size_left=size_left, tell=tell)

    @property
    def _is_open(self) -> bool:
        return self._carrier.done() and self._carrier.exception() is None

    async def _hold(self) -> None:
        """Open it, and close it in the end, in one task."""
        try:
            async with self._opening() as carrier:
                for call in self._calls:
                    carrier.on_room(call)
                self._carrier.set_result(carrier)
                await self._over.wait()
        except Exception as error:
            if self._carrier.done():
                raise
            self._carrier.set_exception(error)
