"""The inventory of a store: lists and verifies its content, also while other processes use it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator

import msgspec

from blobflow.errors import IntegrityError, NotFound
from blobflow.oci import Digest
from blobflow.transports.store.clock import now
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.partial_sweep import FileInfo, file_info, list_partials
from blobflow.transports.store.paths import StorePaths
from blobflow.transports.store.promises import KEPT_SECONDS
from blobflow.transports.store.reachability import ReachableDigests
from blobflow.transports.store.store import Store


class BlobInfo(msgspec.Struct, frozen=True):
    """A blob in the store: `size` in bytes, `used` is its last use in Unix seconds.

    `kept` says that gc must keep it: a root reaches it, a process holds a lease, or a client was promised it
    lately.
    """

    digest: Digest
    size: int
    used: int
    kept: bool


class DiskUsage(msgspec.Struct, frozen=True):
    """What a store takes up, and what its disk has left: counts, and bytes."""

    blobs: int
    blob_bytes: int
    kept_bytes: int
    partials: int
    partial_bytes: int
    free_bytes: int


def list_blobs(store: Store) -> list[BlobInfo]:
    """Every blob held, the least recently used first. Raises StorageError."""
    return list_with(store, ReachableDigests(store))


def disk_usage(store: Store) -> DiskUsage:
    """What the store takes up. Raises StorageError."""
    blobs = list_blobs(store)
    partials = list_partials(store.paths)
    with translate_os_errors("look at", store.root):
        free = shutil.disk_usage(store.root).free
    return DiskUsage(
        blobs=len(blobs),
        blob_bytes=sum(held.size for held in blobs),
        kept_bytes=sum(held.size for held in blobs if held.kept),
        partials=len(partials),
        partial_bytes=sum(file.size for file in partials),
        free_bytes=free,
    )


async def verify_blobs(store: Store) -> AsyncIterator[tuple[BlobInfo, IntegrityError | None]]:
    """Hash every blob against its name; yields each, with the error of a damaged one, which is dropped.

    Blobs that go meanwhile are passed over. In a store opened read-only nothing is dropped. Raises
    StorageError.
    """
    for held in list_blobs(store):
        try:
            await store.blobs.rehash(held.digest)
        except NotFound:
            continue
        except IntegrityError as error:
            yield held, error
        else:
            yield held, None


def list_with(store: Store, reachable: ReachableDigests) -> list[BlobInfo]:
    """As `list_blobs`, for a sweep that knows what is reachable."""
    files = _blob_files(store.paths)
    members = {digest for (digest,) in store.state.rows("SELECT digest FROM members WHERE registry = ''")}
    uses = {
        digest: (added, used)
        for digest, added, used in store.state.rows("SELECT digest, added, used FROM blobs")
    }
    leased, at = store.leases.living(), now()
    blobs: list[BlobInfo] = []
    for digest, file in files.items():
        added, used = uses.get(digest, (0, file.modified))
        promised = digest in members and at - added < KEPT_SECONDS
        kept = promised or digest in reachable or digest in leased
        blobs.append(BlobInfo(digest, file.size, max(added, used), kept))
    return sorted(blobs, key=lambda held: (held.used, held.digest))


def _blob_files(paths: StorePaths) -> dict[Digest, FileInfo]:
    found: dict[Digest, FileInfo] = {}
    with translate_os_errors("list", paths.blobs):
        for digest in paths.held():
            with contextlib.suppress(FileNotFoundError):
                found[digest] = file_info(paths.blob(digest))
    return found
