"""The shelf: blobs that pass through the store during one transfer, held until nobody needs them.

A copy reads behind the store's one writer. Between the first copy of a blob and the last step that may need
it (another target's copy, a mount that may yet be refused) the shelf stays inside `Cache.share`, so that the
store keeps it. One task a blob does that, and ends when the last step of that blob has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress

from blobflow.content import Body, Cache
from blobflow.errors import BlobflowError
from blobflow.oci import Descriptor, Digest


class Shelf:
    """Which blobs are on the shelf. Owned by one transfer, which gives it its task group."""

    def __init__(self, cache: Cache, *, keep: bool) -> None:
        self._cache = cache
        self._keep = keep
        self._released: dict[Digest, asyncio.Event] = {}
        self._held: set[Digest] = set()

    def on(self, digest: Digest) -> bool:
        """Whether copies of this blob read from the store, or behind its writer."""
        return digest in self._released or digest in self._held

    def holds(self, digest: Digest) -> bool:
        """Whether a task of this shelf keeps the blob in the store."""
        return digest in self._released

    async def find_held(self, blobs: Mapping[Digest, Descriptor]) -> None:
        """Learn which of `blobs` the store holds from an earlier run."""
        for blob in blobs.values():
            if await self._cache.has(blob):
                self._held.add(blob.digest)

    def share(self, blob: Descriptor, body: Body) -> AbstractAsyncContextManager[Body]:
        return self._cache.share(blob, body, keep=self._keep)

    def hold(self, blob: Descriptor, body: Body, tasks: asyncio.TaskGroup) -> None:
        """Keep the blob from now until `release`."""
        if blob.digest not in self._released:
            self._released[blob.digest] = released = asyncio.Event()
            tasks.create_task(self._hold(blob, body, released))

    def renew(self, blob: Descriptor, body: Body, tasks: asyncio.TaskGroup) -> None:
        """Hold the blob in the share that the next entrant gets: the old one's writer may have failed."""
        old = self._released.pop(blob.digest, None)
        self.hold(blob, body, tasks)
        if old is not None:
            old.set()

    async def _hold(self, blob: Descriptor, body: Body, released: asyncio.Event) -> None:
        with suppress(BlobflowError):  # every copy enters the share itself, and raises this for its image
            async with self.share(blob, body):
                await released.wait()

    def release(self, digest: Digest) -> None:
        if digest in self._released:
            self._released[digest].set()

    def release_all(self) -> None:
        for released in self._released.values():
            released.set()
