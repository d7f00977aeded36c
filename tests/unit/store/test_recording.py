"""Recorded reads: what passes the store is there to be gone on with, for as long as that is worth it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.content import BlobReader, BlobStream, Chunk, verified
from blobflow.errors import ConnectionLost, DigestMismatch
from blobflow.oci import Descriptor, digest_of
from blobflow.transports.store import Store, StoreCache
from blobflow.transports.store.partial_files import KEPT_FROM

PIECE = 300_000
CONTENT = b"".join(number.to_bytes(4, "big") for number in range(700_000))  # 2.8 MB, no two blocks alike
BLOB = Descriptor("application/octet-stream", digest_of(CONTENT), len(CONTENT))


class Source:
    """Gives `content` in pieces, from one reused buffer; breaks at `cut` bytes, once."""

    def __init__(self, content: bytes = CONTENT, cut: int | None = None) -> None:
        self.content = content
        self.cut = cut
        self.offsets: list[int] = []

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self.offsets.append(offset)
        chunks = self._chunks(offset)
        yield chunks if offset else verified(chunks, BLOB)

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        buffer = bytearray(PIECE)
        while offset < len(self.content):
            if self.cut is not None and offset >= self.cut:
                self.cut = None
                raise ConnectionLost("cut")
            piece = self.content[offset : offset + PIECE]
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]
            offset += len(piece)


class Recorder:
    """A blob that is recorded while `worth` is True; counts how often that has ended."""

    def __init__(self, cache: StoreCache, source: Source) -> None:
        self.worth = True
        self.ended = 0
        self.reader = cache.recorded(BLOB, source, lambda: self.worth, self._end)

    def _end(self) -> None:
        self.ended += 1


async def read(reader: BlobReader, offset: int = 0) -> bytes:
    async with reader.open(offset) as chunks:
        return b"".join([bytes(chunk) async for chunk in chunks])


async def shared(cache: StoreCache, source: BlobReader) -> bytes:
    async with cache.share(BLOB, source) as body:
        return await read(body)


def partials(store: Store) -> list[int]:
    return [path.stat().st_size for path in store.paths.partials.iterdir()]


async def test_what_arrived_leaves_nothing_in_the_store(store: Store) -> None:
    source = Source()
    recorder = Recorder(StoreCache(store), source)
    async with recorder.reader.open() as chunks:
        first = bytes(await anext(aiter(chunks)))
        assert partials(store) == [len(first)]
        assert first + b"".join([bytes(chunk) async for chunk in chunks]) == CONTENT
    assert (partials(store), recorder.ended, source.offsets) == ([], 1, [0])


async def test_a_read_that_breaks_is_gone_on_with_where_it_broke(store: Store) -> None:
    source, cache = Source(cut=6 * PIECE), StoreCache(store)
    recorder = Recorder(cache, source)
    with pytest.raises(ConnectionLost):
        await read(recorder.reader)
    assert recorder.ended == 1
    assert await shared(cache, recorder.reader) == CONTENT
    assert source.offsets == [0, 6 * PIECE]
    assert partials(store) == []


async def test_a_target_that_breaks_leaves_what_was_read(store: Store) -> None:
    source, cache = Source(), StoreCache(store)
    recorder = Recorder(cache, source)
    with pytest.raises(ConnectionLost, match="target"):
        async with recorder.reader.open() as chunks:
            async for _ in chunks:
                pass
            raise ConnectionLost("target")
    assert await shared(cache, source) == CONTENT
    assert source.offsets == [0]


async def test_a_cancelled_read_and_one_of_a_process_that_died_are_gone_on_with_by_the_next_run(
    store: Store, tmp_path: Path
) -> None:
    source = Source()
    recorder = Recorder(StoreCache(store), source)
    reached = asyncio.Event()

    async def hang() -> None:
        async with recorder.reader.open() as chunks:
            async for _ in chunks:
                if (sum(partials(store))) >= KEPT_FROM:
                    reached.set()
                    await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    await reached.wait()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    (left,) = partials(store)
    store.close()
    again = Store.open(tmp_path / "store")
    try:
        cache = StoreCache(again)
        assert await cache.partial_sizes([BLOB]) == {BLOB.digest: left}
        assert await shared(cache, source) == CONTENT
    finally:
        again.close()
    assert source.offsets == [0, left]


async def test_from_when_it_is_not_worth_it_nothing_is_written_and_what_was_is_removed(store: Store) -> None:
    recorder = Recorder(StoreCache(store), Source())
    async with recorder.reader.open() as chunks:
        await anext(aiter(chunks))
        recorder.worth = False
        rest = b"".join([bytes(chunk) async for chunk in chunks])
        assert (len(rest), partials(store), recorder.ended) == (len(CONTENT) - PIECE, [], 1)
    assert recorder.ended == 1


async def test_bytes_of_another_blob_are_not_kept(store: Store) -> None:
    source, cache = Source(b"\1" + CONTENT[1:]), StoreCache(store)
    with pytest.raises(DigestMismatch):
        await read(Recorder(cache, source).reader)
    assert partials(store) == []
    source.content = CONTENT
    assert await shared(cache, source) == CONTENT
    assert source.offsets == [0, 0]


async def test_a_second_reading_is_not_recorded_and_removes_what_the_first_left(store: Store) -> None:
    """A push may read the blob again by another upload method, without the engine knowing."""
    source = Source(cut=6 * PIECE)
    recorder = Recorder(StoreCache(store), source)
    with pytest.raises(ConnectionLost):
        await read(recorder.reader)
    (left,) = partials(store)
    assert left >= KEPT_FROM
    assert await read(recorder.reader) == CONTENT
    assert (partials(store), recorder.ended) == ([], 1)


async def test_a_source_that_can_not_be_opened_leaves_no_partial(store: Store) -> None:
    class Absent:
        @asynccontextmanager
        async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
            raise ConnectionLost("no")
            yield

    ended: list[None] = []
    reader = StoreCache(store).recorded(BLOB, Absent(), lambda: True, lambda: ended.append(None))
    with pytest.raises(ConnectionLost):
        await read(reader)
    assert partials(store) == []


async def test_a_store_that_fails_ends_the_recording_and_not_the_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(StoreCache(store), Source())

    def full(fd: int, pieces: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("blobflow.transports.store.writer.write_all", full)
    assert await read(recorder.reader) == CONTENT
    assert (partials(store), recorder.ended) == ([], 1)
