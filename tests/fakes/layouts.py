"""OCI layouts written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blobflow.oci import digest_of, media
from blobflow.transports.layout.index_json import OCI_LAYOUT_FILE

NAME = "org.opencontainers.image.ref.name"


class Layout:
    """An OCI layout made by hand, with one image called `x`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_bytes(OCI_LAYOUT_FILE)

    def path(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digest[7:]

    def put(self, content: bytes | dict[str, Any], kind: str, **more: Any) -> dict[str, Any]:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.path(digest_of(raw)).write_bytes(raw)
        return {"mediaType": kind, "digest": digest_of(raw), "size": len(raw), **more}

    def image(self, architecture: str) -> dict[str, Any]:
        said = {"os": "linux", "architecture": architecture}
        config = self.put(said, media.OCI_CONFIG)
        layer = self.put(architecture.encode(), media.OCI_LAYER_GZIP)
        document = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": [layer]}
        return self.put(document, media.OCI_MANIFEST, platform=said)

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
        return self.put(document, media.OCI_INDEX)

    def tag(self, root: dict[str, Any], name: str = "x") -> None:
        named = {"schemaVersion": 2, "manifests": [{**root, "annotations": {NAME: name}}]}
        (self.folder / "index.json").write_text(json.dumps(named))

    def lose(self, content: dict[str, Any]) -> None:
        self.path(content["digest"]).unlink()
