"""The verified blobs of a store, by digest: reads, checks and removes them, and writes small ones.

A file under `blobs/` is the truth about whether a blob is held. The state file adds its checksums and when it
was used; it never makes a blob held.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blobflow.content import BlobStream
from blobflow.errors import DigestMismatch, IntegrityError, NotFound, StorageError, StorageFull, own_copy
from blobflow.oci import Digest, digest_of
from blobflow.oci.digest import algorithm_of, head_of
from blobflow.transports.store.blob_commit import BlobCommit, record_blob
from blobflow.transports.store.block_checksums import BlockChecksums
from blobflow.transports.store.clock import now
from blobflow.transports.store.held_stream import HeldStream
from blobflow.transports.store.os_errors import storage_error, translate_os_errors
from blobflow.transports.store.paths import StorePaths
from blobflow.transports.store.served_content import BlobFile
from blobflow.transports.store.state.database import State
from blobflow.transports.store.verified_reading import open_for_reading, verify_file

# Blobs remembered as checked since the store was opened, some 100 bytes each. Beyond, the ones checked
# longest ago are checked again.
_MAX_CHECKED = 20_000
# Threads that read whole files to check them: one can wait for the disk while another compares.
_READER_THREADS = 2
# Uses are written in batches: they only order eviction, so losing the last ones costs nothing.
_MAX_UNWRITTEN_USES = 256


class Blobs:
    """The blobs of one open store. Belongs to the event loop's thread."""

    def __init__(self, paths: StorePaths, state: State) -> None:
        self._paths = paths
        self._state = state
        self._checked: dict[int, int] = {}  # sizes in bytes, in the order of checking
        self._checking: dict[Digest, asyncio.Future[bytes]] = {}
        self._used: set[Digest] = set()
        self._executor: ThreadPoolExecutor | None = None
        self._closing = False

    def close(self) -> None:
        """Stop reading the files that are being checked, and write the last uses."""
        self._closing = True
        for checking in self._checking.values():
            checking.cancel()
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        self.write_uses()

    # What is held

    def size_of(self, digest: Digest) -> int | None:
        """The blob's size in bytes; None if it is not held whole. Raises StorageError."""
        try:
            return os.stat(self._paths.blob_name(digest)).st_size  # noqa: PTH116  asked for each request
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at", self._paths.blob(digest), error) from error

    def path_of(self, digest: Digest) -> Path:
        """Where the blob's file is, or would be."""
        return self._paths.blob(digest)

    # Small blobs, in one piece

    def write_small(self, content: bytes, digest: Digest) -> None:
        """Hold `content` (a manifest, a config) as the blob `digest`, at once and atomically.

        Raises DigestMismatch, StorageError.
        """
        self._state.commit_now(self.prepare_commit(content, digest))

    def prepare_commit(self, content: bytes, digest: Digest) -> BlobCommit:
        """The commit that will hold `content` as the blob `digest`. Raises DigestMismatch, StorageError."""
        self._state.check_writable()
        actual = digest_of(content, algorithm_of(digest))
        if actual != digest:
            raise DigestMismatch(f"content for {digest}", expected=digest, actual=actual)
        checksums = BlockChecksums()
        checksums.feed(content)
        path = self._paths.partial(None, secrets.token_hex(8))
        commit = BlobCommit(self._paths, self._state, digest, checksums.result(), path)
        commit.size, commit.content = len(content), content
        return commit

    def read_small(self, digest: Digest) -> bytes:
        """The whole of a small blob, verified against its digest.

        Raises NotFound; StorageError; IntegrityError if the file is damaged, and then it is dropped.
        """
        content, stat = self._read_file(digest)
        return self._verified(digest, content, stat)

    async def read_whole(self, digest: Digest) -> bytes:
        """As `read_small`, with the file read in a thread."""
        loop = asyncio.get_running_loop()
        content, stat = await loop.run_in_executor(self._readers(), self._read_file, digest)
        return self._verified(digest, content, stat)

    def _read_file(self, digest: Digest) -> tuple[bytes, os.stat_result]:
        path = self._paths.blob(digest)
        try:
            with path.open("rb", buffering=0) as file:
                return file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            raise self._not_found(digest) from None
        except OSError as error:
            raise storage_error("read", path, error) from error

    def read_now(self, digest: Digest, most: int) -> bytes | None:
        """See `ServedBlobs.read_now`; it is not verified."""
        try:
            with self.path_of(digest).open("rb", buffering=0) as file:
                raw = file.read(most + 1)
        except OSError:
            return None
        return raw if raw is not None and len(raw) <= most else None

    def _verified(self, digest: Digest, content: bytes, stat: os.stat_result) -> bytes:
        actual = digest_of(content, algorithm_of(digest))
        if actual != digest:
            self._drop_damaged(digest, stat)
            raise DigestMismatch(f"{self._paths.blob(digest)} in the store", expected=digest, actual=actual)
        self.mark_used(digest)
        return content

    # Large blobs, as streams

    @contextlib.asynccontextmanager
    async def open(
        self, digest: Digest, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        """The blob's bytes `offset` ≤ i < `end` (None: its size), in chunks of at most 1 MiB.

        Every 4 MiB block that is touched is compared with its checksum before its last wanted byte is passed
        on. Once all of them were since the store was opened, the bytes can be had as extents, as they are.
        Raises NotFound on entry; IntegrityError while iterating if the file is damaged, and then the blob
        has been dropped, so that whoever needs it fetches it again.
        """
        blocks = self._blocks_of(digest)
        if blocks is None:
            blocks = await self._check(digest, None)
        path = self._paths.blob(digest)
        try:
            fd = open_for_reading(path)
        except FileNotFoundError:
            raise self._not_found(digest) from None
        try:
            self.mark_used(digest)
            stream = HeldStream(
                fd,
                path,
                blocks,
                offset,
                end,
                size=self._checked_size(digest, fd),
                passed=lambda: self._note_checked(digest, os.fstat(fd).st_size),
                damaged=lambda: self._drop_damaged(digest, os.fstat(fd)),
            )
            async with contextlib.aclosing(stream):
                yield stream
        except BaseException:
            # Maybe since a peer found another blob in what went unread: the next reading checks it again.
            self._checked.pop(head_of(digest), None)
            raise
        finally:
            os.close(fd)

    # Checking whole files

    async def check(self, digest: Digest) -> None:
        """Make sure, once per open store, that the blob's file is undamaged.

        For bytes that then leave by sendfile. Later calls are free, and calls that come while the file is
        read wait for the same reading. A file without a row in the state file (which was lost, say) is hashed
        against its name and adopted. Reads in a thread. Raises NotFound; StorageError; IntegrityError if the
        file is damaged, and then it is dropped.
        """
        if head_of(digest) in self._checked and self.size_of(digest) is not None:
            return
        checking = self._checking.get(digest)
        if checking is None:
            checking = asyncio.ensure_future(self._check(digest, self._blocks_of(digest)))
            self._checking[digest] = checking
            checking.add_done_callback(lambda done: self._check_ended(digest, done))
        # A caller that is cancelled takes nothing from the others. A failure is raised to each as a copy.
        await asyncio.wait((checking,))
        if checking.cancelled():
            raise StorageError(f"blob {digest} could not be checked: the store is being closed")
        error = checking.exception()
        if error is not None:
            raise own_copy(error)

    def _check_ended(self, digest: Digest, done: asyncio.Future[bytes]) -> None:
        self._checking.pop(digest, None)
        if not done.cancelled():
            done.exception()  # every caller may have been cancelled

    async def open_file(self, digest: Digest) -> BlobFile:
        """The blob's file, after `check`. Raises as that does."""
        path = self.path_of(digest)
        await self.check(digest)
        self.mark_used(digest)
        try:
            file = os.fdopen(open_for_reading(path), "rb", buffering=0)
        except FileNotFoundError:
            raise self._not_found(digest) from None
        return BlobFile(file, 0, str(path))

    async def rehash(self, digest: Digest) -> None:
        """As `check`, against the digest itself, whatever the state file remembers of the blob."""
        await self._check(digest, None)

    async def _check(self, digest: Digest, blocks: bytes | None) -> bytes:
        """Check against the checksums `blocks`, or against the digest if None. Returns the checksums."""
        loop = asyncio.get_running_loop()
        stat, checked = await loop.run_in_executor(self._readers(), self._read_again, digest, blocks)
        if isinstance(checked, IntegrityError):
            self._drop_damaged(digest, stat)
            raise checked
        size, found = checked
        if blocks is None and not self._state.read_only and self._blocks_of(digest) != found:
            self._state.later(lambda: self._adopt(digest, size, found, stat))
        self._note_checked(digest, size)
        return found

    def _checked_size(self, digest: Digest, fd: int) -> int | None:
        """The size of a file that was checked; None if it was not, or has another size by now."""
        size = self._checked.get(head_of(digest))
        return size if size == os.fstat(fd).st_size else None

    def _note_checked(self, digest: Digest, size: int) -> None:
        self._checked[head_of(digest)] = size
        if len(self._checked) > _MAX_CHECKED:
            del self._checked[next(iter(self._checked))]

    def _read_again(
        self, digest: Digest, blocks: bytes | None
    ) -> tuple[os.stat_result, tuple[int, bytes] | IntegrityError]:
        """In a thread: which file was read, and its size and checksums, or what is wrong with it.

        The file is opened only here, so that checks that wait for a thread hold no descriptor.
        """
        path = self._paths.blob(digest)
        try:
            fd = open_for_reading(path)
        except FileNotFoundError:
            raise self._not_found(digest) from None
        try:
            stat = os.fstat(fd)
            return stat, verify_file(fd, path, digest, blocks, lambda: self._closing)
        except IntegrityError as error:
            return stat, error
        finally:
            os.close(fd)

    def _adopt(self, digest: Digest, size: int, blocks: bytes, stat: os.stat_result) -> None:
        """Write the row of a file that was hashed, if that file is still there."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(stat, self._paths.blob(digest).stat()):
                record_blob(self._state, digest, size, blocks)

    def _readers(self) -> ThreadPoolExecutor:
        """The store's own threads for whole files, so that the loop's shared threads stay free."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_READER_THREADS, "blobflow-check")
        return self._executor

    def _blocks_of(self, digest: Digest) -> bytes | None:
        """The blob's checksums; None if the state file has no row of it."""
        row = self._state.row("SELECT blocks FROM blobs WHERE digest = ?", digest)
        return None if row is None else bytes(row[0])

    # Removal

    def drop(self, digest: Digest) -> None:
        """Remove the blob, whoever needs it. Open readers read on; nobody opens it any more."""
        try:
            with self._state.transaction():
                self._state.write("DELETE FROM blobs WHERE digest = ?", digest)
                self._unlink(digest)
        except StorageFull:  # gc deletes the row later; a row alone never makes a blob held
            self._unlink(digest)

    def _unlink(self, digest: Digest) -> None:
        """Remove the blob's file and leave its row: this alone makes room, and needs none."""
        self._state.check_writable()
        self._checked.pop(head_of(digest), None)
        path = self._paths.blob(digest)
        with translate_os_errors("remove", path):
            path.unlink(missing_ok=True)

    def condemn(self, digest: Digest) -> Path | None:
        """Rename the blob's file out of `blobs/`, inside the transaction that deletes its rows.

        Returns the new path, to be unlinked after the transaction; None if there is no file. Raises
        StorageError.
        """
        self._state.check_writable()
        self._checked.pop(head_of(digest), None)
        condemned = self._paths.condemned(secrets.token_hex(8))
        with translate_os_errors("remove", self._paths.blob(digest)):
            try:
                self._paths.blob(digest).rename(condemned)
            except FileNotFoundError:
                return None
        return condemned

    def _drop_damaged(self, digest: Digest, stat: os.stat_result) -> None:
        """Drop the damaged file, unless another has taken its place since. A read-only store leaves it."""

        def drop() -> None:
            path = self._paths.blob(digest)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(stat, path.stat()):
                    self.drop(digest)

        if not self._state.read_only:
            self._checked.pop(head_of(digest), None)
            self._state.later(drop)

    def _not_found(self, digest: Digest) -> NotFound:
        return NotFound(f"blob {digest} is not in the store {self._paths.root}")

    # Uses, which order eviction

    def mark_used(self, digest: Digest) -> None:
        """Note that the blob was used now: the least recently used blob is evicted first."""
        self._used.add(digest)
        if len(self._used) >= _MAX_UNWRITTEN_USES:
            self.write_uses()

    def write_uses(self, *, at_once: bool = False) -> None:
        """Write which blobs were used since the last time; gc does so `at_once`, before it decides.

        Blobs count as not used where that fails.
        """
        used, self._used = self._used, set()
        rows = [(now(), digest) for digest in used]

        def write() -> None:
            self._state.write_many("UPDATE blobs SET used = ? WHERE digest = ?", rows)

        if not rows or self._state.read_only:
            return
        if at_once:
            with contextlib.suppress(StorageError), self._state.transaction():
                write()
        else:
            self._state.later(write)
