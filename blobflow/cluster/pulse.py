"""Who stands still: workers, and the scheduler, that keep their connections and answer nothing.

A frozen process, or a machine that hangs, is gone for the scheduler after minutes only (its worker-ttl).
Whoever was not heard of for a while is asked whether it lives, twice, and nobody is blamed for a scheduler
that does not bring the question. A worker's transfers have time-outs of their own: one that answers is left
alone here however slow they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import dask

from blobflow.cluster.members import Member, Members
from blobflow.cluster.remote import RemoteRun, WorkerSilent, WorkerUnfit
from blobflow.errors import InvalidConfig
from blobflow.printable import printable

# Seconds from a worker's last word to the end of patience with it; `blobflow.worker-silence` of Dask's
# configuration says others. No part of blobflow keeps a worker's loop busy for a tenth of that.
SILENCE_SECONDS = 30.0
# A silence is of so many parts: one before the first question, and one for each of two; the rest is slack.
_PARTS = 4
# So many silences of a scheduler are its end: a virtual machine that is moved stands still for one or two.
_SCHEDULERS_SILENCES = 10


def silence_seconds() -> float:
    """How long a worker may be silent. Raises InvalidConfig."""
    said = dask.config.get("blobflow.worker-silence", SILENCE_SECONDS)
    try:
        seconds = float(said)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidConfig(
            f"blobflow.worker-silence of Dask's configuration is {printable(repr(said))}; say seconds, as 30"
        )
    return seconds


class Pulse:
    """Watches the workers of one run. `lose` is called with a sentence where the scheduler stands still;
    `scheduler`: what that is called."""

    def __init__(
        self, remote: RemoteRun, members: Members, lose: Callable[[str], None], scheduler: str, silence: float
    ) -> None:
        self._remote = remote
        self._members = members
        self._lose = lose
        self._scheduler = scheduler
        self._silence = silence
        self._part = silence / _PARTS
        self._asking: dict[Member, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Look after all of them. Runs until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_scheduler())
                while True:
                    for member in self._members.there:
                        if member not in self._asking and self._wants_asking(member):
                            self._asking[member] = tasks.create_task(self._ask(member))
                    await asyncio.sleep(self._part / 4)
        finally:
            self._asking.clear()

    def _wants_asking(self, member: Member) -> bool:
        now = asyncio.get_running_loop().time()
        return member.silent or (member.fit and now - member.heard >= self._part)

    async def _ask(self, member: Member) -> None:
        try:
            if member.silent:
                await self._until_it_answers(member)
            elif await self._stands_still(member):
                self._members.silent_now(member, self._silence)
        finally:
            del self._asking[member]

    async def _stands_still(self, member: Member) -> bool:
        """Whether a worker answers nothing, and the scheduler does: the second question went out by one that
        had answered just before."""
        for _ in range(2):
            if await self._answers(member) or member.gone.done():
                return False
            if not await self._remote.scheduler_answers(self._part):
                return False
        return True

    async def _answers(self, member: Member) -> bool:
        try:
            await self._remote.ping(member.address, self._part)
        except WorkerSilent:
            return False
        except WorkerUnfit:
            pass  # an answer all the same
        member.hear()
        return True

    async def _until_it_answers(self, member: Member) -> None:
        """What a worker had has gone elsewhere: it stops that before it gets any more. One question is always
        on its way, so that this is the first that it hears."""
        while not member.gone.done():
            with suppress(WorkerSilent, WorkerUnfit):
                await self._remote.stop(member.address, tuple(member.left_behind))
                break
            await asyncio.sleep(self._part / 4)
        else:
            return
        self._members.answers_again(member)

    async def _watch_scheduler(self) -> None:
        since: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._part)
            asked = loop.time()
            if await self._remote.scheduler_answers(self._silence):
                since = None
                continue
            since = asked if since is None else since
            if loop.time() - since >= _SCHEDULERS_SILENCES * self._silence:
                self._lose(
                    f"the scheduler at {self._scheduler} has not answered for {loop.time() - since:.0f} s; "
                    "what has arrived stays, and the same command goes on"
                )
                return
