"""The state file's database: its connections, its transactions, and the meaning of its errors.

A `State` belongs to one thread. Every statement is short. What takes several statements is one transaction,
begun IMMEDIATE, so that two processes queue for it instead of failing halfway.

Reads never wait for writers (sqlite's WAL). Writes are made on the thread's own connection, where they may
wait, or by `commit`: as they are in most programs, and once `commit_in_threads` was called, in a thread that
groups them (`group_commit`). There the same methods use that thread's connection.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import get_ident
from typing import Any, Protocol

from blobflow.errors import StorageError, StorageFull
from blobflow.transports.files import in_thread, sync_folder
from blobflow.transports.store.os_errors import storage_error
from blobflow.transports.store.state.file_identity import FileIdentity, is_still_there
from blobflow.transports.store.state.group_commit import BUSY_SECONDS, Call, GroupCommit, Job, begin

# Seconds that sqlite itself waits for a lock in the writing thread, which then waits in steps of its own.
_SHORT_WAIT = 0.002
# Instructions of sqlite's machine between two looks at whether to stop: some milliseconds.
STEPS = 100_000
_FULL = "the disk is full; free some space, or put the store elsewhere"
# Extended result codes come before their primary ones. sqlite makes room for its shared memory file before it
# maps it, and has no code of its own for a disk that is full just then.
_REASONS = {
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_READONLY_DBMOVED: "it was moved or removed while it was in use; run again",
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: "it is read-only; put the store elsewhere",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; check the directory's owner, mode and free space",
    sqlite3.SQLITE_BUSY: f"another process has had it locked for {BUSY_SECONDS:.0f} seconds; try again",
    sqlite3.SQLITE_IOERR: "the disk is full or has an input/output error; check it",
    sqlite3.SQLITE_CORRUPT: "it is corrupt; run again, and it will be moved aside and started anew",
    sqlite3.SQLITE_NOTADB: "it is corrupt; run again, and it will be moved aside and started anew",
}


def code_of(error: sqlite3.Error) -> int:
    """The extended result code; the primary one is its low eight bits."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0)


@contextlib.contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise describe_sqlite_error(error, path) from error


def describe_sqlite_error(error: sqlite3.Error, path: Path) -> StorageError:
    """The one sentence for what went wrong with the state file."""
    code = code_of(error)
    reason = _REASONS.get(code) or _REASONS.get(code & 0xFF) or str(error)
    kind = StorageFull if reason is _FULL else StorageError
    return kind(f"can't use the store's state file {path}: {reason}")


class _Rows(Protocol):
    def fetchall(self) -> list[tuple[Any, ...]]: ...

    def fetchone(self) -> tuple[Any, ...] | None: ...


class Reads(Protocol):
    """What statements that only read go to."""

    def execute(self, sql: str, values: Sequence[Any], /) -> _Rows: ...

    def close(self) -> None: ...


class State:
    """The state file: `reads`, and the connection that writes it, None in a store that is open read-only.

    `identity` is that of the file as it was opened. Where it is no longer at its path nothing is written,
    since nobody would find it again; reads go on. `uri`: sqlite's name for a database that is in no file.
    """

    __slots__ = ("_connection", "_folders", "_group", "_identity", "_path", "_reads", "_uri", "read_only")

    def __init__(
        self,
        reads: Reads,
        path: Path,
        writes: sqlite3.Connection | None,
        identity: FileIdentity | None = None,
        uri: str = "",
    ) -> None:
        self._reads = reads
        self._connection = writes
        self._identity = identity
        self._path = path
        self._uri = uri
        self._group: GroupCommit | None = None
        self._folders: set[Path] = set()
        self.read_only = writes is None

    def commit_in_threads(self) -> None:
        """From now on, let a thread do what `commit` is given. Does nothing in a file opened read-only.

        Raises StorageError.
        """
        if self._group is None and not self.read_only:
            with self._translated():
                self._group = GroupCommit(
                    lambda: _connect_again(self._path, self._uri, _SHORT_WAIT),
                    sync_folders=self.sync_folders,
                    translated=self._translated,
                    check=self.check_there,
                )

    def open_reader(self, stop: Callable[[], bool]) -> State:
        """The same file once more, to be read in the thread that asks, and closed there.

        Statements that are under way end with StorageError soon after `stop` has become true: it is called
        there every few milliseconds of a long one. Raises StorageError.
        """
        self.check_there()
        with translate_sqlite_errors(self._path):
            connection = _connect_again(self._path, self._uri, BUSY_SECONDS)
            connection.execute("PRAGMA query_only=1")
            connection.set_progress_handler(stop, STEPS)
        return State(connection, self._path, None)

    @property
    def in_threads(self) -> bool:
        """Whether `commit` is done in threads, to its end also if its caller is cancelled."""
        return self._group is not None

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return translate_sqlite_errors(self._path)

    def _reading(self) -> Reads:
        """What the thread that asks reads."""
        group = self._group
        return self._reads if group is None or get_ident() != group.ident else group.connection

    # Without `translate_sqlite_errors`: a context manager costs as much as finding a row.

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._reading().execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise describe_sqlite_error(error, self._path) from error

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        try:
            return self._reading().execute(sql, values).fetchone()
        except sqlite3.Error as error:
            raise describe_sqlite_error(error, self._path) from error

    def revision(self) -> tuple[int, int, int]:
        """Another value after every change of the file, whoever made it: while it is the same, nothing that
        the file says has changed. On the thread that opened it. Raises StorageError."""
        others, own = self.row("PRAGMA data_version"), self.row("SELECT total_changes()")
        reopened = getattr(self._reads, "opened", 0)  # where it only reads, its connection may be a new one
        return (others[0] if others else 0, own[0] if own else 0, reopened)

    def write(self, sql: str, *values: Any) -> None:
        """One writing statement: a transaction of its own, unless inside `transaction`."""
        group = self._group
        if group is not None and get_ident() == group.ident:  # which is inside of one
            try:
                group.connection.execute(sql, values)
            except sqlite3.Error as error:
                raise describe_sqlite_error(error, self._path) from error
            return
        with self._noticed() as connection, translate_sqlite_errors(self._path):
            connection.execute(sql, values)

    def write_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._noticed() as connection, translate_sqlite_errors(self._path):
            connection.executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Other writers wait until it ends. Inside another one: a part of it.

        Raises StorageError, also where it was committed to a file that is no longer there.
        """
        if not self._is_alone():
            yield
            return
        with self._noticed() as connection, self._committed(connection):
            yield

    @contextlib.contextmanager
    def _committed(self, connection: sqlite3.Connection) -> Iterator[None]:
        with translate_sqlite_errors(self._path):
            begin(connection)
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        try:
            with translate_sqlite_errors(self._path):
                connection.execute("COMMIT")
        except StorageError:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    async def commit(self, job: Job) -> Any:
        """Do the job, and return what its `apply` returns. Raises what it raises, and StorageError.

        With a thread that groups them (`commit_in_threads`) a durable one is on the disk by then. Without,
        its files are, and a power cut may take the rows back.
        """
        self.check_writable()
        if self._group is not None:
            return await self._group.commit(job)
        try:
            if job.has_file:
                await in_thread(_prepare, job)
            done = self._applied(job)
        except BaseException:
            job.discard()
            raise
        if job.has_file:
            await in_thread(self.sync_folders)
        return done

    def commit_now(self, job: Job) -> Any:
        """As `commit`, on a thread that may wait. Raises what the job raises, and StorageError."""
        try:
            _prepare(job)
            done = self._applied(job)
        except BaseException:
            job.discard()
            raise
        self.sync_folders()
        return done

    def _applied(self, job: Job) -> Any:
        with self.transaction():
            done = job.apply()
            for row in job.rows():
                self.write(f"{row.insert} VALUES ({', '.join('?' * len(row.values))})", *row.values)
        return done

    def later(self, work: Callable[[], Any]) -> None:
        """Do `work` in a transaction: at once, or when the thread comes to it. What goes wrong is dropped:
        for what may be lost."""
        if self._group is not None and get_ident() != self._group.ident:
            self._group.later(Call(work, durable=False))
            return
        with contextlib.suppress(StorageError), self.transaction():
            work()

    def renamed_into(self, folder: Path) -> None:
        """A job has renamed a file into the folder: it is synced before, or without a thread soon after, the
        job is done."""
        self._folders.add(folder)

    def sync_folders(self) -> None:
        """Make what was renamed durable."""
        folders, self._folders = self._folders, set()
        for folder in folders:
            try:
                sync_folder(folder)
            except OSError as error:
                raise storage_error("write", folder, error) from error

    def check_writable(self) -> None:
        """Raises StorageError in a store that was opened read-only."""
        self._writing()

    def check_there(self) -> None:
        """Raises StorageError if the file that is open is no longer the one at its path."""
        if self._identity is not None and not is_still_there(self._identity):
            raise StorageError(
                f"can't use the store's state file {self._path}: it is gone, or was replaced, while it was "
                "in use, and what is written now would be lost; put it back, or end this process and start "
                "again"
            )

    def close(self) -> None:
        """Do what is still to be written, and close all connections."""
        if self._group is not None:
            self._group.close()
            self._group = None
        with contextlib.suppress(sqlite3.Error):
            self._reads.close()

    @contextlib.contextmanager
    def _noticed(self) -> Iterator[sqlite3.Connection]:
        """Around what is a transaction of its own: look before it and after it whether the file is there.

        The second look is what makes the promise: what it sees was there when the transaction was done.
        """
        connection, alone = self._writing(), self._is_alone()
        if alone:
            self.check_there()
        yield connection
        if alone:
            self.check_there()

    def _is_alone(self) -> bool:
        """Whether what is written now is a transaction of its own."""
        with translate_sqlite_errors(self._path):
            return not self._writing().in_transaction

    def _writing(self) -> sqlite3.Connection:
        """The connection of the thread that asks, for writing."""
        if self._connection is None:
            raise StorageError(f"can't change the store {self._path.parent}: it was opened read-only")
        group = self._group
        return self._connection if group is None or get_ident() != group.ident else group.connection


def _connect_again(path: Path, uri: str, timeout: float) -> sqlite3.Connection:
    """One more connection to a state that is open already, and is not made anew if its file is gone. `uri`:
    see `State`. `timeout` in seconds. Raises sqlite3.Error."""
    name = uri or f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(name, uri=True, isolation_level=None, timeout=timeout)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _prepare(job: Job) -> None:
    job.prepare()
    job.sync()
