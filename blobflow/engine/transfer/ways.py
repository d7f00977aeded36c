"""The way that each blob of a transfer takes from source to target, and the reader that its copies get."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from blobflow.content import BlobReader, LineRate
from blobflow.engine.blob_readers import HeldReader
from blobflow.engine.plan.steps import Copy
from blobflow.engine.services import Services
from blobflow.engine.transfer.admission import Admission, AdmittedReader, StepPermits
from blobflow.engine.transfer.line_rates import LineRates
from blobflow.engine.transfer.staging import Way, choose_way
from blobflow.engine.transfer.staging_area import StagingArea
from blobflow.oci import Descriptor


class Demand(msgspec.Struct, frozen=True):
    """Who needs a blob: `copies` of it are made, `more` may be by targets that are still being asked, and
    `unproven_mounts` by registries that have not yet shown that they mount."""

    copies: int
    more: int = 0
    unproven_mounts: int = 0


def _no_room_to_make(blob: Descriptor) -> None:
    """For who holds nothing that could be let go."""


class BlobWays:
    """Chooses the ways of one transfer's blobs. `make_room` is called before a blob is staged that several
    copies need."""

    def __init__(
        self,
        services: Services,
        admission: Admission,
        staging: StagingArea,
        tasks: asyncio.TaskGroup,
        make_room: Callable[[Descriptor], None] = _no_room_to_make,
    ) -> None:
        self._services = services
        self._admission = admission
        self._staging = staging
        self._tasks = tasks
        self._make_room = make_room
        self._lines = LineRates(services.journal)

    def straight(self, step: Copy, permits: StepPermits) -> BlobReader:
        """The reader of a blob as its source has it, or has given it before."""
        if (content := self._staging.content_at_hand(step.blob)) is not None:
            return HeldReader(content)
        line = self._lines.of(step.source)
        return AdmittedReader(self._services.source_at(step.source), step.blob, permits, line)

    def reader(self, step: Copy, permits: StepPermits, demand: Demand) -> BlobReader:
        """The reader of a copy's blob; from now on it is staged if the blob goes through the store."""
        blob = step.blob
        if self._staging.warm(blob):
            permits.bytes_read()
        line, reader = self._lines.of(step.source), self.straight(step, permits)
        if self._staging.on(blob.digest):
            return reader
        way = self._way(blob, line, demand, demand.copies + demand.more)
        if way == "staged":
            if self._way(blob, line, demand, demand.copies) == "staged":
                self._make_room(blob)
            if self._staging.hold(blob, reader, self._tasks):
                self._admission.warmed(blob.digest)
        elif way == "recorded" and line is not None:
            return self._staging.record(blob, reader, lambda: not line.is_proven_cheap(blob.size))
        return reader

    def _way(self, blob: Descriptor, line: LineRate | None, demand: Demand, copies: int) -> Way:
        return choose_way(
            self._services.cache_mode,
            size=blob.size,
            costly=line is not None and line.is_costly(blob.size),
            proven=line is None or line.seen,
            copies=copies,
            unproven_mounts=demand.unproven_mounts,
            begun=self._staging.begun(blob.digest),
        )
