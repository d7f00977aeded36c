"""Archives made by hand, as docker, podman and skopeo write them, and as nobody should."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from blobflow.content import Site
from blobflow.events import HostMeter
from blobflow.oci import parse_manifest
from blobflow.transports.archive import ArchiveSource, CompressMode, Importer, codec
from blobflow.transports.compression.compressors import Compressor
from blobflow.transports.compression.formats import GZIP
from blobflow.transports.store import Store
from tests.fakes.registry import collect

Entries = Sequence[tuple[str, "bytes | Link"]]

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.zst": zstandard.compress,
}


class Link(msgspec.Struct, frozen=True):
    target: str
    kind: bytes = tarfile.SYMTYPE


def tar_of(entries: Entries) -> bytes:
    """A tar of files and links, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in entries:
            member = tarfile.TarInfo(path)
            if isinstance(content, Link):
                member.type, member.linkname = content.kind, content.target
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def layer_of(seed: str, size: int = 3_000_000) -> bytes:
    """A bare layer, larger than one block of a compressor."""
    half = hashlib.shake_256(seed.encode()).digest(size // 2)
    return tar_of([(f"srv/{seed}", half + bytes(size // 2))])


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def config_of(*layers: bytes, architecture: str = "amd64") -> bytes:
    diff_ids = [digest(layer) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({"os": "linux", "architecture": architecture, "rootfs": rootfs}).encode()


def podman_entries(images: Mapping[str, Sequence[bytes]]) -> list[tuple[str, bytes | Link]]:
    """As `podman save -m`: layers, links to them in folders, configs, manifest.json near the end."""
    entries: dict[str, bytes | Link] = {}
    listed: list[dict[str, Any]] = []
    for name, layers in images.items():
        config = config_of(*layers)
        for layer in layers:
            hexed = digest(layer)[7:]
            entries[f"{hexed}.tar"] = layer
            entries[f"{hexed}x/layer.tar"] = Link(f"../{hexed}.tar")
            entries[f"{hexed}x/VERSION"] = b"1.0"
        entries[f"{digest(config)[7:]}.json"] = config
        paths = [f"{digest(layer)[7:]}x/layer.tar" for layer in layers]
        listed.append(
            {"Config": f"{digest(config)[7:]}.json", "RepoTags": [name] if name else None, "Layers": paths}
        )
    entries["manifest.json"] = json.dumps(listed).encode()
    entries["repositories"] = b"{}"
    return list(entries.items())


def write(path: Path, entries: Entries, packed: str = "tar") -> Path:
    path.write_bytes(PACKERS[packed](tar_of(entries)))
    return path


# Reading them

LAYERS = (layer_of("bottom"), layer_of("top", 100_000))
NAME = "docker.io/library/app:1"
FORMS = ["tar", "tar.gz", "tar.zst"]


class Reading:
    """A store, and archives read into it. `begun` counts layers whose compression was begun."""

    def __init__(self, root: Path) -> None:
        self.store = Store.open(root)
        self.begun = 0
        self._open: list[tuple[ArchiveSource, Importer]] = []

    def archive(self, host: str, mode: CompressMode = "gzip") -> ArchiveSource:
        real = codec(mode)

        def begin() -> Compressor:
            self.begun += 1
            return real.begin()

        importer = Importer(self.store, msgspec.structs.replace(real, begin=begin))
        self._open.append((ArchiveSource(Site(host, ""), self.store, importer, HostMeter()), importer))
        return self._open[-1][0]

    def held(self) -> int:
        """Blobs in the store."""
        return sum(len(files) for _, _, files in os.walk(self.store.root / "blobs"))

    def close(self) -> None:
        for archive, importer in self._open:
            archive.close()
            importer.close()
        self._open.clear()


async def bare_layers(archive: ArchiveSource, name: str = "") -> list[bytes]:
    """The image's layers as they come out, uncompressed."""
    manifest = parse_manifest(await archive.read(await archive.resolve(name)))
    found = []
    for layer in manifest.layers:
        async with archive.open(layer) as chunks:
            content = await collect(chunks)
        assert digest(content) == layer.digest
        found.append(gzip.decompress(content) if content.startswith(GZIP) else content)
    return found
