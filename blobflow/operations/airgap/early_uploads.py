"""Uploads what the first archives of a load hold while the next ones are examined.

What an image is at a target may depend on all archives: each can have a platform of it. Its blobs do not. So
once an archive was examined its images are planned as if they were all, and the copies and mounts of that plan
are carried out. No manifest is put and no tag is moved: where a later archive can't be read, or contradicts,
all that a target has are blobs that nothing names, which its garbage collection removes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Step, blobs_alone
from blobflow.engine.planning import PairPlanning, plan
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.engine.transfer.runner import Transfer
from blobflow.engine.transfer.step_states import StepState, StepStates
from blobflow.errors import BlobflowError
from blobflow.events import Event, Observer, Warned


class EarlyUploads:
    """A context manager: what is under way at its end is cancelled, and undone or journaled as in any run.

    `steps`: what was done so far. One plan is carried out after the other, since each has to find what the
    one before brought.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = msgspec.structs.replace(policy, verify="roots", audit="none", keep_going=True)
        self._offered: deque[tuple[Sequence[Pair], Services]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._transfer: Transfer | None = None
        self._ending = False
        self.steps: list[Step] = []

    async def __aenter__(self) -> EarlyUploads:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait([self._working])
            _ = self._working.cancelled() or self._working.exception()

    def offer(self, pairs: Sequence[Pair], services: Services) -> None:
        """Bring the blobs of these images, whose sources are in `services`, in their turn."""
        self._offered.append((pairs, services))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())

    async def finish(self) -> None:
        """Begin nothing new, and wait for the blobs under way. The rest is for the run that follows."""
        self._ending = True
        if self._transfer is not None:
            self._transfer.wind_down()
        if self._working is not None:
            await self._working

    async def _work(self) -> None:
        while self._offered and not self._ending:
            with suppress(BlobflowError):  # the run meets it too, and says whose image it fails
                await self._bring(*self._offered.popleft())

    async def _bring(self, pairs: Sequence[Pair], services: Services) -> None:
        services = msgspec.structs.replace(services, observe=_only_warnings(services.observe))
        planned = await plan(PairPlanning(pairs, self._policy), services)
        if self._ending:
            return
        self._transfer = Transfer(blobs_alone(planned.plan), planned.graph, services, True, self._ended)
        await self._transfer.run()

    def _ended(self, states: StepStates, number: int) -> None:
        if states.states[number] is StepState.DONE:
            self.steps.append(states.step(number))


def _only_warnings(observe: Observer) -> Observer:
    """Steps are numbered by the run that is shown, and these are none of its."""

    def tell(event: Event) -> None:
        if isinstance(event, Warned):
            observe(event)

    return tell
