"""Questions that are asked once, and what came of them, errors too.

Once also while the first answer is under way: who asks meanwhile waits for that one. Whoever asked first may
be cancelled; then the next of those who wait asks anew, so that nobody's end is another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from blobflow.errors import BlobflowError, own_copy, without_frames

Key = TypeVar("Key")
Value = TypeVar("Value")


class AsyncMemo(Generic[Key, Value]):
    """The answers of `ask`, remembered with what went wrong. Who asks ahead of time costs nobody anything."""

    def __init__(self, ask: Callable[[Key], Awaitable[Value]]) -> None:
        self._ask = ask
        self._found: dict[Key, Value | BlobflowError] = {}
        self._asking: dict[Key, list[asyncio.Future[None]]] = {}

    async def of(self, key: Key) -> Value:
        """The answer. Raises what asking raised, every time, and to each an error of its own."""
        while key not in self._found:
            if key in self._asking:
                await self._wait(self._asking[key])
            else:
                await self._ask_now(key)
        found = self._found[key]
        if isinstance(found, BlobflowError):
            raise own_copy(found)
        return found

    async def ahead(self, key: Key) -> None:
        """Ask; raises nothing that `of` will raise."""
        with suppress(BlobflowError):
            await self.of(key)

    def answers(self) -> Iterator[tuple[Key, Value]]:
        """What has been answered so far."""
        for key, found in self._found.items():
            if not isinstance(found, BlobflowError):
                yield key, found

    async def _ask_now(self, key: Key) -> None:
        waiting = self._asking[key] = []
        try:
            self._found[key] = await self._ask(key)
        except BlobflowError as error:
            self._found[key] = without_frames(error)
        finally:
            del self._asking[key]
            for each in waiting:
                if not each.done():
                    each.set_result(None)

    @staticmethod
    async def _wait(waiting: list[asyncio.Future[None]]) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(over)
        await over
