"""What repositories hold, a page at a time: for those who walk through very many."""

from __future__ import annotations

from blobflow.oci import Digest
from blobflow.transports.store.store import Store


def members_after(store: Store, repository: str, after: str, n: int) -> list[tuple[Digest, str]]:
    """The first `n` blobs and manifests after the digest `after` that the repository holds, by digest, with
    their media types ("" for a blob). Raises StorageError."""
    rows = store.state.rows(
        "SELECT digest, media_type FROM members WHERE registry = '' AND repository = ? AND digest > ? "
        "ORDER BY digest LIMIT ?",
        repository,
        after,
        n,
    )
    return [(Digest(digest), kind) for digest, kind in rows]


def holders_after(store: Store, digest: Digest, after: str, n: int) -> list[str]:
    """The first `n` repositories after the one named `after` that hold the blob. Raises StorageError."""
    rows = store.state.rows(
        "SELECT repository FROM members WHERE registry = '' AND digest = ? AND repository > ? "
        "ORDER BY repository LIMIT ?",
        digest,
        after,
        n,
    )
    return [repository for (repository,) in rows]
