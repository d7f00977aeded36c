"""The staging area: blobs that pass through the store during one transfer, held until no step needs them.

A copy reads behind the store's one writer. Between the first copy of a blob and the last step that may need
it (another target's copy, a mount that may yet be refused) the area stays inside `Cache.share`, so that the
store keeps it. One task a blob does that, and ends when the last step of that blob has ended: as the last one
inside, it alone knows whether the blob has arrived everywhere, and leaves the share well or not.

The area has a capacity in bytes, and in blobs, as each has files open. A target that is slower than the
others leaves blobs in it; when it is full, a further blob is not staged but streamed past the store, and a
copy that comes later reads it from the source again. So a slow target never stalls the others, never takes
more disk or files than allowed, and costs the source at most one more reading a blob.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

from blobflow.content import BlobReader, Cache
from blobflow.engine.sources.blobs_at_hand import BlobsAtHand
from blobflow.errors import BlobflowError
from blobflow.oci import Descriptor, Digest


class StagingArea:
    """Which blobs are staged. Owned by one transfer, which gives it its task group."""

    def __init__(
        self,
        cache: Cache,
        *,
        keep: bool,
        room: int | None = None,
        most: int | None = None,
        at_hand: BlobsAtHand | None = None,
    ) -> None:
        """The capacity is `room` bytes and `most` blobs; None: no bound. `keep`: blobs stay in the store
        after the run; then those that are complete hold no file open. `at_hand`: blobs that are in memory.
        """
        self._cache = cache
        self._at_hand = at_hand or BlobsAtHand()
        self._keep = keep
        self._room = room
        self._most = None if keep else most
        self._taken = 0
        self._sizes: dict[Digest, int] = {}
        self._released: dict[Digest, asyncio.Future[bool]] = {}
        self._held: set[Digest] = set()
        self._recorded: set[Digest] = set()
        self._begun: dict[Digest, int] = {}

    def on(self, digest: Digest) -> bool:
        """Whether copies of this blob read from the store, or behind its writer."""
        return digest in self._released or digest in self._held

    def holds(self, digest: Digest) -> bool:
        """Whether a task of this area keeps the blob in the store."""
        return digest in self._released

    async def find_held(self, blobs: Mapping[Digest, Descriptor]) -> None:
        """Learn which of `blobs` the store holds from an earlier run, whole or in part. What earlier calls
        learned of others stays known."""
        for blob in blobs.values():
            if await self._cache.has(blob):
                self._held.add(blob.digest)
            else:
                self._held.discard(blob.digest)
        begun = await self._cache.partial_sizes(blobs.values())
        for digest in blobs:
            self._begun.pop(digest, None)
        self._begun |= begun

    def forget(self, digest: Digest) -> None:
        """Forget what is known of a blob that no step needs any more: it is looked for anew next time."""
        self._held.discard(digest)
        self._begun.pop(digest, None)

    def begun(self, digest: Digest) -> bool:
        """Whether an earlier run left a part of this blob in the store, to resume from."""
        return digest in self._begun

    def warm(self, blob: Descriptor) -> bool:
        """Whether a copy of this blob needs nothing more from its source, as far as is known."""
        return (
            self.on(blob.digest)
            or self._begun.get(blob.digest) == blob.size
            or self.content_at_hand(blob) is not None
        )

    def content_at_hand(self, blob: Descriptor) -> bytes | None:
        """The blob's bytes, if they are in memory."""
        return self._at_hand.content(blob)

    def share(self, blob: Descriptor, reader: BlobReader) -> AbstractAsyncContextManager[BlobReader]:
        return self._cache.share(blob, reader, keep=self._keep)

    def fits(self, blob: Descriptor) -> bool:
        """Whether the blob would fit, if nothing else were staged."""
        return self._most != 0 and (self._room is None or blob.size <= self._room)

    def has_room(self, blob: Descriptor) -> bool:
        if self._most is not None and len(self._sizes) >= self._most:
            return False
        return self._room is None or self._taken + blob.size <= self._room

    def hold(self, blob: Descriptor, reader: BlobReader, tasks: asyncio.TaskGroup) -> bool:
        """Hold the blob from now until `release`, if it fits. Returns whether it is held."""
        if blob.digest in self._released:
            return True
        self._recording_ended(blob.digest)
        if not self.has_room(blob):
            return False
        self._reserve(blob)
        self._begin(blob, reader, tasks)
        return True

    def record(self, blob: Descriptor, reader: BlobReader, worth: Callable[[], bool]) -> BlobReader:
        """`reader`, whose bytes are left in the store too while that is `worth` it, if the blob fits."""
        if blob.digest in self._sizes or not self.has_room(blob):
            return reader
        self._reserve(blob)
        self._recorded.add(blob.digest)
        return self._cache.recorded(blob, reader, worth, partial(self._recording_ended, blob.digest))

    def _reserve(self, blob: Descriptor) -> None:
        self._taken += blob.size
        self._sizes[blob.digest] = blob.size

    def _recording_ended(self, digest: Digest) -> None:
        if digest in self._recorded:
            self._recorded.discard(digest)
            self._taken -= self._sizes.pop(digest)

    def _begin(self, blob: Descriptor, reader: BlobReader, tasks: asyncio.TaskGroup) -> None:
        self._released[blob.digest] = released = asyncio.get_running_loop().create_future()
        tasks.create_task(self._hold(blob, reader, released))

    def renew(self, blob: Descriptor, reader: BlobReader, tasks: asyncio.TaskGroup) -> None:
        """Hold the blob in the share that the next entrant gets: the old one's writer may have failed."""
        old = self._released[blob.digest]
        self._begin(blob, reader, tasks)
        _tell(old, True)

    async def _hold(self, blob: Descriptor, reader: BlobReader, released: asyncio.Future[bool]) -> None:
        with suppress(BlobflowError):  # every copy enters the share itself, and raises this for its image
            async with self.share(blob, reader):
                if not await released:
                    raise BlobflowError(f"blob {blob.digest} is not yet everywhere")

    def release(self, digest: Digest, *, arrived: bool) -> None:
        """Stop holding a blob that no step needs any more; a later step stages it anew.

        Unless it `arrived` wherever it should, what the store has of it stays there for the next run.
        """
        self._recording_ended(digest)
        if digest in self._released:
            _tell(self._released.pop(digest), arrived)
            self._taken -= self._sizes.pop(digest)


def _tell(released: asyncio.Future[bool], arrived: bool) -> None:
    if not released.done():  # the task that holds the blob was cancelled
        released.set_result(arrived)
