"""What `blobflow.content.Source` promises, for every implementation of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blobflow.errors import NotFound, SizeMismatch
from blobflow.oci import UNKNOWN_SIZE, Descriptor
from tests.contract.implementations import (
    CONTENT,
    SOURCES,
    Places,
    blob_of,
    docker_host,
    image_of,
    index_of,
    open_places,
)
from tests.fakes.registry import Bytes, collect

__all__ = ["docker_host"]  # a fixture

BLOB = blob_of(CONTENT)
CONFIG = blob_of(b"{}")
IMAGE, RAW = image_of(CONFIG, BLOB)
INDEX, RAW_INDEX = index_of(IMAGE)


@pytest.fixture(params=SOURCES)
async def places(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Places]:
    """A registry that holds an index with one image, tagged `1`."""
    async with open_places(request.param, tmp_path, lambda: request.getfixturevalue("docker_host")) as made:
        sink = made.sink()
        await sink.push(BLOB, Bytes(CONTENT))
        await sink.push(CONFIG, Bytes(b"{}"))
        await sink.put(IMAGE, RAW)
        await sink.put(INDEX, RAW_INDEX, ["1"])
        await made.settle()
        yield made


async def test_a_tag_and_its_digest_resolve_to_the_same(places: Places) -> None:
    assert await places.source().resolve("1") == INDEX
    assert await places.source().resolve(INDEX.digest) == INDEX
    assert await places.source().resolve(IMAGE.digest) == IMAGE


async def test_a_manifest_is_read_byte_for_byte(places: Places) -> None:
    assert await places.source().read(INDEX) == RAW_INDEX
    assert await places.source().read(IMAGE) == RAW


async def test_a_manifest_of_unknown_size_is_read_too(places: Places) -> None:
    assert await places.source().read(Descriptor(IMAGE.media_type, IMAGE.digest, UNKNOWN_SIZE)) == RAW


@pytest.mark.parametrize("size", [0, 1, IMAGE.size - 1, IMAGE.size + 1, 2**53])
async def test_a_manifest_of_another_size_than_its_descriptor_says_is_refused(
    places: Places, size: int
) -> None:
    with pytest.raises(SizeMismatch):
        await places.source().read(Descriptor(IMAGE.media_type, IMAGE.digest, size))


@pytest.mark.parametrize("offset", [0, 1, 65_536, len(CONTENT) - 1, len(CONTENT)])
async def test_a_blob_is_read_from_any_offset(places: Places, offset: int) -> None:
    async with places.source().open(BLOB, offset) as chunks:
        assert await collect(chunks) == CONTENT[offset:]


@pytest.mark.parametrize(("offset", "end"), [(0, 1), (7, 100_000), (100_000, len(CONTENT))])
async def test_a_blob_is_read_up_to_an_end(places: Places, offset: int, end: int) -> None:
    async with places.source().open(BLOB, offset, end) as chunks:
        assert await collect(chunks) == CONTENT[offset:end]


async def test_chunks_have_at_least_one_byte(places: Places) -> None:
    async with places.source().open(BLOB) as chunks:
        assert all([len(chunk) async for chunk in chunks])


async def test_a_blob_can_be_read_twice_and_by_several_at_once(places: Places) -> None:
    async def read() -> bytes:
        async with places.source().open(BLOB) as chunks:
            return await collect(chunks)

    assert await asyncio.gather(*(read() for _ in range(12))) == [CONTENT] * 12


async def test_a_read_can_be_left_at_any_time(places: Places) -> None:
    for _ in range(10):
        async with places.source().open(BLOB) as chunks:
            assert await anext(chunks)
    async with places.source().open(BLOB) as chunks:
        assert await collect(chunks) == CONTENT


async def test_what_is_not_there_is_not_found(places: Places) -> None:
    other = blob_of(b"other")
    with pytest.raises(NotFound):
        await places.source().resolve("absent")
    with pytest.raises(NotFound):
        await places.source().read(Descriptor(IMAGE.media_type, other.digest, other.size))
    with pytest.raises(NotFound):
        async with places.source().open(other):
            pass
    with pytest.raises(NotFound):
        await places.source("elsewhere").resolve("1")
