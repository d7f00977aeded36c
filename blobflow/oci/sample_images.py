"""A small multi-platform image set, made from a seed alone: for the demo and for the unit tests.

Nothing is read and nothing is written; the same arguments give the same bytes on every machine. So layers
are real gzip'ed tars, but of *stored* deflate blocks written here: what a compressor makes of its input
differs from one zlib to the next, stored blocks don't.

What is shared follows real sets: a base layer for each architecture in every image, one layer of files
without an architecture in every image, one more layer for each image that its platforms share, and one
application layer for each image and architecture. Every fourth image has Docker schema 2 media types, the
others those of the OCI.
"""

import hashlib
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

__all__ = ["SampleSet", "Stored", "sample_set"]

_BLOCK: Final = 65_535  # the longest stored deflate block (RFC 1951, 3.2.4)
_CREATED: Final = "1970-01-01T00:00:00Z"
_VARIANTS: Final[Mapping[str, str]] = {"arm64": "v8", "arm": "v7"}
_NAMES: Final = ("gateway", "catalog", "cart", "payment", "search", "mail", "worker", "metrics")


class Stored(NamedTuple):
    """A manifest or index as a registry keeps it: media type and bytes, which are never re-encoded."""

    media_type: str
    raw: bytes

    @property
    def digest(self) -> str:
        """The sha256 digest of the bytes."""
        return _digest(self.raw)


@dataclass(frozen=True)
class _MediaTypes:
    index: str
    manifest: str
    config: str
    layer: str


_OCI: Final = _MediaTypes(
    index="application/vnd.oci.image.index.v1+json",
    manifest="application/vnd.oci.image.manifest.v1+json",
    config="application/vnd.oci.image.config.v1+json",
    layer="application/vnd.oci.image.layer.v1.tar+gzip",
)
_DOCKER: Final = _MediaTypes(
    index="application/vnd.docker.distribution.manifest.list.v2+json",
    manifest="application/vnd.docker.distribution.manifest.v2+json",
    config="application/vnd.docker.container.image.v1+json",
    layer="application/vnd.docker.image.rootfs.diff.tar.gzip",
)


@dataclass(frozen=True)
class SampleSet:
    """An image set held in memory.

    `images` maps `repository:tag` to its index; `manifests` maps a digest to every index and image
    manifest, in an order in which children come before the indexes that list them; `blobs` maps a digest to
    the bytes of every config and layer.
    """

    images: Mapping[str, Stored]
    manifests: Mapping[str, Stored]
    blobs: Mapping[str, bytes]

    @property
    def unique_bytes(self) -> int:
        """How many bytes the configs and layers have, each counted once."""
        return sum(map(len, self.blobs.values()))


class _Layer(NamedTuple):
    diff_id: str
    digest: str
    size: int


def sample_set(
    seed: int,
    images: int = 8,
    architectures: Sequence[str] = ("amd64", "arm64", "arm"),
    layer_size: int = 128 * 1024,
) -> SampleSet:
    """Make the set of `seed`: `images` images, each an index with one linux manifest for each architecture.

    `layer_size` is the size in bytes of a base layer's file; the other layers have between an eighth of it
    and one and a half times it. The defaults come to about 4 MB. Raises ValueError for a negative size, no
    image or no architecture.
    """
    if images < 1 or not architectures or layer_size < 0:
        raise ValueError("a sample set has at least one image and one architecture, and no negative size")
    return _Maker(seed, layer_size).make(images, tuple(architectures))


class _Maker:
    """Collects the blobs and manifests of one set while it is being made."""

    def __init__(self, seed: int, layer_size: int) -> None:
        self._seed = seed
        self._layer_size = layer_size
        self._layers: dict[str, _Layer] = {}
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, Stored] = {}

    def make(self, images: int, architectures: tuple[str, ...]) -> SampleSet:
        named = {_name(number): self._index(number, architectures) for number in range(images)}
        return SampleSet(images=named, manifests=self._manifests, blobs=self._blobs)

    def _index(self, number: int, architectures: tuple[str, ...]) -> Stored:
        types = _DOCKER if number % 4 == 3 else _OCI
        children = []
        for architecture in architectures:
            child = self._manifest(types, number, architecture)
            children.append(_descriptor(child.media_type, child.raw) | {"platform": _platform(architecture)})
        return self._keep(types.index, {"manifests": children})

    def _manifest(self, types: _MediaTypes, number: int, architecture: str) -> Stored:
        size = self._layer_size
        layers = (
            self._layer(f"base/{architecture}", size),
            self._layer("share/zoneinfo", size // 2),
            self._layer(f"share/{_word(number)}", size // 8),
            self._layer(f"app/{_word(number)}/{architecture}", size // 2 + size * (number % 5) // 4),
        )
        config = _encode(
            {
                "created": _CREATED,
                **_platform(architecture),
                "config": {"Cmd": [f"/app/{_word(number)}/{architecture}"]},
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                "history": [{"created": _CREATED, "created_by": f"sample {self._seed}"} for _ in layers],
            }
        )
        self._blobs[_digest(config)] = config
        content = {
            "config": _descriptor(types.config, config),
            "layers": [
                {"mediaType": types.layer, "digest": digest, "size": size} for _, digest, size in layers
            ],
        }
        return self._keep(types.manifest, content)

    def _layer(self, path: str, size: int) -> _Layer:
        """The layer that holds `size` bytes at `path`; asked for twice, it is made once."""
        if path not in self._layers:
            tar = _tar(path, hashlib.shake_256(f"{self._seed} {path}".encode()).digest(size))
            blob = _gzip(tar)
            self._layers[path] = _Layer(_digest(tar), _digest(blob), len(blob))
            self._blobs[self._layers[path].digest] = blob
        return self._layers[path]

    def _keep(self, media_type: str, content: Mapping[str, Any]) -> Stored:
        stored = Stored(media_type, _encode({"schemaVersion": 2, "mediaType": media_type, **content}))
        self._manifests[stored.digest] = stored
        return stored


def _word(number: int) -> str:
    """What the image is called within its set: a word, with a number once the words have run out."""
    turn, place = divmod(number, len(_NAMES))
    return _NAMES[place] + (f"-{turn + 1}" if turn else "")


def _name(number: int) -> str:
    return f"shop/{_word(number)}:1.{number}"


def _platform(architecture: str) -> dict[str, str]:
    variant = _VARIANTS.get(architecture)
    return {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})


def _digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _descriptor(media_type: str, raw: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(raw), "size": len(raw)}


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _tar(path: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(path)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _gzip(raw: bytes) -> bytes:
    """A gzip member (RFC 1952) of stored blocks, without a name and a time."""
    parts = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for start in range(0, max(len(raw), 1), _BLOCK):
        block = raw[start : start + _BLOCK]
        last = start + _BLOCK >= len(raw)
        parts.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    parts.append(struct.pack("<II", zlib.crc32(raw), len(raw) & 0xFFFF_FFFF))
    return b"".join(parts)
