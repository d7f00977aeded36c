"""Encodes an index from its children; the only module that does. Pure.

The form is that of `docker manifest push`, byte for byte, for OCI indexes too (docker 23 and later make
them): three spaces, `mediaType`, `size`, `digest`, `platform`, no newline at the end. So the same images in
the same order have the same digest, whoever made the index. The order is the caller's: clients take the first
child that fits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci import media
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest

IndexFormat = Literal["oci", "docker"]

_TYPES: dict[IndexFormat, str] = {"oci": media.OCI_INDEX, "docker": media.DOCKER_LIST}
_INDENT = 3
_PLATFORM_KEYS = ("architecture", "os", "os.version", "os.features", "variant")


def encode_index(
    children: Sequence[Descriptor], form: IndexFormat, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """The index of these children in their order; the same bytes for the same arguments, always.

    The children stay what they are: their media types are not looked at. Raises UnsupportedContent for an
    index larger than registries take.
    """
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": _TYPES[form],
        "manifests": [_mention(child) for child in children],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    raw = json.dumps(document, indent=_INDENT, ensure_ascii=False).encode()
    if len(raw) > MAX_MANIFEST_BYTES:
        raise UnsupportedContent(
            f"an index of these {len(children)} manifests has {len(raw)} bytes, more than the "
            f"{MAX_MANIFEST_BYTES} that registries take; make several"
        )
    return parse_manifest(raw, _TYPES[form])


def _mention(child: Descriptor) -> dict[str, Any]:
    """What the index says of a child, in docker's order of keys; what is not known is left out."""
    mention: dict[str, Any] = {"mediaType": child.media_type, "size": child.size, "digest": child.digest}
    if child.urls:
        mention["urls"] = list(child.urls)
    if child.annotations:
        mention["annotations"] = dict(sorted(child.annotations.items()))
    if child.platform is not None:
        said: dict[str, Any] = msgspec.to_builtins(child.platform)
        mention["platform"] = {key: said[key] for key in _PLATFORM_KEYS if said[key]}
    if child.artifact_type:
        mention["artifactType"] = child.artifact_type
    return mention
