"""Opens the state file: for writing, which creates or checks it and moves a bad one aside; or for reading."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

from blobflow.errors import StorageError
from blobflow.events import Observer, Warned
from blobflow.transports.store.os_errors import storage_error, translate_os_errors
from blobflow.transports.store.permissions import Permissions
from blobflow.transports.store.state.database import (
    STEPS,
    State,
    code_of,
    translate_sqlite_errors,
)
from blobflow.transports.store.state.file_identity import identity_of
from blobflow.transports.store.state.group_commit import BUSY_SECONDS
from blobflow.transports.store.state.schema import SCHEMA, SCHEMA_VERSION
from blobflow.transports.store.state.snapshot import Snapshot

# SQLITE_ERROR too is the file's fault (an unknown file format, say): our statements are the same.
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_ANEW = "it starts anew: blobs are kept, the tags of a registry served from it are lost"


def open_state(path: Path, observer: Observer, permissions: Permissions, *, in_use: bool = False) -> State:
    """Open or make the state file; a corrupt one is moved aside, said so, and started anew.

    sqlite gives the files beside it the same mode and owner. `in_use`: the store holds blobs, so that a state
    file that is not there, or empty, is told as lost. The caller holds the store's lock. Raises StorageError.
    """
    with translate_sqlite_errors(path):
        lost = in_use and not (path.exists() and (path.is_dir() or path.stat().st_size))
        try:
            state = _opened(path, permissions)
        except sqlite3.DatabaseError as error:
            if code_of(error) & 0xFF not in _CORRUPT and not path.is_dir():
                raise
        else:
            if lost:
                observer(Warned(f"the store's state file {path} was gone; {_ANEW}"))
            return state
        aside = _move_aside(path)
        observer(Warned(f"the store's state file {path} was corrupt and is now {aside.name}; {_ANEW}"))
        return _opened(path, permissions)


def open_state_read_only(path: Path, observer: Observer, stop: Callable[[], bool] | None = None) -> State:
    """Open the state file without ever writing, beside it either; a store that has none looks empty.

    What others write meanwhile is seen. `stop`: see `State.open_reader`. Raises StorageError.
    """
    with translate_sqlite_errors(path):
        snapshot = Snapshot(
            path,
            connect=_connect,
            is_older=lambda connection: _check_version(connection, path) < SCHEMA_VERSION,
            empty=_empty,
            told=lambda sentence: observer(Warned(sentence)),
            busy_seconds=BUSY_SECONDS,
            stop=stop,
            steps=STEPS,
        )
    return State(snapshot, path, None)


def open_state_in_memory() -> State:
    """A state that is in no file, and is gone when it and its readers are closed. Nobody writes to it while
    there are readers. Raises StorageError."""
    uri = f"file:blobflow-{secrets.token_hex(8)}?mode=memory&cache=shared"
    path = Path("(memory)")
    with translate_sqlite_errors(path):
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.executescript(SCHEMA)
    return State(connection, path, connection, uri=uri)


def _opened(path: Path, permissions: Permissions) -> State:
    with translate_os_errors("create", path):
        permissions.create(path)
    connection = _connect(path)
    return State(connection, path, connection, identity_of(path))


def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        version = _check_version(connection, path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            error = sqlite3.DatabaseError(found)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        connection.executescript(SCHEMA)
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
