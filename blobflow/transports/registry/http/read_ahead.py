"""What is held in memory of blobs that are read by ranges: bytes that came before it was their turn."""

from __future__ import annotations

import asyncio

MIB = 1024 * 1024
# Bytes of all blobs of a run together. With what eight connections hold in buffers of their own, and a
# process of 50 MB, this is some 130 MB.
READ_AHEAD = 48 * MIB
# What one of several blobs has of it at least.
LEAST_READ_AHEAD = 4 * MIB


class Signal:
    """Wakes who waits for something to change, which each of them looks at again."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Return at the next `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def wake(self) -> None:
        """Wake all who wait now."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


class ReadAhead:
    """The budget of a run. `changed`: there may be room."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit` in bytes; None: READ_AHEAD."""
        self.limit = READ_AHEAD if limit is None else limit
        self.held = 0
        self.blobs = 0
        self.changed = Signal()

    def has_room(self, own: int) -> bool:
        """Whether a blob that holds `own` bytes may hold more."""
        return self.held < self.limit and own < max(self.limit // max(1, self.blobs), LEAST_READ_AHEAD)

    def hold(self, size: int) -> None:
        """So many bytes came."""
        self.held += size

    def free(self, size: int) -> None:
        """So many bytes were taken."""
        self.held -= size
        self.changed.wake()
