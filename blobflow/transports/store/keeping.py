"""What stays and what goes: listing, checking and sweeping a store, also while others use it.

gc evicts the least recently used first, and never what a root reaches or a lease holds. It decides once, over
a snapshot, and evicts in small transactions that look at the leases again: whoever takes a lease first and
looks for the blob afterwards (as `StoreCache.share` does) either keeps it or finds it gone, never half.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from blobflow.errors import IntegrityError, NotFound, StorageError, StorageFull, UnsupportedContent
from blobflow.oci import MAX_MANIFEST_BYTES, Digest, Manifest, parse_manifest
from blobflow.oci.digest import encoded_of
from blobflow.oci.media import MANIFESTS
from blobflow.transports.store.layout import Layout, translated
from blobflow.transports.store.store import Store
from blobflow.transports.store.writer import now, remove_partial

# A partial that nobody writes stays this long for a later run to go on with.
PARTIAL_SECONDS = 24 * 3600
# What was pushed to a repository served from here, and has no tag yet, is safe this long: a client pushes
# blobs first, manifests next and the tag last.
UNTAGGED_SECONDS = 3600
# Evictions in one transaction: others wait for it.
_BATCH = 64


class Held(msgspec.Struct, frozen=True):
    """A blob in the store: `size` in bytes, `used` last in Unix seconds, `kept` if a root reaches it or
    somebody holds a lease."""

    digest: Digest
    size: int
    used: int
    kept: bool


class Usage(msgspec.Struct, frozen=True):
    """What a store takes up, and what its disk has left; in bytes where not a count."""

    blobs: int
    blob_bytes: int
    kept_bytes: int
    partials: int
    partial_bytes: int
    free_bytes: int


class Swept(msgspec.Struct, frozen=True):
    """What gc removed, and the bytes of blobs that stay."""

    blobs: int
    blob_bytes: int
    partials: int
    partial_bytes: int
    left_bytes: int


class _File(msgspec.Struct, frozen=True):
    path: Path
    size: int
    modified: int


def ls(store: Store) -> list[Held]:
    """Every blob held, the least recently used first. Raises StorageError."""
    files = _blob_files(store.layout)
    uses = {
        Digest(digest): (added, used)
        for digest, added, used in store.state.rows("SELECT digest, added, used FROM blobs")
    }
    kept = _kept(store, {digest: added for digest, (added, _) in uses.items()})
    found = [
        Held(digest, file.size, max(uses.get(digest, (0, file.modified))), digest in kept)
        for digest, file in files.items()
    ]
    return sorted(found, key=lambda held: (held.used, held.digest))


def du(store: Store) -> Usage:
    """What the store takes up. Raises StorageError."""
    blobs = ls(store)
    partials = _partial_files(store.layout)
    with translated("look at", store.root):
        free = shutil.disk_usage(store.root).free
    return Usage(
        blobs=len(blobs),
        blob_bytes=sum(held.size for held in blobs),
        kept_bytes=sum(held.size for held in blobs if held.kept),
        partials=len(partials),
        partial_bytes=sum(file.size for file in partials),
        free_bytes=free,
    )


async def verify(store: Store) -> AsyncIterator[tuple[Held, IntegrityError | None]]:
    """Hash every blob against its name; yields each, with the error of a damaged one, which is dropped.

    Blobs that go meanwhile are passed over. In a store opened read-only nothing is dropped. Raises
    StorageError.
    """
    for held in ls(store):
        try:
            await store.rehash(held.digest)
        except NotFound:
            continue
        except IntegrityError as error:
            yield held, error
        else:
            yield held, None


async def gc(store: Store, max_bytes: int | None = None) -> Swept:
    """Sweep dead partials, and evict blobs until at most `max_bytes` of them stay (None: evict none).

    What roots reach and leases hold stays even if it is more than that. May be cancelled between any two
    removals. Raises StorageError.
    """
    store.state.check_writable()
    partials = await asyncio.to_thread(_sweep_partials, store.layout)
    with contextlib.suppress(StorageFull):  # what is noted only here can wait, making room can't
        store.flush_uses()
        store.leases.sweep()
        _forget_absent(store)
    blobs = ls(store)
    left = sum(held.size for held in blobs)
    victims: list[Held] = []
    for held in blobs:
        if max_bytes is None or left <= max_bytes:
            break
        if not held.kept:
            victims.append(held)
            left -= held.size
    evicted: list[Held] = []
    for first in range(0, len(victims), _BATCH):
        evicted += _evict(store, victims[first : first + _BATCH])
        await asyncio.sleep(0)
    gone = sum(held.size for held in evicted)
    return Swept(
        blobs=len(evicted),
        blob_bytes=gone,
        partials=len(partials),
        partial_bytes=sum(file.size for file in partials),
        left_bytes=sum(held.size for held in blobs) - gone,
    )


def rm(store: Store, digests: Collection[Digest]) -> list[Held]:
    """Remove blobs, all of them or none; returns what went.

    Raises StorageError if one of them is not held, is in use, or is kept for a tag that is served from here.
    """
    store.state.check_writable()
    held = {blob.digest: blob for blob in ls(store)}
    wanted = list(dict.fromkeys(digests))
    gone: list[Held] = []
    with _removal(store, gone):
        leased = store.leases.living()
        for digest in wanted:
            if digest not in held:
                raise StorageError(f"blob {digest} is not in the store {store.root}")
            if digest in leased:
                raise StorageError(
                    f"blob {digest} is in use by a running blobflow; try again when it is done"
                )
            if held[digest].kept:
                raise StorageError(
                    f"blob {digest} is needed by a tag of the registry served from {store.root}, or was "
                    "pushed there just now; delete the tag first"
                )
        for digest in wanted:
            store.drop_file(digest)
            gone.append(held[digest])
    return gone


@contextlib.contextmanager
def _removal(store: Store, gone: list[Held]) -> Iterator[None]:
    """One transaction, in which blobs' files are removed and added to `gone`; their rows go when it ends.

    On a full disk that may fail, and the files are gone all the same, so that there is room now: then the
    rows are left to the next gc. Nobody takes a row for a blob.
    """
    try:
        with store.state.transaction():
            yield
            rows = [(held.digest,) for held in gone]
            store.state.write_many("DELETE FROM blobs WHERE digest = ?", rows)
            store.state.write_many("DELETE FROM members WHERE registry = '' AND digest = ?", rows)
    except StorageFull:
        if not gone:
            raise


def _evict(store: Store, victims: Iterable[Held]) -> list[Held]:
    """Remove blobs, but for those that somebody has taken a lease on, or used, since they were chosen."""
    evicted: list[Held] = []
    with _removal(store, evicted):
        leased = store.leases.living()
        for held in victims:
            row = store.state.row("SELECT used FROM blobs WHERE digest = ?", held.digest)
            if held.digest in leased or (row is not None and row[0] > held.used):
                continue
            store.drop_file(held.digest)
            evicted.append(held)
    return evicted


def _forget_absent(store: Store) -> None:
    """Delete the rows of blobs and partials whose files are gone."""
    blobs = [digest for (digest,) in store.state.rows("SELECT digest FROM blobs")]
    tokens = {token for (token,) in store.state.rows("SELECT token FROM partials")}
    tokens -= {file.path.name.rpartition(".")[2] for file in _partial_files(store.layout)}
    with store.state.transaction():
        store.state.write_many(
            "DELETE FROM blobs WHERE digest = ?",
            [(digest,) for digest in blobs if store.size_of(Digest(digest)) is None],
        )
        store.state.write_many("DELETE FROM partials WHERE token = ?", [(token,) for token in tokens])


def _blob_files(layout: Layout) -> dict[Digest, _File]:
    found: dict[Digest, _File] = {}
    with translated("list", layout.blobs):
        for digest in layout.held():
            with contextlib.suppress(FileNotFoundError):
                found[digest] = _file(layout.blob(digest))
    return found


def _partial_files(layout: Layout) -> list[_File]:
    found: list[_File] = []
    with translated("list", layout.partials):
        for path in layout.partials.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(_file(path))
    return found


def _file(path: Path) -> _File:
    told = path.stat()
    return _File(path, told.st_size, int(told.st_mtime))


def _sweep_partials(layout: Layout) -> list[_File]:
    """Remove partials that nobody writes, and nobody will go on with. In a thread.

    These are those of blobs that are held by now, and those that were left alone for PARTIAL_SECONDS. One
    from the future (the clock went back) counts from now on, or it would stay for as long as that was wrong.
    """
    with translated("list", layout.blobs):
        held = {encoded_of(digest) for digest in layout.held()}
    partials = _partial_files(layout)
    for file in partials:
        if file.modified > now():
            with contextlib.suppress(OSError):  # it has just been committed or removed
                os.utime(file.path)
    return [
        file
        for file in partials
        if (now() - file.modified >= PARTIAL_SECONDS or file.path.name.partition(".")[0] in held)
        and remove_partial(file.path)
    ]


def _kept(store: Store, added: dict[Digest, int]) -> set[Digest]:
    """What gc must leave: the closure of all roots, what is leased, and what was pushed just now."""
    kinds: dict[Digest, str] = {}
    fresh: set[Digest] = set()
    for digest, kind in store.state.rows("SELECT digest, media_type FROM members WHERE registry = ''"):
        if kind in MANIFESTS:
            kinds[Digest(digest)] = kind
        if now() - added.get(digest, 0) < UNTAGGED_SECONDS:
            fresh.add(Digest(digest))
    roots = [Digest(digest) for (digest,) in store.state.rows("SELECT DISTINCT digest FROM roots")]
    return _closure(store.layout, roots, kinds) | store.leases.living() | fresh


def _closure(layout: Layout, roots: Collection[Digest], kinds: dict[Digest, str]) -> set[Digest]:
    """All that is reached from roots: what manifests mention, and manifests whose subject is reached.

    `kinds`: the media types of the manifests that repositories here hold, the only possible referrers.
    """
    referrers: dict[Digest, list[Digest]] = {}
    for digest, kind in kinds.items():
        manifest = _manifest(layout, digest, kind)
        if manifest is not None and manifest.subject is not None:
            referrers.setdefault(manifest.subject.digest, []).append(digest)
    reached: set[Digest] = set()
    # Digests with the media type under which they were met: only what is called a manifest is opened.
    waiting = [(digest, kinds.get(digest, "")) for digest in roots]
    manifests = set(roots)
    while waiting:
        digest, kind = waiting.pop()
        if digest in reached:
            continue
        reached.add(digest)
        waiting += [(referrer, kinds[referrer]) for referrer in referrers.get(digest, ())]
        if digest not in manifests and kind not in MANIFESTS:
            continue
        manifest = _manifest(layout, digest, kind)
        if manifest is None:
            continue
        mentioned = (*manifest.layers, *manifest.manifests, manifest.config, manifest.subject)
        waiting += [(child.digest, child.media_type) for child in mentioned if child is not None]
    return reached


def _manifest(layout: Layout, digest: Digest, kind: str) -> Manifest | None:
    """The manifest, if it is here and can be read; what can't be read reaches nothing.

    A parent may have called it wrongly: then it is what it calls itself.
    """
    path = layout.blob(digest)
    try:
        with translated("read", path):
            raw = path.read_bytes() if path.stat().st_size <= MAX_MANIFEST_BYTES else b""
    except StorageError:
        return None
    for called in (kind, ""):
        with contextlib.suppress(UnsupportedContent):
            return parse_manifest(raw, called, digest=digest)
    return None
