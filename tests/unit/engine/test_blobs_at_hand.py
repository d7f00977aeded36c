"""Blobs that were read before anything is copied: how many are held, and what is asked for again."""

from __future__ import annotations

from blobflow.engine.blob_readers import HeldReader
from blobflow.engine.sources.blobs_at_hand import BlobsAtHand
from blobflow.oci import Descriptor, digest_of


def blob_of(content: bytes, size: int | None = None) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(content), len(content) if size is None else size)


def test_what_is_held_is_bounded_by_bytes_and_by_number() -> None:
    contents = [b"%d" % each for each in range(100)]
    for room, most in ((10_000, 33), (0, 0), (250, 0)):
        held = BlobsAtHand(room)
        for content in contents:
            held.keep(digest_of(content), content)
        found = [content for content in contents if held.content(blob_of(content)) is not None]
        assert found == contents[: len(found)], "the first stay"
        assert len(found) <= most
    held = BlobsAtHand(2000)
    for _ in range(100):
        held.keep(digest_of(b"again"), b"again")
    held.keep(digest_of(b"another"), b"another")
    assert held.content(blob_of(b"another")) == b"another", "a blob takes room once"
    held.keep(digest_of(b"l" * 2000), b"l" * 2000)
    assert held.content(blob_of(b"l" * 2000)) is None


def test_of_a_blob_that_is_said_to_have_another_size_the_source_is_asked() -> None:
    held = BlobsAtHand()
    held.keep(digest_of(b"content"), b"content")
    assert held.content(blob_of(b"content")) == b"content"
    assert held.content(blob_of(b"content", size=8)) is None


async def test_what_is_held_is_read_from_any_offset_as_often_as_wanted() -> None:
    reader = HeldReader(b"content")
    for offset, rest in ((0, [b"content"]), (3, [b"tent"]), (7, []), (0, [b"content"])):
        async with reader.open(offset) as stream:
            assert [bytes(chunk) async for chunk in stream] == rest
