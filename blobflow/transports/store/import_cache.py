"""The import cache: which blob a layer of an archive became, and what a compressed archive contains.

Like the journal it only saves time: a row counts only while the blobs that it names are held.
"""

from __future__ import annotations

from blobflow.oci import Digest
from blobflow.transports.store.clock import now
from blobflow.transports.store.store import Store

# Archives remembered: as many as anyone works with; each is some kilobytes.
_ARCHIVES = 256


class ImportCache:
    """The tables `layers` and `archives` of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def layer(self, diff_id: Digest, codec: str) -> tuple[Digest, int] | None:
        """The blob, and its size in bytes, that the bare layer became under `codec`, if it is held."""
        row = self._store.state.row(
            "SELECT digest, size FROM layers WHERE diff_id = ? AND codec = ?", diff_id, codec
        )
        if row is None or self._store.blobs.size_of(Digest(row[0])) != row[1]:
            return None
        return Digest(row[0]), int(row[1])

    def record_layer(self, diff_id: Digest, codec: str, digest: Digest, size: int) -> None:
        self._store.state.write(
            "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?)", diff_id, codec, digest, size
        )

    def archive(self, key: str) -> bytes | None:
        """What was recorded of an archive under `key`, which is to change whenever its content does."""
        row = self._store.state.row("SELECT content FROM archives WHERE key = ?", key)
        return None if row is None else bytes(row[0])

    def record_archive(self, key: str, content: bytes) -> None:
        with self._store.state.transaction():
            self._store.state.write("INSERT OR REPLACE INTO archives VALUES (?, ?, ?)", key, content, now())
            self._store.state.write(
                "DELETE FROM archives WHERE key NOT IN (SELECT key FROM archives ORDER BY at DESC LIMIT ?)",
                _ARCHIVES,
            )
