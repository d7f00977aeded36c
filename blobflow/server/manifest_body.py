"""A manifest on its way in: little of it is in memory before all of it has come.

A manifest may have megabytes, is judged as a whole, and comes as slowly as its client likes. So what is more
than an ordinary one has waits in a file without a name, and few such manifests are read again at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

from blobflow.oci import MAX_MANIFEST_BYTES
from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError
from blobflow.transports.store import SpillFile, Store

# Bytes of a manifest that are held in memory while it comes in. Most manifests have fewer.
HELD_BYTES = 32 * 1024


@asynccontextmanager
async def received_manifest(context: RequestContext) -> AsyncIterator[bytes]:
    """The whole of the manifest that a request brings. One of more than HELD_BYTES is one of few that are in
    memory, until it is left.

    Raises ApiError (413) as soon as it is known to be too large ("Pushing Manifests"); StorageError.
    """
    too_large = ApiError(
        "MANIFEST_INVALID", f"a manifest may have {MAX_MANIFEST_BYTES} bytes, this one has more", status=413
    )
    if (context.request.content_length or 0) > MAX_MANIFEST_BYTES:
        raise too_large
    with closing(_Body(context.registry.store)) as body:
        async for chunk in context.registry.body_transport.receive(context.request):
            body.take(chunk)
            if body.size > MAX_MANIFEST_BYTES:
                raise too_large
        if body.size <= HELD_BYTES:
            yield body.read()
            return
        async with context.registry.large_manifests:
            yield body.read()


class _Body:
    """What has come: in memory, or in a file as soon as it is more than HELD_BYTES."""

    def __init__(self, store: Store) -> None:
        self.size = 0
        self._held = bytearray()
        self._file = SpillFile(store)
        self._parts: list[Callable[[], bytes]] = []

    def take(self, chunk: bytes) -> None:
        """Raises StorageError."""
        self.size += len(chunk)
        self._held += chunk
        if len(self._held) > HELD_BYTES:
            self._parts.append(self._file.keep(self._held))
            self._held = bytearray()

    def read(self) -> bytes:
        """All of it. Raises StorageError."""
        return b"".join((*(read() for read in self._parts), self._held))

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
