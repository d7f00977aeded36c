"""The store's journal, which outlives the process: `blobflow.content.Journal`, and what else the state file
has.

Every entry is a hint that is checked before it is acted on, so an old or a lost one costs a request.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from blobflow.content import Audited, Site, Upload
from blobflow.errors import StorageError
from blobflow.oci import Digest
from blobflow.transports.store import mount_origins
from blobflow.transports.store.clock import now
from blobflow.transports.store.leases import is_alive
from blobflow.transports.store.store import Store

# Audits that are remembered: the last recorded, of some 300 bytes each, and all doubts. A root of which none
# is known gets its turn first.
MAX_AUDITS = 100_000
# A process that can't be seen from here, and got no chunk through for so long (seconds), is taken for dead.
_CHUNK_SECONDS = 900


class StoreJournal:
    """The journal in a store's state file. It belongs to the store's thread; close the store to end it.

    No method raises: what can't be recorded or recalled (a full disk, a store opened read-only) is as good as
    never learnt, and told to the store's observer once.
    """

    def __init__(self, store: Store) -> None:
        self._state = store.state
        self._leases = store.leases
        self._failed = store.report_failure
        self._sending: set[tuple[str, str, Digest]] = set()

    def _record(self, sql: str, *values: Any) -> bool:
        try:
            self._state.write(sql, *values)
        except StorageError as error:
            self._failed(error)
            return False
        return True

    def _recall(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._state.rows(sql, *values)
        except StorageError as error:
            self._failed(error)
            return []

    def _first(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        return next(iter(self._recall(sql, *values)), None)

    def put_recorded(self, site: Site, root: Digest, chosen: str) -> bool:
        """Whether an earlier run put this root, with the same choice of platforms, there."""
        row = self._first(
            "SELECT 1 FROM puts WHERE registry = ? AND repository = ? AND digest = ? AND chosen = ?",
            site.registry,
            site.repository,
            root,
            chosen,
        )
        return row is not None

    def record_put(self, site: Site, root: Digest, chosen: str) -> None:
        self._record(
            "INSERT OR REPLACE INTO puts(registry, repository, digest, chosen, at) VALUES (?, ?, ?, ?, ?)",
            site.registry,
            site.repository,
            root,
            chosen,
            now(),
        )

    def audited(self, site: Site, root: Digest, chosen: str) -> Audited:
        """See `Journal.audited`. In order of the clock's seconds, at most now; within a second by number."""
        row = self._first(
            "SELECT (SELECT MAX(at) FROM puts WHERE registry = ?1 AND repository = ?2 AND digest = ?3),"
            " audits.at, audits.number, audits.stopped FROM (SELECT 1) LEFT JOIN audits"
            " ON registry = ?1 AND repository = ?2 AND digest = ?3 AND chosen = ?4",
            site.registry,
            site.repository,
            root,
            chosen,
        )
        put, at, number, stopped = row or (0, 0, 0, b"")
        return Audited((min(max(put or 0, at or 0), now()), number or 0), stopped or b"")

    def record_audit(self, site: Site, root: Digest, chosen: str, stopped: bytes = b"") -> None:
        """See `Journal.record_audit`. What stopped keeps its place in the order."""
        self._enter_audit(site, root, chosen, at=0 if stopped else now(), stopped=stopped)

    def doubt_put(self, site: Site, root: Digest, chosen: str) -> None:
        """See `Journal.doubt_put`."""
        self._enter_audit(site, root, chosen, doubted=True)

    def _enter_audit(
        self,
        site: Site,
        root: Digest,
        chosen: str,
        *,
        at: int = 0,
        stopped: bytes = b"",
        doubted: bool = False,
    ) -> None:
        try:
            with self._state.transaction():
                self._state.write(
                    "INSERT OR REPLACE INTO"
                    " audits(registry, repository, digest, chosen, doubted, at, stopped)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    site.registry,
                    site.repository,
                    root,
                    chosen,
                    doubted,
                    at,
                    stopped,
                )
                self._state.write(
                    "DELETE FROM audits WHERE number <= (SELECT MAX(number) FROM audits) - ? AND doubted = 0",
                    MAX_AUDITS,
                )
        except StorageError as error:
            self._failed(error)

    def doubted_puts(self) -> frozenset[tuple[Site, Digest, str]]:
        """See `Journal.doubted_puts`."""
        rows = self._recall("SELECT registry, repository, digest, chosen FROM audits WHERE doubted = 1")
        return frozenset(
            (Site(registry, repository), digest, chosen) for registry, repository, digest, chosen in rows
        )

    def note(self, origin: str, key: str) -> str | None:
        """What was learnt of a host."""
        row = self._first("SELECT value FROM notes WHERE origin = ? AND key = ?", origin, key)
        return None if row is None else str(row[0])

    def record_note(self, origin: str, key: str, value: str) -> None:
        self._record(
            "INSERT OR REPLACE INTO notes(origin, key, value, at) VALUES (?, ?, ?, ?)",
            origin,
            key,
            value,
            now(),
        )

    def mount_origins(
        self, registry: str, login: str, digests: Collection[Digest]
    ) -> Mapping[Digest, tuple[str, ...]]:
        """See `Journal.mount_origins`."""
        try:
            return mount_origins.find(self._state, registry, login, digests)
        except StorageError as error:
            self._failed(error)
            return {}

    def record_mount_origins(self, registry: str, login: str, found: Iterable[tuple[str, Digest]]) -> None:
        """See `Journal.record_mount_origins`."""
        try:
            mount_origins.record(self._state, registry, login, found)
        except StorageError as error:
            self._failed(error)

    def forget_mount_origins(self, registry: str, login: str, gone: Iterable[tuple[str, Digest]]) -> None:
        """See `Journal.forget_mount_origins`."""
        try:
            mount_origins.forget(self._state, registry, login, gone)
        except StorageError as error:
            self._failed(error)

    def take_upload(self, origin: str, repository: str, digest: Digest) -> Upload | None:
        """The session in which this blob was being uploaded there, if one was left open: it is ours now."""
        row = self._first(
            'SELECT url, "offset", pid, boot, updated FROM sessions'
            " WHERE origin = ? AND repository = ? AND digest = ?",
            origin,
            repository,
            digest,
        )
        key = origin, repository, digest
        if row is None or key in self._sending or _sends(*row[2:], here=self._leases.boot):
            return None
        upload = Upload(url=row[0], offset=row[1])
        self.record_upload(*key, upload, held=True)
        return upload

    def abandoned_uploads(self, origin: str) -> Sequence[tuple[str, Digest]]:
        """See `Journal.abandoned_uploads`."""
        rows = self._recall(
            "SELECT repository, digest, pid, boot, updated FROM sessions WHERE origin = ? AND pid != 0",
            origin,
        )
        return [
            (repository, Digest(digest))
            for repository, digest, *holder in rows
            if (origin, repository, Digest(digest)) not in self._sending
            and not _sends(*holder, here=self._leases.boot)
        ]

    def record_upload(
        self, origin: str, repository: str, digest: Digest, upload: Upload, *, held: bool
    ) -> bool:
        """The registry has confirmed `upload.offset` bytes; `upload.url` is the newest Location."""
        key = origin, repository, digest
        (self._sending.add if held else self._sending.discard)(key)
        return self._record(
            'INSERT OR REPLACE INTO sessions(origin, repository, digest, url, "offset", pid, boot, updated) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *key,
            upload.url,
            upload.offset,
            os.getpid() if held else 0,
            self._leases.boot,
            now(),
        )

    def forget_upload(self, origin: str, repository: str, digest: Digest) -> None:
        """The session ended, or the registry has forgotten it."""
        self._sending.discard((origin, repository, digest))
        self._record(
            "DELETE FROM sessions WHERE origin = ? AND repository = ? AND digest = ?",
            origin,
            repository,
            digest,
        )


def _sends(pid: int, boot: str, updated: int, *, here: str) -> bool:
    """Whether another process is sending to a session: of one that can't be seen from here, the last chunk
    tells. A process number that is ours was that of one before us."""
    at = now()
    if boot == here:
        return pid not in (0, os.getpid()) and is_alive(pid, boot, at, at=at, here=here)
    return bool(pid) and at - updated < _CHUNK_SECONDS and is_alive(pid, boot, at, at=at, here=here)
