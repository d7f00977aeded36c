"""The slots that a copy holds while it runs: counted in the flight, freed as soon as they can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from blobflow.engine.plan.steps import Copy
from blobflow.engine.transfer.schedule import Limits, SlotsInUse, streams


class Slots:
    """The slots of one copy. A blob that streams has two, and each is free as soon as the bytes have passed:
    an answer that is still to come is no stream, unless a host is to get one blob at a time. A small one has
    one of the target's small requests."""

    def __init__(
        self,
        flight: SlotsInUse,
        limits: Callable[[str], Limits],
        step: Copy,
        *,
        largest: bool,
        reads: bool,
        freed: asyncio.Event,
    ) -> None:
        self._flight = flight
        self._limits = limits
        self._streams = streams(step)
        self._source, self._target = step.source.registry, step.target.registry
        self._largest = largest
        self._reads = reads and self._streams
        self._writes = self._streams
        self._freed = freed
        flight.read(self._source, self._target, int(self._reads))
        flight.writing[self._target] += self._writes
        flight.largest[self._target] += largest
        flight.small[self._target] += not self._streams

    def reading_over(self) -> None:
        self._flight.read(self._source, self._target, -int(self._reads))
        self._reads = False
        self._freed.set()

    def bytes_passed(self) -> None:
        if self._limits(self._target).blobs > 1:
            self._writing_over()

    def again(self, *, read: bool) -> None:
        """The bytes are to pass once more: until then the target's slot is taken; the source's too, if they
        are to be `read` there once more."""
        if self._streams and not self._writes:
            self._writes = True
            self._flight.writing[self._target] += 1
        if self._streams and read and not self._reads:
            self._reads = True
            self._flight.read(self._source, self._target, 1)

    def _writing_over(self) -> None:
        self._flight.writing[self._target] -= self._writes
        self._flight.largest[self._target] -= self._largest
        self._writes = self._largest = False
        self._freed.set()

    def free(self) -> None:
        self.reading_over()
        self._writing_over()
        self._flight.small[self._target] -= not self._streams
