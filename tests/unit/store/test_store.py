"""Blobs in the store: written through a partial, read again with every block checked, dropped if damaged."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blobflow.errors import DigestMismatch, IntegrityError, NotFound, SizeMismatch, StorageError
from blobflow.oci import Digest, digest_of
from blobflow.transports.store import Store
from blobflow.transports.store.block_checksums import BLOCK, BlockChecksums

BIG = bytes(range(256)) * (9 * 4096)  # 9 MiB: two whole blocks and one that is not
DIGEST = digest_of(BIG)


async def put(store: Store, content: bytes, digest: Digest | None = None) -> Digest:
    named = digest or digest_of(content)
    writer = store.partials.begin(named)
    writer.write(content)
    await writer.commit(named, len(content))
    return named


async def read(store: Store, digest: Digest, offset: int = 0, end: int | None = None) -> bytes:
    async with store.blobs.open(digest, offset, end) as chunks:
        return b"".join([bytes(chunk) async for chunk in chunks])


def partials(store: Store) -> list[str]:
    return sorted(path.name for path in store.paths.partials.iterdir())


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


async def test_what_is_committed_is_held_whole_and_leaves_no_partial(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    for at in range(0, len(BIG), 100_000):
        writer.write(memoryview(BIG)[at : at + 100_000])
        assert store.blobs.size_of(DIGEST) is None
    assert writer.offset == len(BIG)
    await writer.commit(DIGEST, len(BIG))
    assert store.blobs.size_of(DIGEST) == len(BIG)
    assert store.blobs.path_of(DIGEST).read_bytes() == BIG
    assert partials(store) == []


async def test_an_upload_goes_on_in_one_writer_over_many_requests(store: Store) -> None:
    writer = store.partials.begin()
    offsets = []
    for at in range(0, len(BIG), 3 * 1024 * 1024):
        offsets.append(writer.offset)
        writer.write(BIG[at : at + 3 * 1024 * 1024])
    await writer.commit(DIGEST)
    assert offsets == [0, 3 * 1024 * 1024, 6 * 1024 * 1024]
    assert await read(store, DIGEST) == BIG


async def test_a_memoryview_may_be_overwritten_after_the_write(store: Store) -> None:
    buffer = bytearray(b"first")
    writer = store.partials.begin()
    writer.write(memoryview(buffer))
    buffer[:] = b"other"
    await writer.commit(digest_of(b"first"))
    assert store.blobs.read_small(digest_of(b"first")) == b"first"


async def test_wrong_bytes_are_refused_and_removed(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG[:-1] + b"?")
    with pytest.raises(DigestMismatch) as caught:
        await writer.commit(DIGEST, len(BIG))
    assert caught.value.expected == DIGEST
    assert store.blobs.size_of(DIGEST) is None
    assert partials(store) == []


async def test_a_wrong_size_is_refused_and_removed(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG)
    with pytest.raises(SizeMismatch):
        await writer.commit(DIGEST, len(BIG) + 1)
    assert store.blobs.size_of(DIGEST) is None
    assert partials(store) == []


@pytest.mark.parametrize("known", [True, False])
async def test_sha512_is_verified_whether_or_not_it_was_known_at_first(store: Store, known: bool) -> None:
    digest = digest_of(BIG, "sha512")
    writer = store.partials.begin(digest if known else None)
    writer.write(BIG)
    await writer.commit(digest)
    assert await read(store, digest) == BIG
    wrong = store.partials.begin(digest if known else None)
    wrong.write(BIG[1:])
    with pytest.raises(DigestMismatch):
        await wrong.commit(digest)
    assert partials(store) == []


async def test_an_aborted_writer_leaves_nothing_and_takes_nothing_more(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG)
    writer.abort()
    writer.abort()
    assert partials(store) == []
    with pytest.raises(StorageError, match="takes no more bytes"):
        writer.write(b"x")


async def test_two_writers_of_one_blob_both_succeed(store: Store) -> None:
    first, second = store.partials.begin(DIGEST), store.partials.begin(DIGEST)
    first.write(BIG)
    second.write(BIG)
    await asyncio.gather(first.commit(DIGEST), second.commit(DIGEST))
    assert await read(store, DIGEST) == BIG
    assert partials(store) == []


async def test_a_commit_that_is_cancelled_leaves_the_blob_whole_or_not_at_all(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG)
    task = asyncio.create_task(writer.commit(DIGEST))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.get_running_loop().shutdown_default_executor()
    assert partials(store) == []
    assert store.blobs.path_of(DIGEST).read_bytes() == BIG


async def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, views: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = store.partials.begin(DIGEST)
    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        with pytest.raises(StorageError, match="the disk is full; free some space") as caught:
            writer.write(BIG)
    assert str(writer.path) in str(caught.value)
    assert writer.ended
    assert partials(store) == []


async def test_short_writes_are_gone_on_with(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev

    def a_little(fd: int, views: list[memoryview]) -> int:
        return real(fd, [views[0][:70_001]])

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", a_little)
        await put(store, BIG)
    assert await read(store, DIGEST) == BIG


@pytest.mark.parametrize("failing", ["fsync", "replace"])
async def test_a_commit_that_the_disk_refuses_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = store.partials.begin(DIGEST)
    writer.write(BIG)
    with monkeypatch.context() as patched:
        patched.setattr(os, failing, broken)
        with pytest.raises(StorageError, match="input/output error"):
            await writer.commit(DIGEST)
    assert partials(store) == []
    assert store.blobs.size_of(DIGEST) is None


def test_manifests_are_written_at_once_and_read_verified(store: Store) -> None:
    raw = b'{"schemaVersion": 2}'
    store.blobs.write_small(raw, digest_of(raw))
    assert store.blobs.read_small(digest_of(raw)) == raw
    assert partials(store) == []
    with pytest.raises(DigestMismatch):
        store.blobs.write_small(raw, DIGEST)
    store.blobs.write_small(b"", digest_of(b""))
    assert store.blobs.read_small(digest_of(b"")) == b""


def test_a_damaged_manifest_is_dropped(store: Store) -> None:
    raw = b'{"schemaVersion": 2}'
    store.blobs.write_small(raw, digest_of(raw))
    flip(store.blobs.path_of(digest_of(raw)), 3)
    with pytest.raises(IntegrityError):
        store.blobs.read_small(digest_of(raw))
    assert store.blobs.size_of(digest_of(raw)) is None
    with pytest.raises(NotFound):
        store.blobs.read_small(digest_of(raw))


@pytest.mark.parametrize(
    ("offset", "end"),
    [
        (0, None),
        (0, 0),
        (0, 1),
        (7, 8),
        (BLOCK - 1, BLOCK + 1),
        (BLOCK, 2 * BLOCK),
        (2 * BLOCK + 5, None),
        (len(BIG) - 1, None),
        (len(BIG), None),
        (5, 10 * len(BIG)),
    ],
)
async def test_any_range_is_read(store: Store, offset: int, end: int | None) -> None:
    await put(store, BIG)
    assert await read(store, DIGEST, offset, end) == BIG[offset:end]


@pytest.mark.parametrize(("offset", "end"), [(0, None), (BLOCK + 9, None), (BLOCK + 1, BLOCK + 2)])
async def test_a_flipped_bit_drops_the_blob_before_its_block_is_complete(
    store: Store, offset: int, end: int | None
) -> None:
    await put(store, BIG)
    flip(store.blobs.path_of(DIGEST), 2 * BLOCK - 1)
    got = bytearray()
    with pytest.raises(IntegrityError, match="damaged"):
        async with store.blobs.open(DIGEST, offset, end) as chunks:
            async for chunk in chunks:
                got += chunk
    assert offset + len(got) < 2 * BLOCK
    assert bytes(got) == BIG[offset : offset + len(got)]
    assert store.blobs.size_of(DIGEST) is None
    assert await put(store, BIG) == DIGEST
    assert await read(store, DIGEST) == BIG


@pytest.mark.parametrize("size", [0, BLOCK, len(BIG) - 1, len(BIG) + BLOCK])
async def test_a_file_of_another_length_is_damaged(store: Store, size: int) -> None:
    await put(store, BIG)
    os.truncate(store.blobs.path_of(DIGEST), size)
    with pytest.raises(IntegrityError):
        await read(store, DIGEST)
    assert store.blobs.size_of(DIGEST) is None


async def test_check_reads_a_blob_once_and_finds_damage_on_the_first_time(store: Store) -> None:
    await put(store, BIG)
    await store.blobs.check(DIGEST)
    flip(store.blobs.path_of(DIGEST), 5)
    await store.blobs.check(DIGEST)  # free, so it does not look again
    with pytest.raises(IntegrityError):
        await store.blobs.rehash(DIGEST)
    with pytest.raises(NotFound):
        await store.blobs.check(DIGEST)


async def test_a_blob_that_is_dropped_while_it_is_read_is_read_to_its_end(store: Store) -> None:
    await put(store, BIG)
    async with store.blobs.open(DIGEST) as chunks:
        store.blobs.drop(DIGEST)
        assert b"".join([bytes(chunk) async for chunk in chunks]) == BIG
    with pytest.raises(NotFound):
        await read(store, DIGEST)


async def test_a_partial_of_a_dead_writer_is_hashed_again_and_gone_on_with(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG[:5_000_000])
    writer.suspend()
    resumed = await store.partials.resume(DIGEST)
    assert resumed is not None
    assert (resumed.offset, resumed.adopted, resumed.token) == (5_000_000, 5_000_000, writer.token)
    resumed.write(BIG[5_000_000:])
    await resumed.commit(DIGEST, len(BIG))
    assert await read(store, DIGEST) == BIG
    assert partials(store) == []


async def test_a_damaged_partial_is_never_trusted(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG[:5_000_000])
    writer.suspend()
    flip(writer.path, 17)
    resumed = await store.partials.resume(DIGEST)
    assert resumed is not None
    resumed.write(BIG[5_000_000:])
    with pytest.raises(DigestMismatch):
        await resumed.commit(DIGEST)
    assert await store.partials.resume(DIGEST) is None


async def test_a_living_writers_partial_is_not_gone_on_with(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG)
    other = Store.open(store.root)
    assert await store.partials.resume(DIGEST) is None
    assert await other.partials.resume(DIGEST) is None
    other.close()
    writer.abort()


async def test_a_partial_that_is_committed_while_it_is_being_adopted_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG)
    writer.suspend()

    def lock_too_late(fd: int) -> bool:
        writer.path.replace(store.blobs.path_of(DIGEST))
        return True

    with monkeypatch.context() as patched:
        patched.setattr("blobflow.transports.store.partial_files.try_lock", lock_too_late)
        assert await store.partials.resume(DIGEST) is None
    assert store.blobs.path_of(DIGEST).read_bytes() == BIG


async def test_the_longest_partial_is_gone_on_with_and_short_ones_are_not(store: Store) -> None:
    for size in (2_000_000, 6_000_000, 10):
        writer = store.partials.begin(DIGEST)
        writer.write(BIG[:size])
        writer.suspend()
    sizes = []
    while (resumed := await store.partials.resume(DIGEST)) is not None:
        sizes.append(resumed.offset)
        resumed.abort()
    assert sizes == [6_000_000, 2_000_000]


async def test_a_resume_that_is_cancelled_leaves_the_partial_for_the_next(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG)
    writer.suspend()
    task = asyncio.create_task(store.partials.resume(DIGEST))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    resumed = None
    for _ in range(10_000):  # the thread lets go of the file as soon as it has seen that it is to stop
        resumed = await store.partials.resume(DIGEST)
        if resumed is not None:
            break
        await asyncio.to_thread(lambda: None)
    assert resumed is not None
    assert resumed.digest_so_far() == DIGEST
    resumed.abort()


async def test_closing_the_store_keeps_what_writers_had_taken(store: Store) -> None:
    writer = store.partials.begin(DIGEST)
    writer.write(BIG[:3_000_001])
    store.close()
    assert writer.path.read_bytes() == BIG[:3_000_001]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(BIG)), max_size=12))
def test_block_sums_do_not_depend_on_how_the_bytes_are_cut(cuts: list[int]) -> None:
    whole, pieces = BlockChecksums(), BlockChecksums()
    whole.feed(BIG)
    edges = [0, *sorted(cuts), len(BIG)]
    for low, high in itertools.pairwise(edges):
        pieces.feed(memoryview(BIG)[low:high])
    assert pieces.result() == whole.result()
    assert len(whole.result()) == 3 * 8


def test_a_whole_number_of_blocks_has_no_empty_last_sum() -> None:
    sums = BlockChecksums()
    assert sums.result() == b""
    sums.feed(bytes(2 * BLOCK))
    assert len(sums.result()) == 2 * 8
