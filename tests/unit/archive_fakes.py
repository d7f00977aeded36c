"""Archives made by hand, as docker, podman and skopeo write them, and as nobody should."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

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
