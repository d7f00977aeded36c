"""Builds the image manifests that registries want from the configs and layers of docker's archives.

`docker save`, `podman save` and `skopeo copy docker-archive:` write configs and bare layers, no manifests. So
a manifest is made here, of OCI media types and always the same bytes for the same content: config, then
layers as they were compressed. The config stays as it is, byte for byte, and its diff_ids say what the layers
have to be.
"""

from __future__ import annotations

import msgspec

from blobflow.errors import InvalidDigest, StorageError, UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, digest_of, media, parse_digest, parse_manifest
from blobflow.oci.json_decoding import decode
from blobflow.transports.archive.manifest_json import MANIFEST_JSON


class _RootFs(msgspec.Struct):
    diff_ids: list[str] | None = None


class _Config(msgspec.Struct):
    rootfs: _RootFs | None = None


_config = msgspec.json.Decoder(_Config)


def diff_ids(config: bytes, layers: int, what: str) -> list[Digest]:
    """The diff_ids of `layers` layers that a config names.

    Raises UnsupportedContent for a config without any, StorageError where their number is another.
    """
    try:
        rootfs = decode(config, _config).rootfs
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnsupportedContent(f"{what} is not an image's config: {error}") from None
    if rootfs is None:
        raise UnsupportedContent(
            f"{what} names no layers: it is of before docker 1.10 (schema 1), save it anew"
        )
    named = rootfs.diff_ids or ()
    if len(named) != layers:
        raise StorageError(f"{what} names {len(named)} layers, but {MANIFEST_JSON} lists {layers}")
    try:
        found = [parse_digest(diff_id) for diff_id in named]
    except InvalidDigest as error:
        raise UnsupportedContent(f"{what} names layers that can't be verified: {error}") from None
    for diff_id in found:
        if not diff_id.startswith("sha256:"):
            raise UnsupportedContent(f"{what} has the diff_id {diff_id}, which docker's archives do not have")
    return found


def make_manifest(config: bytes, layers: list[Descriptor]) -> Manifest:
    """The image manifest of a config and its layers; the same bytes for the same arguments, always."""
    described = Descriptor(media.OCI_CONFIG, digest_of(config), len(config))
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": msgspec.to_builtins(described),
        "layers": [msgspec.to_builtins(layer) for layer in layers],
    }
    return parse_manifest(msgspec.json.encode(document), media.OCI_MANIFEST)
