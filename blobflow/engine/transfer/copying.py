"""Copies one blob from its source, or from the store, to a target, with retries."""

from __future__ import annotations

import asyncio

from blobflow.content import BlobReader
from blobflow.engine.blob_readers import CountedReader, Sent, WholeReader
from blobflow.engine.plan.steps import Copy
from blobflow.engine.services import Services
from blobflow.engine.transfer.admission import Admission, StepPermits
from blobflow.engine.transfer.retry import BlobRetries, may_send
from blobflow.engine.transfer.staging_area import StagingArea
from blobflow.events import Retrying
from blobflow.retrying import Failure, begin_wait, retrying


class BlobCopier:
    """Copies the blobs of one transfer. `tasks` runs what holds staged blobs; once `stopping` is set no copy
    is retried."""

    def __init__(
        self,
        services: Services,
        admission: Admission,
        staging: StagingArea,
        tasks: asyncio.TaskGroup,
        stopping: asyncio.Event,
    ) -> None:
        self._services = services
        self._admission = admission
        self._staging = staging
        self._tasks = tasks
        self._stopping = stopping

    async def copy(self, number: int, step: Copy, reader: BlobReader, permits: StepPermits) -> None:
        """Push a blob, with retries where they may help. `number` is the copy's in the meter.

        Raises what the last attempt did, and how often that was.
        """
        sent = Sent(step.blob.size)
        retries = BlobRetries(self._services.random, lambda: sent.at, times=self._services.retry_times)

        async def pause(failure: Failure) -> None:
            await self._pause(failure, step, sent, permits)
            if self._staging.holds(step.blob.digest):
                self._staging.renew(step.blob, reader, self._tasks)
            elif not retries.tries.fruitless and self._services.cache_mode != "off":
                # The push broke: read the blob once more, this time into the store, where breaks cost less.
                self._staging.hold(step.blob, reader, self._tasks)

        try:
            await retrying(retries, lambda: self._push(number, step, reader, sent, permits), pause)
        finally:
            self._services.meter.active.pop(number, None)

    async def _push(
        self, number: int, step: Copy, reader: BlobReader, sent: Sent, permits: StepPermits
    ) -> None:
        meter = self._services.meter
        active = meter.active
        active[number] = 0

        def begin(offset: int) -> None:
            active[number] = sent.at = offset

        def count(size: int) -> None:
            active[number] = active.get(number, 0) + size  # another run of the client ended its own
            meter.bytes_resent += sent.count(size)

        staged, finished = self._staging.on(step.blob.digest), permits.bytes_sent
        if staged:
            self._admission.read_behind(permits, self._services.source_at(step.source))
        sink = permits.writing(self._services.sink_at(step.target))
        if staged:
            async with self._staging.share(step.blob, reader) as shared:
                await sink.push(step.blob, CountedReader(shared, begin=begin, count=count, finished=finished))
        else:
            whole = WholeReader(reader)
            await sink.push(step.blob, CountedReader(whole, begin=begin, count=count, finished=finished))

    async def _pause(self, failure: Failure, step: Copy, sent: Sent, permits: StepPermits) -> None:
        """Wait until the next attempt may begin, with its permits. Raises the failure where there is none."""
        error = failure.error
        if self._stopping.is_set():
            raise error
        if error.side != "source" and not may_send(sent.bytes, sent.size, sent.at):
            error.message += f"; {sent.given_up(str(step.target))}"
            raise error
        what = f"copy of {step.blob.digest} to {step.target}"
        self._services.observe(Retrying(what, str(error), failure.attempt, failure.delay, failure.attempts))
        held = self._staging.on(step.blob.digest) or self._staging.content_at_hand(step.blob) is not None
        read = error.side == "source" or not held
        at = step.source if error.side == "source" else step.target
        waits = self._services.meter.waits.at(at.registry)
        with waits.begin("permit", what):
            await self._admission.renew(permits, read=read)
        with begin_wait(waits, failure, what):
            await self._wait(failure.delay)
        if self._stopping.is_set():
            raise error

    async def _wait(self, seconds: float) -> None:
        """Wait `seconds` before another attempt, or until no attempts are made any more."""
        waits = [
            asyncio.ensure_future(wait) for wait in (self._services.sleep(seconds), self._stopping.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
