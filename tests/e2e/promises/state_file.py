"""What tests do to a store's state file behind its back: make its content older, and look into it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.deadlines import HANGS_AFTER

# Seconds by which rows are made older: an hour is promised, and the store may take up to ten minutes more.
AGE = 3600 + 900


def make_older(root: Path, seconds: int = AGE) -> None:
    """Let the store's blobs have been promised and used so many seconds earlier."""
    _with_state(
        root,
        lambda state: state.execute(
            "UPDATE blobs SET added = added - ?, used = used - ?", (seconds, seconds)
        ),
    )


def rows(root: Path, query: str) -> list[tuple[str, ...]]:
    """What a query finds in the state file; nothing if there is no such table."""
    found: list[tuple[str, ...]] = []

    def ask(state: sqlite3.Connection) -> object:
        with contextlib.suppress(sqlite3.OperationalError):
            found.extend(state.execute(query).fetchall())
        return None

    _with_state(root, ask)
    return found


def _with_state(root: Path, work: Callable[[sqlite3.Connection], object]) -> None:
    with contextlib.closing(sqlite3.connect(root / "state.sqlite", timeout=HANGS_AFTER)) as state, state:
        work(state)
