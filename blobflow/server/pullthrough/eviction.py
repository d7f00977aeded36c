"""Eviction: keeps a pull-through registry within its size by removing the least recently requested content.

Only what is pulled through goes, since it can be fetched again: first its tags, then what no tag needs any
more. What was pushed here stays. A thread does the work, with its own connection to the store, as another
process would (`blobflow cache gc`), so that answers don't wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from blobflow.errors import StorageError
from blobflow.server.errors import ApiError
from blobflow.server.pullthrough.upstreams import Upstreams
from blobflow.server.routes import Route
from blobflow.transports.store import Store
from blobflow.transports.store.gc import GcResult, collect_garbage
from blobflow.transports.store.stats import tags_by_last_use

# Seconds between two looks.
INTERVAL_SECONDS = 600.0
# Of the tags that are pulled through, one in so many goes at a time. What came in the last hour is never
# evicted, so that dropping more would cost tags without making room.
DROPPED_TAGS_PART = 10

T = TypeVar("T")


async def retry_if_evicted(answer: Callable[[], Awaitable[T]]) -> T:
    """What `answer` returns, which is asked again if it raises a 404: what is pulled through may be evicted
    between two looks at it, and is then fetched again. A 404 with a cause is the upstream's, and final."""
    try:
        return await answer()
    except ApiError as error:
        if error.status != 404 or error.__cause__ is not None:
            raise
    return await answer()


async def evict_periodically(store: Store, upstreams: Upstreams, max_bytes: int) -> None:
    """Evict every INTERVAL_SECONDS until cancelled. The store's observer hears once if that fails."""
    while True:
        stopped: Future[None] = Future()
        try:
            store.state.check_there()
            store.blobs.write_uses()
            await asyncio.to_thread(_evict_in_thread, store, upstreams, max_bytes, stopped)
        except StorageError as error:
            store.report_failure(error)
        finally:
            stopped.set_result(None)  # who ends this process does not wait for the eviction
        await asyncio.sleep(INTERVAL_SECONDS)


def _evict_in_thread(served: Store, upstreams: Upstreams, max_bytes: int, stopped: Future[None]) -> None:
    """In a thread: `evict`, until `stopped` is done. It asks of `served` only what belongs to no thread."""
    store = Store.open(served.root, observer=served.observer)
    try:
        # One that was made just now would know of no tag, and everything would go.
        served.state.check_there()
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(_evict_until(stopped, store, upstreams, max_bytes))
    finally:
        store.close()


async def _evict_until(stopped: Future[None], store: Store, upstreams: Upstreams, max_bytes: int) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(evict(store, upstreams, max_bytes))

    def stop(_: Future[None]) -> None:
        with contextlib.suppress(RuntimeError):  # it is over, and its loop is closed
            loop.call_soon_threadsafe(task.cancel)

    stopped.add_done_callback(stop)
    await task


async def evict(store: Store, upstreams: Upstreams, max_bytes: int) -> GcResult:
    """Evict until at most `max_bytes` of blobs are held; if that needs tags to go, a part of them goes.

    Raises StorageError.
    """
    swept = await collect_garbage(store, max_bytes)
    if swept.left_bytes <= max_bytes:
        return swept
    pulled = [
        (repository, tag)
        for repository, tag in tags_by_last_use(store)
        if upstreams.resolve(Route("manifest", repository)).upstream is not None
    ]
    for repository, tag in pulled[: -(-len(pulled) // DROPPED_TAGS_PART)]:
        store.repositories.remove_tag(repository, tag)
    return await collect_garbage(store, max_bytes)
