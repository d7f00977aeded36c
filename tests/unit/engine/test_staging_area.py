"""The shelf: a blob on it is let go after whatever became of the task that held it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from blobflow.engine.transfer.staging_area import StagingArea
from blobflow.oci import Descriptor, digest_of

BLOB = Descriptor("application/octet-stream", digest_of(b"content"), 7)


class Shared:
    """A cache that only shares, and counts who is inside."""

    def __init__(self) -> None:
        self.inside = asyncio.Event()

    @asynccontextmanager
    async def share(self, blob: Descriptor, body: Any, *, keep: bool) -> AsyncIterator[Any]:
        self.inside.set()
        yield body


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_blob_is_let_go_after_the_run_was_cancelled(arrived: bool) -> None:
    """Tasks of one run are cancelled in no particular order: whoever lets go may be the last."""
    cache: Any = Shared()
    body: Any = None  # nobody reads it
    shelf = StagingArea(cache, keep=False, room=BLOB.size)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            assert shelf.hold(BLOB, body, tasks)
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await cache.inside.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    shelf.release(BLOB.digest, arrived=arrived)
    assert not shelf.holds(BLOB.digest)


def test_a_recorded_blob_takes_room_until_its_recording_ends() -> None:
    ends: list[Callable[[], None]] = []

    class Records:
        def recorded(self, blob: Descriptor, reader: Any, worth: Any, ended: Callable[[], None]) -> str:
            ends.append(ended)
            return "recorded"

    cache: Any = Records()
    reader: Any = "straight"
    shelf: Any = StagingArea(cache, keep=False, room=BLOB.size)
    other = Descriptor("application/octet-stream", digest_of(b"another"), 7)
    assert shelf.record(BLOB, reader, lambda: True) == "recorded"
    assert shelf.record(other, reader, lambda: True) == "straight"
    assert not shelf.has_room(other) and not shelf.on(BLOB.digest)
    ends[0]()
    assert shelf.has_room(other)
    ends[0]()
    assert shelf.record(other, reader, lambda: True) == "recorded"
    assert not shelf.has_room(BLOB)
    shelf.release(other.digest, arrived=True)
    assert shelf.has_room(BLOB)


async def test_a_blob_that_was_recorded_is_held_in_the_room_that_it_had() -> None:
    class Both(Shared):
        def recorded(self, blob: Descriptor, reader: Any, worth: Any, ended: Callable[[], None]) -> Any:
            return reader

    cache: Any = Both()
    body: Any = None
    shelf = StagingArea(cache, keep=False, room=BLOB.size)
    async with asyncio.TaskGroup() as tasks:
        shelf.record(BLOB, body, lambda: True)
        assert shelf.hold(BLOB, body, tasks) and not shelf.has_room(BLOB)
        shelf.release(BLOB.digest, arrived=True)
    assert shelf.has_room(BLOB)
