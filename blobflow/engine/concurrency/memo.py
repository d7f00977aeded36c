"""An asynchronous memo: each question is asked once, and its answer or error is remembered.

Callers that ask while the first request is under way wait for its answer. If the first caller is cancelled,
the next of those that wait asks again, so that one caller's cancellation never reaches another.
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
    """The answers of `ask`, remembered with its errors. Asking ahead of time costs no further request."""

    def __init__(self, ask: Callable[[Key], Awaitable[Value]]) -> None:
        self._ask = ask
        self._found: dict[Key, Value | BlobflowError] = {}
        self._asking: dict[Key, list[asyncio.Future[None]]] = {}

    async def get(self, key: Key) -> Value:
        """The answer. Raises what asking raised, every time, and gives each caller an error of its own."""
        while key not in self._found:
            if key in self._asking:
                await self._wait(self._asking[key])
            else:
                await self._ask_now(key)
        found = self._found[key]
        if isinstance(found, BlobflowError):
            raise own_copy(found)
        return found

    async def prefetch(self, key: Key) -> None:
        """Ask; raises nothing that `get` will raise."""
        with suppress(BlobflowError):
            await self.get(key)

    def answers(self) -> Iterator[tuple[Key, Value]]:
        """The answers so far."""
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
