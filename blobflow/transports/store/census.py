"""What a store holds for the repositories served from it, counted: for those who look after it."""

from __future__ import annotations

import msgspec

from blobflow.oci import Digest
from blobflow.transports.store.store import Store


class Share(msgspec.Struct, frozen=True):
    """A repository: how many blobs and manifests it holds, their bytes, and how many of these bytes are in
    other repositories, too."""

    repository: str
    items: int
    size: int
    shared: int


def holdings(store: Store) -> tuple[int, int]:
    """How many blobs and manifests there are, and their bytes, as the state file has it."""
    row = store.state.row("SELECT count(*), coalesce(sum(size), 0) FROM blobs")
    return (0, 0) if row is None else (row[0], row[1])


def shares(store: Store, n: int, last: str = "") -> list[Share]:
    """The first `n` repositories after `last`, in lexical order."""
    rows = store.state.rows(
        "WITH places AS (SELECT digest, count(*) AS n FROM members WHERE registry = '' GROUP BY digest) "
        "SELECT repository, count(*), coalesce(sum(size), 0), "
        "coalesce(sum(CASE WHEN n > 1 THEN size END), 0) "
        "FROM members JOIN places USING (digest) LEFT JOIN blobs USING (digest) "
        "WHERE registry = '' AND repository > ? GROUP BY repository ORDER BY repository LIMIT ?",
        last,
        n,
    )
    return [Share(*row) for row in rows]


def served_bytes(store: Store) -> int:
    """Bytes of all repositories, each as if it were alone."""
    row = store.state.row(
        "SELECT coalesce(sum(size), 0) FROM members JOIN blobs USING (digest) WHERE registry = ''"
    )
    return 0 if row is None else int(row[0])


def tagged(store: Store, repository: str, n: int) -> list[tuple[str, Digest, str]]:
    """The first `n` tags of a repository, with digest and media type ("": the manifest is not here)."""
    rows = store.state.rows(
        "SELECT tag, roots.digest, coalesce(media_type, '') FROM roots "
        "LEFT JOIN members USING (registry, repository, digest) "
        "WHERE registry = '' AND repository = ? ORDER BY tag LIMIT ?",
        repository,
        n,
    )
    return [(tag, Digest(digest), kind) for tag, digest, kind in rows]


def by_use(store: Store) -> list[tuple[str, str]]:
    """Repository and tag of all served tags; first those whose manifest was not asked for longest."""
    rows = store.state.rows(
        "SELECT repository, tag FROM roots LEFT JOIN blobs USING (digest) WHERE registry = '' "
        "ORDER BY coalesce(used, 0), repository, tag"
    )
    return [(repository, tag) for repository, tag in rows]
