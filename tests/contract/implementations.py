"""What the contract suites of Source and Sink run on: every implementation there is."""

from __future__ import annotations

import gzip
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import zstandard

from blobflow.content import Sink, Site, Source
from blobflow.events import Meter
from blobflow.oci import Descriptor, digest_of, media
from blobflow.oci.local_reference import TRANSPORTS
from blobflow.transports.local import LocalTransports
from blobflow.transports.registry import HostAccess, Registries
from blobflow.transports.store import Store
from tests.documentation import shelf
from tests.fakes.memory_registry import MemoryRegistry
from tools.processes import docker_registry
from tools.registry.faulty import journalling

OURS = ["memory", "shelf", "embedded", "oci", "oci-archive"]
BOTH = [*OURS, pytest.param("docker-registry", marks=pytest.mark.e2e)]
SOURCES = [*BOTH, "oci-archive.gz", "oci-archive.zst"]
SINKS = [*BOTH, "docker-archive"]

CONTENT = bytes(range(256)) * 20_480  # 5 MiB: several chunks, and the way of large bodies
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstandard.compress}
_numbers = itertools.count(1)


class Places:
    """Repositories of one registry, under names that no other test uses.

    `mounts`: whether one takes blobs over from another. `asks`: whether it refuses manifests without their
    blobs.
    """

    mounts = True
    asks = True

    def __init__(self, registry: str, source: Callable[[Site], Source], sink: Callable[[Site], Sink]) -> None:
        self._registry = registry
        self._source = source
        self._sink = sink
        self._number = next(_numbers)

    def site(self, name: str = "app") -> Site:
        return Site(self._registry, f"test{self._number}/{name}")

    def source(self, name: str = "app") -> Source:
        return self._source(self.site(name))

    def sink(self, name: str = "app") -> Sink:
        return self._sink(self.site(name))

    async def settle(self) -> None:
        """What was put is there for others to read from now on."""


class Shelves(Places):
    """What the documentation shows to those who write a place of their own."""

    mounts = False
    asks = False


class Folders(Places):
    """Layouts or archives in a folder: each is a registry of its own, with one repository.

    `packed` is how archives are compressed before they are read.
    """

    mounts = False

    def __init__(self, kind: str, folder: Path, store: Store) -> None:
        self._transport, _, self._packed = kind.partition(".")
        self._folder = folder
        self._store = store
        self.local = LocalTransports(store, Meter())
        super().__init__("", lambda site: self.local.source(site), lambda site: self.local.sink(site))

    def site(self, name: str = "app") -> Site:
        return Site(f"{self._transport}:{self._folder}/{name}", "")

    async def settle(self) -> None:
        await self.local.complete()
        self.local.close()
        self.local = LocalTransports(self._store, Meter())
        if self._packed:
            app = self._folder / "app"
            app.write_bytes(PACKERS[self._packed](app.read_bytes()))


@pytest.fixture(scope="module")
def docker_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A docker-registry for the module's tests, which each use names of their own."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry (Debian: apt-get install docker-registry)")
    with docker_registry(tmp_path_factory.mktemp("docker-registry")) as registry:
        yield registry.host


@asynccontextmanager
async def open_places(kind: str, folder: Path, docker_host: Callable[[], str]) -> AsyncIterator[Places]:
    if kind == "memory":
        memory = MemoryRegistry("memory.example")
        yield Places(memory.name, memory.at, memory.at)
        return
    if kind == "shelf":
        yield Shelves("shelf", made := shelf(folder), made)
        return
    if kind.partition(".")[0] in TRANSPORTS:
        with closing(Store.open(folder / "store")) as store:
            folders = Folders(kind, folder, store)
            try:
                yield folders
            finally:
                folders.local.close()
        return
    if kind == "docker-registry":
        async with over_http(docker_host()) as places:
            yield places
        return
    async with journalling(folder / "store") as registry, over_http(registry.host) as places:
        yield places


@asynccontextmanager
async def over_http(host: str) -> AsyncIterator[Places]:
    registries = Registries(lambda _: HostAccess(scheme="http"))
    try:
        yield Places(host, registries.source, registries.sink)
    finally:
        await registries.close()


def blob_of(content: bytes, algorithm: str = "sha256") -> Descriptor:
    return Descriptor(media.OCI_LAYER_GZIP, digest_of(content, algorithm), len(content))


def image_of(*blobs: Descriptor) -> tuple[Descriptor, bytes]:
    """An image manifest whose config is the first blob and whose layers are the others."""

    def mention(blob: Descriptor, kind: str) -> str:
        return f'{{"mediaType":"{kind}","digest":"{blob.digest}","size":{blob.size}}}'

    config, *layers = blobs
    listed = ",".join(mention(layer, layer.media_type) for layer in layers)
    raw = (
        f'{{ "schemaVersion": 2, "mediaType": "{media.OCI_MANIFEST}",\n'
        f'  "config": {mention(config, media.OCI_CONFIG)}, "layers": [{listed}] }}\n'
    ).encode()
    return Descriptor(media.OCI_MANIFEST, digest_of(raw), len(raw)), raw


def index_of(*manifests: Descriptor) -> tuple[Descriptor, bytes]:
    listed = ",".join(
        f'{{"mediaType":"{child.media_type}","digest":"{child.digest}","size":{child.size},'
        '"platform":{"os":"linux","architecture":"amd64"}}'
        for child in manifests
    )
    raw = f'{{"schemaVersion":2,"mediaType":"{media.OCI_INDEX}","manifests":[{listed}]}}'.encode()
    return Descriptor(media.OCI_INDEX, digest_of(raw), len(raw)), raw
