"""Questions to several groups at once, none of which waits for another's answers for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

Group = TypeVar("Group")
Answer = TypeVar("Answer")


class Asking(Generic[Group, Answer]):
    """`ask` is called with every group at once. What it raises, `first` and `late` raise."""

    def __init__(self, ask: Callable[[Group], Coroutine[Any, Any, Answer]], groups: Sequence[Group]) -> None:
        self._ask = ask
        self._groups = groups
        self._open: set[asyncio.Task[Answer]] = set()

    @property
    def more(self) -> bool:
        """Whether there are answers still to come."""
        return bool(self._open)

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """While inside, it is asked; what is not known by the end is not asked any more."""
        tasks = [asyncio.create_task(self._ask(group)) for group in self._groups]
        self._open = set(tasks)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def first(self, patience: float | None, of_use: Callable[[Answer], bool]) -> list[Answer]:
        """All answers; or those that are there `patience` seconds after the first of some use."""
        loop, until = asyncio.get_running_loop(), None
        answers: list[Answer] = []
        while self._open:
            left = None if until is None else max(0.0, until - loop.time())
            done, self._open = await asyncio.wait(
                self._open, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            answers += [task.result() for task in done]
            if patience is not None and until is None and any(map(of_use, answers)):
                until = loop.time() + patience
        return answers

    async def late(self) -> AsyncIterator[list[Answer]]:
        """The answers that `first` did not wait for, as they come."""
        while self._open:
            done, self._open = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            answers = [task.result() for task in done if not task.cancelled()]
            if answers:
                yield answers

    def stop(self) -> None:
        """Ask no more: what is not known by now stays so."""
        for task in self._open:
            task.cancel()
