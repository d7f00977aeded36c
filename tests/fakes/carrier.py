"""A carrier whose workers are in this process; all that is handed to them and comes back goes as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from blobflow.content import Site
from blobflow.engine.transfer.arrival_codec import (
    pack_arrivals,
    pack_carriage,
    unpack_arrivals,
    unpack_carriage,
)
from blobflow.engine.transfer.carrying import Arrival, Carriage, Moved, Tell, tell_nobody
from blobflow.engine.transfer.copy_worker import CopyWorker
from blobflow.errors import BlobflowError

# What a carriage ends with instead of being brought; None: it is brought.
Fault = Callable[[Carriage], BlobflowError | None]


class WorkersHere:
    """Carriages go to the workers in turn. `each`: how many one has at a time.

    `lost`: with what the carrier as a whole ends at once. `fault`: what a worker says of a carriage.
    `silent`: nothing is told meanwhile. `gate`: carriages begin once it is set. `carried`: all that were
    handed over, `size_left` what was said to be left; `most`: that were under way at once; `stopped`: that
    were cancelled.
    """

    def __init__(self, workers: Sequence[CopyWorker], *, each: int = 2) -> None:
        self.workers = list(workers)
        self.each = each
        self.fault: Fault = lambda carriage: None
        self.refuses: Callable[[Carriage], bool] = lambda carriage: False
        self.lost: BlobflowError | None = None
        self.silent = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.carried: list[Carriage] = []
        self.size_left: list[int] = []
        self.under_way = 0
        self.most = 0
        self.stopped = 0
        self._calls: list[Callable[[], None]] = []

    def capacity(self) -> int:
        return self.each * len(self.workers)

    def on_room(self, call: Callable[[], None]) -> None:
        self._calls.append(call)

    def has_room(self) -> None:
        """Say that there may be more room."""
        for call in self._calls:
            call()

    def takes(self, carriage: Carriage) -> bool:
        return not self.refuses(carriage)

    async def carry(
        self, carriage: Carriage, *, size_left: int, tell: Tell = tell_nobody
    ) -> Sequence[Arrival]:
        self.carried.append(carriage)
        self.size_left.append(size_left)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
            return await self._bring(carriage, tell)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        finally:
            self.under_way -= 1

    async def _bring(self, carriage: Carriage, tell: Tell) -> Sequence[Arrival]:
        error = self.fault(carriage)
        if self.lost is not None:
            raise self.lost
        worker = self.workers[len(self.carried) % len(self.workers)]
        if error is not None:
            arrivals: Sequence[Arrival] = [Arrival(each, error, worker.name) for each in carriage.targets]
        else:
            told = tell_nobody if self.silent else self._passing(tell)
            arrivals = await worker.bring(unpack_carriage(pack_carriage(carriage)), tell=told)
        return unpack_arrivals(pack_arrivals(arrivals))

    @staticmethod
    def _passing(tell: Tell) -> Tell:
        def told(news: Moved | Arrival) -> None:
            tell(news if isinstance(news, Moved) else unpack_arrivals(pack_arrivals([news]))[0])

        return told

    def sources(self) -> set[Site]:
        """Where blobs were read."""
        return {carriage.source for carriage in self.carried}
