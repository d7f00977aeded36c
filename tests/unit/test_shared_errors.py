"""What several wait for: when it fails, each gets an error of its own, wherever that is."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from blobflow.content import BlobReader, BlobStream, Chunk, Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import Pair
from blobflow.engine.targets.verification import Verification
from blobflow.errors import BlobflowError, ConnectionLost, NotFound, Side, StorageError, Throttled, error_side
from blobflow.events import Meter, ignore
from blobflow.oci import Descriptor, Reference, digest_of
from blobflow.oci.sample_images import sample_set
from blobflow.server.admin.snapshots import ShouldStop, SnapshotCache
from blobflow.server.pullthrough.circuit_breaker import CircuitBreaker
from blobflow.server.pullthrough.upstream_requests import UpstreamRequests
from blobflow.single_flight import result_of
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store, StoreCache
from blobflow.transports.store.state.group_commit import Call, GroupCommit
from tests.deadlines import HANGS_AFTER
from tests.fakes.guarded_registry import BLOB as ASKED_FOR
from tests.fakes.guarded_registry import guarded
from tests.fakes.memory_registry import MemoryRegistry
from tests.fakes.registry import Opened, world

READERS = 5
BLOB = Descriptor("application/octet-stream", digest_of(b"some bytes"), 10)

Read = Callable[[], Awaitable[object]]


async def errors_of(*reads: Read) -> list[BaseException]:
    """What each of the reads, all at once, raises; each writes on its own as the engine does."""

    async def failed(number: int, read: Read) -> BaseException:
        side: Side = "source" if number % 2 else "target"
        try:
            with error_side(side):
                await read()
        except BlobflowError as error:
            assert error.side == side, "what another has written on it"
            error.attempts += 1
            return error
        raise AssertionError("it was to fail")

    return await asyncio.gather(*(failed(number, read) for number, read in enumerate(reads)))


def check_own(errors: list[BaseException]) -> None:
    assert len({id(error) for error in errors}) == len(errors) > 1
    assert len({type(error) for error in errors}) == 1
    assert {error.attempts for error in errors if isinstance(error, BlobflowError)} == {2}
    lengths = {sum(1 for _ in traceback.walk_tb(error.__traceback__)) for error in errors}
    assert max(lengths) - min(lengths) <= 2, "tracebacks pile up"


async def fail_after(event: asyncio.Event, error: Exception) -> str:
    await event.wait()
    raise error


async def test_each_who_waits_for_a_task_gets_its_own_error() -> None:
    go = asyncio.Event()
    task = asyncio.ensure_future(fail_after(go, Throttled("slowly", retry_after=3)))
    asyncio.get_running_loop().call_soon(go.set)
    errors = await errors_of(*[lambda: result_of(task)] * READERS)
    check_own(errors)
    assert [getattr(error, "retry_after", None) for error in errors] == [3] * READERS


async def test_who_is_cancelled_takes_nothing_from_the_others() -> None:
    go = asyncio.Event()

    async def work() -> str:
        await go.wait()
        return "done"

    task = asyncio.ensure_future(work())
    waiters = [asyncio.create_task(result_of(task)) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.sleep(0)
    go.set()
    found = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == ["done", "done"]


async def test_a_task_that_is_cancelled_is_told_as_that() -> None:
    task = asyncio.ensure_future(asyncio.sleep(100))
    waiter = asyncio.create_task(result_of(task))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_readers_of_a_share_whose_source_breaks(tmp_path: Path) -> None:
    go = asyncio.Event()

    @asynccontextmanager
    async def breaking(offset: int) -> AsyncIterator[BlobStream]:
        async def chunks() -> AsyncGenerator[Chunk, None]:
            yield b"some"
            await go.wait()
            raise ConnectionLost("cut", received=4, expected=10)

        yield chunks()

    async def read(body: BlobReader) -> None:
        async with body.open(0) as chunks:
            async for _ in chunks:
                pass

    with closing(Store.open(tmp_path / "store")) as store:
        async with StoreCache(store).share(BLOB, Opened(breaking)) as body:
            asyncio.get_running_loop().call_later(0.01, go.set)
            errors = await errors_of(*[lambda: read(body)] * READERS)
    check_own(errors)
    assert [getattr(error, "received", None) for error in errors] == [4] * READERS


async def test_jobs_whose_one_transaction_fails(tmp_path: Path) -> None:
    go = threading.Event()

    def full() -> None:
        raise StorageError("no room")

    group = GroupCommit(
        lambda: sqlite3.connect(tmp_path / "state", isolation_level=None),
        sync_folders=full,
        translated=contextlib.nullcontext,
    )
    with closing(group):
        first = asyncio.create_task(group.commit(Call(lambda: go.wait(HANGS_AFTER), durable=True)))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(go.set)
        job = Call(lambda: None, durable=True)
        check_own(await errors_of(*[lambda: group.commit(job)] * READERS))
        with pytest.raises(StorageError):
            await first


async def test_those_who_ask_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "none.tar").write_bytes(b"this is no archive at all")
    with closing(Store.open(tmp_path / "store")) as store, closing(LocalTransports(store, Meter())) as local:
        archive = local.source(Site(f"oci-archive:{tmp_path}/none.tar", ""))
        check_own(await errors_of(*[lambda: archive.resolve("a")] * READERS))


async def test_clients_that_wait_for_one_upstream() -> None:
    breaker = CircuitBreaker(time.monotonic, ignore, lambda site, kind: None)
    go, requests = asyncio.Event(), UpstreamRequests(breaker)
    asyncio.get_running_loop().call_soon(go.set)

    async def ask() -> object:
        return await requests.once(Site("host", "app"), "tag", lambda: fail_after(go, NotFound("gone")))

    check_own(await errors_of(*[ask] * READERS))
    await requests.close()


async def test_those_who_want_one_page() -> None:
    def gather(stopped: ShouldStop) -> str:
        raise StorageError("the disk is gone")

    gatherings = SnapshotCache()

    async def ask() -> object:
        return await gatherings.get("page", gather, gone=lambda: False, weigh=len)

    try:
        check_own(await errors_of(*[ask] * READERS))
    finally:
        await gatherings.close()


async def test_requests_that_wait_for_one_token() -> None:
    async with guarded() as (registry, server), world() as w:
        registry.stumbles = [404]
        errors = await errors_of(*[lambda: w.source(server.host).has(ASKED_FOR)] * READERS)
    assert len(server.asked("GET")) == 1
    check_own(errors)


async def test_images_with_one_layer_that_is_read_back_wrong() -> None:
    """`--verify content`: a blob that several images have is read once."""
    images = sample_set(1, images=3, architectures=("amd64",), layer_size=1024)
    registry = MemoryRegistry("there")
    registry.fill(images)

    (shared, *_) = frozenset.intersection(*map(frozenset, registry.blobs.values()))

    def lost(call: str, site: Site, name: str) -> BlobflowError | None:
        return ConnectionLost("cut") if (call, name) == ("open", shared) else None

    registry.fault = lost
    pairs = {}
    for name, stored in images.images.items():
        repository, _, tag = name.rpartition(":")
        pair = Pair(Reference("from", repository, tag), Reference(registry.name, repository, tag))
        pairs[pair] = Descriptor(stored.media_type, digest_of(stored.raw), len(stored.raw))
    verification = Verification(registry.at, registry.at, BoundedRunner(8), read_at_once=4)
    wrong = await verification.check(pairs, "content")
    assert len({id(error) for error in wrong.values()}) == len(pairs)
    assert {error.side for error in wrong.values()} == {"target"}
