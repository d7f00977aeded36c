"""Converts manifests from Docker's schema 2 to OCI's media types, and back. Pure.

For registries and clients that take only one of them. Blobs stay what they are, byte for byte; manifests get
other bytes, and so other digests. What the other family has no word for can't be converted: zstd layers and
artifacts in Docker's; annotations are dropped there, as skopeo does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from blobflow.errors import UnsupportedContent
from blobflow.oci import media
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.digest import Digest
from blobflow.oci.manifest import Manifest, parse_manifest

# skopeo's words. "": as it is.
Format = Literal["", "oci", "v2s2"]

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
_TO_DOCKER = {
    media.OCI_INDEX: media.DOCKER_LIST,
    media.OCI_MANIFEST: media.DOCKER_MANIFEST,
    media.OCI_CONFIG: media.DOCKER_CONFIG,
    media.OCI_LAYER_GZIP: f"{_DOCKER_LAYER}.gzip",
    _OCI_LAYER: _DOCKER_LAYER,
    _OCI_FOREIGN: _DOCKER_FOREIGN,
}
_WORDS: dict[Format, dict[str, str]] = {
    "v2s2": _TO_DOCKER,
    "oci": {docker: oci for oci, docker in _TO_DOCKER.items()},
}
# What Docker's schema has no place for.
_NOT_DOCKERS = ("annotations", "subject", "artifactType")


def convert_manifest(manifest: Manifest, form: Format, replaced: Mapping[Digest, Descriptor]) -> Manifest:
    """The manifest in the words of `form`; `replaced`: what became of the children that were converted.

    A manifest in these words already, whose children stayed the same, is returned as it is. The bytes depend
    on nothing but the arguments. Raises UnsupportedContent for what has no word there.
    """
    words = _WORDS.get(form, {})
    if not form or (_fits(manifest, form, words) and not replaced):
        return manifest
    try:
        document: dict[str, Any] = json.loads(manifest.raw)
    except (ValueError, RecursionError) as error:
        digest = manifest.descriptor.digest
        raise UnsupportedContent(f"manifest {digest} can't be converted: {error}") from None
    kind = words.get(manifest.descriptor.media_type, manifest.descriptor.media_type)
    made: dict[str, Any] = {"schemaVersion": 2, "mediaType": kind}
    for key, value in document.items():
        if value is None:
            continue  # as absent
        if key == "config":
            made[key] = _said(value, words, replaced, manifest)
        elif key in ("layers", "manifests"):
            made[key] = [_said(each, words, replaced, manifest) for each in value]
        elif key not in made and not (form == "v2s2" and key in _NOT_DOCKERS):
            made[key] = value
    raw = json.dumps(made, indent=3, ensure_ascii=False).encode()
    return parse_manifest(raw, kind)


def _fits(manifest: Manifest, form: Format, words: Mapping[str, str]) -> bool:
    """Whether a manifest is in the words of `form` already. Docker's readers refuse OCI's words in a manifest
    of theirs; OCI's read Docker's (image-spec media-types.md, "Compatibility Matrix")."""
    own = manifest.manifests if manifest.is_index else (manifest.config, *manifest.layers)
    foreign = form == "v2s2" and any(each is not None and each.media_type in words for each in own)
    return manifest.descriptor.media_type in words.values() and not foreign


def _said(
    child: dict[str, Any], words: Mapping[str, str], replaced: Mapping[Digest, Descriptor], parent: Manifest
) -> dict[str, Any]:
    """A child's descriptor in the other words."""
    new = replaced.get(child["digest"])
    if new is not None:
        said = {**child, "mediaType": new.media_type, "digest": new.digest, "size": new.size}
    else:
        kind = child.get("mediaType") or ""
        if kind not in words and kind not in words.values():
            raise UnsupportedContent(
                f"manifest {parent.descriptor.digest} has a child of the media type {kind[:120]!r}, for which"
                " the other format has no word"
            )
        said = {**child, "mediaType": words.get(kind, kind)}
    if words is _TO_DOCKER:
        for key in _NOT_DOCKERS:
            said.pop(key, None)
    return said
