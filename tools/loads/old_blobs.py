"""Blobs in a store that nothing needs any more: what a sweep has to do, without the hours that it takes to
come by.

They are written straight into the store's folder and state file, in the form that the store's docstring
describes, also while somebody serves it: pushing 20,000 would take minutes.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import xxhash

from tools.loads.requests import Content

# Past the hour for which what was pushed is safe, and past whatever a registry adds to it.
OLD_SECONDS = 48 * 3600
# Repositories whose tags were removed.
REPOSITORIES = 200
_BUSY_SECONDS = 60.0


def add_old_blobs(root: Path, count: int, size: int) -> None:
    """`count` blobs of `size` bytes, pushed two days ago to repositories that have no tags.

    The files are on disk when it returns, so that nobody's fsync has to wait for them later.
    """
    then = int(time.time()) - OLD_SECONDS
    blobs, members = [], []
    for number in range(count):
        content = Content.of(secrets.token_bytes(size))
        file = root / "blobs" / content.digest.replace(":", "/")
        file.write_bytes(content.body)
        file.chmod(0o600)
        os.utime(file, (then, then))
        sums = xxhash.xxh3_64(content.body).intdigest().to_bytes(8, "little")  # of the one block of it
        blobs.append((content.digest, size, sums, then, then))
        members.append((f"old/{number % REPOSITORIES}", content.digest))
    os.sync()
    with closing(_connect(root)) as state, state:
        state.executemany(
            "INSERT INTO blobs(digest, size, blocks, added, used) VALUES (?, ?, ?, ?, ?)", blobs
        )
        state.executemany(
            "INSERT INTO members(registry, repository, digest, media_type) VALUES ('', ?, ?, '')", members
        )


def age_orphans(root: Path, settled: float) -> None:
    """Make blobs that no repository holds look old, so that a sweep removes them now and not in an hour.

    `settled`: seconds for which a blob has to have been there; it may be on its way into a repository.
    """
    then = int(time.time()) - OLD_SECONDS
    with closing(_connect(root)) as state, state:
        state.execute(
            "UPDATE blobs SET added = ?, used = ? WHERE added > ? AND added <= ? AND digest NOT IN "
            "(SELECT digest FROM members WHERE registry = '')",
            (then, then, then, int(time.time() - settled)),
        )


def _connect(root: Path) -> sqlite3.Connection:
    return sqlite3.connect(root / "state.sqlite", timeout=_BUSY_SECONDS)
