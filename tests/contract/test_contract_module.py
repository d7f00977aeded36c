"""`blobflow.contract`: every place of ours keeps it, and whoever breaks one promise is told which."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from blobflow.content import BlobReader, BlobStream, Chunk, Site
from blobflow.contract import ContractBroken, check_sink, check_source
from blobflow.oci import Descriptor, digest_of
from tests.contract.implementations import CONTENT, OURS, blob_of, image_of, index_of, open_places
from tests.documentation import shelf
from tests.fakes.registry import Bytes

BLOB, CONFIG = blob_of(CONTENT), blob_of(b"{}")
IMAGE, RAW = image_of(CONFIG, BLOB)
INDEX, RAW_INDEX = index_of(IMAGE)
HERE = Site("shelf", "tests")


def nothing() -> str:
    raise AssertionError("no docker-registry is needed here")


@pytest.mark.parametrize("kind", OURS)
async def test_every_source_of_ours_keeps_it(kind: str, tmp_path: Path) -> None:
    async with open_places(kind, tmp_path, nothing) as places:
        sink = places.sink()
        await sink.push(BLOB, Bytes(CONTENT))
        await sink.push(CONFIG, Bytes(b"{}"))
        await sink.put(IMAGE, RAW, ["2"])
        await sink.put(INDEX, RAW_INDEX, ["1"])
        await places.settle()
        await check_source(places.source(), "1")
        await check_source(places.source(), "2")


@pytest.mark.parametrize("kind", ["memory", "shelf", "embedded", "oci"])
async def test_every_sink_of_ours_that_can_be_read_keeps_it(kind: str, tmp_path: Path) -> None:
    async with open_places(kind, tmp_path, nothing) as places:
        make: Any = places._sink
        await check_sink(make, places.site())
        await check_sink(make, places.site())  # what an earlier time left is no hindrance


Broken = type[Any]


def sources(base: Any) -> list[tuple[str, Broken]]:
    """Shelves that break one promise of a Source each, and words of the sentence about it."""

    class Forgets(base):  # type: ignore[misc]
        async def resolve(self, name: str) -> Descriptor:
            found = await super().resolve(name)
            return found if ":" in name else Descriptor(found.media_type, found.digest, found.size + 1)

    class KnowsNoType(base):  # type: ignore[misc]
        async def resolve(self, name: str) -> Descriptor:
            found = await super().resolve(name)
            return Descriptor("application/json", found.digest, found.size)

    class RaisesAnything(base):  # type: ignore[misc]
        def content(self, name: str) -> Any:
            return self.path(name).read_bytes()

    class Reformats(base):  # type: ignore[misc]
        async def read(self, manifest: Descriptor) -> bytes:
            return json.dumps(json.loads(await super().read(manifest)), indent=9).encode()

    class Blobs(base):  # type: ignore[misc]
        def chunks_of(self, content: bytes, offset: int, end: int | None) -> list[bytes]:
            return [content[offset:end]]

        @asynccontextmanager
        async def open(
            self, blob: Descriptor, offset: int = 0, end: int | None = None
        ) -> AsyncIterator[BlobStream]:
            content = self.content(blob.digest)

            async def chunks() -> AsyncGenerator[Chunk, None]:
                for chunk in self.chunks_of(content, offset, end):
                    yield chunk

            yield chunks()

    class CantSeek(Blobs):
        def chunks_of(self, content: bytes, offset: int, end: int | None) -> list[bytes]:
            return [content[:end]]

    class HasNoEnd(Blobs):
        def chunks_of(self, content: bytes, offset: int, end: int | None) -> list[bytes]:
            return [content[offset:]] if content[offset:] else []

    class Lies(Blobs):
        def chunks_of(self, content: bytes, offset: int, end: int | None) -> list[bytes]:
            return [bytes(len(content))]

    class FindsAll(Blobs):
        def content(self, name: str) -> Any:
            return super().content(name) if self.path(name).exists() else b"{}"

        async def resolve(self, name: str) -> Descriptor:
            found: Descriptor = await base(self._site).resolve(name)
            return found

        async def read(self, manifest: Descriptor) -> bytes:
            return bytes(await base(self._site).read(manifest))

        def chunks_of(self, content: bytes, offset: int, end: int | None) -> list[bytes]:
            return [content[offset:end]] if content[offset:end] else []

        def __init__(self, site: Site) -> None:
            self._site = site
            super().__init__(site)

    class NeverEnds(base):  # type: ignore[misc]
        @asynccontextmanager
        async def open(
            self, blob: Descriptor, offset: int = 0, end: int | None = None
        ) -> AsyncIterator[BlobStream]:
            content = self.content(blob.digest)[offset:end]

            async def chunks() -> AsyncGenerator[Chunk, None]:
                for at in range(0, len(content), 1000):
                    yield content[at : at + 1000]

            yield chunks()

    class KeepsFiles(base):  # type: ignore[misc]
        files: ClassVar[list[Any]] = []

        @asynccontextmanager
        async def open(
            self, blob: Descriptor, offset: int = 0, end: int | None = None
        ) -> AsyncIterator[BlobStream]:
            self.files.append(self.path(blob.digest).open("rb"))
            async with super().open(blob, offset, end) as stream:
                yield stream

    return [
        ("resolve() gives the same for a tag and its digest", Forgets),
        ("resolve() gives a manifest's media type", KnowsNoType),
        ("raises NotFound; but it raised FileNotFoundError", RaisesAnything),
        ("read() gives the bytes that the digest names", Reformats),
        ("a chunk has at least one byte", Blobs),
        ("open() gives the bytes from `offset` to `end`; but it did not for 1", CantSeek),
        ("open() gives the bytes from `offset` to `end`; but it did not for 0", HasNoEnd),
        ("open() gives the blob's bytes", Lies),
        ("open() of a blob that is not there, on entry raises NotFound", FindsAll),
        ("a stream that was left gives nothing more; but it gave 1000 bytes", NeverEnds),
        ("a stream that was left gives its connection or file back", KeepsFiles),
    ]


def sinks(base: Any) -> list[tuple[str, Broken]]:
    class HasAll(base):  # type: ignore[misc]
        async def has(self, content: Descriptor) -> bool:
            return True

    class HasNothing(base):  # type: ignore[misc]
        async def has(self, content: Descriptor) -> bool:
            return False

    class TakesAll(base):  # type: ignore[misc]
        async def push(self, blob: Descriptor, body: BlobReader) -> None:
            async with body.open(0) as chunks:
                self.keep(blob.digest, b"".join([bytes(chunk) async for chunk in chunks]))

    class KeepsHalf(base):  # type: ignore[misc]
        async def push(self, blob: Descriptor, body: BlobReader) -> None:
            content = b""
            async with body.open(0) as chunks:
                async for chunk in chunks:
                    content += bytes(chunk)
                    self.keep(blob.digest, content)

    class KeepsViews(base):  # type: ignore[misc]
        async def push(self, blob: Descriptor, body: BlobReader) -> None:
            async with body.open(0) as chunks:
                content = b"".join([chunk async for chunk in chunks])
            if digest_of(content) != blob.digest and len(content) == blob.size:
                return
            await super().push(blob, Bytes(content))

    class OneTag(base):  # type: ignore[misc]
        async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
            await super().put(manifest, raw, tags[:1])

    class SaysVacant(base):  # type: ignore[misc]
        async def is_empty(self) -> bool:
            return True

    class MountsAll(base):  # type: ignore[misc]
        async def mount(self, blob: Descriptor, origin: Site) -> bool:
            return True

    class TakesParts(base):  # type: ignore[misc]
        async def push(self, blob: Descriptor, body: BlobReader) -> None:
            async with body.open() as stream:
                content = b"".join([bytes(chunk) async for chunk in stream])
            if len(content) < blob.size:
                return
            await super().push(blob, Bytes(content))

    class GoesOnTooFar(base):  # type: ignore[misc]
        broken: ClassVar[set[str]] = set()

        async def push(self, blob: Descriptor, body: BlobReader) -> None:
            if blob.digest in self.broken:
                async with body.open(blob.size):
                    pass
            self.broken.add(blob.digest)
            await super().push(blob, body)

    return [
        ("has() is false for a blob that was never pushed", HasAll),
        ("has() is true for a blob that was pushed", HasNothing),
        ("push() raises for a body of other bytes", TakesAll),
        ("push() of a body that fails leaves nothing", KeepsHalf),
        ("push() raises for a body of other bytes", KeepsViews),
        ("resolve() names what was put under a tag", OneTag),
        ("is_empty() is true only where nothing is", SaysVacant),
        ("mount() is true only if the blob is here then", MountsAll),
        ("push() raises for a body of too few bytes; but it returned", TakesParts),
        ("push() goes on from what was sent; but from 300000 where 0 bytes were", GoesOnTooFar),
    ]


@pytest.mark.parametrize("number", range(11))
async def test_a_source_that_breaks_a_promise_is_told_which(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shelf(tmp_path)
    here = base(HERE)
    await here.push(BLOB, Bytes(CONTENT))
    await here.push(CONFIG, Bytes(b"{}"))
    await here.put(IMAGE, RAW, ["1"])
    await check_source(here, "1")
    words, kind = sources(base)[number]
    monkeypatch.setattr("blobflow.contract._GIVEN_BACK", 0.0)  # files are closed at once, or never
    with pytest.raises(ContractBroken) as raised:
        await check_source(kind(HERE), "1")
    assert words in str(raised.value)
    for file in getattr(kind, "files", ()):
        file.close()


@pytest.mark.parametrize("number", range(10))
async def test_a_sink_that_breaks_a_promise_is_told_which(number: int, tmp_path: Path) -> None:
    words, kind = sinks(shelf(tmp_path))[number]
    with pytest.raises(ContractBroken) as raised:
        await check_sink(kind, HERE)
    assert words in str(raised.value)
