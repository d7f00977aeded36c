"""Uploads what the archives of a load hold while the next ones are examined.

What an image is at a target may depend on all archives: each can have a platform of it. Its blobs do not. So
once an archive was examined its images are planned as if they were all, and the copies and mounts of that
plan are carried out. No manifest is put and no tag is moved: where a later archive can't be read, or
contradicts, all that a target has are blobs that nothing names, which its garbage collection removes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Copy, Mount, Plan, Step, blobs_alone, renumbered
from blobflow.engine.planning import PairPlanning, plan
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.engine.sources.graph import Graph
from blobflow.engine.targets.mount_origins import OriginRecorder
from blobflow.engine.transfer.runner import Transfer
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.errors import BlobflowError
from blobflow.events import Event, Warned
from blobflow.oci import Digest


class EarlyUploads:
    """A context manager: what is under way at its end is cancelled, and undone or journaled as in any run.

    All goes through one transfer, to which the plan of each archive is added. What an earlier one brings to a
    registry already is left to the run that follows, which finds it there, or mounts it. `steps`: what was
    done so far.
    """

    def __init__(self, policy: Policy, services: Services) -> None:
        """`services`: their sources have the blobs of all that is offered."""
        self._policy = msgspec.structs.replace(policy, verify="roots", audit="none", keep_going=True)
        self._services = _quiet(services)
        self._planning: list[asyncio.Task[None]] = []
        self._one_by_one = asyncio.Lock()
        self._transfer: Transfer | None = None
        self._running: asyncio.Task[None] | None = None
        self._known: set[tuple[str, Digest]] = set()
        self.steps: list[Step] = []

    async def __aenter__(self) -> EarlyUploads:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._planning, *([self._running] if self._running is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def offer(self, pairs: Sequence[Pair], services: Services) -> None:
        """Bring the blobs of these images. `services`: their sources have the images under these names."""
        self._planning.append(asyncio.create_task(self._bring(pairs, _quiet(services))))

    async def finish(self) -> None:
        """Wait until all that was offered has been brought, or could not be: that is for the run that
        follows."""
        await asyncio.gather(*self._planning)
        if self._transfer is not None and self._running is not None:
            self._transfer.no_more()
            await self._running

    async def _bring(self, pairs: Sequence[Pair], services: Services) -> None:
        async with self._one_by_one:
            with suppress(BlobflowError):  # the run meets it too, and says whose image it fails
                planned = await plan(PairPlanning(pairs, self._policy), services)
                await self._add(blobs_alone(planned.plan, self._known), planned.graph)

    async def _add(self, part: Plan, graph: Graph) -> None:
        blobs = [step for step in part.steps if isinstance(step, Copy | Mount)]
        self._known |= {(step.target.registry, step.blob.digest) for step in blobs}
        if self._transfer is None:
            recorder = OriginRecorder(self._services.journal, self._services.sink_at)
            self._transfer = Transfer(part, graph, self._services, True, recorder, self._ended, more=True)
            self._running = asyncio.create_task(_run(self._transfer, recorder))
        else:
            await self._transfer.add(renumbered(part, self._transfer.step_states.steps))

    def _ended(self, states: StepStates, number: int) -> None:
        if states.states[number] is StepState.DONE:
            self.steps.append(states.step(number))


async def _run(transfer: Transfer, recorder: OriginRecorder) -> None:
    try:
        await transfer.run()
    finally:
        await recorder.write()


def _quiet(services: Services) -> Services:
    """The services, with warnings alone shown: steps are numbered by the run, and these are none of its."""
    observe = services.observe

    def tell(event: Event) -> None:
        if isinstance(event, Warned):
            observe(event)

    return msgspec.structs.replace(services, observe=tell)
