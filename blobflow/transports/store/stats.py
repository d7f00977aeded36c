"""Statistics on a store's content, by the repositories served from it: for metrics and the overview page.

Whoever counts opens a `State` of its own (`open_reader`) in the thread that counts: some of these statements
read every row, which takes seconds for millions of them, so no event loop may wait for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec

from blobflow.oci import Digest
from blobflow.transports.store.served_content import ServedContent
from blobflow.transports.store.state.database import State
from blobflow.transports.store.store import Store

# Repositories whose contents are counted one by one: some hundred bytes each in memory.
_REPOSITORIES = 20_000


class RepositoryStats(msgspec.Struct, frozen=True, gc=False):
    """How many blobs and manifests a repository holds, their bytes, and those that others hold as well."""

    repository: str
    items: int
    size: int
    shared: int


class StoreStats(msgspec.Struct, frozen=True):
    """How many blobs and manifests a store holds, and their bytes.

    `served` adds up the bytes of all repositories, each as if it were alone. `shares` is what each repository
    holds; of very many, only the first.
    """

    blobs: int = 0
    size: int = 0
    served: int = 0
    shares: dict[str, RepositoryStats] = {}


@contextlib.contextmanager
def open_reader(content: ServedContent, stop: Callable[[], bool]) -> Iterator[State]:
    """The state of what is served, to be read in this thread: see `Store.open_reader`. Raises
    StorageError."""
    state = content.open_reader(stop)
    try:
        yield state
    finally:
        state.close()


def collect_stats(state: State) -> StoreStats:
    """Count everything, once: some seconds for a million rows, in which no lock of Python is held."""
    blobs, size = state.row("SELECT count(*), coalesce(sum(size), 0) FROM blobs") or (0, 0)
    served = state.row(
        "SELECT coalesce(sum(size), 0) FROM members JOIN blobs USING (digest) WHERE registry = ''"
    ) or (0,)
    rows = state.rows(
        "WITH places AS (SELECT digest, count(*) AS n FROM members WHERE registry = '' GROUP BY digest) "
        "SELECT repository, count(*), coalesce(sum(size), 0), "
        "coalesce(sum(CASE WHEN n > 1 THEN size END), 0) "
        "FROM members JOIN places USING (digest) LEFT JOIN blobs USING (digest) "
        "WHERE registry = '' GROUP BY repository ORDER BY repository LIMIT ?",
        _REPOSITORIES,
    )
    return StoreStats(blobs, size, served[0], {row[0]: RepositoryStats(*row) for row in rows})


def repositories_after(state: State, n: int, last: str = "") -> list[str]:
    """The first `n` repositories after `last` that hold something, in lexical order.

    One look into the index for each, however much they hold.
    """
    rows = state.rows(
        "WITH RECURSIVE names(name) AS ("
        "SELECT min(repository) FROM members WHERE registry = '' AND repository > ? UNION ALL "
        "SELECT (SELECT min(repository) FROM members WHERE registry = '' AND repository > name) "
        "FROM names WHERE name IS NOT NULL LIMIT ?) SELECT name FROM names WHERE name IS NOT NULL",
        last,
        n,
    )
    return [name for (name,) in rows]


def tags_with_types(state: State, repository: str, n: int) -> list[tuple[str, Digest, str]]:
    """The first `n` tags of a repository, with digest and media type ("": the manifest is not here)."""
    rows = state.rows(
        "SELECT tag, roots.digest, coalesce(media_type, '') FROM roots "
        "LEFT JOIN members USING (registry, repository, digest) "
        "WHERE registry = '' AND repository = ? ORDER BY tag LIMIT ?",
        repository,
        n,
    )
    return [(tag, Digest(digest), kind) for tag, digest, kind in rows]


def tags_by_last_use(store: Store) -> list[tuple[str, str]]:
    """Repository and tag of all served tags; first those whose manifest was not asked for longest."""
    rows = store.state.rows(
        "SELECT repository, tag FROM roots LEFT JOIN blobs USING (digest) WHERE registry = '' "
        "ORDER BY coalesce(used, 0), repository, tag"
    )
    return [(repository, tag) for repository, tag in rows]
