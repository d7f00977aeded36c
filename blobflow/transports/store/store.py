"""The store itself: blobs by digest, and what the repositories of an embedded registry hold of them.

A file under blobs/ is the truth about whether a blob is held; the state file adds what guards and orders it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import TypeVar

from blobflow.content import Chunk, Chunks
from blobflow.errors import DigestMismatch, IntegrityError, NotFound, StorageError
from blobflow.events import Observer, Warned, ignore
from blobflow.oci import Digest, digest_of
from blobflow.oci.digest import algorithm_of, encoded_of
from blobflow.transports.store.identity import identity_of_folder, is_still_there
from blobflow.transports.store.layout import (
    Layout,
    storage_error,
    translated,
)
from blobflow.transports.store.leases import Leases
from blobflow.transports.store.locking import locked
from blobflow.transports.store.opening import open_state, open_state_read_only
from blobflow.transports.store.reading import check_file, open_for_reading, read_checked
from blobflow.transports.store.state import State
from blobflow.transports.store.writer import (
    KEPT_FROM,
    BlockSums,
    Writer,
    now,
    open_partial,
    record_blob,
    remove_partial,
    write_at_once,
)

# Uses are noted in batches: they only order eviction, so losing the last ones costs nothing.
_TOUCHED_AT_MOST = 256
T = TypeVar("T")


class Store:
    """One open store. It belongs to one thread: that of the event loop.

    Synchronous methods are short: one system call, or one small transaction. Every method that writes raises
    StorageError (one sentence) on a full disk, a read-only file system or a store opened read-only.
    """

    def __init__(self, layout: Layout, state: State, observer: Observer = ignore) -> None:
        self.root = layout.root
        self.layout = layout
        self.state = state
        self.observer = observer
        self.leases = Leases(state)
        self._living: set[Writer] = set()
        self._checked: set[Digest] = set()
        self._touched: set[Digest] = set()
        self._failure_told = False
        self._place = identity_of_folder(layout.root)

    @classmethod
    def open(cls, root: Path, *, read_only: bool = False, observer: Observer = ignore) -> Store:
        """Open the store at `root`; make it if there is none and the place is empty or absent.

        A corrupt state file is moved aside and started anew, told to `observer` as one Warned. Opened
        read-only, nothing is ever written to it, and what other processes write is seen. Raises StorageError:
        not a store, another format, not writable, locked by another process for LOCK_SECONDS.
        """
        layout = Layout(root)
        if read_only:
            if not layout.is_store():
                raise StorageError(f"there is no store at {root}")
            layout.check_format()
            return cls(layout, open_state_read_only(layout.state, observer), observer)
        layout.make_root()
        with locked(layout.lock_file, layout.access):
            if layout.prepare():
                observer(Warned(f"the store {root} could be read by everybody, and is its owner's alone now"))
            with translated("list", layout.blobs):
                in_use = next(layout.held(), None) is not None
            return cls(layout, open_state(layout.state, observer, layout.access, in_use=in_use), observer)

    @classmethod
    def share(cls, root: Path, *, shared: bool, group: int | None = None) -> int:
        """Let a group use the store at `root`, or nobody else: see `Layout.share`. Raises StorageError."""
        layout = Layout(root)
        layout.make_root()
        with locked(layout.lock_file, layout.access):
            return layout.share(shared=shared, group=group)

    @property
    def read_only(self) -> bool:
        return self.state.read_only

    def check_there(self) -> None:
        """Raises StorageError if the root is no longer the folder that was opened: it was moved, replaced or
        unmounted, and what is not found there may well be held."""
        if not is_still_there(self._place):
            raise StorageError(
                f"the store {self.root} is gone, or was replaced, while it was in use; put it back, or end "
                "this process and start again"
            )

    def tell_failed(self, error: StorageError) -> None:
        """Tell the observer that the store failed where its user can do without; only the first time, since
        one cause has many effects."""
        if not self._failure_told:
            self._failure_told = True
            self.observer(Warned(f"the store fails, so that less is kept and remembered: {error}"))

    async def commit(self, work: Callable[[], T]) -> T:
        """Do `work` as one transaction, and return what it returns once that is durable.

        `work` may call any synchronous method of this store, and sees what others have committed until then,
        and nothing of what comes later. What it raises undoes it, and is raised. It must not wait, and not
        touch what belongs to the loop's thread: it may run in another. Raises StorageError.
        """
        with self.state.transaction():
            return work()

    def close(self) -> None:
        """Leave the store. Writers still living are suspended: their bytes stay for a later resume."""
        for writer in list(self._living):
            writer.suspend()
        self.leases.close()
        with contextlib.suppress(StorageError):
            self.flush_uses()
        self.state.close()

    # Blobs

    def size_of(self, digest: Digest) -> int | None:
        """The blob's size in bytes if it is held whole, else None."""
        try:
            return self.layout.blob(digest).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", self.layout.blob(digest), error) from error

    def path_of(self, digest: Digest) -> Path:
        """Where the blob's file is, or would be."""
        return self.layout.blob(digest)

    def begin(self, digest: Digest | None = None, size: int = 0) -> Writer:
        """A new partial; `digest` and `size` (bytes) if it is known what it will be. Raises StorageError."""
        self.state.check_writable()
        path, fd = self._new_partial(digest)
        return self._writer(digest, size, path, fd)

    async def resume(self, digest: Digest) -> Writer | None:
        """Go on with the longest partial of the digest that no living writer has; None if there is none.

        Its bytes are hashed again, in a thread; that they are the blob's is known only at `commit`. Partials
        under KEPT_FROM bytes are left to gc.
        """
        if self.read_only:
            return None
        for size, path in self._partials_of(digest):
            with translated("open", path):
                fd = open_partial(path, create=False) if size >= KEPT_FROM else None
            if fd is None:
                continue
            writer = self._writer(digest, size, path, fd)
            try:
                await _rehashed(writer)
            except StorageError:
                writer.abort()
                continue
            return writer
        return None

    def begun(self, digests: Iterable[Digest]) -> dict[Digest, int]:
        """The size of the longest partial of each digest that has one of KEPT_FROM bytes or more."""
        longest: dict[str, int] = {}
        with translated("list", self.layout.partials), os.scandir(self.layout.partials) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it has just been committed or removed
                    name, size = entry.name.partition(".")[0], entry.stat().st_size
                    longest[name] = max(size, longest.get(name, 0))
        sizes = {digest: longest.get(encoded_of(digest), 0) for digest in digests}
        return {digest: size for digest, size in sizes.items() if size >= KEPT_FROM}

    def sweep_partials(self, digest: Digest) -> None:
        """Remove what dead writers left of the digest, now that it has come in whole.

        What can't be removed is left to gc.
        """
        for _, path in self._partials_of(digest):
            with contextlib.suppress(StorageError):
                remove_partial(path)

    def _partials_of(self, digest: Digest) -> list[tuple[int, Path]]:
        """The digest's partials with their sizes, the longest first."""
        found: list[tuple[int, Path]] = []
        for path in self.layout.partials_of(digest):
            with contextlib.suppress(OSError):  # it has just been committed or removed
                found.append((path.stat().st_size, path))
        return sorted(found, reverse=True)

    def _new_partial(self, digest: Digest | None) -> tuple[Path, int]:
        while True:
            path = self.layout.partial(digest, secrets.token_hex(8))
            with translated("create", path):
                fd = open_partial(path, create=True, access=self.layout.access)
            if fd is not None:
                return path, fd

    def _writer(self, digest: Digest | None, size: int, path: Path, fd: int) -> Writer:
        writer = Writer(self.layout, self.state, self._living, digest, path, fd)
        try:
            self.state.write(
                "INSERT OR REPLACE INTO partials(token, digest, size, pid, boot, source, etag, updated) "
                "VALUES (?, ?, ?, ?, ?, '', '', ?)",
                writer.token,
                digest or "",
                size,
                os.getpid(),
                self.leases.boot,
                now(),
            )
        except StorageError:
            writer.abort()
            raise
        return writer

    def write_small(self, content: bytes, digest: Digest) -> None:
        """Hold `content` (a manifest, a config) as the blob `digest`, at once and atomically.

        Raises DigestMismatch, StorageError.
        """
        self.state.check_writable()
        actual = digest_of(content, algorithm_of(digest))
        if actual != digest:
            raise DigestMismatch(f"content for {digest}", expected=digest, actual=actual)
        target = self.layout.blob(digest)
        path, fd = self._new_partial(digest)
        write_at_once(fd, content, path, target)
        sums = BlockSums()
        sums.feed(content)
        record_blob(self.state, digest, len(content), sums.result())

    def read_small(self, digest: Digest) -> bytes:
        """The whole of a small blob, verified against its digest.

        Raises NotFound; IntegrityError if it is damaged, and then it is dropped.
        """
        path = self.layout.blob(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise self._absent(digest) from None
        except OSError as error:
            raise storage_error("read", path, error) from error
        actual = digest_of(content, algorithm_of(digest))
        if actual != digest:
            self._drop_damaged(digest)
            raise DigestMismatch(f"{path} in the store", expected=digest, actual=actual)
        self.touch(digest)
        return content

    @contextlib.asynccontextmanager
    async def open_blob(
        self, digest: Digest, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[Chunks]:
        """The blob's bytes `offset` ≤ i < `end` (None: its size), in chunks of at most 1 MiB.

        Every 4 MiB block that is touched is compared with its checksum before the last wanted byte of it is
        passed on. Raises NotFound on entry; IntegrityError while iterating if the file is damaged, and then
        the blob has been dropped, so that who needs it fetches it again.
        """
        blocks = self._blocks_of(digest)
        if blocks is None:
            blocks = await self._check(digest, None)
        path = self.layout.blob(digest)
        try:
            fd = open_for_reading(path)
        except FileNotFoundError:
            raise self._absent(digest) from None
        try:
            self.touch(digest)
            async with contextlib.aclosing(self._chunks(digest, fd, blocks, offset, end)) as chunks:
                yield chunks
        finally:
            os.close(fd)

    async def _chunks(
        self, digest: Digest, fd: int, blocks: bytes, offset: int, end: int | None
    ) -> AsyncGenerator[Chunk, None]:
        try:
            for chunk in read_checked(fd, self.layout.blob(digest), blocks, offset, end):
                yield chunk
        except IntegrityError:
            self._drop_damaged(digest)
            raise

    async def check(self, digest: Digest) -> None:
        """Make sure, once per open store, that the blob's file is undamaged; later calls are free.

        For bytes that then go out by sendfile. A file that the state file does not know (it was lost, say) is
        hashed against its name, and adopted. The reading is done in a thread. Raises NotFound; IntegrityError
        if the file is damaged, and then it is dropped.
        """
        if digest in self._checked and self.size_of(digest) is not None:
            return
        await self._check(digest, self._blocks_of(digest))

    async def rehash(self, digest: Digest) -> None:
        """As `check`, against the digest itself, whatever is remembered of the blob."""
        await self._check(digest, None)

    async def _check(self, digest: Digest, blocks: bytes | None) -> bytes:
        """Check against `blocks`, or the digest itself if None; return the checksums."""
        path = self.layout.blob(digest)
        try:
            size, found = await asyncio.to_thread(check_file, path, digest, blocks)
        except FileNotFoundError:
            raise self._absent(digest) from None
        except IntegrityError:
            self._drop_damaged(digest)
            raise
        if blocks is None and not self.read_only and self._blocks_of(digest) != found:
            record_blob(self.state, digest, size, found)
        self._checked.add(digest)
        return found

    def _blocks_of(self, digest: Digest) -> bytes | None:
        """The blob's checksums; None if it is unknown to the state file (which was lost, say)."""
        row = self.state.row("SELECT blocks FROM blobs WHERE digest = ?", digest)
        return None if row is None else bytes(row[0])

    def drop(self, digest: Digest) -> None:
        """Forget the blob. Who reads it now reads on; nobody opens it any more."""
        self.drop_file(digest)
        self.state.write("DELETE FROM blobs WHERE digest = ?", digest)

    def drop_file(self, digest: Digest) -> None:
        """As `drop`, but leave its row to the caller, or to gc: this alone makes room, and needs none."""
        self.state.check_writable()
        self._checked.discard(digest)
        path = self.layout.blob(digest)
        with translated("remove", path):
            path.unlink(missing_ok=True)

    def _drop_damaged(self, digest: Digest) -> None:
        """Drop what turned out damaged; where nothing can be written, the IntegrityError alone has to do."""
        with contextlib.suppress(StorageError):
            self.drop(digest)

    def _absent(self, digest: Digest) -> NotFound:
        return NotFound(f"blob {digest} is not in the store {self.root}")

    def touch(self, digest: Digest) -> None:
        """Note that the blob was used: what was used last is evicted last."""
        self._touched.add(digest)
        if len(self._touched) >= _TOUCHED_AT_MOST:
            with contextlib.suppress(StorageError):
                self.flush_uses()

    def flush_uses(self) -> None:
        """Note which blobs were used since the last time; gc does so before it decides."""
        touched, self._touched = self._touched, set()
        if touched and not self.read_only:
            with self.state.transaction():
                self.state.write_many(
                    "UPDATE blobs SET used = ? WHERE digest = ?", [(now(), digest) for digest in touched]
                )

    # What the repositories of this registry hold

    def add_member(self, repository: str, digest: Digest, media_type: str = "") -> None:
        """The repository holds the blob, or by `media_type` the manifest."""
        self.state.write(
            "INSERT OR REPLACE INTO members VALUES ('', ?, ?, ?)", repository, digest, media_type
        )

    def member(self, repository: str, digest: Digest) -> str | None:
        """The media type under which the repository holds it ("" for a blob); None: it does not."""
        row = self.state.row(
            "SELECT media_type FROM members WHERE registry = '' AND repository = ? AND digest = ?",
            repository,
            digest,
        )
        return None if row is None else str(row[0])

    def members(self, repository: str, media_types: Iterable[str] | None = None) -> list[tuple[Digest, str]]:
        """All that the repository holds, with media types, by digest; only of some media types if given."""
        rows = self.state.rows(
            "SELECT digest, media_type FROM members WHERE registry = '' AND repository = ? ORDER BY digest",
            repository,
        )
        wanted = None if media_types is None else frozenset(media_types)
        return [(Digest(digest), kind) for digest, kind in rows if wanted is None or kind in wanted]

    def drop_member(self, repository: str, digest: Digest) -> None:
        """The repository no longer holds it, nor any tag that named it; the blob itself is gc's."""
        with self.state.transaction():
            self.state.write(
                "DELETE FROM members WHERE registry = '' AND repository = ? AND digest = ?",
                repository,
                digest,
            )
            self.state.write(
                "DELETE FROM roots WHERE registry = '' AND repository = ? AND digest = ?", repository, digest
            )

    def set_tag(self, repository: str, tag: str, digest: Digest) -> None:
        self.state.write("INSERT OR REPLACE INTO roots VALUES ('', ?, ?, ?)", repository, tag, digest)

    def tag_of(self, repository: str, tag: str) -> Digest | None:
        """What the tag names."""
        row = self.state.row(
            "SELECT digest FROM roots WHERE registry = '' AND repository = ? AND tag = ?", repository, tag
        )
        return None if row is None else Digest(row[0])

    def drop_tag(self, repository: str, tag: str) -> None:
        self.state.write(
            "DELETE FROM roots WHERE registry = '' AND repository = ? AND tag = ?", repository, tag
        )

    def tags(self, repository: str, n: int | None = None, last: str = "") -> list[str]:
        """At most `n` tags after `last`, in lexical order ([end-8a], [end-8b])."""
        rows = self.state.rows(
            "SELECT tag FROM roots WHERE registry = '' AND repository = ? AND tag > ? ORDER BY tag LIMIT ?",
            repository,
            last,
            -1 if n is None else n,
        )
        return [tag for (tag,) in rows]

    def tags_naming(self, repository: str, digest: Digest) -> list[str]:
        rows = self.state.rows(
            "SELECT tag FROM roots WHERE registry = '' AND repository = ? AND digest = ? ORDER BY tag",
            repository,
            digest,
        )
        return [tag for (tag,) in rows]

    def repositories(self, n: int | None = None, last: str = "") -> list[str]:
        """At most `n` repositories after `last` that hold something, in lexical order."""
        rows = self.state.rows(
            "SELECT repository FROM members WHERE registry = '' AND repository > ? UNION "
            "SELECT repository FROM roots WHERE registry = '' AND repository > ? ORDER BY 1 LIMIT ?",
            last,
            last,
            -1 if n is None else n,
        )
        return [repository for (repository,) in rows]

    def has_repository(self, repository: str) -> bool:
        row = self.state.row(
            "SELECT EXISTS (SELECT 1 FROM members WHERE registry = '' AND repository = ?) OR "
            "EXISTS (SELECT 1 FROM roots WHERE registry = '' AND repository = ?)",
            repository,
            repository,
        )
        return bool(row and row[0])


async def _rehashed(writer: Writer) -> None:
    """Run the writer's `rehash` in a thread; if cancelled, leave the partial as it was found."""
    future = asyncio.get_running_loop().run_in_executor(None, writer.rehash)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        writer.halt()  # the file is the thread's until it stops
        future.add_done_callback(lambda _: writer.suspend())
        raise
