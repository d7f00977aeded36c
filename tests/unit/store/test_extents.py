"""Bytes of the store that go by sendfile: which may, in what pieces, and what becomes of damaged ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.content import BlobReader, BlobStream, Chunk, Counter, HasExtents, Notice, Tap, tapped
from blobflow.errors import ConnectionLost, IntegrityError, NotFound, StorageError
from blobflow.oci import Descriptor, digest_of
from blobflow.transports.store import Store, StoreCache

MIB = 1024 * 1024
CONTENT = os.urandom(5 * MIB + 7)
BLOB = Descriptor("application/octet-stream", digest_of(CONTENT), len(CONTENT))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store")
    opened.blobs.write_small(CONTENT, BLOB.digest)
    yield opened
    opened.close()


async def extents_of(stream: BlobStream, most: int = MIB) -> list[bytes]:
    """All of a stream's bytes, had as extents; a list of what each had."""
    assert isinstance(stream, HasExtents)
    found: list[bytes] = []
    try:
        while (extent := await stream.next_extent(most)) is not None:
            found.append(os.pread(extent.fd, len(extent), extent.start))
    except StopAsyncIteration:
        return found
    raise AssertionError("bytes that have to be had as a chunk")


async def test_a_blob_goes_by_extents_once_it_was_checked(store: Store) -> None:
    async with store.blobs.open(BLOB.digest) as stream:
        assert isinstance(stream, HasExtents)
        assert await stream.next_extent(MIB) is None
        assert b"".join([bytes(chunk) async for chunk in stream]) == CONTENT
    async with store.blobs.open(BLOB.digest) as stream:
        pieces = await extents_of(stream)
        assert b"".join(pieces) == CONTENT and max(map(len, pieces)) == MIB
    async with store.blobs.open(BLOB.digest, 100, 2 * MIB) as stream:
        assert b"".join(await extents_of(stream)) == CONTENT[100 : 2 * MIB]


@pytest.mark.parametrize("part", [(1, None), (0, MIB)])
async def test_a_part_that_was_read_is_not_the_whole(store: Store, part: tuple[int, int | None]) -> None:
    async with store.blobs.open(BLOB.digest, *part) as stream:
        assert [chunk async for chunk in stream]
    async with store.blobs.open(BLOB.digest) as stream:
        assert isinstance(stream, HasExtents) and await stream.next_extent(MIB) is None


async def test_chunks_and_extents_take_turns(store: Store) -> None:
    await store.blobs.check(BLOB.digest)
    async with store.blobs.open(BLOB.digest) as stream:
        assert isinstance(stream, HasExtents)
        got = bytes(await anext(aiter(stream)))
        extent = await stream.next_extent(1000)
        assert extent is not None and len(extent) == 1000
        got += os.pread(extent.fd, 1000, extent.start)
        got += bytes(await anext(aiter(stream)))
        assert b"".join([got, *await extents_of(stream)]) == CONTENT


async def test_what_breaks_is_checked_again_and_dropped_if_it_is_damaged(store: Store) -> None:
    """A disk may fail between the check and the sending; then the peer finds out."""
    await store.blobs.check(BLOB.digest)
    with store.blobs.path_of(BLOB.digest).open("r+b") as file:
        file.seek(MIB)
        file.write(b"damaged")
    with pytest.raises(ConnectionLost):
        async with store.blobs.open(BLOB.digest) as stream:
            await extents_of(stream)
            raise ConnectionLost("the digest is another")
    with pytest.raises(IntegrityError):
        async with store.blobs.open(BLOB.digest) as stream:
            async for _ in stream:
                pass
    with pytest.raises(NotFound):
        async with store.blobs.open(BLOB.digest):
            pass


async def test_a_file_that_was_cut_short_since_it_was_checked_is_dropped(store: Store) -> None:
    await store.blobs.check(BLOB.digest)
    os.truncate(store.blobs.path_of(BLOB.digest), 3 * MIB)
    async with store.blobs.open(BLOB.digest) as stream:
        assert isinstance(stream, HasExtents) and await stream.next_extent(MIB) is None
        with pytest.raises(IntegrityError):
            await anext(aiter(stream))
    assert store.blobs.size_of(BLOB.digest) is None


async def test_a_stream_that_was_left_gives_no_extent(store: Store) -> None:
    await store.blobs.check(BLOB.digest)
    async with store.blobs.open(BLOB.digest) as stream:
        assert isinstance(stream, HasExtents)
        await stream.aclose()
        with pytest.raises(StorageError):
            await stream.next_extent(MIB)


class Held:
    """A source that gives all but the end, which waits for `more`."""

    def __init__(self) -> None:
        self.more = asyncio.Event()

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async def chunks() -> AsyncIterator[Chunk]:
            yield CONTENT[offset : 4 * MIB]
            await self.more.wait()
            yield CONTENT[4 * MIB :]

        yield chunks()  # type: ignore[misc]


async def test_readers_behind_a_writer_get_extents_of_what_is_visible(tmp_path: Path) -> None:
    empty = Store.open(tmp_path / "empty")
    try:
        source = Held()
        async with StoreCache(empty).share(BLOB, source) as reader, reader.open(MIB) as stream:
            assert isinstance(stream, HasExtents)
            got = b""
            while len(got) < 3 * MIB:
                extent = await stream.next_extent(MIB)
                assert extent is not None
                got += os.pread(extent.fd, len(extent), extent.start)
            waiting = asyncio.ensure_future(_next(stream))
            await asyncio.sleep(0)
            assert not waiting.done()
            source.more.set()
            got += await waiting
            assert b"".join([got, *await extents_of(stream)]) == CONTENT[MIB:]
    finally:
        empty.close()


async def _next(stream: HasExtents) -> bytes:
    extent = await stream.next_extent(MIB)
    assert extent is not None
    return os.pread(extent.fd, len(extent), extent.start)


class _Looks(Tap):
    def feed(self, chunk: Chunk) -> None:
        pass


async def test_taps_that_count_see_extents_and_those_that_look_get_chunks(store: Store) -> None:
    await store.blobs.check(BLOB.digest)
    counted: list[int] = []
    ends: list[None] = []
    reader: BlobReader = StoreCache(store).reader(BLOB)
    async with reader.open() as stream:
        counting = tapped(stream, Counter(counted.append), Notice(lambda: ends.append(None)))
        assert b"".join(await extents_of(counting)) == CONTENT
        assert (sum(counted), ends) == (len(CONTENT), [None])
    async with reader.open() as stream:
        looked = tapped(stream, Counter(counted.append), _Looks())
        assert isinstance(looked, HasExtents) and await looked.next_extent(MIB) is None
        assert b"".join([bytes(chunk) async for chunk in looked]) == CONTENT
