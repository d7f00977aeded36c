"""The state file: its connections, its schema (told in the package's docstring), and its errors.

A `State` belongs to one thread. Every statement is short. What takes several statements is one transaction,
begun IMMEDIATE, so that two processes queue for it instead of failing halfway.

Reads never wait for writers (sqlite's WAL). Writes are made on the thread's own connection, where they may
wait, or by `commit`: as they are in most programs, and once `write_in_thread` was called, in a thread that
groups them (`groupcommit`). There the same methods use that thread's connection.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from blobflow.errors import StorageError, StorageFull
from blobflow.events import Observer, Warned
from blobflow.transports.files import in_thread, sync_folder
from blobflow.transports.store.groupcommit import BUSY_SECONDS, Call, GroupCommit, Job, begin
from blobflow.transports.store.layout import storage_error

T = TypeVar("T")

# Seconds that a statement waits for another process's transaction; all of ours take milliseconds.
_BUSY_SECONDS = BUSY_SECONDS
# Seconds that sqlite itself waits for a lock in the writing thread, which then waits in steps of its own.
_SHORT_WAIT = 0.002
_SCHEMA = """
CREATE TABLE IF NOT EXISTS blobs(
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, blocks BLOB NOT NULL,
    added INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members(
    registry TEXT, repository TEXT, digest TEXT, media_type TEXT NOT NULL,
    PRIMARY KEY (registry, repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS roots(
    registry TEXT, repository TEXT, tag TEXT, digest TEXT NOT NULL,
    PRIMARY KEY (registry, repository, tag)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases(
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, pid INTEGER NOT NULL, boot TEXT NOT NULL,
    heartbeat INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS partials(
    token TEXT PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL, pid INTEGER NOT NULL,
    boot TEXT NOT NULL, source TEXT NOT NULL, etag TEXT NOT NULL, updated INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions(
    origin TEXT, repository TEXT, digest TEXT, url TEXT NOT NULL, "offset" INTEGER NOT NULL,
    pid INTEGER NOT NULL, boot TEXT NOT NULL, updated INTEGER NOT NULL,
    PRIMARY KEY (origin, repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS puts(
    registry TEXT, repository TEXT, digest TEXT, chosen TEXT, at INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, digest, chosen)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS locations(
    registry TEXT, repository TEXT, digest TEXT, seen INTEGER NOT NULL,
    PRIMARY KEY (registry, repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes(
    origin TEXT, key TEXT, value TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (origin, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layers(
    diff_id TEXT, codec TEXT, digest TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (diff_id, codec)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archives(
    key TEXT PRIMARY KEY, content BLOB NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holds(
    number INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS members_by_digest ON members(digest, registry, media_type);
"""
# Kept in the file as sqlite's user_version. 0 is what blobflow wrote before it was kept, and the same schema
# as 1. 2 has `holds` and the index: a blobflow that does not write the one must not remove blobs beside one
# that relies on it.
SCHEMA_VERSION = 2
# On opening, SQLITE_ERROR too is the file's fault (an unknown file format, say): our statements are the same.
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_ANEW = "it starts anew: blobs are kept, the tags of a registry served from it are lost"
_FULL = "the disk is full; free some space, or put the store elsewhere"
# Extended result codes come before their primary ones. sqlite makes room for its shared memory file before it
# maps it, and has no code of its own for a disk that is full just then.
_REASONS = {
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_READONLY_DBMOVED: "it was moved or removed while it was in use; run again",
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: "it is read-only; put the store elsewhere",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; check the directory's owner, mode and free space",
    sqlite3.SQLITE_BUSY: f"another process has had it locked for {_BUSY_SECONDS:.0f} seconds; try again",
    sqlite3.SQLITE_IOERR: "the disk is full or has an input/output error; check it",
    sqlite3.SQLITE_CORRUPT: "it is corrupt; run again, and it will be moved aside and started anew",
    sqlite3.SQLITE_NOTADB: "it is corrupt; run again, and it will be moved aside and started anew",
}


def _code(error: sqlite3.Error) -> int:
    """The extended result code; the primary one is its low eight bits."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = _code(error)
        reason = _REASONS.get(code) or _REASONS.get(code & 0xFF) or str(error)
        kind = StorageFull if reason is _FULL else StorageError
        raise kind(f"can't use the store's state file {path}: {reason}") from error


class State:
    """The state file, open."""

    __slots__ = ("_connection", "_folders", "_group", "_path", "read_only")

    def __init__(self, connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
        self._connection = connection
        self._path = path
        self._group: GroupCommit | None = None
        self._folders: set[Path] = set()
        self.read_only = read_only

    def write_in_thread(self) -> None:
        """From now on, let a thread do what `commit` is given. Does nothing in a file opened read-only.

        Raises StorageError.
        """
        if self._group is None and not self.read_only:
            with self._translated():
                self._group = GroupCommit(
                    lambda: connect(self._path, timeout=_SHORT_WAIT),
                    sync_folders=self.sync_folders,
                    translated=self._translated,
                )

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return _translated(self._path)

    def _here(self) -> sqlite3.Connection:
        """The connection of the thread that asks."""
        group = self._group
        return self._connection if group is None or not group.here else group.connection

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with _translated(self._path):
            return self._here().execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        with _translated(self._path):
            found: tuple[Any, ...] | None = self._here().execute(sql, values).fetchone()
            return found

    def write(self, sql: str, *values: Any) -> int:
        """One writing statement: a transaction of its own, unless inside `transaction`. Says how many rows
        it changed."""
        self.check_writable()
        with _translated(self._path):
            return self._here().execute(sql, values).rowcount

    def write_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.check_writable()
        with _translated(self._path):
            self._here().executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Other writers wait until it ends. Inside another one: a part of it."""
        self.check_writable()
        with _translated(self._path):
            connection = self._here()
            inside = connection.in_transaction
        if inside:
            yield
            return
        with _translated(self._path):
            begin(connection)
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        try:
            with _translated(self._path):
                connection.execute("COMMIT")
        except StorageError:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    async def commit(self, job: Job) -> Any:
        """Do the job, and return what its `apply` returns. Raises what it raises, and StorageError.

        With a thread that groups them (`write_in_thread`) a durable one is on the disk by then. Without, its
        files are, and a power cut may take the rows back.
        """
        self.check_writable()
        if self._group is not None:
            return await self._group.commit(job)
        slow = not isinstance(job, Call)
        try:
            if slow:
                await in_thread(_prepare, job)
            with self.transaction():
                done = job.apply()
        except BaseException:
            job.discard()
            raise
        if slow:
            await in_thread(self.sync_folders)
        return done

    def later(self, work: Callable[[], Any]) -> None:
        """Do `work` in a transaction: at once, or when the thread comes to it. What goes wrong is dropped:
        for what may be lost."""
        if self._group is not None and not self._group.here:
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
        if self.read_only:
            raise StorageError(f"can't change the store {self._path.parent}: it was opened read-only")

    def close(self) -> None:
        """Do what is still to be written, and close all connections."""
        if self._group is not None:
            self._group.close()
            self._group = None
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def _prepare(job: Job) -> None:
    job.prepare()
    job.sync()


def open_state(path: Path, observer: Observer, *, in_use: bool = False) -> State:
    """Open or make the state file; a corrupt one is moved aside, said so, and started anew.

    `in_use`: the store holds blobs, so that a state file that is not there, or empty, is told as lost. The
    caller holds the store's lock. Raises StorageError.
    """
    with _translated(path):
        lost = in_use and not (path.exists() and (path.is_dir() or path.stat().st_size))
        try:
            state = State(_connect(path), path, read_only=False)
        except sqlite3.DatabaseError as error:
            if _code(error) & 0xFF not in _CORRUPT and not path.is_dir():
                raise
        else:
            if lost:
                observer(Warned(f"the store's state file {path} was gone; {_ANEW}"))
            return state
        aside = _move_aside(path)
        observer(Warned(f"the store's state file {path} was corrupt and is now {aside.name}; {_ANEW}"))
        return State(_connect(path), path, read_only=False)


def open_state_read_only(path: Path) -> State:
    """Open the state file without ever writing; a store that has none looks empty. Raises StorageError."""
    with _translated(path):
        if not path.exists():
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.executescript(_SCHEMA)
            return State(connection, path, read_only=True)
        # A WAL database on a read-only file system can only be read as immutable: nobody writes it there.
        for mode in ("mode=ro", "immutable=1"):
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=_BUSY_SECONDS
            )
            try:
                _check_version(connection, path)
                connection.execute("SELECT digest FROM blobs LIMIT 1").fetchone()
                return State(connection, path, read_only=True)
            except sqlite3.OperationalError:
                connection.close()
                if mode == "immutable=1":
                    raise
    raise AssertionError


def connect(path: Path, *, timeout: float) -> sqlite3.Connection:
    """One more connection to a state file that is open already. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    try:
        version = _check_version(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        connection.executescript(_SCHEMA)
        if version != SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version. Raises StorageError for one that is newer than ours."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"the store's state file {path} has schema {version}, this blobflow knows schema "
            f"{SCHEMA_VERSION}; use a newer blobflow, or another directory"
        )
    return version


def _move_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    try:
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error("move aside the corrupt", path, error) from error
    return aside
