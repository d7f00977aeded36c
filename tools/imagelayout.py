"""Image layouts as sets are kept in: written blob by blob, read as images. Only the standard library."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LOCK, STAMP, WORK = ".imageset.lock", ".imageset.stamp", ".imageset.work"

Json = dict[str, Any]
Say = Callable[[str], None]


class ImageSetError(Exception):
    """What went wrong, as one sentence for the person at the terminal."""


@dataclass(frozen=True)
class MediaTypes:
    """One family of media types, and how deep its tools indent manifests."""

    index: str
    manifest: str
    config: str
    layer: str
    indent: int | None


OCI = MediaTypes(
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    None,
)
DOCKER = MediaTypes(
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    3,
)


class Image(NamedTuple):
    """One image of a layout: its root, its children (digest: media type) and its blobs (digest: bytes)."""

    name: str
    digest: str
    media_type: str
    size: int
    children: dict[str, str]
    blobs: dict[str, int]

    @property
    def repository(self) -> str:
        return self.name.rpartition(":")[0]

    @property
    def tag(self) -> str:
        return self.name.rpartition(":")[2]


class Layout(NamedTuple):
    """A layout that was read: its images by name."""

    path: Path
    images: dict[str, Image]

    @property
    def blobs(self) -> dict[str, int]:
        """Every config and layer that an image reaches, with its size in bytes."""
        return {digest: size for image in self.images.values() for digest, size in image.blobs.items()}

    @property
    def unique_bytes(self) -> int:
        return sum(self.blobs.values())

    @property
    def referenced_bytes(self) -> int:
        """The bytes of all images' blobs, counted again for each image that has them."""
        return sum(sum(image.blobs.values()) for image in self.images.values())

    def blob(self, digest: str) -> Path:
        """The file of a blob or manifest."""
        return blob_path(self.path, digest)


def read_layout(path: str | Path) -> Layout:
    """Read an image layout whose roots are indexes of image manifests; ImageSetError where there is none."""
    images = {}
    try:
        for root in json.loads((Path(path) / "index.json").read_bytes())["manifests"]:
            name = root["annotations"]["org.opencontainers.image.ref.name"]
            images[name] = _read_image(Path(path), name, root)
    except (OSError, ValueError, KeyError) as error:
        raise ImageSetError(f"{path} is not a complete image layout: {error!r}") from error
    return Layout(Path(path), images)


@contextmanager
def claimed(path: Path, stamp: str) -> Iterator[bool]:
    """Hold the path alone; gives whether it is complete, and empties it (of what is ours) if it isn't."""
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()) and not (path / LOCK).exists():
        raise ImageSetError(f"{path} is not empty and not an image set made by this tool")
    with (path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = (path / STAMP).exists() and (path / STAMP).read_text() == stamp
        if not complete:
            (path / STAMP).unlink(missing_ok=True)
            for name in ("blobs", WORK):
                shutil.rmtree(path / name, ignore_errors=True)
            (path / "blobs" / "sha256").mkdir(parents=True)
        try:
            yield complete
        finally:
            shutil.rmtree(path / WORK, ignore_errors=True)


def keep(path: Path, media_type: str, raw: bytes) -> Json:
    """Write the bytes as a blob of the layout; returns their descriptor."""
    encoded = hashlib.sha256(raw).hexdigest()
    (path / "blobs" / "sha256" / encoded).write_bytes(raw)
    return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(raw)}


def finish(path: Path, roots: dict[str, Json], packages: Json, stamp: str) -> None:
    """Write everything but the blobs, the stamp last."""
    named = [
        root | {"annotations": {"org.opencontainers.image.ref.name": name}} for name, root in roots.items()
    ]
    (path / "index.json").write_bytes(
        encode({"schemaVersion": 2, "mediaType": OCI.index, "manifests": named})
    )
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "images.txt").write_text("".join(f"{name}\n" for name in roots))
    (path / "packages.json").write_bytes(encode(packages, indent=2))
    (path / STAMP).write_text(stamp)


def _read_image(path: Path, name: str, root: Json) -> Image:
    listing = json.loads(blob_path(path, root["digest"]).read_bytes())
    blobs: dict[str, int] = {}
    for child in listing["manifests"]:
        manifest = json.loads(blob_path(path, child["digest"]).read_bytes())
        blobs |= {blob["digest"]: blob["size"] for blob in [manifest["config"], *manifest["layers"]]}
    children = {child["digest"]: child["mediaType"] for child in listing["manifests"]}
    return Image(name, root["digest"], root["mediaType"], root["size"], children, blobs)


def blob_path(path: Path, digest: str) -> Path:
    return path.joinpath("blobs", *digest.split(":"))


def encode(content: Json, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else None
    return json.dumps(content, indent=indent, separators=separators).encode()


def fingerprint(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
