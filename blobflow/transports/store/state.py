"""The state file: one sqlite connection, its schema (told in the package's docstring), and its errors.

A `State` belongs to one thread. Every statement is short. What takes several statements is one transaction,
begun IMMEDIATE, so that two processes queue for it instead of failing halfway.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from blobflow.errors import StorageError, StorageFull
from blobflow.events import Observer, Warned
from blobflow.transports.store.layout import storage_error

# Seconds that a statement waits for another process's transaction; all of ours take milliseconds.
_BUSY_SECONDS = 10.0
# Instructions of sqlite's machine between two looks at whether to stop: some milliseconds.
_STEPS = 100_000
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
"""
# Kept in the file as sqlite's user_version. 0 is what blobflow wrote before it was kept, and the same schema.
SCHEMA_VERSION = 1
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
    """One connection to the state file."""

    __slots__ = ("_connection", "_path", "read_only")

    def __init__(self, connection: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
        self._connection = connection
        self._path = path
        self.read_only = read_only

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with _translated(self._path):
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        with _translated(self._path):
            found: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
            return found

    def write(self, sql: str, *values: Any) -> None:
        """One writing statement: a transaction of its own, unless inside `transaction`."""
        self.check_writable()
        with _translated(self._path):
            self._connection.execute(sql, values)

    def write_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.check_writable()
        with _translated(self._path):
            self._connection.executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Other processes' writers wait until it ends. Inside another one: a part of it."""
        self.check_writable()
        if self._connection.in_transaction:
            yield
            return
        with _translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        try:
            with _translated(self._path):
                self._connection.execute("COMMIT")
        except StorageError:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def stop_when(self, asked: Callable[[], bool]) -> None:
        """End statements that are under way, with StorageError, soon after `asked` has become true.

        It is called in the connection's thread, every few milliseconds of a long statement.
        """
        self._connection.set_progress_handler(asked, _STEPS)

    def check_writable(self) -> None:
        if self.read_only:
            raise StorageError(f"can't change the store {self._path.parent}: it was opened read-only")

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


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
