"""Single flight: one task a key, whose result all callers share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from blobflow.errors import own_copy

Key = TypeVar("Key")
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


class SingleFlight(Generic[Key, T]):
    """Questions under way: who asks what is being asked already waits for that answer, good or bad.

    The first who asked may go away, and the others get the answer all the same; when the last has gone the
    question is given up. Nothing is remembered: who comes after the answer asks anew.
    """

    def __init__(self) -> None:
        self._tasks: dict[Key, asyncio.Task[T]] = {}
        self._waiting: Counter[asyncio.Task[T]] = Counter()

    async def of(self, key: Key, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer for `key`; `ask` is called if nobody has. Raises what asking raises, see `result_of`."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(ask())
            task.add_done_callback(lambda done: self._forget(key, done))
        self._waiting[task] += 1
        try:
            return await result_of(task)
        finally:
            self._waiting[task] -= 1
            if not self._waiting[task]:
                del self._waiting[task]
                self._forget(key, task)
                task.cancel()

    def _forget(self, key: Key, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
