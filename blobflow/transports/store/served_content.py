"""The seam between a registry's endpoints and what they answer from: a `Store`, or files that are only read.

Whoever answers pulls needs no more than this. What is pushed needs a store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import BinaryIO, Protocol

import msgspec

from blobflow.events import Observer
from blobflow.oci import Digest
from blobflow.transports.store.repository_index import RepositoryIndex
from blobflow.transports.store.state.database import State


class BlobFile(msgspec.Struct, frozen=True):
    """The file in which a blob begins at the byte `start`; whoever asked for it closes it. `name` is for
    messages.

    `verified`: None if the blob was checked before. Else whoever sends bytes of it keeps back the last of
    them until this returns: it raises IntegrityError if the blob is not what its digest says, StorageError if
    it can't be read.
    """

    file: BinaryIO
    start: int
    name: str
    verified: Callable[[], Awaitable[None]] | None = None


class ServedBlobs(Protocol):
    """Content by digest. Used on the loop's thread, but for `read_now`."""

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of the blob; None if it is not here whole. Raises StorageError."""
        ...

    def mark_used(self, digest: Digest) -> None:
        """Note that a client got it."""
        ...

    def read_now(self, digest: Digest, most: int) -> bytes | None:
        """A blob of at most `most` bytes, in any thread that may wait; None if it is larger, not here, or
        can't be read just now."""
        ...

    async def read_whole(self, digest: Digest) -> bytes:
        """A small blob, verified. Raises NotFound, IntegrityError, StorageError."""
        ...

    async def open_file(self, digest: Digest) -> BlobFile:
        """The blob's file, to be sent as it is. Raises NotFound, IntegrityError, StorageError."""
        ...


class ServedContent(Protocol):
    """What a registry answers from. `observer` hears what its operator should know."""

    observer: Observer

    @property
    def blobs(self) -> ServedBlobs: ...

    @property
    def repositories(self) -> RepositoryIndex: ...

    @property
    def state(self) -> State: ...

    def open_reader(self, stop: Callable[[], bool]) -> State:
        """See `Store.open_reader`."""
        ...

    def check_there(self) -> None:
        """Raises StorageError if it is no longer what was opened: what is not found may well be there."""
        ...
