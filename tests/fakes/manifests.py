"""Manifests as JSON, right and wrong."""

from __future__ import annotations

import json
from typing import Any

from blobflow.oci import digest_of, media

Json = dict[str, Any]
CONFIG: Json = {"mediaType": media.OCI_CONFIG, "digest": digest_of(b"{}"), "size": 2}
LAYER: Json = {"mediaType": media.OCI_LAYER_GZIP, "digest": digest_of(b"layer"), "size": 5}
IMAGE: Json = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
CHILD: Json = {
    "mediaType": media.OCI_MANIFEST,
    "digest": digest_of(b"child"),
    "size": 500,
    "platform": {"architecture": "arm64", "os": "linux", "variant": "v8"},
}
INDEX: Json = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [CHILD]}


def encoded(document: Json, *without: str, **more: object) -> bytes:
    kept = {key: value for key, value in document.items() if key not in without}
    return json.dumps({**kept, **more}).encode()


def docker(document: Json) -> Json:
    kind = media.DOCKER_LIST if "manifests" in document else media.DOCKER_MANIFEST
    return {**document, "mediaType": kind}
