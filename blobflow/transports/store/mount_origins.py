"""Where blobs are known to be at registries, as the state file remembers it: see `Journal.mount_origins`.

What is remembered is bounded: MAX_ROWS rows over all registries, of which the last recorded stay; PER_BLOB
repositories a blob, registry and login; and MAX_AGE_SECONDS. What was recorded within FRESH_SECONDS is not
written again, so that runs which find the same again and again write nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

from blobflow.oci import Digest
from blobflow.transports.store.clock import now
from blobflow.transports.store.state.database import State

# Some 300 bytes a row with its index: 30 MB at most.
MAX_ROWS = 100_000
# A repository may be deleted, or refuse a mount: then another one is offered in the next run.
PER_BLOB = 4
FRESH_SECONDS = 7 * 24 * 3600
MAX_AGE_SECONDS = 365 * 24 * 3600
# Digests in one statement, and rows looked at for their age in one write.
_AT_ONCE = 400
_OLDEST = 1000

_THE_BLOB = "registry = ? AND login = ? AND digest = ?"


def find(
    state: State, registry: str, login: str, digests: Collection[Digest]
) -> dict[Digest, tuple[str, ...]]:
    """The repositories in which each blob was found or put, the last recorded first; blobs of which nothing
    is known are left out. Raises StorageError."""
    since = now() - MAX_AGE_SECONDS
    found: defaultdict[Digest, list[str]] = defaultdict(list)
    for digest, repository, at in _rows(state, registry, login, digests):
        if at > since:
            found[digest].append(repository)
    return {digest: tuple(repositories) for digest, repositories in found.items()}


def record(state: State, registry: str, login: str, found: Iterable[tuple[str, Digest]]) -> None:
    """Record in which repositories blobs were found or put, in one transaction; none, where all of it was
    recorded lately. Raises StorageError."""
    wanted = list(dict.fromkeys(found))
    at = now()
    fresh: defaultdict[Digest, set[str]] = defaultdict(set)
    known: defaultdict[Digest, set[str]] = defaultdict(set)
    for digest, repository, recorded in _rows(state, registry, login, {digest for _, digest in wanted}):
        known[digest].add(repository)
        if recorded > at - FRESH_SECONDS:
            fresh[digest].add(repository)
    new: list[tuple[str, Digest]] = []
    for repository, digest in wanted:
        if repository not in fresh[digest] and len(fresh[digest]) < PER_BLOB:
            fresh[digest].add(repository)
            known[digest].add(repository)
            new.append((repository, digest))
    if not new:
        return
    crowded = {digest for _, digest in new if len(known[digest]) > PER_BLOB}
    with state.transaction():
        state.write_many(
            "INSERT OR REPLACE INTO mount_origins(registry, login, digest, repository, at)"
            " VALUES (?, ?, ?, ?, ?)",
            [(registry, login, digest, repository, at) for repository, digest in new],
        )
        state.write_many(
            f"DELETE FROM mount_origins WHERE {_THE_BLOB} AND number NOT IN (SELECT number FROM mount_origins"
            f" WHERE {_THE_BLOB} ORDER BY number DESC LIMIT {PER_BLOB})",
            [(registry, login, digest) * 2 for digest in sorted(crowded)],
        )
        state.write(
            "DELETE FROM mount_origins WHERE number <= (SELECT MAX(number) FROM mount_origins) - ?", MAX_ROWS
        )
        state.write(
            "DELETE FROM mount_origins WHERE at <= ? AND number IN"
            f" (SELECT number FROM mount_origins ORDER BY number LIMIT {_OLDEST})",
            at - MAX_AGE_SECONDS,
        )


def forget(state: State, registry: str, login: str, gone: Iterable[tuple[str, Digest]]) -> None:
    """Forget that blobs are in these repositories. Raises StorageError."""
    with state.transaction():
        state.write_many(
            f"DELETE FROM mount_origins WHERE {_THE_BLOB} AND repository = ?",
            [(registry, login, digest, repository) for repository, digest in gone],
        )


def _rows(
    state: State, registry: str, login: str, digests: Collection[Digest]
) -> Iterator[tuple[Digest, str, int]]:
    """Digest, repository and time of what is recorded of these blobs, the last recorded first."""
    wanted = sorted(digests)
    for first in range(0, len(wanted), _AT_ONCE):
        some = wanted[first : first + _AT_ONCE]
        yield from state.rows(
            "SELECT digest, repository, at FROM mount_origins WHERE registry = ? AND login = ?"
            f" AND digest IN ({', '.join('?' * len(some))}) ORDER BY number DESC",
            registry,
            login,
            *some,
        )
