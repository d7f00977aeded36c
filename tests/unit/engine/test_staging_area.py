"""The shelf: a blob on it is let go after whatever became of the task that held it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
