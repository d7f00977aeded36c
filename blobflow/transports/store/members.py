"""What one repository holds, a page at a time: for those who walk through very many manifests."""

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
