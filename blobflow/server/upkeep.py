"""Upkeep: periodic work of a registry that serves, so that nothing grows with its uptime."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

from blobflow.errors import StorageError
from blobflow.server.registry import Registry
from blobflow.transports.store.partial_sweep import remove_stale_partials

# Seconds between two rounds, at most and at least; a short time to live makes them more frequent.
_MOST_SECONDS = 30.0
_LEAST_SECONDS = 1.0

_malloc_trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


async def run_upkeep(registry: Registry) -> None:
    """Until cancelled, end uploads that nobody goes on with, remove what the uploads of dead processes left,
    and return free memory to the system. The store's observer hears once if that fails."""
    store, sessions, ttl = registry.store, registry.sessions, registry.options.upload_ttl
    while True:
        sessions.forget_idle()
        try:
            await asyncio.to_thread(remove_stale_partials, store.paths, ttl, sessions.partials())
            await asyncio.to_thread(_release_free_memory)
        except StorageError as error:
            store.report_failure(error)
        await asyncio.sleep(max(_LEAST_SECONDS, min(_MOST_SECONDS, ttl / 2)))


def _release_free_memory() -> None:
    """Return pages that hold nothing; takes some milliseconds, without the interpreter's lock.

    glibc keeps what was freed between what is still in use, in each thread's arena: a registry that serves a
    million requests grows by that for hours while it holds nothing (seen: 20 to 80 bytes a request). Does
    nothing where the allocator has no such call (macOS, musl).
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
