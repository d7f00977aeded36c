"""Leases, gc, verify, ls and du: what stays, what goes, and in which order."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from blobflow.errors import IntegrityError, StorageError
from blobflow.oci import Digest, digest_of, media
from blobflow.transports.store import Store, gc, inventory, leases, partial_files, partial_sweep
from blobflow.transports.store.clock import now
from blobflow.transports.store.gc import collect_garbage
from blobflow.transports.store.inventory import disk_usage, list_blobs, verify_blobs
from blobflow.transports.store.leases import LEASE_SECONDS, boot, is_alive
from blobflow.transports.store.partial_files import try_lock
from blobflow.transports.store.partial_sweep import PARTIAL_SECONDS
from blobflow.transports.store.promises import KEPT_SECONDS
from blobflow.transports.store.state.database import State
from tests.deadlines import HANGS_AFTER

HERE = "boot-1/pid:[1]"
LONG_AGO = 1_000_000


def put(store: Store, content: bytes, used: int = LONG_AGO) -> Digest:
    """A blob that was added and used last at a Unix second."""
    digest = digest_of(content)
    store.blobs.write_small(content, digest)
    store.state.write("UPDATE blobs SET added = ?, used = ? WHERE digest = ?", LONG_AGO, used, digest)
    return digest


def descriptor(
    store: Store, digest: Digest, media_type: str = "application/octet-stream"
) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": store.blobs.size_of(digest) or 0}


def put_image(store: Store, name: str, *, subject: Digest | None = None) -> tuple[Digest, set[Digest]]:
    """An image manifest with a config and two layers; its digest, and all that it needs with itself."""
    config = put(store, f"config of {name}".encode())
    layers = [put(store, f"layer {number} of {name}".encode()) for number in range(2)]
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": descriptor(store, config, media.OCI_CONFIG),
        "layers": [descriptor(store, layer) for layer in layers],
    }
    if subject is not None:
        document["subject"] = descriptor(store, subject, media.OCI_MANIFEST)
    digest = put(store, json.dumps(document).encode())
    return digest, {digest, config, *layers}


def put_index(store: Store, children: list[Digest]) -> Digest:
    """An index that calls all of its children image manifests, be they or not."""
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": [descriptor(store, child, media.OCI_MANIFEST) for child in children],
    }
    return put(store, json.dumps(document).encode())


def held(store: Store) -> set[Digest]:
    return {blob.digest for blob in list_blobs(store)}


@pytest.mark.parametrize(
    ("pid", "holder", "age", "alive"),
    [
        (os.getpid(), HERE, 0, True),
        (os.getpid(), HERE, LEASE_SECONDS, True),
        (os.getpid(), HERE, LEASE_SECONDS + 1, False),
        (os.getpid(), HERE, -10_000, True),  # the clock went back
        (0, HERE, 0, False),
        (os.getpid(), "boot-0/pid:[1]", 0, False),
        (0, "boot-1/pid:[2]", 0, True),  # another container: its process numbers are not ours
        (0, "boot-1/pid:[2]", LEASE_SECONDS + 1, False),
    ],
    ids=lambda value: "us" if value == os.getpid() else None,
)
def test_who_is_alive(pid: int, holder: str, age: int, alive: bool) -> None:
    assert is_alive(pid, holder, 5_000_000 - age, at=5_000_000, here=HERE) is alive


def test_a_process_that_is_gone_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=HANGS_AFTER)
    assert not is_alive(process.pid, HERE, 0, at=0, here=HERE)


def test_the_boot_is_the_same_for_all_of_this_process() -> None:
    assert boot() == boot()
    assert "/" in boot()


def test_a_lease_ends_with_its_release_and_a_dead_ones_row_is_removed(store: Store) -> None:
    digest = digest_of(b"x")
    lease = store.leases.acquire_now(digest)
    again = store.leases.acquire_now(digest)
    store.leases.release(lease)
    assert store.leases.living() == {digest}
    store.leases.release(again)
    store.leases.release(again)
    assert store.leases.living() == set()
    store.state.write("INSERT INTO leases VALUES ('old', ?, ?, ?, ?)", digest, os.getpid(), boot(), LONG_AGO)
    assert store.leases.living() == set()
    store.leases.sweep()
    assert store.state.rows("SELECT * FROM leases") == []


async def test_a_dead_holder_whose_clock_was_ahead_is_known_for_dead_a_lease_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock went back: what lives in another namespace is never taken for dead, but has to renew."""
    digest = put(store, b"held")
    elsewhere = f"{boot().partition('/')[0]}/pid:[1]"
    store.state.write("INSERT INTO leases VALUES ('far', ?, 1, ?, ?)", digest, elsewhere, 9_000_000_000)
    assert (await collect_garbage(store, 0)).blobs == 0
    later = now() + LEASE_SECONDS + 2
    monkeypatch.setattr(leases, "now", lambda: later)
    assert (await collect_garbage(store, 0)).blobs == 1


def test_leases_are_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.leases.acquire_now(digest_of(b"x"))
    monkeypatch.setattr(leases, "now", lambda: 4_000_000_000)
    store.leases.renew()
    assert store.state.rows("SELECT heartbeat FROM leases") == [(4_000_000_000,)]


async def test_while_a_loop_runs_leases_renew_themselves_and_stop_with_the_last(store: Store) -> None:
    lease = store.leases.acquire_now(digest_of(b"x"))
    timer = store.leases._timer
    assert timer is not None
    store.leases._beat()
    assert store.leases._timer is not None
    store.leases.release(lease)
    assert store.leases._timer is None
    timer.cancel()


def test_another_open_store_sees_the_leases_and_closing_gives_them_back(store: Store) -> None:
    other = Store.open(store.root)
    other.leases.acquire_now(digest_of(b"x"))
    assert store.leases.living() == {digest_of(b"x")}
    other.close()
    assert store.leases.living() == set()


async def test_gc_without_a_bound_evicts_nothing(store: Store) -> None:
    put(store, b"a")
    swept = await collect_garbage(store)
    assert (swept.blobs, swept.partials, swept.left_bytes) == (0, 0, 1)


async def test_gc_evicts_the_least_recently_used_first_and_no_more_than_it_must(store: Store) -> None:
    newest, oldest, middle = (
        put(store, b"n" * 10, 300),
        put(store, b"o" * 10, 100),
        put(store, b"m" * 10, 200),
    )
    for digest, used in ((newest, 300), (oldest, 100), (middle, 200)):
        store.state.write("UPDATE blobs SET added = 1, used = ? WHERE digest = ?", used, digest)
    assert [blob.digest for blob in list_blobs(store)] == [oldest, middle, newest]
    swept = await collect_garbage(store, 20)
    assert (swept.blobs, swept.blob_bytes, swept.left_bytes) == (1, 10, 20)
    assert held(store) == {middle, newest}
    assert store.state.rows("SELECT COUNT(*) FROM blobs") == [(2,)]


async def test_reading_a_blob_saves_it_from_being_the_next_to_go(store: Store) -> None:
    read, unread = put(store, b"r" * 10, LONG_AGO), put(store, b"u" * 10, LONG_AGO + 1)
    store.blobs.read_small(read)
    await collect_garbage(store, 10)
    assert held(store) == {read}
    assert unread not in held(store)


async def test_gc_writes_the_uses_itself_before_it_chooses(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a server a thread writes them in its own time, which may be between gc's two looks."""
    held, used = put(store, b"held", LONG_AGO + 1), put(store, b"used")
    monkeypatch.setattr(State, "later", lambda state, work: None)
    store.blobs.mark_used(used)
    await collect_garbage(store, 4)
    assert [store.blobs.size_of(digest) for digest in (held, used)] == [None, 4]


async def test_gc_never_evicts_what_a_root_reaches(store: Store) -> None:
    amd64, first = put_image(store, "amd64")
    arm64, second = put_image(store, "arm64")
    index = put_index(store, [amd64, arm64, digest_of(b"a child that is not here")])
    outer = put_index(store, [index])
    _, loose = put_image(store, "loose")
    store.repositories.set_tag("repository", "latest", outer)
    swept = await collect_garbage(store, 0)
    assert held(store) == {outer, index} | first | second
    assert swept.blobs == len(loose)
    assert swept.left_bytes > 0
    store.repositories.remove_tag("repository", "latest")
    await collect_garbage(store, 0)
    assert held(store) == set()


async def test_gc_keeps_what_refers_to_a_root_although_nothing_tags_it(store: Store) -> None:
    image, needs = put_image(store, "image")
    signature, its = put_image(store, "signature", subject=image)
    attestation, too = put_image(store, "of the signature", subject=signature)
    _, loose = put_image(store, "loose", subject=digest_of(b"nothing here"))
    for digest in (image, signature, attestation):
        store.repositories.add("repository", digest, media.OCI_MANIFEST)
    store.repositories.set_tag("repository", "latest", image)
    await collect_garbage(store, 0)
    assert held(store) == needs | its | too
    assert not loose & held(store)


async def test_a_damaged_manifest_reaches_nothing_and_fails_nothing(store: Store) -> None:
    root = put(store, b"not a manifest")
    store.repositories.set_tag("repository", "latest", root)
    put(store, b"other")
    await collect_garbage(store, 0)
    assert held(store) == {root}


async def test_gc_leaves_leased_blobs_to_their_holders(store: Store) -> None:
    leased, free = put(store, b"leased"), put(store, b"free")
    other = Store.open(store.root)
    lease = other.leases.acquire_now(leased)
    await collect_garbage(store, 0)
    assert held(store) == {leased}
    other.leases.release(lease)
    await collect_garbage(store, 0)
    assert held(store) == set()
    other.close()
    assert free not in held(store)


async def test_gc_evicts_others_in_the_place_of_what_is_leased(store: Store) -> None:
    oldest, newest = put(store, b"old"), put(store, b"new", LONG_AGO + 1)
    store.leases.acquire_now(oldest)
    assert {blob.digest: blob.kept for blob in list_blobs(store)} == {oldest: True, newest: False}
    await collect_garbage(store, 3)
    assert held(store) == {oldest}


async def test_a_lease_taken_after_gc_has_chosen_still_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = put(store, b"wanted")
    chosen = list_blobs(store)
    store.leases.acquire_now(wanted)
    monkeypatch.setattr(gc, "list_with", lambda *_: chosen)
    swept = await collect_garbage(store, 0)
    assert swept.blobs == 0
    assert held(store) == {wanted}


async def test_what_was_just_pushed_here_is_safe_until_its_tag_had_the_time_to_come(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = put(store, b"pushed")
    store.repositories.add("repository", pushed)
    for module in (gc, inventory):
        monkeypatch.setattr(module, "now", lambda: LONG_AGO + KEPT_SECONDS - 1)
    await collect_garbage(store, 0)
    assert held(store) == {pushed}
    for module in (gc, inventory):
        monkeypatch.setattr(module, "now", lambda: LONG_AGO + KEPT_SECONDS)
    await collect_garbage(store, 0)
    assert held(store) == set()
    assert store.repositories.media_type_of("repository", pushed) is None


async def test_gc_sweeps_dead_partials_after_their_time_and_spares_the_living(store: Store) -> None:
    living, fresh, stale = (store.partials.begin(digest_of(name)) for name in (b"living", b"fresh", b"stale"))
    for each in (living, fresh, stale):
        each.write(b"some bytes")
        each.flush()
    fresh.suspend()
    stale.suspend()
    unknown = store.paths.partial(None, "feedfeedfeedfeed")
    unknown.write_bytes(b"without a row")
    for path in (living.path, stale.path, unknown):
        os.utime(path, (LONG_AGO, LONG_AGO))
    swept = await collect_garbage(store)
    assert (swept.partials, swept.partial_bytes) == (2, len(b"some bytes") + len(b"without a row"))
    assert set(store.paths.partials.iterdir()) == {living.path, fresh.path}
    living.abort()


async def test_a_partial_from_the_future_is_left_alone_for_a_day(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock went back: nothing is swept too early, and at worst a day too late."""
    writer = store.partials.begin(digest_of(b"x"))
    writer.suspend()
    os.utime(writer.path, (9_000_000_000, 9_000_000_000))
    assert (await collect_garbage(store)).partials == 0
    later = now() + PARTIAL_SECONDS + 2
    monkeypatch.setattr(partial_sweep, "now", lambda: later)
    assert (await collect_garbage(store)).partials == 1


async def test_files_without_rows_are_counted_and_evicted_too(store: Store) -> None:
    orphan = digest_of(b"orphan")
    store.blobs.path_of(orphan).write_bytes(b"orphan")
    (store.paths.blobs / "sha256" / "not a digest").write_bytes(b"left alone")
    gone = put(store, b"gone")
    store.blobs.path_of(gone).unlink()
    assert held(store) == {orphan}
    assert (await collect_garbage(store, 0)).blobs == 1
    assert not store.blobs.path_of(orphan).exists()
    assert store.state.rows("SELECT * FROM blobs") == []
    assert (store.paths.blobs / "sha256" / "not a digest").exists()


async def test_gc_refuses_a_store_opened_read_only(store: Store) -> None:
    reader = Store.open(store.root, read_only=True)
    with pytest.raises(StorageError, match="read-only"):
        await collect_garbage(reader, 0)
    reader.close()


async def test_verify_hashes_everything_and_drops_what_is_damaged(store: Store) -> None:
    good, bad = put(store, b"good"), put(store, b"bad one")
    store.blobs.path_of(bad).write_bytes(b"bad two")
    found = {blob.digest: error async for blob, error in verify_blobs(store)}
    assert found[good] is None
    assert isinstance(found[bad], IntegrityError)
    assert held(store) == {good}


async def test_verify_drops_nothing_in_a_store_opened_read_only(store: Store) -> None:
    bad = put(store, b"bad one")
    store.blobs.path_of(bad).write_bytes(b"bad two")
    reader = Store.open(store.root, read_only=True)
    assert [type(error) async for _, error in verify_blobs(reader)] != [type(None)]
    reader.close()
    assert held(store) == {bad}


def test_du_adds_up(store: Store) -> None:
    kept, loose = put(store, b"12345"), put(store, b"123")
    store.repositories.set_tag("repository", "latest", kept)
    writer = store.partials.begin()
    writer.write(b"1234567")
    writer.flush()
    usage = disk_usage(store)
    assert (usage.blobs, usage.blob_bytes, usage.kept_bytes) == (2, 8, 5)
    assert (usage.partials, usage.partial_bytes) == (1, 7)
    assert usage.free_bytes > 0
    assert {blob.digest: blob.kept for blob in list_blobs(store)} == {kept: True, loose: False}
    writer.abort()


@pytest.mark.parametrize("held", [True, False], ids=["while it is swept", "after it was swept"])
async def test_a_partial_that_is_swept_before_it_is_locked_is_begun_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """A blob that is held is pushed again: its new partial is swept as a dead one, unless it is locked."""
    content = b"again" * 1000
    locked: list[int] = []

    def sweep_first(fd: int) -> bool:
        if locked:
            return try_lock(fd)
        [path] = store.paths.partials.iterdir()
        locked.append(os.open(path, os.O_RDONLY))
        assert try_lock(locked[0])
        if not held:
            path.unlink()
            os.close(locked[0])
            return try_lock(fd)
        taken = try_lock(fd)
        path.unlink()
        return taken

    monkeypatch.setattr(partial_files, "try_lock", sweep_first)
    begun = store.partials.begin(digest_of(content))
    if held:
        os.close(locked[0])
    begun.write(content)
    await begun.commit(digest_of(content))
    assert store.blobs.size_of(digest_of(content)) == len(content)
    assert not [*store.paths.partials.iterdir()]
