"""Recorded reads: a blob that streams past the store leaves its bytes there, for as long as that is worth it.

For a blob whose line is not known yet: it needs no file if the line turns out fast, and should be gone on
with after a break if it turns out slow. What a recording leaves is a partial like that of any other writer,
so that the next share goes on from it, in this process or after it was killed. Its bytes were never read back
from the disk, which is what makes recording cheaper than a share.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from blobflow.content import BlobReader, BlobStream, Chunk, Tap, tapped
from blobflow.errors import BlobflowError, IntegrityError, StorageError
from blobflow.oci import Descriptor
from blobflow.transports.store.downloads import SuspendedWriters
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import Writer


class RecordedReader:
    """`reader`, whose first reading from the start is recorded; see `blobflow.content.Cache.recorded`."""

    def __init__(
        self,
        store: Store,
        suspended: SuspendedWriters,
        blob: Descriptor,
        reader: BlobReader,
        worth: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self._store = store
        self._suspended = suspended
        self._blob = blob
        self._reader = reader
        self._worth = worth
        self._ended = ended
        self._begun = False

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        """As `BlobReader.open`. Leaving it by an exception keeps what was recorded; leaving it well, also
        after a later reading, removes that."""
        async with self._reader.open(offset) as stream:
            recording = None if offset or self._begun else self._begin()
            try:
                yield stream if recording is None else tapped(stream, recording)
            except BaseException:
                if recording is not None:
                    recording.suspend()
                raise
            if recording is not None:
                recording.drop()
            elif self._begun and (left := self._suspended.take(self._blob.digest)) is not None:
                left.abort()

    def _begin(self) -> _Recording | None:
        """The recording; None if the store can't take it, which the share of a retry will tell of."""
        self._begun = True
        try:
            writer = self._store.partials.begin(self._blob.digest)
        except StorageError:
            self._ended()
            return None
        return _Recording(writer, self._suspended, self._worth, self._ended)


class _Recording(Tap):
    """Writes what it is fed, while `worth` says so; `ended` is called once when nothing more is kept."""

    __slots__ = ("_ended", "_suspended", "_worth", "_writer")

    def __init__(
        self,
        writer: Writer,
        suspended: SuspendedWriters,
        worth: Callable[[], bool],
        ended: Callable[[], None],
    ) -> None:
        self._writer: Writer | None = writer
        self._suspended = suspended
        self._worth = worth
        self._ended = ended

    def feed(self, chunk: Chunk) -> None:
        writer = self._writer
        if writer is None:
            return
        if not self._worth():
            self.drop()
            return
        try:
            writer.write(chunk)
        except StorageError:  # it has ended; the blob needs no store
            self.drop()

    def fail(self, error: BlobflowError) -> BlobflowError:
        if isinstance(error, IntegrityError):
            self.drop()  # nobody can go on from bytes of another blob
        self.suspend()
        return error

    def drop(self) -> None:
        """Remove what was recorded."""
        if (writer := self._take()) is not None:
            writer.abort()

    def suspend(self) -> None:
        """Leave what was recorded to the next share."""
        if (writer := self._take()) is not None and not writer.ended:
            assert writer.digest is not None
            self._suspended.keep(writer.digest, writer)

    def _take(self) -> Writer | None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self._ended()
        return writer
