"""The store itself: blobs by digest, and what the repositories of an embedded registry hold of them.

A file under blobs/ is the truth about whether a blob is held; the state file adds what guards and orders it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from blobflow.content import BlobStream, Chunk
from blobflow.errors import DigestMismatch, IntegrityError, NotFound, StorageError, StorageFull, own_copy
from blobflow.events import Observer, Warned, ignore
from blobflow.oci import Digest, digest_of
from blobflow.oci.digest import algorithm_of, encoded_of, head_of
from blobflow.transports.store.block_checksums import open_for_reading, read_verified, verify_file
from blobflow.transports.store.leases import Leases
from blobflow.transports.store.lock import hold_lock
from blobflow.transports.store.paths import StorePaths, storage_error, translate_os_errors
from blobflow.transports.store.state.database import State
from blobflow.transports.store.state.file_identity import identity_of_folder, is_still_there
from blobflow.transports.store.state.group_commit import Call
from blobflow.transports.store.state.opening import open_state, open_state_read_only
from blobflow.transports.store.writer import (
    KEPT_FROM,
    BlobCommit,
    BlockChecksums,
    Writer,
    now,
    open_partial,
    record_blob,
    remove_partial,
)

# Blobs of which it is remembered that they were checked, some 100 bytes each; those that were checked longest
# ago are checked again.
_CHECKED_AT_MOST = 20_000
# Threads that read whole files to check them: one can wait for the disk while another compares.
_READERS = 2
# Seconds that sweeps are told of a manifest, which is longer than they take (one that takes longer looks at
# everything anew), and how many are told of between two times that old ones are forgotten.
HOLD_SECONDS = 2 * 3600
_HOLDS_AT_ONCE = 1000
# Uses are noted in batches: they only order eviction, so losing the last ones costs nothing.
_TOUCHED_AT_MOST = 256
T = TypeVar("T")


class Store:
    """One open store. It belongs to one thread: that of the event loop.

    Synchronous methods are short: one system call, or one small transaction. Every method that writes raises
    StorageError (one sentence) on a full disk, a read-only file system or a store opened read-only.
    """

    def __init__(self, layout: StorePaths, state: State, observer: Observer = ignore) -> None:
        self.root = layout.root
        self.layout = layout
        self.state = state
        self.observer = observer
        self.leases = Leases(state)
        self._living: set[Writer] = set()
        self._checked: dict[int, None] = {}  # in order
        self._touched: set[Digest] = set()
        self._checking: dict[Digest, asyncio.Future[bytes]] = {}
        self._holds = 0
        self._reading: ThreadPoolExecutor | None = None
        self._failure_told = False
        self._closing = False
        self._place = identity_of_folder(layout.root)

    @classmethod
    def open(cls, root: Path, *, read_only: bool = False, observer: Observer = ignore) -> Store:
        """Open the store at `root`; make it if there is none and the place is empty or absent.

        A corrupt state file is moved aside and started anew, told to `observer` as one Warned. Opened
        read-only, nothing is ever written to it, and what other processes write is seen. Raises StorageError:
        not a store, another format, not writable, locked by another process for LOCK_SECONDS.
        """
        layout = StorePaths(root)
        if read_only:
            if not layout.is_store():
                raise StorageError(f"there is no store at {root}")
            layout.check_format()
            return cls(layout, open_state_read_only(layout.state, observer), observer)
        layout.make_root()
        with hold_lock(layout.lock_file, layout.access):
            if layout.prepare():
                observer(Warned(f"the store {root} could be read by everybody, and is its owner's alone now"))
            with translate_os_errors("list", layout.blobs):
                in_use = next(layout.held(), None) is not None
            return cls(layout, open_state(layout.state, observer, layout.access, in_use=in_use), observer)

    @classmethod
    def share(cls, root: Path, *, shared: bool, group: int | None = None) -> int:
        """Let a group use the store at `root`, or nobody else: see `StorePaths.share`. Raises
        StorageError."""
        layout = StorePaths(root)
        layout.make_root()
        with hold_lock(layout.lock_file, layout.access):
            return layout.share(shared=shared, group=group)

    @property
    def read_only(self) -> bool:
        return self.state.read_only

    def reading(self, stop: Callable[[], bool]) -> State:
        """The state once more, to be read in the thread that asks, and closed by it: nobody waits for who
        reads there, nor the other way round. Statements end with StorageError soon after `stop` says so.
        Raises StorageError."""
        return (
            open_state_read_only(self.layout.state, ignore, stop)
            if self.read_only
            else self.state.again(stop)
        )

    def check_there(self) -> None:
        """Raises StorageError if the root is no longer the folder that was opened: it was moved, replaced or
        unmounted, and what is not found there may well be held."""
        if not is_still_there(self._place):
            raise StorageError(
                f"the store {self.root} is gone, or was replaced, while it was in use; put it back, or end "
                "this process and start again"
            )

    def report_failure(self, error: StorageError) -> None:
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
        done: T = await self.state.commit(Call(work, durable=True))
        return done

    def serve(self) -> None:
        """Many are going to be answered out of this store: from now on the loop's thread waits for no disk
        where it commits. Raises StorageError."""
        self.state.commit_in_threads()

    def close(self) -> None:
        """Leave the store. Writers still living are suspended: their bytes stay for a later resume. Files
        that are being checked are read no further."""
        self._closing = True
        for writer in list(self._living):
            writer.suspend()
        for checking in self._checking.values():
            checking.cancel()
        if self._reading is not None:
            self._reading.shutdown(cancel_futures=True)
        self.leases.close()
        self.flush_uses()
        self.state.close()

    # Blobs

    def size_of(self, digest: Digest) -> int | None:
        """The blob's size in bytes if it is held whole, else None."""
        try:
            return os.stat(self.layout.blob_name(digest)).st_size  # noqa: PTH116  asked for each request
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", self.layout.blob(digest), error) from error

    def path_of(self, digest: Digest) -> Path:
        """Where the blob's file is, or would be."""
        return self.layout.blob(digest)

    def begin(self, digest: Digest | None = None) -> Writer:
        """A new partial; `digest` if it is known what it will be. Raises StorageError."""
        self.state.check_writable()
        while True:
            path = self.layout.partial(digest, secrets.token_hex(8))
            with translate_os_errors("create", path):
                fd = open_partial(path, create=True, access=self.layout.access)
            if fd is not None:
                return Writer(self.layout, self.state, self._living, digest, path, fd)

    def begin_upload(self, digest: Digest | None = None, *, algorithm: str = "sha256") -> Writer:
        """As `begin`, without a file until there is something to write; nobody else goes on with it.
        `algorithm`: that of the digest, where only that is known."""
        self.state.check_writable()
        path = self.layout.partial(None, secrets.token_hex(8))
        return Writer(self.layout, self.state, self._living, digest, path, algorithm=algorithm)

    async def resume(self, digest: Digest) -> Writer | None:
        """Go on with the longest partial of the digest that no living writer has; None if there is none.

        Its bytes are hashed again, in a thread; that they are the blob's is known only at `commit`. Partials
        under KEPT_FROM bytes are left to gc.
        """
        if self.read_only:
            return None
        for size, path in self._partials_of(digest):
            with translate_os_errors("open", path):
                fd = open_partial(path, create=False) if size >= KEPT_FROM else None
            if fd is None:
                continue
            writer = Writer(self.layout, self.state, self._living, digest, path, fd)
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
        with translate_os_errors("list", self.layout.partials), os.scandir(self.layout.partials) as entries:
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

    def write_small(self, content: bytes, digest: Digest) -> None:
        """Hold `content` (a manifest, a config) as the blob `digest`, at once and atomically.

        Raises DigestMismatch, StorageError.
        """
        self.state.commit_now(self.prepare_commit(content, digest))

    def prepare_commit(self, content: bytes, digest: Digest) -> BlobCommit:
        """What holds `content` as the blob `digest`, once it is committed. Raises DigestMismatch,
        StorageError."""
        self.state.check_writable()
        actual = digest_of(content, algorithm_of(digest))
        if actual != digest:
            raise DigestMismatch(f"content for {digest}", expected=digest, actual=actual)
        sums = BlockChecksums()
        sums.feed(content)
        path = self.layout.partial(None, secrets.token_hex(8))
        prepare_commit = BlobCommit(self.layout, self.state, digest, sums.result(), path)
        prepare_commit.size, prepare_commit.content = len(content), content
        return prepare_commit

    def read_small(self, digest: Digest) -> bytes:
        """The whole of a small blob, verified against its digest.

        Raises NotFound; IntegrityError if it is damaged, and then it is dropped.
        """
        content, told = self._read_file(digest)
        return self._verified(digest, content, told)

    async def read_whole(self, digest: Digest) -> bytes:
        """As `read_small`, in a thread."""
        content, told = await asyncio.get_running_loop().run_in_executor(
            self._readers(), self._read_file, digest
        )
        return self._verified(digest, content, told)

    def _read_file(self, digest: Digest) -> tuple[bytes, os.stat_result]:
        path = self.layout.blob(digest)
        try:
            with path.open("rb", buffering=0) as file:
                return file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            raise self._absent(digest) from None
        except OSError as error:
            raise storage_error("read", path, error) from error

    def _verified(self, digest: Digest, content: bytes, told: os.stat_result) -> bytes:
        actual = digest_of(content, algorithm_of(digest))
        if actual != digest:
            self._drop_damaged(digest, told)
            raise DigestMismatch(f"{self.layout.blob(digest)} in the store", expected=digest, actual=actual)
        self.touch(digest)
        return content

    @contextlib.asynccontextmanager
    async def open_blob(
        self, digest: Digest, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
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
            for chunk in read_verified(fd, self.layout.blob(digest), blocks, offset, end):
                yield chunk
        except IntegrityError:
            self._drop_damaged(digest, os.fstat(fd))
            raise

    async def check(self, digest: Digest) -> None:
        """Make sure, once per open store, that the blob's file is undamaged; later calls are free, and those
        that come while it is read wait for the same reading.

        For bytes that then go out by sendfile. A file that the state file does not know (it was lost, say) is
        hashed against its name, and adopted. The reading is done in a thread. Raises NotFound; IntegrityError
        if the file is damaged, and then it is dropped.
        """
        if head_of(digest) in self._checked and self.size_of(digest) is not None:
            return
        checking = self._checking.get(digest)
        if checking is None:
            checking = asyncio.ensure_future(self._check(digest, self._blocks_of(digest)))
            self._checking[digest] = checking
            checking.add_done_callback(lambda done: self._checked_once(digest, done))
        # Who goes away takes nothing from others; what failed is raised to each as an error of its own.
        await asyncio.wait((checking,))
        if checking.cancelled():
            raise StorageError(f"blob {digest} could not be checked: the store is being closed")
        error = checking.exception()
        if error is not None:
            raise own_copy(error)

    def _checked_once(self, digest: Digest, done: asyncio.Future[bytes]) -> None:
        self._checking.pop(digest, None)
        if not done.cancelled():
            done.exception()  # everybody may have gone away

    async def rehash(self, digest: Digest) -> None:
        """As `check`, against the digest itself, whatever is remembered of the blob."""
        await self._check(digest, None)

    async def _check(self, digest: Digest, blocks: bytes | None) -> bytes:
        """Check against `blocks`, or the digest itself if None; return the checksums."""
        told, checked = await asyncio.get_running_loop().run_in_executor(
            self._readers(), self._read_again, digest, blocks
        )
        if isinstance(checked, IntegrityError):
            self._drop_damaged(digest, told)
            raise checked
        size, found = checked
        if blocks is None and not self.read_only and self._blocks_of(digest) != found:
            self.state.later(lambda: self._adopt(digest, size, found, told))
        self._checked[head_of(digest)] = None
        if len(self._checked) > _CHECKED_AT_MOST:
            del self._checked[next(iter(self._checked))]
        return found

    def _read_again(
        self, digest: Digest, blocks: bytes | None
    ) -> tuple[os.stat_result, tuple[int, bytes] | IntegrityError]:
        """In a thread: which file was read, and its size and checksums, or what is wrong with it. It is only
        opened here, so that those who wait for their turn, or give it up, hold no descriptor."""
        path = self.layout.blob(digest)
        try:
            fd = open_for_reading(path)
        except FileNotFoundError:
            raise self._absent(digest) from None
        try:
            told = os.fstat(fd)
            return told, verify_file(fd, path, digest, blocks, lambda: self._closing)
        except IntegrityError as error:
            return told, error
        finally:
            os.close(fd)

    def _adopt(self, digest: Digest, size: int, blocks: bytes, told: os.stat_result) -> None:
        """Note a file that was hashed, if it is still there."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(told, self.layout.blob(digest).stat()):
                record_blob(self.state, digest, size, blocks)

    def _readers(self) -> ThreadPoolExecutor:
        """Threads of the store's own for reading whole files: those that others need are not kept busy."""
        if self._reading is None:
            self._reading = ThreadPoolExecutor(_READERS, "blobflow-check")
        return self._reading

    def _blocks_of(self, digest: Digest) -> bytes | None:
        """The blob's checksums; None if it is unknown to the state file (which was lost, say)."""
        row = self.state.row("SELECT blocks FROM blobs WHERE digest = ?", digest)
        return None if row is None else bytes(row[0])

    def drop(self, digest: Digest) -> None:
        """Forget the blob, whoever needs it. Who reads it now reads on; nobody opens it any more."""
        try:
            with self.state.transaction():
                self.state.write("DELETE FROM blobs WHERE digest = ?", digest)
                self.remove_file(digest)
        except StorageFull:  # then the row is left to gc; nobody takes one for a blob
            self.remove_file(digest)

    def remove_file(self, digest: Digest) -> None:
        """Remove the blob's file, and leave its row to the caller: this alone makes room, and needs none."""
        self.state.check_writable()
        self._checked.pop(head_of(digest), None)
        path = self.layout.blob(digest)
        with translate_os_errors("remove", path):
            path.unlink(missing_ok=True)

    def condemn_file(self, digest: Digest) -> Path | None:
        """Move the blob's file to where it is no blob any more, inside the transaction that deletes its rows;
        returns where to, and None if there was none. Raises StorageError."""
        self.state.check_writable()
        self._checked.pop(head_of(digest), None)
        moved = self.layout.condemned(secrets.token_hex(8))
        with translate_os_errors("remove", self.layout.blob(digest)):
            try:
                self.layout.blob(digest).rename(moved)
            except FileNotFoundError:
                return None
        return moved

    def _drop_damaged(self, digest: Digest, told: os.stat_result) -> None:
        """Drop the file that turned out damaged, unless another has taken its place since; where nothing can
        be written, the IntegrityError alone has to do."""

        def drop() -> None:
            path = self.layout.blob(digest)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(told, path.stat()):
                    self.drop(digest)

        if not self.read_only:
            self._checked.pop(head_of(digest), None)
            self.state.later(drop)

    def _absent(self, digest: Digest) -> NotFound:
        return NotFound(f"blob {digest} is not in the store {self.root}")

    def touch(self, digest: Digest) -> None:
        """Note that the blob was used: what was used last is evicted last."""
        self._touched.add(digest)
        if len(self._touched) >= _TOUCHED_AT_MOST:
            self.flush_uses()

    def flush_uses(self) -> None:
        """Note which blobs were used since the last time; gc does so before it decides. Where that fails,
        they count as not used."""
        touched, self._touched = self._touched, set()
        if touched and not self.read_only:
            rows = [(now(), digest) for digest in touched]
            self.state.later(
                lambda: self.state.write_many("UPDATE blobs SET used = ? WHERE digest = ?", rows)
            )

    # What the repositories of this registry hold

    def add_member(self, repository: str, digest: Digest, media_type: str = "") -> None:
        """The repository holds the blob, or by `media_type` the manifest."""
        with self.state.transaction():
            self.state.write(
                "INSERT OR REPLACE INTO members VALUES ('', ?, ?, ?)", repository, digest, media_type
            )
            if media_type:
                self.hold(digest)

    def hold(self, digest: Digest) -> None:
        """Tell sweeps that are under way of a manifest that has just become a root."""
        self.state.write("INSERT INTO holds(digest, at) VALUES (?, ?)", digest, now())
        self._holds += 1
        if not self._holds % _HOLDS_AT_ONCE:
            self.forget_holds()

    def forget_holds(self) -> None:
        """Forget what no sweep that is under way can still want to know: all before the first that is young,
        so that no more is looked at, under the lock that everybody waits for, than goes.

        What is from the future (the clock went back) is not young: a sweep that misses it looks at
        everything anew.
        """
        at = now()
        young = self.state.row(
            "SELECT number FROM holds WHERE at BETWEEN ? AND ? ORDER BY number LIMIT 1", at - HOLD_SECONDS, at
        )
        if young is None:
            self.state.write("DELETE FROM holds")
        else:
            self.state.write("DELETE FROM holds WHERE number < ?", young[0])

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
        with self.state.transaction():
            self.state.write("INSERT OR REPLACE INTO roots VALUES ('', ?, ?, ?)", repository, tag, digest)
            self.hold(digest)

    def tag_of(self, repository: str, tag: str) -> Digest | None:
        """What the tag names."""
        row = self.state.row(
            "SELECT digest FROM roots WHERE registry = '' AND repository = ? AND tag = ?", repository, tag
        )
        return None if row is None else Digest(row[0])

    def tagged(self, repository: str, tag: str) -> tuple[Digest, str] | None:
        """What the tag names, and the media type under which the repository holds that; None: there is no
        such tag, or nothing behind it."""
        row = self.state.row(
            "SELECT roots.digest, media_type FROM roots JOIN members ON members.registry = '' AND "
            "members.repository = roots.repository AND members.digest = roots.digest "
            "WHERE roots.registry = '' AND roots.repository = ? AND tag = ?",
            repository,
            tag,
        )
        return None if row is None else (Digest(row[0]), str(row[1]))

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
