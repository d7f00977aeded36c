"""Registries in memory that hold any number of images, and hold nothing: what is asked for is made anew.

An image's repository says its number, and that says what it is made of: 4 platforms x 8 layers, half of
which its neighbours share. So a plan of 10,000 images can be carried out by processes that share no memory,
and what they need is the plan's. A target takes everything, and forgets it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache

import msgspec

from bench.graphs import LAYERS, PLATFORMS
from blobflow.content import BlobReader, BlobStream, Chunk, NullJournal, Site
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.errors import NotFound
from blobflow.events import Meter, Observer
from blobflow.oci import Descriptor, Digest, Reference, digest_of, media
from blobflow.permits import FixedLimiters
from blobflow.transports.store import Store, StoreCache

SOURCE, TARGET, TAG = "source.example", "target.example", "1"
# Images with so many neighbouring numbers have the same layers in every other place.
NEIGHBOURS = 10
# Repositories whose content is at hand; the engine asks for the manifests of one one after another.
_AT_HAND = 256
# Requests of each kind at once, far from being the bound.
_AT_ONCE = 64


class Content(msgspec.Struct, frozen=True):
    """All of a repository: its index, and everything by digest."""

    index: Descriptor
    manifests: Mapping[Digest, bytes]
    blobs: Mapping[Digest, bytes]


def pairs(images: int) -> list[Pair]:
    """A mirror of so many images."""
    names = (f"images/{number}" for number in range(images))
    return [Pair(Reference(SOURCE, name, TAG), Reference(TARGET, name, TAG)) for name in names]


@lru_cache(_AT_HAND)
def content(number: int) -> Content:
    """What the image of that number is made of."""
    blobs: dict[Digest, bytes] = {}
    manifests: dict[Digest, bytes] = {}
    children = []
    for platform in range(PLATFORMS):
        architecture = {"architecture": f"cpu{platform}", "os": "linux"}
        config = _keep(blobs, media.OCI_CONFIG, msgspec.json.encode(architecture | {"image": number}))
        layers = [
            _keep(
                blobs,
                media.OCI_LAYER_GZIP,
                f"{number // NEIGHBOURS if n % 2 else number}/{platform}/{n}".encode(),
            )
            for n in range(LAYERS)
        ]
        child = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": layers}
        named = _keep(manifests, media.OCI_MANIFEST, msgspec.json.encode(child))
        children.append(named | {"platform": architecture})
    index = msgspec.json.encode({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": children})
    _keep(manifests, media.OCI_INDEX, index)
    return Content(Descriptor(media.OCI_INDEX, digest_of(index), len(index)), manifests, blobs)


def _keep(kept: dict[Digest, bytes], media_type: str, raw: bytes) -> dict[str, object]:
    """The descriptor of what is kept."""
    digest = digest_of(raw)
    kept[digest] = raw
    return {"mediaType": media_type, "digest": digest, "size": len(raw)}


class MemorySource:
    """A repository of the source."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._number = int(site.repository.rpartition("/")[2])

    async def resolve(self, name: str) -> Descriptor:
        return content(self._number).index

    async def read(self, manifest: Descriptor) -> bytes:
        return self._find(content(self._number).manifests, manifest.digest)

    def _find(self, kept: Mapping[Digest, bytes], digest: Digest) -> bytes:
        if (found := kept.get(digest)) is None:
            raise NotFound(f"{self._site} has no {digest}", status=404)
        return found

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        whole = self._find(content(self._number).blobs, blob.digest)

        async def chunks() -> AsyncGenerator[Chunk, None]:
            if piece := whole[offset:end]:
                yield piece

        async with aclosing(chunks()) as stream:
            yield stream


class MemorySink:
    """A repository of the target: nothing is there, everything is taken."""

    async def resolve(self, name: str) -> Descriptor:
        raise NotFound(f"no {name}", status=404)

    async def is_empty(self) -> bool:
        return True

    async def has(self, content: Descriptor) -> bool:
        return False

    async def mount(self, blob: Descriptor, origin: Site) -> bool:
        return True

    async def push(self, blob: Descriptor, reader: BlobReader) -> None:
        async with reader.open(0) as chunks:
            async for _ in chunks:
                pass

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str] = ()) -> None:
        pass


def memory_services(store: Store, observe: Observer, meter: Meter) -> Services:
    """Services whose sites are these; the store is not used."""
    sink = MemorySink()
    return Services(
        source_at=MemorySource,
        sink_at=lambda site: sink,
        cache=StoreCache(store),
        journal=NullJournal(),
        observe=observe,
        meter=meter,
        limiter_at=FixedLimiters(_AT_ONCE).at,
        cache_mode="off",
    )
