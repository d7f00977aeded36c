"""Streams and what looks at them: one await a chunk however many taps there are, and one end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from aiohttp import web

from blobflow.content import BlobStream, Chunk, Counter, Notice, PartStream, Tap, Verifier, tapped, verified
from blobflow.content.streams import TappedStream
from blobflow.engine.blob_readers import CountedReader, SourceReader, WholeReader
from blobflow.errors import BlobflowError, ConnectionLost, DigestMismatch, SizeMismatch, StorageError
from blobflow.transports.registry.http.downloads import Download
from tests.fakes.registry import answers, blob_of, collect, scripted_server, world

CONTENT = bytes(range(256)) * 1000
BLOB = blob_of(CONTENT)


async def chunks(*steps: bytes | Exception) -> AsyncGenerator[Chunk, None]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        yield step


def pieces(content: bytes = CONTENT, size: int = 10_000) -> AsyncGenerator[Chunk, None]:
    return chunks(*(content[at : at + size] for at in range(0, len(content), size)))


class Noted(Tap):
    """Writes down what it sees."""

    def __init__(self, notes: list[str], name: str) -> None:
        self._notes = notes
        self._name = name

    def feed(self, chunk: Chunk) -> None:
        self._notes.append(f"{self._name} {bytes(chunk).decode()}")

    def finish(self) -> None:
        self._notes.append(f"{self._name} end")

    def fail(self, error: BlobflowError) -> BlobflowError:
        self._notes.append(f"{self._name} {error.message}")
        return error


async def test_taps_see_every_chunk_in_their_order_and_the_end_once() -> None:
    notes: list[str] = []
    stream = tapped(tapped(chunks(b"a", b"b"), Noted(notes, "1")), Noted(notes, "2"), Noted(notes, "3"))
    assert await collect(stream) == b"ab"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    seen = ["a", "b", "end"]
    assert notes == [f"{name} {what}" for what in seen for name in ("1", "2", "3")]


async def test_taps_lie_beside_each_other_and_not_around_each_other() -> None:
    bare = pieces()
    stream: BlobStream = bare
    for _ in range(10):
        stream = tapped(stream, Tap())
    assert isinstance(stream, TappedStream)
    assert stream.untapped is bare
    await stream.aclose()


async def test_a_failure_is_told_to_every_tap_and_raised_and_then_nothing_more_comes() -> None:
    notes: list[str] = []
    broken = ConnectionLost("gone")
    stream = tapped(chunks(b"a", broken), Noted(notes, "1"), Noted(notes, "2"))
    assert await anext(stream) == b"a"
    with pytest.raises(ConnectionLost) as raised:
        await anext(stream)
    assert raised.value is broken
    with pytest.raises(BlobflowError):
        await anext(stream)
    assert notes[:4] == ["1 a", "2 a", "1 gone", "2 gone"]
    assert "1 end" not in notes


async def test_a_tap_may_say_what_is_raised_instead() -> None:
    class Translates(Tap):
        def fail(self, error: BlobflowError) -> BlobflowError:
            return StorageError(f"instead of: {error.message}")

    stream = tapped(chunks(ConnectionLost("gone")), Translates())
    with pytest.raises(StorageError) as raised:
        await anext(stream)
    assert raised.value.message == "instead of: gone"
    assert isinstance(raised.value.__cause__, ConnectionLost)


async def test_the_last_byte_is_noticed_when_more_is_asked_for_in_vain() -> None:
    sizes: list[int] = []
    noticed: list[int] = []
    stream = tapped(chunks(b"ab", b"c"), Counter(sizes.append), Notice(lambda: noticed.append(sum(sizes))))
    assert [await anext(stream), await anext(stream)] == [b"ab", b"c"]
    assert (sizes, noticed) == ([2, 1], [])
    for _ in range(2):
        assert await anext(stream, b"") == b""
    assert noticed == [3]


async def test_no_last_byte_is_noticed_of_a_stream_that_is_left() -> None:
    noticed: list[int] = []
    async with aclosing(tapped(pieces(), Notice(lambda: noticed.append(1)))) as stream:
        await anext(stream)
    assert not noticed


async def test_wrong_bytes_are_withheld_and_no_tap_is_told_of_an_end() -> None:
    notes: list[int] = []
    stream = tapped(verified(pieces(CONTENT[:-1] + b"!"), BLOB), Notice(lambda: notes.append(1)))
    got = bytearray()
    with pytest.raises(DigestMismatch):
        async for chunk in stream:
            got += chunk
    assert CONTENT.startswith(got)
    assert len(got) < len(CONTENT)
    assert not notes


async def test_a_stream_that_ends_early_is_no_end() -> None:
    notes: list[int] = []
    stream = tapped(pieces(CONTENT[:-1]), Verifier(BLOB), Notice(lambda: notes.append(1)))
    with pytest.raises(SizeMismatch):
        await collect(stream)
    assert not notes


@pytest.mark.parametrize("skip", [0, 1, 9_999, 10_000, 10_001, len(CONTENT) - 1, len(CONTENT)])
@pytest.mark.parametrize("length", [None, 0, 1, 10_000, 12_345, len(CONTENT)])
async def test_a_part_of_a_stream_is_that_part(skip: int, length: int | None) -> None:
    async with aclosing(pieces()) as whole:
        part = await collect(PartStream(whole, skip, length))
    assert part == CONTENT[skip:][: len(CONTENT) if length is None else length]


async def test_from_registry_to_registry_a_chunk_passes_its_download_and_one_tapped_stream() -> None:
    async with scripted_server(answers(lambda: web.Response(body=CONTENT))) as server, world() as w:
        reader = CountedReader(
            WholeReader(SourceReader(w.source(server.host), BLOB, finished=lambda: None)),
            begin=lambda offset: None,
            count=lambda size: None,
            finished=lambda: None,
        )
        async with reader.open() as stream:
            stream = tapped(stream, Notice(lambda: None))  # as an upload does
            assert isinstance(stream, TappedStream)
            assert isinstance(stream.untapped, Download)
            assert await collect(stream) == CONTENT
