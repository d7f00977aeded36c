"""The promises of a registry to its clients, each as one transaction: the 201 of an upload, of a mount and of
a manifest, and the 200 of a HEAD.

Whoever is told that content is here will build on it: a client that finds a blob does not send it, and puts
a manifest that names it a minute later. So each promise notes its moment (`blobs.added`), and is only given
in a transaction that saw the content; whoever removes content decides in one as well (`gc`). Manifests
are noted as roots besides (`holds`): a sweep that is under way then follows what they name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from blobflow.errors import IntegrityError, NotFound, StorageError
from blobflow.oci import Digest
from blobflow.transports.store.clock import now
from blobflow.transports.store.state.group_commit import Call
from blobflow.transports.store.store import Store

# Seconds that content is kept after it was promised, whoever needs it or not. A client pushes blobs first,
# manifests next and the tag last.
PROMISE_SECONDS = 3600
# A promise that is no older than this many seconds is not noted again, and so the time to keep is longer by
# as much: who is asked for one blob a thousand times a second writes once in ten minutes.
NOTED_SECONDS = 600
# Seconds from which on content that was promised, and that nothing else keeps, may be removed.
KEPT_SECONDS = PROMISE_SECONDS + NOTED_SECONDS
# Values in one SQL statement; sqlite takes 32,766, and before 3.32 took 999.
_VALUES = 900
_IS_MANIFEST = "SELECT 1 FROM members WHERE digest = ? AND registry = '' AND media_type != '' LIMIT 1"


async def mount_blob(store: Store, repository: str, digest: Digest, origin: str) -> bool:
    """Make a blob of the repository `origin` visible in another; False if `origin` lacks it.

    Returns when it is durable. Raises StorageError.
    """
    return await link_blob(store, repository, digest, origin=origin)


async def link_blob(store: Store, repository: str, digest: Digest, *, origin: str | None = None) -> bool:
    """Make a held blob visible in the repository; False if it is not held, or `origin` is named and lacks it.

    Returns when it is durable. Raises StorageError.
    """

    def link() -> bool:
        if origin is not None and store.repositories.media_type_of(origin, digest) is None:
            return False
        if not _promise(store, digest):
            return False
        store.repositories.add_blob(repository, digest)
        return True

    await _adopt(store, digest)
    return await store.commit(link)


async def put_manifest(
    store: Store,
    repository: str,
    raw: bytes,
    digest: Digest,
    media_type: str,
    *,
    tags: Sequence[str] = (),
    needed: Sequence[Digest] = (),
) -> list[Digest]:
    """Hold a manifest in the repository, and let the `tags` name it; returns when that is durable.

    Returns the digests of `needed` that the repository lacks; if there are any, nothing was done. Raises
    DigestMismatch, StorageError.
    """
    commit = store.blobs.prepare_commit(raw, digest)

    def put() -> None:
        if missing := _missing(store, repository, needed):
            raise _Missing(missing)
        store.repositories.add(repository, digest, media_type)
        for tag in tags:
            store.repositories.set_tag(repository, tag, digest)

    commit.also(put)
    try:
        await commit.go()
    except _Missing as error:
        return error.digests
    return []


async def promise_existing(store: Store, digest: Digest) -> bool:
    """Promise the content to a client that asked for it by HEAD; False if it is not held.

    A store opened read-only promises nothing, and only says what is held. So does a store that can't be
    written just now (the disk is full, say): its observer is warned once, and pulls go on.
    """
    row = store.state.row("SELECT added FROM blobs WHERE digest = ?", digest)
    if store.read_only or (row is not None and now() - row[0] < NOTED_SECONDS):
        return True

    def promise() -> bool:
        return _promise(store, digest)

    try:
        await _adopt(store, digest)
        kept: bool = await store.state.commit(Call(promise, durable=False))
    except StorageError as error:
        store.report_failure(error)
        return store.blobs.size_of(digest) is not None
    return kept


class _Missing(Exception):
    def __init__(self, digests: list[Digest]) -> None:
        super().__init__()
        self.digests = digests


async def _adopt(store: Store, digest: Digest) -> None:
    """Read and adopt a file without a row, whose transaction died after the rename, before it is promised.

    Without a row nothing can be noted of it, and gc would take it for what nobody needs. Raises StorageError.
    """
    if _has_row(store, digest):
        return
    with contextlib.suppress(NotFound, IntegrityError):
        await store.blobs.check(digest)


def _has_row(store: Store, digest: Digest) -> bool:
    return store.state.row("SELECT 1 FROM blobs WHERE digest = ?", digest) is not None


def _promise(store: Store, digest: Digest) -> bool:
    """In a transaction: note the moment of the promise; False if the blob is not held or has no row.

    A manifest of any repository here becomes a root, even if the client asks for it as a blob.
    """
    if store.blobs.size_of(digest) is None or not _has_row(store, digest):
        return False
    if store.state.row(_IS_MANIFEST, digest) is not None:
        store.repositories.note_root(digest)
    store.state.write("UPDATE blobs SET added = ? WHERE digest = ?", now(), digest)
    return True


def _missing(store: Store, repository: str, needed: Sequence[Digest]) -> list[Digest]:
    """In a transaction: what the repository lacks.

    Files are looked for as well: a sweep that dies or fails after it moved a file away leaves its rows.
    """
    wanted = list(dict.fromkeys(needed))
    here: set[str] = set()
    for first in range(0, len(wanted), _VALUES):
        part = wanted[first : first + _VALUES]
        marks = ", ".join("?" * len(part))
        rows = store.state.rows(
            "SELECT members.digest FROM members JOIN blobs USING (digest) "
            f"WHERE registry = '' AND repository = ? AND members.digest IN ({marks})",
            repository,
            *part,
        )
        here.update(digest for (digest,) in rows)
    return [
        digest
        for digest in wanted
        # A file without a row counts: what is put now reaches it.
        if (digest not in here and store.repositories.media_type_of(repository, digest) is None)
        or store.blobs.size_of(digest) is None
    ]
