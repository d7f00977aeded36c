"""What a sweep that is under way must leave, also of what only comes while it goes on."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from blobflow.errors import StorageError
from blobflow.oci import Digest, digest_of, media
from blobflow.transports.store import Store, promises
from blobflow.transports.store.clock import now
from blobflow.transports.store.gc import collect_garbage
from blobflow.transports.store.promises import KEPT_SECONDS
from blobflow.transports.store.reachability import ReachableDigests
from blobflow.transports.store.repository_index import HOLD_SECONDS

REPOSITORY = "r"
OCTETS = "application/octet-stream"


def described(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def image_of(layer: bytes, *, subject: bytes | None = None) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": described(b"{}", media.OCI_CONFIG),
        "layers": [described(layer, OCTETS)],
    }
    if subject is not None:
        document["subject"] = described(subject, media.OCI_MANIFEST)
    return json.dumps(document).encode()


def index_of(child: bytes, media_type: str) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": [described(child, media_type)],
    }
    return json.dumps(document).encode()


def hold_long_ago(store: Store, *blobs: bytes) -> None:
    """Blobs of the repository that were promised longer ago than a promise is good for."""
    for blob in blobs:
        store.blobs.write_small(blob, digest_of(blob))
        store.repositories.add(REPOSITORY, digest_of(blob))
    forget_promises(store)


def forget_promises(store: Store) -> None:
    store.state.write("UPDATE blobs SET added = ?, used = 1", now() - KEPT_SECONDS - 1)


async def put(store: Store, raw: bytes, media_type: str, tag: str | None = None) -> Digest:
    digest = digest_of(raw)
    assert not await promises.put_manifest(
        store, REPOSITORY, raw, digest, media_type, tags=[tag] if tag else []
    )
    return digest


async def test_a_manifest_that_comes_after_what_refers_to_it_keeps_what_it_names(store: Store) -> None:
    hold_long_ago(store, b"{}", b"layer", b"signature")
    image = image_of(b"layer")
    await put(store, image_of(b"signature", subject=image), media.OCI_MANIFEST, "signature")
    reachable = ReachableDigests(store)
    assert digest_of(b"layer") not in reachable
    await put(store, image, media.OCI_MANIFEST)
    reachable.catch_up()
    assert digest_of(b"layer") in reachable


async def test_a_manifest_that_comes_after_the_sparse_index_that_lists_it_keeps_what_it_names(
    store: Store,
) -> None:
    hold_long_ago(store, b"{}", b"layer")
    image = image_of(b"layer")
    await put(store, index_of(image, media.OCI_MANIFEST), media.OCI_INDEX, "all")
    reachable = ReachableDigests(store)
    await put(store, image, media.OCI_MANIFEST)
    reachable.catch_up()
    assert digest_of(b"layer") in reachable


async def test_a_manifest_that_was_a_layer_before_keeps_what_it_names(store: Store) -> None:
    image = image_of(b"layer")
    hold_long_ago(store, b"{}", b"layer", image)
    await put(store, image_of(image), media.OCI_MANIFEST, "carrier")
    reachable = ReachableDigests(store)
    assert digest_of(b"layer") not in reachable
    await put(store, image, media.OCI_MANIFEST)
    reachable.catch_up()
    assert digest_of(b"layer") in reachable


async def test_a_manifest_that_comes_again_after_it_was_damaged_keeps_what_it_names(store: Store) -> None:
    hold_long_ago(store, b"{}", b"layer", b"signature")
    image = image_of(b"layer")
    digest = await put(store, image, media.OCI_MANIFEST)
    store.blobs.path_of(digest).write_bytes(b"")
    reachable = ReachableDigests(store)
    await put(store, image, media.OCI_MANIFEST)
    reachable.catch_up()
    assert digest_of(b"layer") in reachable


@pytest.mark.parametrize("called", [OCTETS, "application/vnd.example.image.v1+json"])
async def test_a_manifest_that_its_index_calls_something_else_is_read_for_what_it_is_here(
    store: Store, called: str
) -> None:
    hold_long_ago(store, b"{}", b"layer")
    image = image_of(b"layer")
    await put(store, image, media.OCI_MANIFEST)
    await put(store, index_of(image, called), media.OCI_INDEX, "all")
    forget_promises(store)
    await collect_garbage(store, 0)
    assert store.blobs.size_of(digest_of(b"layer")) is not None


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM])
async def test_nothing_goes_while_a_manifest_can_t_be_read_that_may_name_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    hold_long_ago(store, b"{}", b"layer")
    image = await put(store, image_of(b"layer"), media.OCI_MANIFEST, "image")
    forget_promises(store)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == store.blobs.path_of(image):
            raise OSError(code, os.strerror(code))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(StorageError, match="can't read"):
        await collect_garbage(store, 0)
    assert store.blobs.size_of(digest_of(b"layer")) is not None
    monkeypatch.undo()
    await collect_garbage(store, 0)
    assert store.blobs.size_of(digest_of(b"layer")) is not None


@pytest.mark.parametrize("how", ["found", "mounted"])
async def test_a_manifest_that_is_promised_as_a_blob_keeps_what_it_names(store: Store, how: str) -> None:
    """A HEAD of it as a manifest, within ten minutes, notes nothing more."""
    hold_long_ago(store, b"{}", b"layer")
    image = await put(store, image_of(b"layer"), media.OCI_MANIFEST)
    forget_promises(store)
    reachable = ReachableDigests(store)
    if how == "found":
        assert await promises.promise_existing(store, image)
    else:
        assert await promises.mount_blob(store, "other", image, REPOSITORY)
    assert await promises.promise_existing(store, image)
    reachable.catch_up()
    assert digest_of(b"layer") in reachable


def holds(store: Store) -> list[int]:
    return [number for (number,) in store.state.rows("SELECT number FROM holds ORDER BY number")]


@pytest.mark.parametrize(
    ("ages", "left"),
    [
        ([], []),
        ([0, 0], [1, 2]),
        ([HOLD_SECONDS - 100, 0], [1, 2]),
        ([HOLD_SECONDS + 100, HOLD_SECONDS + 100, 50, 0], [3, 4]),
        ([HOLD_SECONDS + 100], []),
        ([-10_000, -10_000, 0], [3]),  # the clock was ahead
        ([50, -5, 0], [1, 2, 3]),
    ],
)
def test_what_is_old_or_from_the_future_is_forgotten(store: Store, ages: list[int], left: list[int]) -> None:
    for age in ages:
        store.state.write("INSERT INTO holds(digest, at) VALUES ('sha256:x', ?)", now() - age)
    store.repositories.forget_old_roots()
    assert holds(store) == left


async def test_what_was_forgotten_during_a_sweep_is_found_all_the_same(store: Store) -> None:
    hold_long_ago(store, b"{}", b"layer")
    reachable = ReachableDigests(store)
    await put(store, image_of(b"layer"), media.OCI_MANIFEST, "image")
    store.state.write("UPDATE holds SET at = at + 10000")
    store.repositories.forget_old_roots()
    assert holds(store) == []
    reachable.catch_up()
    assert digest_of(b"layer") in reachable


def test_forgetting_looks_at_no_more_than_goes(store: Store) -> None:
    with store.state.transaction():
        for _ in range(20_000):
            store.state.write("INSERT INTO holds(digest, at) VALUES ('sha256:x', ?)", now())
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection = store.state._connection
    assert connection is not None
    connection.set_progress_handler(count, 100)
    store.repositories.forget_old_roots()
    connection.set_progress_handler(None, 0)
    assert steps < 10
    assert len(holds(store)) == 20_000


@pytest.mark.parametrize("how", ["found", "mounted", "shown"])
@pytest.mark.parametrize("in_threads", [False, True])
async def test_a_file_without_a_row_is_known_before_it_is_promised(
    store: Store, how: str, in_threads: bool
) -> None:
    """As it is left where a process dies between the rename and the end of its transaction."""
    blob = digest_of(b"blob")
    hold_long_ago(store, b"blob")
    store.state.write("DELETE FROM blobs")
    if in_threads:
        store.commit_in_threads()
    match how:
        case "found":
            assert await promises.promise_existing(store, blob)
        case "mounted":
            assert await promises.mount_blob(store, "other", blob, REPOSITORY)
        case _:
            assert await promises.link_blob(store, "other", blob)
    await collect_garbage(store, 0)
    assert store.blobs.size_of(blob) is not None


async def test_a_damaged_file_without_a_row_is_not_promised(store: Store) -> None:
    blob = digest_of(b"blob")
    hold_long_ago(store, b"blob")
    store.state.write("DELETE FROM blobs")
    store.blobs.path_of(blob).write_bytes(b"blub")
    assert not await promises.promise_existing(store, blob)
    assert not await promises.mount_blob(store, "other", blob, REPOSITORY)
    assert store.blobs.size_of(blob) is None


async def test_a_manifest_is_not_put_over_what_a_sweep_that_died_had_moved_away(store: Store) -> None:
    """Between the server's own look at its children and the transaction that puts it."""
    hold_long_ago(store, b"{}", b"layer")
    needed = [digest_of(b"{}"), digest_of(b"layer")]
    assert store.blobs.condemn(digest_of(b"layer")) is not None  # and no row is deleted
    raw = image_of(b"layer")
    missing = await promises.put_manifest(
        store, REPOSITORY, raw, digest_of(raw), media.OCI_MANIFEST, tags=["1"], needed=needed
    )
    assert missing == [digest_of(b"layer")]
    assert store.repositories.resolve(REPOSITORY, "1") is None
    assert store.blobs.size_of(digest_of(raw)) is None


async def test_what_an_earlier_version_let_in_keeps_what_it_names(store: Store) -> None:
    """A document that is refused today is no reason to drop what its clients were promised."""
    hold_long_ago(store, b"{}", b"layer")
    document = json.loads(image_of(b"layer")) | {"manifests": [], "schemaVersion": 7}
    root = await put(store, json.dumps(document).encode(), media.OCI_MANIFEST, "old")
    await collect_garbage(store, 0)
    assert all(
        store.blobs.size_of(digest) is not None for digest in (root, digest_of(b"{}"), digest_of(b"layer"))
    )
