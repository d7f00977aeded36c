"""A registry that pulls through would grow for ever: what was not asked for longest makes room.

Only what is pulled through goes, since it can be fetched again: first its tags, then what no tag needs any
more. What was pushed here stays. The work is done in a thread with a connection to the store of its own, as
another process would (`blobflow cache gc`), so that answers don't wait for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from blobflow.errors import StorageError
from blobflow.events import Observer
from blobflow.server.places import Place
from blobflow.server.upstreams import Upstreams
from blobflow.transports.store import Store
from blobflow.transports.store.census import by_use
from blobflow.transports.store.keeping import Swept, gc

# Seconds between two looks.
EVERY = 600.0
# Of the tags that are pulled through, one in so many goes at a time. What came in the last hour is never
# evicted, so that dropping more would cost tags without making room.
PART = 10


async def keep_tidy(store: Store, upstreams: Upstreams, max_bytes: int) -> None:
    """Look after `store` until cancelled. Where that fails its observer is told, once."""
    while True:
        try:
            store.state.check_there()  # a new state file would know of no tag, and everything would go
            store.flush_uses()
            await asyncio.to_thread(_tidied, store.root, upstreams, max_bytes, store.observer)
        except StorageError as error:
            store.tell_failed(error)
        await asyncio.sleep(EVERY)


def _tidied(root: Path, upstreams: Upstreams, max_bytes: int, observer: Observer) -> None:
    store = Store.open(root, observer=observer)
    try:
        asyncio.run(tidy(store, upstreams, max_bytes))
    finally:
        store.close()


async def tidy(store: Store, upstreams: Upstreams, max_bytes: int) -> Swept:
    """Evict until at most `max_bytes` of blobs are held; if that needs tags to go, a part of them goes.

    Raises StorageError.
    """
    swept = await gc(store, max_bytes)
    if swept.left_bytes <= max_bytes:
        return swept
    pulled = [
        (repository, tag)
        for repository, tag in by_use(store)
        if upstreams.place(Place("manifest", repository)).origin is not None
    ]
    for repository, tag in pulled[: -(-len(pulled) // PART)]:
        store.drop_tag(repository, tag)
    return await gc(store, max_bytes)
