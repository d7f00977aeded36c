"""The store: opens all of its parts together.

As in containerd's content store the roles are apart: `blobs` (what is held), `partials` (what comes in),
`repositories` (what is served of it), `leases` (what must stay).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from blobflow.errors import StorageError
from blobflow.events import Observer, Warned, ignore
from blobflow.transports.store.blobs import Blobs
from blobflow.transports.store.leases import Leases
from blobflow.transports.store.lock import hold_lock, wait_until_free
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.partials import Partials
from blobflow.transports.store.paths import StorePaths
from blobflow.transports.store.repository_index import RepositoryIndex
from blobflow.transports.store.state.database import State
from blobflow.transports.store.state.file_identity import identity_of_folder, is_still_there
from blobflow.transports.store.state.group_commit import Call
from blobflow.transports.store.state.opening import open_state, open_state_read_only
from blobflow.waits import Waits

T = TypeVar("T")


class Store:
    """One open store. It belongs to one thread: that of the event loop.

    Synchronous methods of the store and its parts are short: one system call, or one small transaction. Every
    method that writes raises StorageError (one sentence) on a full disk, a read-only file system or a store
    opened read-only.
    """

    def __init__(self, paths: StorePaths, state: State, observer: Observer = ignore) -> None:
        self.root = paths.root
        self.paths = paths
        self.state = state
        self.observer = observer
        self.blobs = Blobs(paths, state)
        self.partials = Partials(paths, state)
        self.repositories = RepositoryIndex(state)
        self.leases = Leases(state)
        self._failure_reported = False
        self._identity = identity_of_folder(paths.root)

    @classmethod
    def open(cls, root: Path, *, read_only: bool = False, observer: Observer = ignore) -> Store:
        """Open the store at `root`; make it if there is none and the folder is empty or absent.

        A corrupt state file is moved aside and started anew, which `observer` gets as one Warned. Opened
        read-only, nothing is ever written to the store, and what other processes write is seen. Raises
        StorageError: not a store, another format, not writable, locked by another process for LOCK_SECONDS.
        """
        paths = StorePaths(root)
        if read_only:
            if not paths.is_store():
                raise StorageError(f"there is no store at {root}")
            paths.check_format()
            return cls(paths, open_state_read_only(paths.state, observer), observer)
        paths.make_root()
        with hold_lock(paths.lock_file, paths.permissions):
            if paths.prepare():
                observer(Warned(f"the store {root} could be read by everybody, and is its owner's alone now"))
            with translate_os_errors("list", paths.blobs):
                in_use = next(paths.held(), None) is not None
            return cls(paths, open_state(paths.state, observer, paths.permissions, in_use=in_use), observer)

    @classmethod
    async def free(cls, root: Path, waits: Waits) -> None:
        """Return when the store at `root` can be opened without waiting for another process; that is among
        the `waits` meanwhile. Raises StorageError as `open` does, where it has to wait too long."""
        with waits.begin("lock", str(root)):
            await wait_until_free(StorePaths(root).lock_file)

    @classmethod
    def share(cls, root: Path, *, shared: bool, group: int | None = None) -> int:
        """Let a group use the store at `root`, or nobody else; see `StorePaths.share`.

        Raises StorageError.
        """
        paths = StorePaths(root)
        paths.make_root()
        with hold_lock(paths.lock_file, paths.permissions):
            return paths.share(shared=shared, group=group)

    @property
    def read_only(self) -> bool:
        return self.state.read_only

    def close(self) -> None:
        """Leave the store. Living writers are suspended: their bytes stay for a later resume. Files that are
        being checked are read no further."""
        self.partials.close()
        self.blobs.close()
        self.leases.close()
        self.state.close()

    def open_reader(self, stop: Callable[[], bool]) -> State:
        """The state once more, to be read in the thread that asks, and closed by it.

        Nobody waits for a reader there, nor the other way round. Statements end with StorageError soon after
        `stop` returns true. Raises StorageError.
        """
        return (
            open_state_read_only(self.paths.state, ignore, stop)
            if self.read_only
            else self.state.open_reader(stop)
        )

    async def commit(self, work: Callable[[], T]) -> T:
        """Do `work` as one transaction, and return what it returns once that is durable.

        `work` may call any synchronous method of this store. It sees what others have committed until then,
        and nothing that comes later. What it raises undoes it, and is raised. It must not wait, and not touch
        what belongs to the loop's thread: it may run in another. Raises StorageError.
        """
        done: T = await self.state.commit(Call(work, durable=True))
        return done

    def commit_in_threads(self) -> None:
        """From now on, commit in threads: for a server, whose loop must not wait for the disk. Raises
        StorageError."""
        self.state.commit_in_threads()

    def check_there(self) -> None:
        """Raises StorageError if the root is no longer the folder that was opened.

        It was moved, replaced or unmounted then, and what is not found there may well be held.
        """
        if not is_still_there(self._identity):
            raise StorageError(
                f"the store {self.root} is gone, or was replaced, while it was in use; put it back, or end "
                "this process and start again"
            )

    def report_failure(self, error: StorageError) -> None:
        """Warn the observer that the store failed where its user can do without it.

        Only the first time, since one cause has many effects.
        """
        if not self._failure_reported:
            self._failure_reported = True
            self.observer(Warned(f"the store fails, so that less is kept and remembered: {error}"))
