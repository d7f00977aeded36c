"""Sets of images made for a purpose, and the named scenarios in which a tool mirrors them.

A set is an OCI layout as `tools/imageset.py` reads and pushes it. The layers of generated sets are gzip'ed,
since skopeo compresses what is not, but not tars, which no tool that copies can tell.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tools.imageset import OCI, Layout, read_layout
from tools.network_path import Shape

KIB = 1024
MIB = 1024 * 1024
SEED = 20
STORED = 0  # the level of compression that leaves everything as it is
ARCHITECTURES = ("amd64", "arm64", "arm", "s390x")
# A slow, far line, as between continents: what hides its round trips is many connections at once.
LONG = Shape(rtt=0.04, rate=16_000_000)


class Layers(msgspec.Struct, frozen=True):
    """What an image of a set is made of, for each platform: sizes in bytes of the layers that all images of
    the set share, and of those that are its own."""

    images: int
    platforms: int
    shared: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    tags: int = 1

    def scaled(self, scale: float) -> Layers:
        """The same with layers `scale` times the size."""
        shared, own = (
            tuple(max(1, int(size * scale)) for size in sizes) for sizes in (self.shared, self.own)
        )
        return msgspec.structs.replace(self, shared=shared, own=own)


class Scenario(msgspec.Struct, frozen=True):
    """What is measured.

    `layers`: a set that is generated; None: the set of Debian packages. `after`: the scenario whose state it
    starts from; "": everything is empty and the tool remembers nothing. `path`: what both registries are at
    the end of. `faults`: of so many of a hundred requests, at both ends, something goes wrong. `targets`: how
    many registries get it all.
    """

    says: str
    layers: Layers | None = None
    after: str = ""
    path: Shape | None = None
    faults: float = 0
    targets: int = 1


SCENARIOS: Mapping[str, Scenario] = {
    "cold": Scenario("the whole set into an empty registry; the tool remembers nothing"),
    "unchanged": Scenario("the same again, at once: everything is there", after="cold"),
    "shared-layers": Scenario(
        "40 images of two platforms over the same four layers of 4 MiB: mounts, or bytes again",
        Layers(40, 2, shared=(4 * MIB,) * 4, own=(256 * KIB,)),
    ),
    "many-small": Scenario(
        "150 images of two platforms with three layers of 16 KiB: requests, hardly a byte",
        Layers(150, 2, own=(16 * KIB,) * 3),
    ),
    "few-huge": Scenario(
        "two images of one platform with two layers of 300 MiB: bytes, hardly a request",
        Layers(2, 1, own=(300 * MIB,) * 2),
    ),
    "long-path": Scenario(
        "the whole set, both registries 40 ms away, each connection 16 MB/s each way", path=LONG
    ),
    "faults": Scenario(
        "16 images of two platforms with three layers of 1 MiB; 1 % of all requests fail, at both ends",
        Layers(16, 2, shared=(MIB,), own=(MIB,) * 2),
        faults=1.0,
    ),
    "fan-out": Scenario("the whole set into three empty registries", targets=3),
}


def layout_of(scenario: Scenario, debian: Layout | None, folder: Path, scale: float) -> Layout:
    """The set of a scenario: the one that is given, or one made under `folder`, once."""
    if scenario.layers is None:
        if debian is None:
            raise ValueError("this scenario mirrors the set of Debian packages: give its folder")
        return debian
    layers = scenario.layers.scaled(scale)
    name = hashlib.sha256(msgspec.json.encode(layers)).hexdigest()[:16]
    path = folder / f"set-{name}"
    return read_layout(path) if path.exists() else generate(path, layers)


def generate(path: Path, layers: Layers) -> Layout:
    """Write a set as an OCI layout to the new folder `path`, and read it."""
    (path / "blobs" / "sha256").mkdir(parents=True)
    maker = _Maker(path)
    shared = {
        architecture: [maker.layer(size) for size in layers.shared]
        for architecture in ARCHITECTURES[: layers.platforms]
    }
    roots = []
    for number in range(layers.images):
        children = []
        for architecture, below in shared.items():
            stack = [*below, *(maker.layer(size) for size in layers.own)]
            children.append(maker.image(number, architecture, stack))
        index = maker.keep(OCI.index, {"schemaVersion": 2, "mediaType": OCI.index, "manifests": children})
        for tag in range(layers.tags):
            name = f"bench/image-{number:04}:{tag + 1}"
            roots.append(index | {"annotations": {"org.opencontainers.image.ref.name": name}})
    names = [root["annotations"]["org.opencontainers.image.ref.name"] for root in roots]
    (path / "images.txt").write_text("".join(f"{name}\n" for name in names))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": roots}))
    return read_layout(path)


class _Maker:
    """Writes what it makes into the layout at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._block = random.Random(SEED).randbytes(MIB)
        self._made = 0

    def layer(self, size: int) -> dict[str, Any]:
        """A layer like no other: its number, and the same noise over and over. A little over `size`."""
        self._made += 1
        head = f"layer {self._made:08}\n".encode()
        content = (head + self._block * (size // MIB + 1))[:size]
        return self._write(OCI.layer, gzip.compress(content, STORED, mtime=0))

    def image(self, number: int, architecture: str, layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """An image manifest with its config; its descriptor, as an index mentions it."""
        platform = {"architecture": architecture, "os": "linux"}
        diff_ids = [layer["digest"] for layer in layers]
        config = platform | {"rootfs": {"type": "layers", "diff_ids": diff_ids}, "author": f"bench {number}"}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI.manifest,
            "config": self.keep(OCI.config, config),
            "layers": list(layers),
        }
        return self.keep(OCI.manifest, manifest) | {"platform": platform}

    def keep(self, media_type: str, content: object) -> dict[str, Any]:
        return self._write(media_type, json.dumps(content).encode())

    def _write(self, media_type: str, content: bytes) -> dict[str, Any]:
        encoded = hashlib.sha256(content).hexdigest()
        (self._path / "blobs" / "sha256" / encoded).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(content)}


def following(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """What has to be run for those named: each first scenario, with those that follow on its state."""
    firsts = dict.fromkeys(SCENARIOS[name].after or name for name in names)
    return [(first, [name for name in names if SCENARIOS[name].after == first]) for first in firsts]
