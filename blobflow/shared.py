"""One task that several wait for."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from blobflow.errors import own_copy

T = TypeVar("T")


async def result_of(task: asyncio.Future[T]) -> T:
    """What the task returns, or raises: to each who waits as an error of its own (see `own_copy`).

    Who is cancelled while waiting takes nothing from the others: the task goes on. Raises CancelledError
    where the task itself was cancelled.
    """
    await asyncio.wait((task,))
    if task.cancelled():
        raise asyncio.CancelledError
    error = task.exception()
    if error is not None:
        raise own_copy(error)
    return task.result()
