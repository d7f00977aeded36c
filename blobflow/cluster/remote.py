"""What the coordinator asks of one worker beside the tasks: a call of a function there, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from distributed import Client

from blobflow.cluster import tasks
from blobflow.cluster.shares import Shares
from blobflow.cluster.terms import RunTerms, versions_here
from blobflow.errors import BlobflowError
from blobflow.printable import printable

# Seconds for an answer. A worker opens its store and reads its settings before it gives one.
ANSWER_SECONDS = 30.0
# Seconds for other limits to be kept, which takes a worker no time.
SHARE_SECONDS = 10.0
# Seconds for transfers to stop: their upload sessions are deleted, which a registry has to answer.
STOP_SECONDS = 60.0


class WorkerUnfit(BlobflowError):
    """A worker can't work for this run; the message is the end of a sentence about it."""


class WorkerSilent(BlobflowError):
    """A worker gave no answer, or is gone. `late`: it is there, and was waited for."""

    late = False


class RemoteRun:
    """One run, as it is asked for at workers, by their addresses."""

    def __init__(self, client: Client, terms: RunTerms) -> None:
        self._client = client
        self._run = terms.run
        self._terms = msgspec.msgpack.encode(terms)

    async def open(self, worker: str, shares: Shares) -> None:
        """Begin there, or share anew. Raises WorkerUnfit and WorkerSilent."""
        versions = msgspec.to_builtins(versions_here())
        packed = msgspec.msgpack.encode(shares)
        if reason := await self._call(worker, tasks.open_run, versions, self._terms, packed):
            raise WorkerUnfit(printable(str(reason)))

    async def share(self, worker: str, shares: Shares) -> None:
        """Let it keep these limits. Raises as above."""
        packed = msgspec.msgpack.encode(shares)
        await self._call(worker, tasks.share_run, self._run, packed, seconds=SHARE_SECONDS)

    async def stop(self, worker: str, keys: tuple[str, ...]) -> None:
        """Stop these carriages there; returns when they have stopped. Raises as above."""
        await self._call(worker, tasks.stop_carriages, self._run, keys, seconds=STOP_SECONDS)

    async def ping(self, worker: str, seconds: float) -> None:
        """Whether it answers in that time. Raises as above."""
        await self._call(worker, tasks.nothing, seconds=seconds)

    async def scheduler_answers(self, seconds: float) -> bool:
        """Whether the scheduler answers in that time."""
        scheduler = self._client.scheduler
        if scheduler is None:
            return False
        try:
            async with asyncio.timeout(seconds):
                await scheduler.identity(n_workers=0)
        except (OSError, TimeoutError):
            return False
        return True

    async def end(self, worker: str, *, complete: bool) -> str:
        """The run is over, `complete` or not. Returns its last news. Raises as above."""
        return str(await self._call(worker, tasks.end_run, self._run, complete, seconds=STOP_SECONDS))

    async def _call(
        self, worker: str, function: Callable[..., Any], *arguments: Any, seconds: float = ANSWER_SECONDS
    ) -> Any:
        asking = self._client.run(function, *arguments, workers=[worker], on_error="return")
        try:
            async with asyncio.timeout(seconds):
                answers = await asking
        except TimeoutError:
            raise _late(seconds) from None
        except (OSError, ValueError, KeyError) as error:  # the scheduler does not know it any more
            raise WorkerSilent(f"is gone: {printable(str(error))}") from None
        answer = answers.get(worker)
        match answer:
            case None if worker not in answers:
                raise WorkerSilent("is gone")
            case ImportError():
                raise WorkerUnfit("has no blobflow, or another version of it")
            case OSError() if "timed out" in str(answer).lower():  # the scheduler's way to it
                raise _late(seconds)
            case OSError():
                raise WorkerSilent(f"is gone: {printable(str(answer))}")
            case Exception():
                raise WorkerUnfit(printable(f"can't: {type(answer).__name__}: {answer}"))
        return answer


def _late(seconds: float) -> WorkerSilent:
    silent = WorkerSilent(f"has not answered for {seconds:.0f} s")
    silent.late = True
    return silent
