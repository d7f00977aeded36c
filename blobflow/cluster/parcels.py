"""Parcels: carriages that go to a worker as one task.

What Dask does for a task costs more than bringing a small blob. So small blobs that are given to one worker
at one moment go together; a large one goes alone, and so does one that came back from a worker: if it is what
kills workers, it takes no others along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from blobflow.cluster.members import Member
from blobflow.content import is_small
from blobflow.engine.transfer.arrival_codec import pack_carriage
from blobflow.engine.transfer.carrying import Carriage

# Carriages in one parcel.
MAX_TOGETHER = 32


class Parcel:
    """The carriages of one task, by their keys. `ended`: the task that sends it, and returns what the worker
    said of each key once that is known; `future`: Dask's, once it is sent."""

    ended: asyncio.Task[dict[str, tuple[str, bytes]] | None]

    def __init__(self, member: Member, first: str, carriage: Carriage) -> None:
        self.member = member
        self.packed = {first: pack_carriage(carriage)}
        self.priority = carriage.blob.size
        # Dask knows prefixes by the first part of a key.
        self.key = ("copy", str(carriage.targets[0]), carriage.blob.digest, first)
        self.future: Any = None
        self._waited_for = {first}

    def add(self, key: str, carriage: Carriage) -> None:
        """Let a carriage go with those that are in it."""
        self.packed[key] = pack_carriage(carriage)
        self.priority = max(self.priority, carriage.blob.size)
        self._waited_for.add(key)

    def leave(self, key: str) -> bool:
        """Nobody waits for this carriage any more; whether nobody waits for any."""
        self._waited_for.discard(key)
        return not self._waited_for

    def release(self) -> None:
        """Let go of the task, unless others still wait for it."""
        if not self._waited_for:
            self.ended.cancel()
            if self.future is not None:
                self.future.release()


class Parcels:
    """Packs and sends. `send` sends one and returns what its task said; see `Parcel.ended`."""

    def __init__(self, send: Callable[[Parcel], Awaitable[dict[str, tuple[str, bytes]] | None]]) -> None:
        self._send = send
        self._open: dict[str, Parcel] = {}

    def put(self, member: Member, key: str, carriage: Carriage, *, alone: bool) -> Parcel:
        """The parcel in which the carriage goes to a worker, with what is given to it in this moment."""
        if alone or not is_small(carriage.blob):
            return self._begin(Parcel(member, key, carriage))
        parcel = self._open.get(member.address)
        if parcel is None or len(parcel.packed) >= MAX_TOGETHER:
            parcel = self._open[member.address] = self._begin(Parcel(member, key, carriage))
        else:
            parcel.add(key, carriage)
        return parcel

    def _begin(self, parcel: Parcel) -> Parcel:
        parcel.ended = asyncio.create_task(self._go(parcel))
        return parcel

    async def _go(self, parcel: Parcel) -> dict[str, tuple[str, bytes]] | None:
        await asyncio.sleep(0)  # those who are given to the worker in this moment are added
        if self._open.get(parcel.member.address) is parcel:
            del self._open[parcel.member.address]
        return await self._send(parcel)
