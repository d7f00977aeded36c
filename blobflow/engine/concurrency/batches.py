"""Asks several targets at the same time and yields their answers in batches, as they come.

The first batch has the answers that come soon; each late answer follows on its own. So a target that does not
answer delays nobody, and where all answer there is one batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class Batches(Generic[Answer]):
    """Questions under way, and their answers so far. Made by `in_batches`."""

    def __init__(self, questions: Sequence[asyncio.Task[Answer]]) -> None:
        self._order = {task: number for number, task in enumerate(questions)}
        self._open = set(questions)

    @property
    def over(self) -> bool:
        """Whether no more answers will come."""
        return not self._open

    async def first(self, of_use: Callable[[Answer], bool], patience: float | None = None) -> list[Answer]:
        """The answers, in the order of their questions: all of them; or, with `patience`, those that have
        come `patience` seconds after the first useful one. Raises what a question raises."""
        loop, until = asyncio.get_running_loop(), None
        found: set[asyncio.Task[Answer]] = set()
        while self._open:
            left = None if until is None else max(0.0, until - loop.time())
            done, self._open = await asyncio.wait(
                self._open, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            found |= done
            useful = any(map(of_use, self._answers(done)))
            if useful and until is None and patience is not None:
                until = loop.time() + patience
        return self._answers(found)

    async def late(self) -> AsyncIterator[list[Answer]]:
        """The remaining answers as they come, until all have come or `stop` is called. Raises what a question
        raises."""
        while self._open:
            done, self._open = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            answers = self._answers(task for task in done if not task.cancelled())
            if answers:
                yield answers

    def stop(self) -> None:
        """Cancel the unanswered questions; `late` ends."""
        for task in self._open:
            task.cancel()

    def _answers(self, tasks: Iterable[asyncio.Task[Answer]]) -> list[Answer]:
        return [task.result() for task in sorted(tasks, key=self._order.__getitem__)]


@asynccontextmanager
async def in_batches(questions: Iterable[Coroutine[Any, Any, Answer]]) -> AsyncIterator[Batches[Answer]]:
    """While inside, the questions are asked; what is not answered by the end is cancelled and awaited."""
    tasks = [asyncio.create_task(question) for question in questions]
    try:
        yield Batches(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
