"""Questions that are asked once, and what came of them, errors too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from blobflow.errors import BlobflowError

Key = TypeVar("Key")
Value = TypeVar("Value")


class Asked(Generic[Key, Value]):
    """The answers of `ask`, remembered with what went wrong. Who asks ahead of time costs nobody anything."""

    def __init__(self, ask: Callable[[Key], Awaitable[Value]]) -> None:
        self._ask = ask
        self._found: dict[Key, Value | BlobflowError] = {}

    async def of(self, key: Key) -> Value:
        """The answer. Raises what asking raised, every time."""
        if key not in self._found:
            try:
                self._found[key] = await self._ask(key)
            except BlobflowError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, BlobflowError):
            raise found
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
