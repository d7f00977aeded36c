"""Snapshots of a state file: reads it without ever writing, whoever else writes it, and wherever it is.

sqlite has three ways, and none of them fits all:

- live: `mode=ro` with the WAL index that is there. What other processes commit is seen at once. It also reads
  what a killed process left in the WAL, without an index in shared memory if nobody writes. Without
  `readonly_shm` it would create files beside the state file.
- immutable: where there is no WAL, which the last writer removes when it closes. Nothing is locked, and a
  writer that comes later is not seen by sqlite: so we look at the files after each statement.
- copied: a WAL without its index (a copy of a store, a snapshot) or a rollback journal. `immutable` would
  pass over what is in them, so they are copied to a private folder, recovered there, and read from a
  temporary database that nobody has to clean up. So is a file of an earlier schema, which is brought to ours.

A process that also writes this state file should not read it this way: to close a file drops all locks that
the process has on it, and sqlite has one WAL index for all connections of a process, which is then read-only.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec

from blobflow.errors import StorageError
from blobflow.transports.store.os_errors import storage_error
from blobflow.transports.store.state.file_identity import identity_of, is_still_there

# A state file is some hundred bytes a blob. What is larger is better opened once where it can be written.
COPY_BYTES = 1024 * 1024 * 1024
_TRIES = 10

_How = Literal["absent", "live", "immutable", "copied"]
_About = tuple[int, int, int, int]  # device, inode, size, time of the last change


class Rows:
    """The rows that a statement found."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None


class _Seen(msgspec.Struct, frozen=True):
    """The files as they were; None: there is none."""

    database: _About | None
    wal: _About | None
    journal: _About | None
    index: _About | None

    @property
    def how(self) -> _How:
        if self.database is None or not self.database[2]:
            return "absent"
        if self.wal is not None and self.index is not None:
            return "live"
        return "copied" if any(file and file[2] for file in (self.wal, self.journal)) else "immutable"


class _Older(Exception):
    """The schema is an earlier one."""


class Snapshot:
    """A connection that only reads, and is opened anew whenever the files are no longer what they were.

    It belongs to one thread; `opened` counts how often. `connect` makes a connection for writing (to the
    copy: it recovers it, and brings it to our schema); `is_older` says whether a connection's schema is one
    before ours, and raises StorageError for one that we can't read; `empty` makes one to a database without
    rows. `told` gets a sentence when a copy has to be read. `stop` is asked every so many `steps` of a
    statement's work, and ends it.
    """

    def __init__(
        self,
        path: Path,
        *,
        connect: Callable[[Path], sqlite3.Connection],
        is_older: Callable[[sqlite3.Connection], bool],
        empty: Callable[[], sqlite3.Connection],
        told: Callable[[str], None],
        busy_seconds: float,
        stop: Callable[[], bool] | None = None,
        steps: int = 1,
    ) -> None:
        self._path = path
        self._connect = connect
        self._is_older = is_older
        self._empty = empty
        self._told = told
        self._busy_seconds = busy_seconds
        self._stop = stop
        self._steps = steps
        self._connection: sqlite3.Connection | None = None
        self._files = tuple(path.with_name(path.name + suffix) for suffix in ("", "-wal", "-journal", "-shm"))
        self._seen, self._identity = self._look(), identity_of(path)
        self._how: _How = "absent"
        self._was_there = False
        self._copy_told = False
        self.opened = 0
        self.execute("SELECT 1")

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Rows:
        """Raises sqlite3.Error, StorageError."""
        for attempt in range(_TRIES):
            try:
                if self._connection is None:
                    self._connection = self._open()
                    self.opened += 1
                    if self._stop is not None:
                        self._connection.set_progress_handler(self._stop, self._steps)
                rows = self._connection.execute(sql, values).fetchall()
            except sqlite3.Error:
                if attempt == _TRIES - 1 or self._is_current():
                    raise
            else:
                if self._is_current():  # so they were when the statement began
                    return Rows(rows)
            self.close()
        raise StorageError(
            f"can't read the store's state file {self._path}: it is replaced again and again; try again"
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look(self) -> _Seen:
        return _Seen(*map(_about, self._files))

    def _is_current(self) -> bool:
        """Whether the files are what they were when they were opened; live ones may change inside."""
        return is_still_there(self._identity) if self._how == "live" else self._look() == self._seen

    def _open(self) -> sqlite3.Connection:
        self._seen, self._identity = self._look(), identity_of(self._path)
        self._how = self._seen.how
        if self._how == "absent":
            if self._was_there:
                raise StorageError(
                    f"can't read the store's state file {self._path}: it is gone while it is in use; put it "
                    "back, or end this process and start again"
                )
            return self._empty()
        self._was_there = True
        merged = self._how != "copied"
        try:
            if self._how == "live":
                try:
                    return self._opened("mode=ro&readonly_shm=1")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                        raise
                    merged = False  # the index is of no use here, or nothing can be locked
            elif self._how == "immutable":
                return self._opened("immutable=1")
        except _Older:
            pass
        self._how = "copied"
        return self._copied(merged=merged)

    def _opened(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?{mode}",
            uri=True,
            isolation_level=None,
            timeout=self._busy_seconds,
        )
        try:
            if self._is_older(connection):
                raise _Older
            connection.execute("SELECT digest FROM blobs LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _copied(self, *, merged: bool) -> sqlite3.Connection:
        """`merged`: the file itself has everything, and is only copied to be brought to our schema."""
        size = sum(file[2] for file in (self._seen.database, self._seen.wal, self._seen.journal) if file)
        if size > COPY_BYTES:
            raise StorageError(
                f"the store's state file {self._path} holds changes that were never merged into it, and is "
                f"too large to be copied and read ({size} bytes); open the store once where it can be written"
            )
        with TemporaryDirectory(prefix="blobflow-") as folder:
            copy = Path(folder, self._path.name)
            for file in self._files[:3]:
                _copy(file, Path(folder, file.name))
            source = self._connect(copy)
            with contextlib.closing(source):
                self._is_older(source)
                connection = sqlite3.connect("", isolation_level=None)
                source.backup(connection)
        connection.execute("PRAGMA query_only=1")
        if not merged and not self._copy_told:
            self._copy_told = True
            self._told(
                f"the store's state file {self._path} holds changes that were never merged into it, which "
                f"can't be done here; a copy of it is read ({size} bytes)"
            )
        return connection


def _copy(source: Path, target: Path) -> None:
    """Copy a file if it is there. Raises StorageError."""
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error("copy", source, error) from error


def _about(path: Path) -> _About | None:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("look at", path, error) from error
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
