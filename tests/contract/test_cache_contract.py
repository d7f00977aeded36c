"""What `blobflow.content.Cache` promises, for every implementation of it.

Each test gets a place to make caches in. A cache made twice over one place stands for two runs, one after the
other or at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from blobflow.content import BlobReader, BlobStream, Cache, verified
from blobflow.errors import BlobflowError, ConnectionLost, Denied, DigestMismatch, NotFound, SizeMismatch
from blobflow.oci import Descriptor, digest_of
from blobflow.transports.store import BestEffortCache, Store, StoreCache

CONTENT = bytes(range(256)) * 12_000  # 3 MB: longer than what any implementation may find too short to keep
BLOB = Descriptor("application/octet-stream", digest_of(CONTENT), len(CONTENT))
CHUNK = 100_000

Make = Callable[[], Cache]


@pytest.fixture(params=["store", "a store that may be done without"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    opened: list[Store] = []

    def over_a_store() -> Cache:
        opened.append(Store.open(tmp_path / "store"))
        cache = StoreCache(opened[-1])
        return cache if request.param == "store" else BestEffortCache(opened[-1], cache)

    yield over_a_store
    for store in opened:
        store.close()


class Origin:
    """A source of one blob, read as the engine reads it: verified when from its start. Counts its reads.

    `cut`: offsets at which the next reads break, one each. `gate`: what lies at or behind this offset is held
    back until `gate_open` is set.
    """

    def __init__(self, content: bytes = CONTENT, blob: Descriptor = BLOB) -> None:
        self.content = content
        self.blob = blob
        self.reads: list[int] = []
        self.cut: list[int] = []
        self.error: BlobflowError = ConnectionLost("the connection broke")
        self.gate: int | None = None
        self.gate_open = asyncio.Event()
        self.closed = 0

    @contextlib.asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self.reads.append(offset)
        cut = self.cut.pop(0) if self.cut else None
        raw = self._chunks(offset, cut)
        async with contextlib.aclosing(raw):
            try:
                yield verified(raw, self.blob) if offset == 0 else raw
            finally:
                self.closed += 1

    async def _chunks(self, offset: int, cut: int | None) -> AsyncGenerator[bytes, None]:
        while offset < len(self.content):
            if self.gate is not None and offset >= self.gate:
                await self.gate_open.wait()
            await asyncio.sleep(0)
            if cut is not None and offset >= cut:
                raise self.error
            yield self.content[offset : offset + CHUNK]
            offset += CHUNK


async def read(body: BlobReader, offset: int = 0) -> bytes:
    async with body.open(offset) as chunks:
        return b"".join([bytes(chunk) async for chunk in chunks])


async def test_nothing_is_held_at_first(make: Make) -> None:
    cache = make()
    assert not await cache.has(BLOB)
    with pytest.raises(NotFound):
        await read(cache.reader(BLOB))


async def test_many_readers_cost_one_read_of_the_source(make: Make) -> None:
    cache, origin = make(), Origin()

    async def target(offset: int) -> bytes:
        async with cache.share(BLOB, origin) as body:
            return await read(body, offset)

    offsets = [0, 0, 1, CHUNK, len(CONTENT) - 1, len(CONTENT)]
    got = await asyncio.gather(*(target(offset) for offset in offsets))
    assert got == [CONTENT[offset:] for offset in offsets]
    assert origin.reads == [0]
    assert origin.closed == 1


async def test_what_is_not_kept_is_dropped_when_the_last_leaves(make: Make) -> None:
    cache, origin = make(), Origin()
    async with cache.share(BLOB, origin) as body:
        assert await read(body) == CONTENT
        assert await read(body, 5) == CONTENT[5:]
    assert not await cache.has(BLOB)
    async with cache.share(BLOB, origin) as body:
        await read(body)
    assert origin.reads == [0, 0]


async def test_what_anyone_keeps_is_held_for_this_and_later_runs(make: Make) -> None:
    cache, origin = make(), Origin()
    async with cache.share(BLOB, origin) as first, cache.share(BLOB, origin, keep=True) as second:
        assert await read(first) == await read(second) == CONTENT
    assert await cache.has(BLOB)
    later = make()
    assert await later.has(BLOB)
    assert await read(later.reader(BLOB), 7) == CONTENT[7:]
    async with later.share(BLOB, origin) as body:
        assert await read(body) == CONTENT
    assert await later.has(BLOB), "what an earlier run kept is not dropped by a share that does not keep"
    assert origin.reads == [0]


async def test_a_late_wish_to_keep_is_enough(make: Make) -> None:
    cache, origin = make(), Origin()
    async with cache.share(BLOB, origin) as first:
        assert await read(first) == CONTENT
        async with cache.share(BLOB, origin, keep=True):
            pass
    assert await cache.has(BLOB)
    assert origin.reads == [0]


async def test_a_reader_follows_before_the_source_has_ended_and_waits_for_the_last_block(make: Make) -> None:
    cache, origin = make(), Origin()
    origin.gate = 29 * CHUNK
    seen = asyncio.Event()
    got = bytearray()

    async def follow(body: BlobReader) -> None:
        async with body.open(0) as chunks:
            async for chunk in chunks:
                got.extend(chunk)
                seen.set()

    async with cache.share(BLOB, origin) as body:
        reader = asyncio.create_task(follow(body))
        await seen.wait()
        assert 0 < len(got) < len(CONTENT)
        assert CONTENT.startswith(got)
        origin.gate_open.set()
        await reader
    assert bytes(got) == CONTENT


@pytest.mark.parametrize("position", [0, len(CONTENT) // 2, len(CONTENT) - 1])
async def test_no_reader_completes_wrong_content(make: Make, position: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[position] ^= 1
    cache, origin = make(), Origin(bytes(wrong))
    got = [bytearray(), bytearray()]

    async def follow(body: BlobReader, into: bytearray) -> None:
        async with body.open(0) as chunks:
            async for chunk in chunks:
                into.extend(chunk)

    async with cache.share(BLOB, origin, keep=True) as body:
        failures = await asyncio.gather(*(follow(body, into) for into in got), return_exceptions=True)
    assert [type(failure) for failure in failures] == [DigestMismatch] * 2
    assert all(len(into) < len(CONTENT) for into in got)
    assert not await cache.has(BLOB)
    async with cache.share(BLOB, Origin()) as body:
        assert await read(body) == CONTENT, "nothing of the wrong bytes was gone on with"


@pytest.mark.parametrize("length", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
async def test_no_reader_completes_content_of_another_length(make: Make, length: int) -> None:
    cache, origin = make(), Origin((CONTENT + b"more")[:length])
    async with cache.share(BLOB, origin, keep=True) as body:
        with pytest.raises(SizeMismatch):
            await read(body)
    assert not await cache.has(BLOB)


async def test_a_failure_reaches_every_reader_and_the_next_share_goes_on_from_there(make: Make) -> None:
    cache, origin = make(), Origin()
    origin.cut = [20 * CHUNK]
    async with cache.share(BLOB, origin) as body:
        failures = await asyncio.gather(*(read(body) for _ in range(3)), return_exceptions=True)
        assert [(type(each), str(each)) for each in failures] == [(ConnectionLost, str(origin.error))] * 3
        assert len({id(each) for each in (origin.error, *failures)}) == 4, "each has an error of its own"
        with pytest.raises(ConnectionLost):
            await read(body)
    async with cache.share(BLOB, origin) as body:
        assert await read(body) == CONTENT
    assert origin.reads == [0, 20 * CHUNK]
    assert origin.closed == 2


async def test_who_enters_while_the_failed_are_still_inside_starts_anew(make: Make) -> None:
    cache, origin = make(), Origin()
    origin.cut = [20 * CHUNK]
    async with cache.share(BLOB, origin) as failed:
        with pytest.raises(ConnectionLost):
            await read(failed)
        async with cache.share(BLOB, origin) as body:
            assert await read(body) == CONTENT
        with pytest.raises(ConnectionLost):
            await read(failed)
    assert origin.reads == [0, 20 * CHUNK]


async def test_a_later_run_goes_on_where_an_earlier_one_was_cut(make: Make) -> None:
    cache, origin = make(), Origin()
    origin.cut = [20 * CHUNK]
    async with cache.share(BLOB, origin) as body:
        with pytest.raises(ConnectionLost):
            await read(body)
    assert isinstance(cache, StoreCache | BestEffortCache)
    cache._store.close()
    later = make()
    async with later.share(BLOB, origin, keep=True) as body:
        assert await read(body) == CONTENT
    assert origin.reads == [0, 20 * CHUNK]
    assert await later.has(BLOB)


@pytest.mark.parametrize("reads", [20 * CHUNK, len(CONTENT)])
async def test_what_an_earlier_share_left_is_told_until_the_blob_is_held(make: Make, reads: int) -> None:
    cache, origin = make(), Origin()
    other = Descriptor("application/octet-stream", digest_of(b"other"), 5)
    assert await cache.partial_sizes([BLOB, other]) == {}
    origin.cut = [20 * CHUNK] if reads < len(CONTENT) else []
    with contextlib.suppress(ConnectionLost, Denied):
        async with cache.share(BLOB, origin) as body:
            await read(body)
            raise Denied("the target takes nothing")
    assert await cache.partial_sizes([BLOB, other]) == {BLOB.digest: reads}
    async with cache.share(BLOB, origin, keep=True) as body:
        await read(body)
    assert await cache.partial_sizes([BLOB, other]) == {}


async def test_a_reader_that_is_cancelled_leaves_the_others_alone(make: Make) -> None:
    cache, origin = make(), Origin()
    origin.gate = 15 * CHUNK
    inside = asyncio.Event()

    async def target() -> bytes:
        async with cache.share(BLOB, origin) as body:
            inside.set()
            return await read(body)

    stays, goes = asyncio.create_task(target()), asyncio.create_task(target())
    await inside.wait()
    await asyncio.sleep(0)
    goes.cancel()
    with pytest.raises(asyncio.CancelledError):
        await goes
    origin.gate_open.set()
    assert await stays == CONTENT
    assert origin.reads == [0]


async def test_when_all_leave_early_the_source_is_let_go_and_the_next_goes_on(make: Make) -> None:
    cache, origin = make(), Origin()
    origin.gate = 25 * CHUNK
    async with cache.share(BLOB, origin) as body, body.open(0) as chunks:
        async for _ in chunks:
            break
    assert origin.closed == 1
    origin.gate_open.set()
    async with cache.share(BLOB, origin) as body:
        assert await read(body) == CONTENT
    assert len(origin.reads) == 2
    assert origin.reads[1] > 0


async def test_who_left_by_an_error_finds_the_bytes_again(make: Make) -> None:
    cache, origin = make(), Origin()
    with pytest.raises(ZeroDivisionError):
        async with cache.share(BLOB, origin) as body:
            await read(body)
            raise ZeroDivisionError("the target died")
    async with cache.share(BLOB, origin) as body:
        assert await read(body) == CONTENT
    assert origin.reads == [0]


async def test_entering_and_leaving_without_reading_costs_at_most_one_read(make: Make) -> None:
    cache, origin = make(), Origin()
    for _ in range(3):
        async with cache.share(BLOB, origin):
            pass
    assert sum(origin.reads) == 0
    async with cache.share(BLOB, origin) as body:
        assert await read(body) == CONTENT


async def test_two_runs_at_once_both_get_it(make: Make) -> None:
    caches, origin = [make(), make()], Origin()

    async def target(cache: Cache) -> bytes:
        async with cache.share(BLOB, origin, keep=True) as body:
            return await read(body)

    assert await asyncio.gather(*(target(cache) for cache in caches)) == [CONTENT] * 2
    assert [await cache.has(BLOB) for cache in caches] == [True, True]


async def test_an_empty_blob_passes(make: Make) -> None:
    empty = Descriptor("application/octet-stream", digest_of(b""), 0)
    cache, origin = make(), Origin(b"", empty)
    async with cache.share(empty, origin, keep=True) as body:
        assert await read(body) == b""
    assert await cache.has(empty)


async def test_an_empty_blob_of_another_digest_does_not(make: Make) -> None:
    wrong = Descriptor("application/octet-stream", digest_of(b"not empty"), 0)
    cache, origin = make(), Origin(b"", wrong)
    async with cache.share(wrong, origin) as body:
        with pytest.raises(DigestMismatch):
            await read(body)


async def test_sha512_is_verified_too(make: Make) -> None:
    blob = Descriptor("application/octet-stream", digest_of(CONTENT, "sha512"), len(CONTENT))
    cache, origin = make(), Origin(CONTENT, blob)
    origin.cut = [20 * CHUNK]
    for attempt in range(2):
        async with cache.share(blob, origin, keep=True) as body:
            if attempt:
                assert await read(body) == CONTENT
            else:
                with pytest.raises(ConnectionLost):
                    await read(body)
    assert await read(cache.reader(blob)) == CONTENT
