"""What a registry promises its clients, each as one transaction: the 201 of an upload, of a mount and of a
manifest, and the 200 of a HEAD.

Whoever is told that content is here will build on it: a client that finds a blob does not send it, and puts
a manifest that names it a minute later. So each promise notes its moment (`blobs.added`), and is only given
in a transaction that saw the content; whoever removes content decides in one as well (`keeping`). Manifests
are noted as roots besides (`holds`): a sweep that is under way then follows what they name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from blobflow.errors import IntegrityError, NotFound, StorageError
from blobflow.oci import Digest
from blobflow.transports.store.state.group_commit import Call
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import now

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
    """Make a blob of the repository `origin` visible in another; False if it is not there. Returns when it is
    durable. Raises StorageError."""
    return await link_blob(store, repository, digest, origin=origin)


async def link_blob(store: Store, repository: str, digest: Digest, *, origin: str | None = None) -> bool:
    """Make a blob that is held, and if one is named that the repository `origin` has, visible in the
    repository; False if it is not. Raises StorageError."""

    def show() -> bool:
        if origin is not None and store.member(origin, digest) is None:
            return False
        if not _promise(store, digest):
            return False
        _show(store, repository, digest)
        return True

    await _know(store, digest)
    return await store.commit(show)


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
    """Hold a manifest in the repository, and have the `tags` name it; returns what is missing of `needed`,
    and then nothing was done. Else returns when it is durable. Raises DigestMismatch, StorageError."""
    prepare_commit = store.prepare_commit(raw, digest)

    def put() -> None:
        if missing := _missing(store, repository, needed):
            raise _Missing(missing)
        store.add_member(repository, digest, media_type)
        for tag in tags:
            store.set_tag(repository, tag, digest)

    prepare_commit.also(put)
    try:
        await prepare_commit.go()
    except _Missing as error:
        return error.digests
    return []


async def promise_existing(store: Store, digest: Digest) -> bool:
    """Promise a client that asked whether it is there; False: it is not.

    A store that is open read-only promises nothing, and says only what is there; as does one that can't be
    written just now (the disk is full, say), which its observer is told once: pulls go on.
    """
    row = store.state.row("SELECT added FROM blobs WHERE digest = ?", digest)
    if store.read_only or (row is not None and now() - row[0] < NOTED_SECONDS):
        return True

    def promise() -> bool:
        return _promise(store, digest)

    try:
        await _know(store, digest)
        kept: bool = await store.state.commit(Call(promise, durable=False))
    except StorageError as error:
        store.report_failure(error)
        return store.size_of(digest) is not None
    return kept


class _Missing(Exception):
    def __init__(self, digests: list[Digest]) -> None:
        super().__init__()
        self.digests = digests


async def _know(store: Store, digest: Digest) -> None:
    """A file without a row (its transaction died after the rename) is read and adopted before it is promised,
    since nothing could be noted of it, and gc would take it for what nobody needs. Raises StorageError."""
    if _is_known(store, digest):
        return
    with contextlib.suppress(NotFound, IntegrityError):
        await store.check(digest)


def _is_known(store: Store, digest: Digest) -> bool:
    return store.state.row("SELECT 1 FROM blobs WHERE digest = ?", digest) is not None


def _promise(store: Store, digest: Digest) -> bool:
    """In a transaction: note the moment. Whether the blob is there at all, and it could be noted.

    What is a manifest in any repository here is a root from now on, also where it is spoken of as a blob.
    """
    if store.size_of(digest) is None or not _is_known(store, digest):
        return False
    if store.state.row(_IS_MANIFEST, digest) is not None:
        store.hold(digest)
    store.state.write("UPDATE blobs SET added = ? WHERE digest = ?", now(), digest)
    return True


def _show(store: Store, repository: str, digest: Digest) -> None:
    """In a transaction: make the blob visible, unless it is so already: a manifest keeps its media type."""
    store.state.write("INSERT OR IGNORE INTO members VALUES ('', ?, ?, '')", repository, digest)


def _missing(store: Store, repository: str, needed: Sequence[Digest]) -> list[Digest]:
    """In a transaction: what the repository does not hold. Files are looked for, too: a sweep that dies, or
    fails, after it has moved one away leaves its rows."""
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
        # A file without a row is one that is not known yet; what is put now reaches it.
        if (digest not in here and store.member(repository, digest) is None) or store.size_of(digest) is None
    ]
