"""Sets of images made for a purpose, and the named scenarios in which a tool mirrors them.

A set is an OCI layout as `tools/imageset.py` reads and pushes it. The layers of generated sets are gzip'ed
tars of one file, since skopeo compresses what is not.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
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
NAMED = "org.opencontainers.image.ref.name"
ARCHITECTURES = ("amd64", "arm64", "arm", "s390x")
# A slow, far line, as between continents: what hides its round trips is many connections at once.
LONG = Shape(rtt=0.04, rate=16_000_000)
# A line of which only the round trip is felt.
NEXT_CITY = Shape(rtt=0.02)
# Where a repository of the source goes, below a target's host.
PREFIX = "mirror"


class Layers(msgspec.Struct, frozen=True):
    """What an image of a set is made of, for each platform: sizes in bytes of the layers that all images of
    the set share, and of those that are its own."""

    images: int
    platforms: int
    shared: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    tags: int = 1

    def scaled(self, scale: float) -> Layers:
        """The same with layers `scale` times the size, and as much of the tags."""
        shared, own = (
            tuple(max(1, int(size * scale)) for size in sizes) for sizes in (self.shared, self.own)
        )
        tags = max(1, round(self.tags * scale))
        return msgspec.structs.replace(self, shared=shared, own=own, tags=tags)


# About as many images, blobs and bytes as the set of Debian packages has, for who did not make that.
LIKE_DEBIAN = Layers(15, 3, shared=(10 * MIB,) * 2, own=(10 * MIB,))


class Scenario(msgspec.Struct, frozen=True):
    """What is measured.

    `layers`: a set that is generated; None: the set of Debian packages, or one like it. `after`: the scenario
    whose state it starts from; "": everything is empty and the tool remembers nothing. `filled`: everything
    is there already. `prefix`: where the target's repositories are. `source_path`, `target_path`: what that
    registry is at the end of. `served`: the registries are `blobflow serve`. `at_once`: so many images at
    once, and requests to each registry if that is more, are best for tuned peers. `raw`: the floors
    that are measured with it (peers.RAW). `faults`: of so many of a hundred requests, at both ends, something
    goes wrong. `targets`: how many registries get it all.
    """

    says: str
    layers: Layers | None = None
    after: str = ""
    filled: bool = False
    prefix: str = PREFIX
    source_path: Shape | None = None
    target_path: Shape | None = None
    served: bool = False
    at_once: int = 4
    raw: tuple[str, ...] = ()
    faults: float = 0
    targets: int = 1


SCENARIOS: Mapping[str, Scenario] = {
    "cold": Scenario("the whole set into an empty registry; the tool remembers nothing"),
    "unchanged": Scenario("the same again, at once: everything is there", after="cold"),
    "second-prefix": Scenario(
        "the same under another prefix of the registry that has it: mounts, or bytes again",
        after="cold",
        prefix="second",
    ),
    "shared-layers": Scenario(
        "40 images of two platforms over the same four layers of 4 MiB: mounts, or bytes again",
        Layers(40, 2, shared=(4 * MIB,) * 4, own=(256 * KIB,)),
    ),
    "many-small": Scenario(
        "150 images of two platforms with three layers of 16 KiB: requests, hardly a byte",
        Layers(150, 2, own=(16 * KIB,) * 3),
    ),
    "few-huge": Scenario(
        "four images of one platform with one layer of 300 MiB: bytes, hardly a request",
        Layers(4, 1, own=(300 * MIB,)),
    ),
    "giant-layer": Scenario(
        "one image with one layer of 512 MiB; source 40 ms away, each connection 16 MB/s; target near",
        Layers(1, 1, own=(512 * MIB,)),
        source_path=LONG,
        raw=("8 raw connections",),
    ),
    "far-source": Scenario(
        "the whole set; source 40 ms away, each connection 16 MB/s; target near", source_path=LONG
    ),
    "long-path": Scenario(
        "the whole set, both registries 40 ms away, each connection 16 MB/s each way",
        source_path=LONG,
        target_path=LONG,
    ),
    "many-tags": Scenario(
        "2,000 tags of 20 images, nothing changed; both registries are `blobflow serve`, 20 ms away",
        Layers(20, 1, own=(KIB,), tags=100),
        filled=True,
        source_path=NEXT_CITY,
        target_path=NEXT_CITY,
        served=True,
        at_once=64,
    ),
    "faults": Scenario(
        "16 images of two platforms with three layers of 1 MiB; 1 % of all requests fail, at both ends",
        Layers(16, 2, shared=(MIB,), own=(MIB,) * 2),
        faults=1.0,
    ),
    "fan-out": Scenario("the whole set into three empty registries", targets=3),
}


def layout_of(scenario: Scenario, debian: Layout | None, folder: Path, scale: float) -> Layout:
    """The set of a scenario: of the one that is given as many images as `scale` asks for, or one that is made
    under `folder`, once."""
    if scenario.layers is None and debian is not None:
        return part_of(debian, folder, scale) if scale < 1 else debian
    layers = (scenario.layers or LIKE_DEBIAN).scaled(scale)
    name = hashlib.sha256(msgspec.json.encode(layers)).hexdigest()[:16]
    path = folder / f"set-{name}"
    return read_layout(path) if path.exists() else generate(path, layers)


def part_of(layout: Layout, folder: Path, scale: float) -> Layout:
    """The first images of a set, as a layout over the same blobs under `folder`."""
    names = list(layout.images)[: max(1, round(len(layout.images) * scale))]
    path = folder / f"part-{len(names)}"
    if not path.exists():
        path.mkdir()
        (path / "blobs").symlink_to(layout.path.resolve() / "blobs")
        whole = json.loads((layout.path / "index.json").read_bytes())
        roots = [root for root in whole["manifests"] if root["annotations"][NAMED] in names]
        _write_index(path, roots)
    return read_layout(path)


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
            roots.append(index | {"annotations": {NAMED: name}})
    _write_index(path, roots)
    return read_layout(path)


def _write_index(path: Path, roots: Sequence[dict[str, Any]]) -> None:
    """Write everything of a layout but its blobs."""
    (path / "images.txt").write_text("".join(f"{root['annotations'][NAMED]}\n" for root in roots))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(roots)}))


def one_file_tar(content: bytes) -> bytes:
    """A tar with nothing but this file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo("content")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


class _Maker:
    """Writes what it makes into the layout at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._block = random.Random(SEED).randbytes(MIB)
        self._made = 0
        self._diff_ids: dict[str, str] = {}

    def layer(self, size: int) -> dict[str, Any]:
        """A layer like no other: its number, and the same noise over and over. A little over `size`."""
        self._made += 1
        head = f"layer {self._made:08}\n".encode()
        content = one_file_tar((head + self._block * (size // MIB + 1))[:size])
        layer = self._write(OCI.layer, gzip.compress(content, STORED, mtime=0))
        self._diff_ids[layer["digest"]] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return layer

    def image(self, number: int, architecture: str, layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """An image manifest with its config; its descriptor, as an index mentions it."""
        platform = {"architecture": architecture, "os": "linux"}
        diff_ids = [self._diff_ids[layer["digest"]] for layer in layers]
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
