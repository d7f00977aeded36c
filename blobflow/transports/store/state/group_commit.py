"""Group commit: the threads that write to the state file of a store that is served.

A registry promises with every 201, so what it promises has to be on the disk before it says so. A sync
costs about a millisecond, whatever it syncs. So whoever wants something written leaves a `Job` here, and two
threads take all that have come meanwhile together, one after the other: the first writes and syncs their
files; the second applies their rows in one transaction, syncs the folders that files were renamed into, and
commits with one sync of the log. While the one waits for the disk, the other does, too; the event loop never.

Each job runs inside a savepoint: one that fails takes nothing from the others. While another process has the
state file locked (`blobflow cache gc` takes it for some milliseconds at a time) only the second thread waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from blobflow.errors import own_copy

# Jobs in one transaction. More would keep other processes waiting for longer, and save hardly a sync.
_BATCH = 256
# Rows in one statement. Parts are powers of two, so that there are few statements to be kept ready.
_ROWS = 64
# Seconds between two tries for a lock that another process has, and after which it is given up.
_RETRY = 0.0005
BUSY_SECONDS = 10.0


class Row(NamedTuple):
    """A row to be inserted: the statement up to its VALUES, and these."""

    insert: str
    values: tuple[Any, ...]


class Job(Protocol):
    """Something to be written.

    `durable`: it must be on the disk when it is acknowledged; else a power cut may take it back, and only
    that. All methods run in one of the threads.
    """

    durable: bool
    # Whether there is anything to prepare and to sync.
    has_file: bool
    # Whether `apply` does without the state file: then the rows of several are inserted at once.
    plain: bool

    def prepare(self) -> None:
        """Before the transaction: what takes time and needs no lock, such as writing a file."""
        ...

    def sync(self) -> None:
        """Still before it, after all others' `prepare`: make files durable."""
        ...

    def apply(self) -> Any:
        """Inside the transaction; returns what the job's owner gets."""
        ...

    def rows(self) -> Sequence[Row]:
        """What is to be inserted besides, after `apply`."""
        ...

    def discard(self) -> None:
        """It failed, in any step: leave nothing behind."""
        ...


class Call:
    """A job that is a function to be called inside the transaction."""

    __slots__ = ("_work", "durable")
    has_file = False
    plain = False

    def __init__(self, work: Callable[[], Any], *, durable: bool) -> None:
        self._work = work
        self.durable = durable

    def prepare(self) -> None: ...

    def sync(self) -> None: ...

    def apply(self) -> Any:
        return self._work()

    def rows(self) -> Sequence[Row]:
        return ()

    def discard(self) -> None: ...


class _PendingJob:
    """A job, the future that its caller waits for, and its result."""

    __slots__ = ("error", "job", "loop", "result", "waiter")

    def __init__(
        self,
        job: Job,
        loop: asyncio.AbstractEventLoop | None,
        waiter: asyncio.Future[Any] | None,
    ) -> None:
        self.job = job
        self.loop = loop
        self.waiter = waiter
        self.result: Any = None
        self.error: BaseException | None = None


class GroupCommit:
    """The threads, and the queues before them.

    `connect` opens the connection, in the thread that has the transactions. `sync_folders` is called inside
    one, before it is committed: what was renamed is made durable then. `check` is called before and after
    each, and raises where nothing may be written any more, or what was written is lost. `translated` turns
    sqlite's errors into ours.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        sync_folders: Callable[[], None],
        translated: Callable[[], contextlib.AbstractContextManager[None]],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._sync_folders = sync_folders
        self._translated = translated
        self._check = check
        self._unwritten = _Queue()
        self._uncommitted = _Queue()
        self._connection: sqlite3.Connection | None = None
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._ended = False
        self._mode = ""
        self._writing = threading.Thread(target=self._write, name="blobflow-write", daemon=True)
        self._committing = threading.Thread(target=self._run, name="blobflow-commit", daemon=True)
        self._committing.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed
        self._writing.start()
        # The committing thread's, as `threading.get_ident` has it there.
        self.ident = self._committing.ident

    @property
    def connection(self) -> sqlite3.Connection:
        """The committing thread's connection; nobody else may use it."""
        assert self._connection is not None
        return self._connection

    async def commit(self, job: Job) -> Any:
        """Wait until the job is committed; its result. Raises what it raised.

        A caller that is cancelled takes nothing back: the job is done all the same.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        self._put(_PendingJob(job, loop, waiter))
        return await waiter

    def later(self, job: Job) -> None:
        """As `commit`, and nobody waits or is told: for what may be lost."""
        self._put(_PendingJob(job, None, None))

    def close(self) -> None:
        """Do what has been asked for until now, and end the threads."""
        if not self._ended:
            self._ended = True
            self._unwritten.put(None)
            self._writing.join()
            self._uncommitted.put(None)
        self._committing.join()

    def _put(self, pending: _PendingJob) -> None:
        if self._ended:
            raise RuntimeError("the store is closed")
        (self._unwritten if pending.job.has_file else self._uncommitted).put(pending)

    # In the threads

    def _write(self) -> None:
        while batch := self._unwritten.take():
            for step in ("prepare", "sync"):
                for pending in _sound(batch):
                    with _kept(pending):
                        getattr(pending.job, step)()
            for pending in batch:
                self._uncommitted.put(pending)

    def _run(self) -> None:
        try:
            self._connection = self._connect()
        except BaseException as error:  # noqa: BLE001  it is raised where the thread was started
            self._failed = error
            return
        finally:
            self._ready.set()
        try:
            while batch := self._uncommitted.take():
                self._commit(batch)
        finally:
            self._connection.close()

    def _commit(self, batch: Sequence[_PendingJob]) -> None:
        wanted = list(_sound(batch))
        try:
            if wanted:
                with self._translated():
                    self._transact(wanted)
        except BaseException as error:  # noqa: BLE001  every one of them is told
            for pending in wanted:
                pending.error = pending.error or own_copy(error)
        for pending in batch:
            if pending.error is not None:
                with contextlib.suppress(OSError):
                    pending.job.discard()
        _tell(batch)

    def _transact(self, wanted: Sequence[_PendingJob]) -> None:
        connection = self.connection
        self._check()
        # NORMAL leaves the log unsynced: enough for what only a power cut may take back.
        mode = "FULL" if any(pending.job.durable for pending in wanted) else "NORMAL"
        if mode != self._mode:
            connection.execute(f"PRAGMA synchronous={mode}")
            self._mode = mode
        begin(connection)
        try:
            rows = Rows(connection)
            for pending in wanted:
                if pending.job.plain:
                    _apply(pending, rows)
                    continue
                rows.insert()  # it may look for them
                connection.execute("SAVEPOINT job")
                _apply(pending, rows)
                with _kept(pending):
                    rows.insert()
                if pending.error is not None:
                    connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            rows.insert()
            self._sync_folders()
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        self._check()


class _Queue:
    """The jobs that wait for a thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_PendingJob | None] = queue.SimpleQueue()

    def put(self, pending: _PendingJob | None) -> None:
        """None: it is over."""
        self._queue.put(pending)

    def take(self) -> list[_PendingJob]:
        """What has come since the last time, at least one thing; nothing when it is over."""
        pending = self._queue.get()
        batch: list[_PendingJob] = []
        while pending is not None:
            batch.append(pending)
            if len(batch) >= _BATCH:
                return batch
            try:
                pending = self._queue.get_nowait()
            except queue.Empty:
                return batch
        if batch:
            self._queue.put(None)
        return batch


class Rows:
    """Rows that wait to be inserted: those of one table together, since each statement costs a thread its
    turn."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: dict[str, list[tuple[Any, ...]]] = {}

    def add(self, row: Row) -> None:
        self._waiting.setdefault(row.insert, []).append(row.values)

    def insert(self) -> None:
        """Raises sqlite3.Error."""
        waiting, self._waiting = self._waiting, {}
        for insert, rows in waiting.items():
            marks = f"({', '.join('?' * len(rows[0]))})"
            first = 0
            while first < len(rows):
                count = min(_ROWS, 1 << (len(rows) - first).bit_length() - 1)
                values = list(itertools.chain.from_iterable(rows[first : first + count]))
                self._connection.execute(f"{insert} VALUES {', '.join([marks] * count)}", values)
                first += count


def _apply(pending: _PendingJob, rows: Rows) -> None:
    with _kept(pending):
        pending.result = pending.job.apply()
        for row in pending.job.rows():
            rows.add(row)


def begin(connection: sqlite3.Connection) -> None:
    """Begin a writing transaction, after whoever has one; sqlite's own waiting sleeps for up to 100 ms at a
    time, in which others come first again and again. Raises sqlite3.OperationalError after BUSY_SECONDS."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode or 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_RETRY)


def _sound(batch: Sequence[_PendingJob]) -> Iterator[_PendingJob]:
    return (pending for pending in batch if pending.error is None)


@contextlib.contextmanager
def _kept(pending: _PendingJob) -> Iterator[None]:
    """What is raised inside is the job's failure, and no one else's."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001  its owner raises it
        pending.error = error


def _tell(batch: Sequence[_PendingJob]) -> None:
    """Wake all who wait: one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_PendingJob]] = {}
    for pending in batch:
        if pending.loop is not None:
            by_loop.setdefault(pending.loop, []).append(pending)
    for loop, theirs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve_all, theirs)


def _resolve_all(batch: Sequence[_PendingJob]) -> None:
    for pending in batch:
        waiter = pending.waiter
        assert waiter is not None
        if waiter.done():  # it was cancelled
            continue
        if pending.error is not None:
            waiter.set_exception(pending.error)
        else:
            waiter.set_result(pending.result)
