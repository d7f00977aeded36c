"""The protocols of the store as the engine uses it, and of the spill file for documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from blobflow.content.streams import BlobReader
from blobflow.oci import Descriptor, Digest


class Cache(Protocol):
    """The store as the engine sees it: what must be read by several is read once."""

    async def has(self, blob: Descriptor) -> bool:
        """Whether the blob is held whole, verified when it came in."""
        ...

    async def partial_sizes(self, blobs: Iterable[Descriptor]) -> dict[Digest, int]:
        """How many bytes of each of `blobs` earlier shares left here, for the next to go on from.

        Only those of which there are any. That the bytes are right is not known before all have been read.
        """
        ...

    def reader(self, blob: Descriptor) -> BlobReader:
        """Opens a blob that is held; raises NotFound then if it is gone."""
        ...

    def share(
        self, blob: Descriptor, reader: BlobReader, *, keep: bool = False
    ) -> AbstractAsyncContextManager[BlobReader]:
        """Read the blob from `reader` once, for any number of concurrent and later readers.

        The first to enter starts the one writer; every entrant gets a reader that follows it from any
        offset, at its own pace. A failure of the writer reaches every reader, as a copy of the writer's
        error. While anyone is inside, the blob is leased; when the last leaves it is dropped, unless `keep`,
        or unless that is by an exception: then it is left for `begun`.
        """
        ...

    def recorded(
        self,
        blob: Descriptor,
        reader: BlobReader,
        worth: Callable[[], bool],
        ended: Callable[[], None],
    ) -> BlobReader:
        """`reader`, whose first reading from the start is also written down as it passes, for the next
        `share` to go on from if the reading is left by an exception.

        `worth` is asked before each chunk is written; from the first False on nothing is, and what was
        written is removed, as it is where the reading is left well. `ended` is called once, when nothing more
        will be written. A store that fails ends only the recording.
        """
        ...


class Aside(Protocol):
    """Where a run puts documents aside that would take too much memory. What is there is gone after the run,
    and at once if the process ends."""

    def keep(self, content: bytes) -> Callable[[], bytes]:
        """Put `content` aside; what is returned reads it back, as often as it is called, and in any thread.

        Both raise StorageError.
        """
        ...
