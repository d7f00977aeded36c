"""A store that may be done without: it fails once, is told once, and everything after goes past it."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.content import BlobReader, BlobStream, Chunk
from blobflow.errors import NotFound, StorageError, StorageFull, StoreLeft
from blobflow.events import Event
from blobflow.oci import Descriptor, digest_of
from blobflow.transports.store import BestEffortCache, Store, StoreCache

CONTENT = bytes(range(256)) * 12_000
BLOB = Descriptor("application/octet-stream", digest_of(CONTENT), len(CONTENT))
OTHER = Descriptor("application/octet-stream", digest_of(b"other"), 5)


class Origin:
    """A source of one blob that counts how often it is opened."""

    def __init__(self, content: bytes = CONTENT, fails: Exception | None = None) -> None:
        self.content = content
        self.fails = fails
        self.opened = 0

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self.opened += 1
        yield self._chunks(offset)

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        for start in range(offset, len(self.content), 100_000):
            yield self.content[start : start + 100_000]
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def store(tmp_path: Path, told: list[Event]) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store", observer=told.append)
    yield opened
    opened.close()


@pytest.fixture
def cache(store: Store) -> BestEffortCache:
    return BestEffortCache(store, StoreCache(store))


async def read(body: BlobReader, offset: int = 0) -> bytes:
    async with body.open(offset) as chunks:
        return b"".join([bytes(chunk) async for chunk in chunks])


def fill_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, pieces: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "writev", full)


async def test_a_blob_under_way_is_tried_again_past_a_store_that_filled_up(
    cache: BestEffortCache, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_up(monkeypatch)
    origin, other = Origin(), Origin(b"other")
    async with cache.share(BLOB, origin) as body:
        with pytest.raises(StoreLeft, match="the disk is full") as left:
            await read(body)
    assert left.value.retryable
    for _ in range(2):
        async with cache.share(BLOB, origin) as body:
            assert await read(body, 7) == CONTENT[7:]
    async with cache.share(OTHER, other) as body:
        assert await read(body) == b"other"
    assert (origin.opened, other.opened, len(told)) == (3, 1, 1)


async def test_a_lease_that_can_not_be_noted_keeps_no_blob_from_its_target(
    store: Store, cache: BestEffortCache, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(digest: object) -> str:
        raise StorageFull("no room for a lease")

    monkeypatch.setattr(store.leases, "acquire", full)
    async with cache.share(BLOB, Origin()) as body:
        assert await read(body) == CONTENT
    assert len(told) == 1


async def test_what_the_store_holds_is_still_read_from_it(
    store: Store, cache: BestEffortCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.blobs.write_small(b"other", OTHER.digest)
    fill_up(monkeypatch)
    async with cache.share(BLOB, Origin()) as body:
        with pytest.raises(StoreLeft):
            await read(body)
    origin = Origin(b"other")
    async with cache.share(OTHER, origin) as body:
        assert await read(body) == b"other"
    assert origin.opened == 0


async def test_a_held_blob_that_does_not_come_out_is_read_from_its_source(
    store: Store, cache: BestEffortCache, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.blobs.write_small(b"other", OTHER.digest)
    monkeypatch.setattr(os, "pread", broken)
    origin = Origin(b"other")
    async with cache.share(OTHER, origin) as body:
        with pytest.raises(StoreLeft, match="input/output error"):
            await read(body)
    assert not await cache.has(OTHER)
    async with cache.share(OTHER, origin) as body:
        assert await read(body) == b"other"
    assert (origin.opened, len(told)) == (1, 1)


async def test_a_store_that_can_not_be_looked_at_holds_nothing(
    store: Store, cache: BestEffortCache, told: list[Event]
) -> None:
    (store.root / "blobs").rename(store.root / "moved")
    (store.root / "blobs").write_text("a file")
    (store.root / "partials").rmdir()
    with pytest.raises(StorageError):
        await StoreCache(store).has(OTHER)
    assert not await cache.has(OTHER)
    assert await cache.partial_sizes([OTHER]) == {}
    assert len(told) == 1


async def test_the_source_s_errors_are_its_own(cache: BestEffortCache, told: list[Event]) -> None:
    origin = Origin(CONTENT[:-1], fails=NotFound("no such blob"))
    with pytest.raises(NotFound, match="no such blob"):
        async with cache.share(BLOB, origin) as body:
            await read(body)
    assert told == []
