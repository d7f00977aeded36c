"""The partials of one open store: creates them, resumes those of dead writers, and removes them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from blobflow.errors import StorageError
from blobflow.oci import Digest
from blobflow.oci.digest import encoded_of
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.partial_files import KEPT_FROM, open_partial, remove_partial
from blobflow.transports.store.paths import StorePaths
from blobflow.transports.store.state.database import State
from blobflow.transports.store.writer import Writer


class Partials:
    """The writers of this process, and the partials that others left. Belongs to the event loop's thread.

    `writers` are the living ones of this process.
    """

    def __init__(self, paths: StorePaths, state: State) -> None:
        self._paths = paths
        self._state = state
        self.writers: set[Writer] = set()

    def close(self) -> None:
        """Suspend all writers: their bytes stay for a later `resume`."""
        for writer in list(self.writers):
            writer.suspend()

    def begin(self, digest: Digest | None = None) -> Writer:
        """A new partial; `digest` if it is known what it will become. Raises StorageError."""
        self._state.check_writable()
        while True:
            path = self._paths.partial(digest, secrets.token_hex(8))
            with translate_os_errors("create", path):
                fd = open_partial(path, create=True, permissions=self._paths.permissions)
            if fd is not None:
                return Writer(self._paths, self._state, self.writers, digest, path, fd)

    def begin_upload(self, digest: Digest | None = None, *, algorithm: str = "sha256") -> Writer:
        """As `begin`, with no file before there is something to write, and never resumed by anyone.

        `algorithm` is that of the digest, where only that is known.
        """
        self._state.check_writable()
        path = self._paths.partial(None, secrets.token_hex(8))
        return Writer(self._paths, self._state, self.writers, digest, path, algorithm=algorithm)

    async def resume(self, digest: Digest) -> Writer | None:
        """Go on with the digest's longest partial that no living writer has; None if there is none.

        Its bytes are hashed again, in a thread; whether they are the blob's shows only at `commit`. Partials
        under KEPT_FROM bytes are left to gc. If cancelled, the partial stays as it was found.
        """
        if self._state.read_only:
            return None
        for size, path in self._of(digest):
            with translate_os_errors("open", path):
                fd = open_partial(path, create=False) if size >= KEPT_FROM else None
            if fd is None:
                continue
            writer = Writer(self._paths, self._state, self.writers, digest, path, fd)
            try:
                await _rehash(writer)
            except StorageError:
                writer.abort()
                continue
            return writer
        return None

    def sizes(self, digests: Iterable[Digest]) -> dict[Digest, int]:
        """The size in bytes of the longest partial of each digest that has one of KEPT_FROM bytes or more."""
        longest: dict[str, int] = {}
        with translate_os_errors("list", self._paths.partials), os.scandir(self._paths.partials) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it has just been committed or removed
                    name, size = entry.name.partition(".")[0], entry.stat().st_size
                    longest[name] = max(size, longest.get(name, 0))
        sizes = {digest: longest.get(encoded_of(digest), 0) for digest in digests}
        return {digest: size for digest, size in sizes.items() if size >= KEPT_FROM}

    def remove_abandoned(self, digest: Digest) -> None:
        """Remove what dead writers left of the digest, which has come in whole by now.

        What can't be removed is left to gc.
        """
        for _, path in self._of(digest):
            with contextlib.suppress(StorageError):
                remove_partial(path)

    def _of(self, digest: Digest) -> list[tuple[int, Path]]:
        """The digest's partials with their sizes, the longest first."""
        found: list[tuple[int, Path]] = []
        for path in self._paths.partials_of(digest):
            with contextlib.suppress(OSError):  # it has just been committed or removed
                found.append((path.stat().st_size, path))
        return sorted(found, reverse=True)


async def _rehash(writer: Writer) -> None:
    """Run the writer's `rehash` in a thread; if cancelled, leave the partial as it was found."""
    future = asyncio.get_running_loop().run_in_executor(None, writer.rehash)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        writer.halt()  # the file is the thread's until it stops
        future.add_done_callback(lambda _: writer.suspend())
        raise
