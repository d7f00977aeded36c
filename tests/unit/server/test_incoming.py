"""Blobs that come in slowly, or break: what is waited for, and what is given up."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from blobflow.content import BlobStream, Chunk, Site
from blobflow.errors import ConnectionLost, DigestMismatch, IntegrityError, StalePartial, Throttled
from blobflow.events import Event, Warned
from blobflow.oci import Descriptor, digest_of
from blobflow.server.errors import ApiError
from blobflow.server.pullthrough.circuit_breaker import CircuitBreaker
from blobflow.server.pullthrough.incoming import MAX_ATTEMPTS, SLOW_SECONDS, IncomingBlobs
from blobflow.transports.store import Store, partials
from tests.fakes.registry import Clock

CONTENT = bytes(range(256)) * 4000
BLOB = Descriptor("application/octet-stream", digest_of(CONTENT), len(CONTENT))
ORIGIN, OTHER = Site("upstream.example", "team/app"), Site("upstream.example", "team/other")


class Upstream:
    """Gives the blob in chunks of `size` bytes, one each `seconds`; raises `errors` first, one an open."""

    def __init__(self, clock: Clock, size: int, seconds: float, errors: list[Exception]) -> None:
        self.clock = clock
        self.size = size
        self.seconds = seconds
        self.errors = errors
        self.content = CONTENT
        self.opened: list[int] = []
        self.heard: list[type[BaseException]] = []

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        self.opened.append(offset)
        if self.errors:
            raise self.errors.pop(0)
        try:
            yield self._chunks(offset)
        except BaseException as error:
            self.heard.append(type(error))
            raise

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        for at in range(offset, len(self.content), self.size):
            self.clock.now += self.seconds
            yield memoryview(self.content)[at : at + self.size]


class World:
    def __init__(
        self, store: Store, *, size: int = 100_000, seconds: float = 0.0, retry_times: int | None = None
    ) -> None:
        self.clock = Clock()
        self.told: list[Event] = []
        self.upstream: Any = Upstream(self.clock, size, seconds, [])
        self.breaker = CircuitBreaker(self.clock, self.told.append, lambda site, kind: None)
        self.came = 0
        self.incoming = IncomingBlobs(
            store,
            lambda site: self.upstream,
            self.breaker,
            clock=self.clock,
            sleep=self.clock.sleep,
            begun=lambda site: None,
            read=self._count,
            retry_times=retry_times,
        )

    def _count(self, site: Site, size: int) -> None:
        self.came += size

    async def read(self) -> bytes:
        async with self.incoming.follow(ORIGIN, BLOB) as body, body.open(0) as chunks:
            return b"".join([bytes(chunk) async for chunk in chunks])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(tmp_path / "store")) as opened:
        yield opened


async def test_a_blob_that_comes_slowly_comes(store: Store) -> None:
    world = World(store, size=70_000, seconds=50.0)
    assert await world.read() == CONTENT
    assert world.came == len(CONTENT)


async def test_an_upstream_that_drips_is_given_up_and_only_that_repository_rests(store: Store) -> None:
    world = World(store, size=1, seconds=1.0)
    with pytest.raises(ApiError) as refused:
        await world.read()
    assert refused.value.status == 504
    assert world.came <= SLOW_SECONDS + 2
    assert world.upstream.opened == [0], "it would drip again"
    with pytest.raises(ApiError):
        world.breaker.check(ORIGIN)
    world.breaker.check(OTHER)


async def test_a_read_that_breaks_goes_on_and_in_the_end_gives_up(store: Store) -> None:
    world = World(store)
    world.upstream.errors = [ConnectionLost("broken")] * (MAX_ATTEMPTS - 1)
    assert await world.read() == CONTENT
    other = World(store)
    store.blobs.drop(BLOB.digest)
    other.upstream.errors = [ConnectionLost("broken")] * MAX_ATTEMPTS
    with pytest.raises(ApiError):
        await other.read()
    assert len(other.upstream.opened) == MAX_ATTEMPTS


async def test_an_upstream_hears_that_its_bytes_were_others_and_is_not_asked_for_them_again(
    store: Store,
) -> None:
    """So it can bring them in another way the next time: by one stream in place of ranges."""
    world = World(store)
    world.upstream.content = CONTENT[:-1] + b"x"
    with pytest.raises(DigestMismatch):
        await world.read()
    assert (world.upstream.heard, world.upstream.opened) == ([DigestMismatch], [0])
    world.upstream.content = CONTENT
    assert await world.read() == CONTENT


async def test_an_upstream_hears_that_what_goes_before_its_bytes_was_damaged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "KEPT_FROM", 1)
    left = store.partials.begin(BLOB.digest)
    left.write(bytes(100_000))
    left.suspend()
    world = World(store)
    with pytest.raises(StalePartial):
        await world.read()
    assert (world.upstream.heard, world.upstream.opened) == ([StalePartial], [100_000])
    assert await world.read() == CONTENT


@pytest.mark.parametrize("times", [0, 1, 9])
async def test_a_read_is_begun_again_as_often_as_was_said(store: Store, times: int) -> None:
    world = World(store, retry_times=times)
    world.upstream.errors = [ConnectionLost("broken")] * times
    assert await world.read() == CONTENT
    other = World(store, retry_times=times)
    store.blobs.drop(BLOB.digest)
    other.upstream.errors = [ConnectionLost("broken")] * (times + 1)
    with pytest.raises(ApiError):
        await other.read()
    assert len(other.upstream.opened) == times + 1


async def test_an_upstream_that_wants_fewer_requests_gets_no_more_of_them(store: Store) -> None:
    world = World(store)
    world.upstream.errors = [Throttled("too many", retry_after=50.0)]
    with pytest.raises(ApiError) as refused:
        await world.read()
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "50")
    assert world.upstream.opened == [0]
    with pytest.raises(ApiError) as breaker:
        world.breaker.check(OTHER)
    assert breaker.value.status == 429


async def test_many_repositories_that_fail_fill_neither_memory_nor_the_log(store: Store) -> None:
    world = World(store)
    for n in range(30_000):
        with pytest.raises(ApiError):
            async with world.breaker.guard(Site("upstream.example", f"team/r{n}"), "manifest"):
                raise ConnectionLost("broken")
    assert len(world.breaker._repositories) <= 10_000
    assert len([each for each in world.told if isinstance(each, Warned)]) == 1


@pytest.mark.parametrize(
    ("site", "size", "anywhere", "reads"),
    [
        (OTHER, len(CONTENT), True, 1),
        (OTHER, len(CONTENT), False, 2),
        (ORIGIN, len(CONTENT), False, 1),
        (ORIGIN, len(CONTENT) + 1, True, 2),
        (Site("another.example", "team/app"), len(CONTENT), True, 2),
    ],
    ids=["another repository", "only of one's own", "one's own", "another size", "another registry"],
)
async def test_a_read_is_followed_by_those_that_want_the_same_of_the_same(
    store: Store, site: Site, size: int, anywhere: bool, reads: int
) -> None:
    """What another registry sends, or a manifest says of the size, spoils no read that goes well."""
    world = World(store)
    wanted = Descriptor("application/octet-stream", BLOB.digest, size)
    async with (
        world.incoming.follow(ORIGIN, BLOB) as first,
        world.incoming.follow(site, wanted, anywhere=anywhere) as second,
        first.open() as chunks,
        second.open() as others,
    ):
        with contextlib.suppress(IntegrityError):
            await anext(others)
        assert b"".join([bytes(chunk) async for chunk in chunks]) == CONTENT
        assert len(world.upstream.opened) == reads
    assert store.blobs.size_of(BLOB.digest) == len(CONTENT)
    await world.incoming.close()
