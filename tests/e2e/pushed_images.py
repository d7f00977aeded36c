"""Images of a few bytes, put into a registry by hand: one config, one layer, what a test says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tools.processes import Registry

INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def put_image(
    registry: Registry, repository: str, *tags: str, text: str = "x", created: str = "", **more: Any
) -> str:
    """Put an image, different for each `text`, under tags, or under its digest alone; returns the digest."""
    config = {"os": "linux", "architecture": "amd64", "created": created or "1970-01-01T00:00:00Z"}
    layer = _blob(registry, repository, text.encode(), _LAYER)
    own = _blob(registry, repository, json.dumps(config).encode(), _CONFIG)
    document = {"schemaVersion": 2, "mediaType": IMAGE, "config": own, "layers": [layer], **more}
    return put_manifest(registry, repository, document, *tags)


def put_index(registry: Registry, repository: str, children: Sequence[str], *tags: str, **more: Any) -> str:
    """Put an index of manifests that are there; returns its digest."""
    listed = []
    for number, digest in enumerate(children):
        _, headers, raw = registry.ask(
            "GET", f"/v2/{repository}/manifests/{digest}", {"Accept": f"{IMAGE}, {INDEX}"}
        )
        platform = {"os": "linux", "architecture": ("amd64", "arm64", "s390x")[number]}
        listed.append(
            {"mediaType": headers["content-type"], "digest": digest, "size": len(raw), "platform": platform}
        )
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed, **more}
    return put_manifest(registry, repository, document, *tags)


def put_manifest(registry: Registry, repository: str, document: dict[str, Any], *tags: str) -> str:
    raw = json.dumps(document).encode()
    digest = _digest(raw)
    for name in tags or (digest,):
        kind = {"Content-Type": str(document["mediaType"])}
        status, _, answer = registry.ask("PUT", f"/v2/{repository}/manifests/{name}", kind, raw)
        assert status == 201, answer
    return digest


def manifest_size(registry: Registry, repository: str, digest: str) -> int:
    """The bytes of a manifest that is there."""
    _, _, raw = registry.ask("GET", f"/v2/{repository}/manifests/{digest}", {"Accept": f"{IMAGE}, {INDEX}"})
    return len(raw)


def tags_of(registry: Registry, repository: str) -> list[str]:
    """The tags as the registry itself lists them, sorted."""
    status, _, raw = registry.ask("GET", f"/v2/{repository}/tags/list")
    return sorted(json.loads(raw)["tags"] or []) if status == 200 else []


def _blob(registry: Registry, repository: str, content: bytes, kind: str) -> dict[str, Any]:
    digest = _digest(content)
    _, headers, _ = registry.ask("POST", f"/v2/{repository}/blobs/uploads/", {"Content-Length": "0"})
    location = headers["location"].removeprefix(f"http://{registry.host}")
    joined = "&" if "?" in location else "?"
    status, _, answer = registry.ask("PUT", f"{location}{joined}digest={digest}", {}, content)
    assert status == 201, answer
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
