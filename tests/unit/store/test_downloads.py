"""In-flight blobs, beyond its contract: any interleaving, what crashes leave, full disks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import BlobReader, BlobStream, Chunk, verified
from blobflow.errors import ConnectionLost, DigestMismatch, StalePartial, StorageError, StorageFull
from blobflow.events import Event, Warned
from blobflow.oci import Descriptor, digest_of
from blobflow.transports.store import Store, StoreCache
from blobflow.transports.store.block_checksums import READ
from blobflow.transports.store.downloads import WITHHELD
from blobflow.transports.store.partial_files import KEPT_FROM
from tests.deadlines import HANGS_AFTER
from tests.fakes.registry import Opened
from tools.checkout import TOP

CONTENT = b"".join(number.to_bytes(4, "big") for number in range(700_000))  # 2.8 MB, no two blocks alike
BLOB = Descriptor("application/octet-stream", digest_of(CONTENT), len(CONTENT))


class Script:
    """A source that plays one attempt after another: how the bytes are cut, and where each attempt breaks."""

    def __init__(self, sizes: list[int], cuts: list[int], content: bytes = CONTENT) -> None:
        self.sizes = sizes
        self.cuts = cuts
        self.content = content
        self.offsets: list[int] = []
        self.sent = 0

    @contextlib.asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self.offsets.append(offset)
        cut = self.cuts.pop(0) if self.cuts else None
        chunks = self._chunks(offset, cut)
        yield verified(chunks, BLOB) if offset == 0 else chunks

    async def _chunks(self, offset: int, cut: int | None) -> AsyncGenerator[Chunk, None]:
        turn = 0
        buffer = bytearray()
        while offset < len(self.content):
            await asyncio.sleep(0)
            if cut is not None and offset >= cut:
                raise ConnectionLost("cut")
            piece = self.content[offset : offset + self.sizes[turn % len(self.sizes)]]
            buffer[:] = piece  # one reused buffer: whoever keeps a view of it without copying reads nonsense
            with memoryview(buffer) as view:
                yield view
            self.sent += len(piece)
            offset += len(piece)
            turn += 1


async def test_a_source_learns_while_it_is_open_that_its_bytes_were_wrong(store: Store) -> None:
    told: list[BaseException] = []
    wrong = Script([500_000], [], CONTENT[:-1] + b"x")

    @contextlib.asynccontextmanager
    async def unverified(offset: int) -> AsyncIterator[BlobStream]:
        try:
            yield wrong._chunks(offset, None)
        except DigestMismatch as error:
            told.append(error)
            raise

    with pytest.raises(DigestMismatch):
        async with StoreCache(store).share(BLOB, Opened(unverified)) as shared:
            await read(shared)
    assert len(told) == 1


async def read(body: BlobReader, offset: int = 0) -> bytes:
    async with body.open(offset) as chunks:
        return b"".join([bytes(chunk) async for chunk in chunks])


async def persevering(
    cache: StoreCache, script: Script, offset: int, pace: int, rest: int
) -> tuple[int, int]:
    """A target: it reads at its pace, and enters again from where it is whenever the share fails.

    Returns how often it entered and how often it saw wrong bytes.
    """
    entered = wrong = 0
    at = offset
    for _ in range(rest):
        await asyncio.sleep(0)
    while True:
        entered += 1
        try:
            async with cache.share(BLOB, script) as body, body.open(at) as chunks:
                async for chunk in chunks:
                    wrong += bytes(chunk) != CONTENT[at : at + len(chunk)]
                    at += len(chunk)
                    for _ in range(pace):
                        await asyncio.sleep(0)
                assert at == len(CONTENT)
                return entered, wrong
        except ConnectionLost:
            continue


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1_000, 700_000), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, len(CONTENT) + 1), max_size=4),
    targets=st.lists(
        st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=4
    ),
)
def test_targets_at_any_pace_and_offset_get_right_bytes_through_any_cuts(
    sizes: list[int], cuts: list[int], targets: list[tuple[int, int, int]]
) -> None:
    script = Script(sizes, list(cuts))

    async def run() -> None:
        with tempfile.TemporaryDirectory() as root:
            store = Store.open(Path(root))
            cache = StoreCache(store)
            try:
                async with asyncio.timeout(HANGS_AFTER):
                    ended = await asyncio.gather(*(persevering(cache, script, *each) for each in targets))
                assert [wrong for _, wrong in ended] == [0] * len(targets)
                assert store.leases.living() == set()
                assert store.state.rows("SELECT * FROM leases") == []
            finally:
                store.close()

    asyncio.run(run())
    # What was too short to keep is read again from the start; nothing else is read twice by one run of cuts.
    assert all(offset == 0 or offset >= KEPT_FROM for offset in script.offsets)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1_000, 300_000), min_size=1, max_size=5),
    position=st.integers(0, len(CONTENT) - 1),
    offsets=st.lists(st.integers(0, len(CONTENT)), min_size=1, max_size=4),
)
def test_nobody_at_any_offset_gets_the_last_block_of_wrong_content(
    sizes: list[int], position: int, offsets: list[int]
) -> None:
    wrong = bytearray(CONTENT)
    wrong[position] ^= 0x80
    script = Script(sizes, [], bytes(wrong))

    async def run() -> None:
        with tempfile.TemporaryDirectory() as root:
            store = Store.open(Path(root))

            async def follow(body: BlobReader, at: int) -> None:
                with pytest.raises(DigestMismatch):
                    async with body.open(at) as chunks:
                        async for chunk in chunks:
                            at += len(chunk)
                            assert at <= len(CONTENT) - WITHHELD

            async with StoreCache(store).share(BLOB, script, keep=True) as body:
                await asyncio.gather(*(follow(body, offset) for offset in offsets))
            assert store.blobs.size_of(BLOB.digest) is None
            assert list(store.paths.partials.iterdir()) == []
            store.close()

    asyncio.run(run())


def left_behind(store: Store, content: bytes, token: str = "0123456789abcdef") -> Path:
    """What a process that was killed leaves: a partial that nobody locks."""
    path = store.paths.partial(BLOB.digest, token)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("length", [KEPT_FROM, 2_000_001, len(CONTENT)])
async def test_what_a_killed_process_left_is_gone_on_with(store: Store, length: int) -> None:
    left_behind(store, CONTENT[:length])
    script = Script([100_000], [])
    async with StoreCache(store).share(BLOB, script, keep=True) as body:
        assert await read(body) == CONTENT
    assert script.offsets == ([length] if length < len(CONTENT) else [])
    assert store.blobs.path_of(BLOB.digest).read_bytes() == CONTENT
    assert list(store.paths.partials.iterdir()) == []


async def test_damaged_bytes_of_a_killed_process_are_found_out_and_not_blamed_on_the_source(
    store: Store,
) -> None:
    left_behind(store, b"\0" * 2_000_000)
    script = Script([100_000], [])
    cache = StoreCache(store)
    async with cache.share(BLOB, script) as body:
        with pytest.raises(StalePartial) as caught:
            await read(body)
    assert caught.value.retryable
    async with cache.share(BLOB, script) as body:
        assert await read(body) == CONTENT
    assert script.offsets == [2_000_000, 0]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 1])
async def test_a_whole_partial_that_is_wrong_is_dropped_before_anyone_reads_it(
    store: Store, length: int
) -> None:
    left_behind(store, b"\1" * length)
    script = Script([100_000], [])
    async with StoreCache(store).share(BLOB, script) as body:
        assert await read(body) == CONTENT
    assert script.offsets == [0]


async def test_a_short_partial_is_not_kept(store: Store) -> None:
    script = Script([100_000], [KEPT_FROM // 2])
    async with StoreCache(store).share(BLOB, script) as body:
        with pytest.raises(ConnectionLost):
            await read(body)
    assert list(store.paths.partials.iterdir()) == []


async def test_a_partial_of_a_process_that_was_killed_is_adopted_and_of_a_living_one_is_not(
    store: Store,
) -> None:
    program = (
        "import sys, pathlib\n"
        "from blobflow.transports.store import Store\n"
        "from blobflow.oci import parse_digest\n"
        "store = Store.open(pathlib.Path(sys.argv[1]))\n"
        "writer = store.partials.begin(parse_digest(sys.argv[2]))\n"
        "writer.write(sys.stdin.buffer.read(2_000_000))\n"
        "writer.flush()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.buffer.read()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", program, str(store.root), BLOB.digest),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=TOP,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(CONTENT[:2_000_000])
        async with asyncio.timeout(HANGS_AFTER):
            assert await process.stdout.readline() == b"ready\n"
        assert await store.partials.resume(BLOB.digest) is None
    finally:
        process.kill()
        await process.communicate()
    script = Script([100_000], [])
    async with StoreCache(store).share(BLOB, script) as body:
        assert await read(body) == CONTENT
    assert script.offsets == [2_000_000]


async def test_a_full_disk_reaches_every_reader_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.writev
    written = [0]

    def full_after_2_mb(fd: int, views: list[memoryview]) -> int:
        if written[0] > 2_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        now = real(fd, views)
        written[0] += now
        return now

    monkeypatch.setattr(os, "writev", full_after_2_mb)
    script = Script([100_000], [])
    async with StoreCache(store).share(BLOB, script) as body:
        failures = await asyncio.gather(read(body), read(body, 9), return_exceptions=True)
    assert [type(failure) for failure in failures] == [StorageFull] * 2
    assert "the disk is full" in str(failures[0])
    assert list(store.paths.partials.iterdir()) == []


async def test_a_blob_that_can_not_be_kept_is_still_read_and_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", broken)
    told: list[Event] = []
    store.observer = told.append
    cache = StoreCache(store)
    async with cache.share(BLOB, Script([100_000], []), keep=True) as body:
        assert await read(body) == CONTENT
    assert [type(event) for event in told] == [Warned]
    assert "less is kept and remembered" in str(told[0])
    assert not await cache.has(BLOB)


@pytest.mark.parametrize("right", [True, False])
async def test_the_last_block_waits_for_the_digest_even_when_all_bytes_are_on_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    monkeypatch.setattr("blobflow.transports.store.downloads._FLUSH_SECONDS", 0.0)
    content = CONTENT if right else b"?" + CONTENT[1:]
    end, shown = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def unverified(offset: int) -> AsyncIterator[BlobStream]:
        async def chunks() -> AsyncGenerator[Chunk, None]:
            yield content
            await end.wait()

        yield chunks()

    async def follow(body: BlobReader) -> int:
        at = 0
        async with body.open(0) as chunks:
            async for chunk in chunks:
                at += len(chunk)
                assert end.is_set() or at <= len(CONTENT) - WITHHELD
                if at == len(CONTENT) - WITHHELD:
                    shown.set()
        return at

    async with StoreCache(store).share(BLOB, Opened(unverified)) as body:
        reader = asyncio.create_task(follow(body))
        async with asyncio.timeout(HANGS_AFTER):
            await shown.wait()
        await asyncio.sleep(0)
        assert not reader.done()
        end.set()
        if right:
            assert await reader == len(CONTENT)
        else:
            with pytest.raises(DigestMismatch):
                await reader


async def test_memory_does_not_grow_with_slow_readers(store: Store) -> None:
    """A reader that stands still holds one chunk, whatever the writer has got through meanwhile."""
    script = Script([500_000], [])
    async with StoreCache(store).share(BLOB, script) as body, body.open(0) as slow:
        first = await anext(aiter(slow))
        assert await read(body) == CONTENT
        assert script.sent == len(CONTENT)
        assert len(first) <= READ
        rest = b"".join([bytes(chunk) async for chunk in slow])
    assert bytes(first) + rest == CONTENT


async def test_a_slow_source_shows_its_bytes_without_waiting_for_a_full_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.transports.store.downloads._FLUSH_SECONDS", 0.0)
    trickle = asyncio.Event()

    @contextlib.asynccontextmanager
    async def source(offset: int) -> AsyncIterator[BlobStream]:
        async def chunks() -> AsyncGenerator[Chunk, None]:
            yield CONTENT[:1000]
            await trickle.wait()
            yield CONTENT[1000:]

        yield chunks()

    async with StoreCache(store).share(BLOB, Opened(source)) as body, body.open(0) as chunks:
        assert bytes(await anext(aiter(chunks))) == CONTENT[:1000]
        trickle.set()
        assert b"".join([bytes(chunk) async for chunk in chunks]) == CONTENT[1000:]


async def test_a_body_that_is_used_after_its_share_says_so(store: Store) -> None:
    async with StoreCache(store).share(BLOB, Script([100_000], [])) as body:
        await read(body)
    with pytest.raises(StorageError, match="after its share has ended"):
        await read(body)


async def test_at_most_so_many_stopped_writers_stay_open(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.transports.store.downloads._MAX_SUSPENDED", 2)
    cache = StoreCache(store)
    blobs = []
    for number in range(4):
        content = bytes([number]) * (2 * KEPT_FROM)
        blobs.append(Descriptor("application/octet-stream", digest_of(content), len(content)))

        @contextlib.asynccontextmanager
        async def half(offset: int, content: bytes = content) -> AsyncIterator[BlobStream]:
            async def chunks() -> AsyncGenerator[Chunk, None]:
                yield content[:KEPT_FROM]
                raise ConnectionLost("cut")

            yield chunks()

        async with cache.share(blobs[-1], Opened(half)) as body:
            with pytest.raises(ConnectionLost):
                await read(body)
    resumable = []
    for blob in blobs:
        writer = await store.partials.resume(blob.digest)
        resumable.append(writer is not None)
        if writer is not None:
            writer.suspend()
    assert resumable == [True, True, False, False]


async def test_the_blob_is_leased_while_anyone_is_inside(store: Store) -> None:
    cache = StoreCache(store)
    async with cache.share(BLOB, Script([100_000], [])):
        async with cache.share(BLOB, Script([100_000], [])):
            assert store.leases.living() == {BLOB.digest}
        assert store.leases.living() == {BLOB.digest}
    assert store.leases.living() == set()
