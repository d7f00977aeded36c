"""The index of the embedded registry's repositories: blobs and manifests (`members`), and tags (`roots`).

The first column of both tables, `registry`, is always '' here: it is this registry. It stays, since other
builds of this schema read and write the same file.
"""

from __future__ import annotations

from collections.abc import Iterable

from blobflow.oci import Digest
from blobflow.transports.store.clock import now
from blobflow.transports.store.state.database import State

# Seconds for which sweeps can read of a new root in `holds`. That is longer than sweeps take; one that takes
# longer looks at everything anew.
HOLD_SECONDS = 2 * 3600
# New roots that are written between two times that old ones are forgotten.
_HOLDS_AT_ONCE = 1000


class RepositoryIndex:
    """The repositories of one open store. Every method raises StorageError."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._holds = 0

    # Blobs and manifests

    def add(self, repository: str, digest: Digest, media_type: str = "") -> None:
        """Let the repository hold the manifest of that media type, or the blob ("")."""
        with self._state.transaction():
            self._state.write(
                "INSERT OR REPLACE INTO members VALUES ('', ?, ?, ?)", repository, digest, media_type
            )
            if media_type:
                self.note_root(digest)

    def add_blob(self, repository: str, digest: Digest) -> None:
        """Let the repository hold the blob, unless it holds it: a manifest keeps its media type."""
        self._state.write("INSERT OR IGNORE INTO members VALUES ('', ?, ?, '')", repository, digest)

    def media_type_of(self, repository: str, digest: Digest) -> str | None:
        """The media type under which the repository holds it, "" for a blob; None if it does not hold it."""
        row = self._state.row(
            "SELECT media_type FROM members WHERE registry = '' AND repository = ? AND digest = ?",
            repository,
            digest,
        )
        return None if row is None else str(row[0])

    def contents(self, repository: str, media_types: Iterable[str] | None = None) -> list[tuple[Digest, str]]:
        """What the repository holds, with media types, by digest; if given, only what is of `media_types`."""
        rows = self._state.rows(
            "SELECT digest, media_type FROM members WHERE registry = '' AND repository = ? ORDER BY digest",
            repository,
        )
        wanted = None if media_types is None else frozenset(media_types)
        return [(Digest(digest), kind) for digest, kind in rows if wanted is None or kind in wanted]

    def contents_after(self, repository: str, after: str, n: int) -> list[tuple[Digest, str]]:
        """The first `n` blobs and manifests after the digest `after`, by digest, with media types ("" for a
        blob): a page for readers of very large repositories."""
        rows = self._state.rows(
            "SELECT digest, media_type FROM members WHERE registry = '' AND repository = ? AND digest > ? "
            "ORDER BY digest LIMIT ?",
            repository,
            after,
            n,
        )
        return [(Digest(digest), kind) for digest, kind in rows]

    def repositories_with(self, digest: Digest, after: str, n: int) -> list[str]:
        """The first `n` repositories after the one named `after` that hold the blob or manifest."""
        rows = self._state.rows(
            "SELECT repository FROM members WHERE registry = '' AND digest = ? AND repository > ? "
            "ORDER BY repository LIMIT ?",
            digest,
            after,
            n,
        )
        return [repository for (repository,) in rows]

    def remove(self, repository: str, digest: Digest) -> None:
        """Take it out of the repository, with all tags that name it; the blob itself is left to gc."""
        with self._state.transaction():
            self._state.write(
                "DELETE FROM members WHERE registry = '' AND repository = ? AND digest = ?",
                repository,
                digest,
            )
            self._state.write(
                "DELETE FROM roots WHERE registry = '' AND repository = ? AND digest = ?", repository, digest
            )

    # Tags

    def set_tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Let the tag name the manifest, whatever it named before."""
        with self._state.transaction():
            self._state.write("INSERT OR REPLACE INTO roots VALUES ('', ?, ?, ?)", repository, tag, digest)
            self.note_root(digest)

    def resolve(self, repository: str, tag: str) -> Digest | None:
        """The digest that the tag names; None if there is no such tag."""
        row = self._state.row(
            "SELECT digest FROM roots WHERE registry = '' AND repository = ? AND tag = ?", repository, tag
        )
        return None if row is None else Digest(row[0])

    def resolve_manifest(self, repository: str, tag: str) -> tuple[Digest, str] | None:
        """The digest that the tag names, and the media type under which the repository holds it; None if
        there is no such tag, or the repository lacks the manifest."""
        row = self._state.row(
            "SELECT roots.digest, media_type FROM roots JOIN members ON members.registry = '' AND "
            "members.repository = roots.repository AND members.digest = roots.digest "
            "WHERE roots.registry = '' AND roots.repository = ? AND tag = ?",
            repository,
            tag,
        )
        return None if row is None else (Digest(row[0]), str(row[1]))

    def remove_tag(self, repository: str, tag: str) -> None:
        """Remove the tag; the manifest stays."""
        self._state.write(
            "DELETE FROM roots WHERE registry = '' AND repository = ? AND tag = ?", repository, tag
        )

    def tags(self, repository: str, n: int | None = None, last: str = "") -> list[str]:
        """At most `n` tags after `last`, in lexical order ([end-8a], [end-8b])."""
        rows = self._state.rows(
            "SELECT tag FROM roots WHERE registry = '' AND repository = ? AND tag > ? ORDER BY tag LIMIT ?",
            repository,
            last,
            -1 if n is None else n,
        )
        return [tag for (tag,) in rows]

    # Repositories

    def names(self, n: int | None = None, last: str = "") -> list[str]:
        """At most `n` repositories after `last` that hold something, in lexical order.

        Two looks into indexes for each, however much they hold.
        """
        rows = self._state.rows(
            "WITH RECURSIVE names(name) AS (SELECT ? UNION ALL SELECT (SELECT min(name) FROM ("
            "SELECT min(repository) AS name FROM members WHERE registry = '' AND repository > names.name "
            "UNION ALL SELECT min(repository) FROM roots WHERE registry = '' AND repository > names.name"
            ")) FROM names WHERE names.name IS NOT NULL LIMIT ?) "
            "SELECT name FROM names WHERE name IS NOT NULL LIMIT -1 OFFSET 1",
            last,
            -1 if n is None else n + 1,
        )
        return [repository for (repository,) in rows]

    def exists(self, repository: str) -> bool:
        """Whether the repository holds something."""
        row = self._state.row(
            "SELECT EXISTS (SELECT 1 FROM members WHERE registry = '' AND repository = ?) OR "
            "EXISTS (SELECT 1 FROM roots WHERE registry = '' AND repository = ?)",
            repository,
            repository,
        )
        return bool(row and row[0])

    # New roots, for sweeps that are under way

    def note_root(self, digest: Digest) -> None:
        """Tell the sweeps that are under way that this manifest has just become a root."""
        self._state.write("INSERT INTO holds(digest, at) VALUES (?, ?)", digest, now())
        self._holds += 1
        if not self._holds % _HOLDS_AT_ONCE:
            self.forget_old_roots()

    def forget_old_roots(self) -> None:
        """Delete the notes that no sweep under way can still need: all before the first young one.

        So no more rows are looked at than deleted, under the lock that every writer waits for. A note from
        the future (the clock went back) is not young: a sweep that misses it looks at everything anew.
        """
        at = now()
        young = self._state.row(
            "SELECT number FROM holds WHERE at BETWEEN ? AND ? ORDER BY number LIMIT 1", at - HOLD_SECONDS, at
        )
        if young is None:
            self._state.write("DELETE FROM holds")
        else:
            self._state.write("DELETE FROM holds WHERE number < ?", young[0])
