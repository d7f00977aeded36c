"""What `blobflow.content.Sink` promises, for every implementation of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from blobflow.content import Chunk, Site
from blobflow.errors import BlobflowError, ConnectionLost, DigestMismatch, NotFound, Rejected
from tests.contract.implementations import (
    CONTENT,
    SINKS,
    Places,
    blob_of,
    docker_host,
    image_of,
    index_of,
    open_places,
)
from tests.fakes.registry import Bytes, body_that, collect

__all__ = ["docker_host"]  # a fixture

BLOB = blob_of(CONTENT)
CONFIG = blob_of(b"{}")
IMAGE, RAW = image_of(CONFIG, BLOB)


@pytest.fixture(params=SINKS)
async def places(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Places]:
    """An empty registry."""
    async with open_places(request.param, tmp_path, lambda: request.getfixturevalue("docker_host")) as made:
        yield made


async def stored(places: Places, name: str = "app") -> bytes:
    async with places.source(name).open(BLOB) as chunks:
        return await collect(chunks)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "small", "large"])
async def test_a_pushed_blob_is_there_byte_for_byte(places: Places, content: bytes, algorithm: str) -> None:
    blob, sink = blob_of(content, algorithm), places.sink()
    assert not await sink.has(blob)
    body = Bytes(content, blob=blob)
    await sink.push(blob, body)
    assert await sink.has(blob)
    async with places.source().open(blob) as chunks:
        assert await collect(chunks) == content
    assert body.opened and body.closed == len(body.opened)


async def test_a_blob_of_one_repository_is_not_in_another(places: Places) -> None:
    await places.sink().push(BLOB, Bytes(CONTENT))
    assert not await places.sink("other").has(BLOB)


async def test_views_of_a_reused_buffer_are_sent_as_they_were(places: Places) -> None:
    """A chunk is valid only until the next is asked for."""
    buffer = bytearray(100_000)
    content = b"".join(bytes([each]) * len(buffer) for each in range(20))
    blob = blob_of(content)

    class Reused(Bytes):
        async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
            for each in range(20):
                buffer[:] = bytes([each]) * len(buffer)
                yield memoryview(buffer)

    await places.sink().push(blob, Reused(content))
    async with places.source().open(blob) as chunks:
        assert await collect(chunks) == content


async def test_pushing_what_is_there_and_pushing_twice_at_once_both_succeed(places: Places) -> None:
    await asyncio.gather(*(places.sink().push(BLOB, Bytes(CONTENT)) for _ in range(3)))
    await places.sink().push(BLOB, Bytes(CONTENT))
    assert await stored(places) == CONTENT


@pytest.mark.parametrize(
    "error",
    [DigestMismatch("blob", expected="a", actual="b"), ConnectionLost("gone"), NotFound("no", status=404)],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("sent", [0, 1, 300_000, len(CONTENT) - 1])
async def test_a_body_that_fails_leaves_nothing_and_its_error_is_the_error(
    places: Places, error: BlobflowError, sent: int
) -> None:
    steps = [CONTENT[:sent], error] if sent else [error]
    with pytest.raises(type(error)) as raised:
        await places.sink().push(BLOB, body_that(*steps))
    assert raised.value is error
    assert not await places.sink().has(BLOB)
    await places.sink().push(BLOB, Bytes(CONTENT))
    assert await stored(places) == CONTENT


async def test_wrong_bytes_under_a_right_digest_are_refused_whoever_sends_them(places: Places) -> None:
    wrong = CONTENT[:-1] + b"!"
    with pytest.raises(BlobflowError):
        await places.sink().push(BLOB, body_that(wrong))
    assert not await places.sink().has(BLOB)


async def test_a_cancelled_push_leaves_nothing(places: Places) -> None:
    never = asyncio.Event()
    push = asyncio.create_task(places.sink().push(BLOB, body_that(CONTENT[:200_000], never)))
    for _ in range(200):
        await asyncio.sleep(0)
    push.cancel()
    with pytest.raises(asyncio.CancelledError):
        await push
    assert not await places.sink().has(BLOB)
    await places.sink().push(BLOB, Bytes(CONTENT))
    assert await stored(places) == CONTENT


async def test_a_mount_makes_a_blob_visible_and_costs_no_body(places: Places) -> None:
    await places.sink("home").push(BLOB, Bytes(CONTENT))
    assert await places.sink().mount(BLOB, places.site("home")) == places.mounts
    if not places.mounts:
        await places.sink().push(BLOB, Bytes(CONTENT))
    assert await places.sink().has(BLOB)
    assert await stored(places) == CONTENT


async def test_a_mount_of_what_is_not_there_is_refused_and_the_push_still_works(places: Places) -> None:
    assert not await places.sink().mount(BLOB, places.site("home"))
    await places.sink().push(BLOB, Bytes(CONTENT))
    assert await stored(places) == CONTENT


async def test_nothing_is_mounted_from_another_registry(places: Places) -> None:
    assert not await places.sink().mount(BLOB, Site("other.example", places.site().repository))


async def test_a_manifest_is_put_under_its_digest_and_under_tags(places: Places) -> None:
    sink, source = places.sink(), places.source()
    await sink.push(BLOB, Bytes(CONTENT))
    await sink.push(CONFIG, Bytes(b"{}"))
    await sink.put(IMAGE, RAW)
    assert await sink.has(IMAGE)
    with pytest.raises(NotFound):
        await sink.resolve("1")
    await sink.put(IMAGE, RAW, ["1", "latest"])
    assert [await sink.resolve(tag) for tag in ("1", "latest")] == [IMAGE, IMAGE]
    assert await source.read(IMAGE) == RAW


async def test_a_tag_moves_when_another_manifest_is_put_under_it(places: Places) -> None:
    sink = places.sink()
    await sink.push(CONFIG, Bytes(b"{}"))
    first, raw = image_of(CONFIG)
    index, raw_index = index_of(first)
    await sink.put(first, raw, ["1"])
    await sink.put(index, raw_index, ["1"])
    assert await sink.resolve("1") == index


async def test_a_manifest_without_its_blobs_is_refused_and_they_are_named(places: Places) -> None:
    await places.sink().push(CONFIG, Bytes(b"{}"))
    if not places.asks:
        await places.sink().put(IMAGE, RAW, ["1"])
        return
    with pytest.raises(Rejected) as raised:
        await places.sink().put(IMAGE, RAW, ["1"])
    assert raised.value.missing == (BLOB.digest,)
    with pytest.raises(NotFound):
        await places.sink().resolve("1")


async def test_a_place_is_vacant_until_something_was_put(places: Places) -> None:
    sink = places.sink()
    assert await sink.is_empty()
    await sink.push(CONFIG, Bytes(b"{}"))
    image, raw = image_of(CONFIG)
    await sink.put(image, raw, ["1"])
    assert not await sink.is_empty()
    assert await places.sink("other").is_empty()
