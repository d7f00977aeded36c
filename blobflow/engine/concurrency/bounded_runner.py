"""Bounded concurrency: many small requests, at most so many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sized
from typing import Any, TypeVar

from blobflow.events import PhaseCount

# Small requests in flight over all hosts, for one task; each host's limiter bounds them as well. Those whose
# answers have a body of up to some MiB are fewer than those whose have none: of these a far source and a far
# target each have their fill at once.
MAX_SMALL_REQUESTS = 32
MAX_LOOKUPS = 128

Item = TypeVar("Item")


class BoundedRunner:
    """Runs an action on each of many items, `width` at a time.

    An action's exception cancels the others and leaves `each` as it is, not in a group: actions handle the
    errors that they expect themselves.
    """

    def __init__(self, width: int) -> None:
        self._width = width

    async def for_each(
        self,
        act: Callable[[Item], Awaitable[None]],
        items: Iterable[Item],
        *,
        count: PhaseCount | None = None,
    ) -> None:
        """`items` stay as many as they are; `count`: how far this is, of all that count there."""
        if count is not None:
            items = list(items)
            count.total += len(items)
        # No more tasks than items: a run over a set that is current asks twenty times about a few things.
        width = min(self._width, len(items)) if isinstance(items, Sized) else self._width
        waiting = iter(items)

        async def work() -> None:
            for item in waiting:
                await act(item)
                if count is not None:
                    count.done += 1

        await run_together(work() for _ in range(width))


async def run_alongside(other: Coroutine[Any, Any, None], work: Coroutine[Any, Any, Item]) -> Item:
    """What `work` returns, while `other` runs too; both have ended then.

    Where one fails it is as with `run_together`.
    """
    found: list[Item] = []

    async def kept() -> None:
        found.append(await work)

    await run_together((other, kept()))
    return found[0]


async def run_together(actions: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first exception cancels the rest and is raised as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for action in actions:
                tasks.create_task(action)
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
