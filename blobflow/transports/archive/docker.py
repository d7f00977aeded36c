"""Docker's archives: manifest.json, and the image manifests that registries want in its place.

`docker save`, `podman save` and `skopeo copy docker-archive:` write configs and bare layers, no manifests. So
a manifest is made here, of OCI media types and always the same bytes for the same content: config, then
layers as they were compressed. The config stays as it is, byte for byte, and its diff_ids say what the layers
have to be.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from blobflow.errors import InvalidDigest, StorageError, UnsupportedContent
from blobflow.oci import (
    Descriptor,
    Digest,
    Manifest,
    Platform,
    digest_of,
    media,
    parse_digest,
    parse_manifest,
)
from blobflow.oci.decoding import decode
from blobflow.oci.manifest import MAX_CHILDREN
from blobflow.transports.archive.tar import inside
from blobflow.transports.imageindex import path_in_layout
from blobflow.transports.names import tagged_name

CATALOGUE = "manifest.json"
# What `docker save` wrote alone before 1.10, and after that beside manifest.json.
_BEFORE = "repositories"
# Images, and their layers and names, that one manifest.json lists. 4 MiB of it have room for some 30,000 real
# layers; what is listed is looked up, and tags are compared with what is asked for.
MAX_LISTED = 100_000


class _Entry(msgspec.Struct):
    config: str = msgspec.field(name="Config")
    layers: list[str] | None = msgspec.field(name="Layers", default=None)
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


class _RootFs(msgspec.Struct):
    diff_ids: list[str] | None = None


class _Config(msgspec.Struct):
    rootfs: _RootFs | None = None


class DockerImage(msgspec.Struct, frozen=True):
    """One image of manifest.json, paths from the archive's root."""

    names: tuple[str, ...]
    config: str
    layers: tuple[str, ...]


_catalogue = msgspec.json.Decoder(list[_Entry])
_config = msgspec.json.Decoder(_Config)


def parse_catalogue(raw: bytes, name: str) -> list[DockerImage]:
    """Read manifest.json of the archive `name`. Raises UnsupportedContent, also for paths outside."""
    try:
        entries = decode(raw, _catalogue)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnsupportedContent(f"{name}: its {CATALOGUE} is not what docker writes: {error}") from None
    listed = sum(1 + len(entry.layers or ()) + len(entry.tags or ()) for entry in entries)
    if listed > MAX_LISTED:
        raise UnsupportedContent(
            f"{name}: its {CATALOGUE} lists {listed} images, layers and names, more than {MAX_LISTED}"
        )
    for entry in entries:
        if len(entry.layers or ()) > MAX_CHILDREN:
            raise UnsupportedContent(
                f"{name}: its {CATALOGUE} lists {len(entry.layers or ())} layers of one image, more than "
                f"{MAX_CHILDREN}"
            )
    return [
        DockerImage(
            tuple(dict.fromkeys(entry.tags or ())),
            inside(entry.config, name),
            tuple(inside(layer, name) for layer in entry.layers or ()),
        )
        for entry in entries
    ]


def without_catalogue(paths: set[str], name: str) -> UnsupportedContent:
    """Why an archive without manifest.json can't be read."""
    if "index.json" in paths:
        return UnsupportedContent(f"{name} is an OCI archive; write oci-archive:{name}")
    if _BEFORE in paths:
        return UnsupportedContent(
            f"{name} is of a docker before 1.10 (schema 1); load it there, and save it with a newer one"
        )
    return UnsupportedContent(f"{name} is a tar of something else: it has no {CATALOGUE} and no index.json")


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
        raise StorageError(f"{what} names {len(named)} layers, but {CATALOGUE} lists {layers}")
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


def catalogue_of(
    tags: Mapping[str, Descriptor], manifests: Mapping[Digest, Manifest], platform: Platform
) -> bytes:
    """The manifest.json of an archive whose blobs lie as in an OCI layout.

    One entry an image, with all its names: of an index the manifest for `platform`, else its first image.
    """
    named: dict[Digest, set[str]] = {}
    for tag, root in tags.items():
        full, image = tagged_name(tag), _one_image(root, manifests, platform)
        if full and image:
            named.setdefault(image.descriptor.digest, set()).add(full)
    entries = []
    for digest, names in sorted(named.items(), key=lambda item: min(item[1])):
        image = manifests[digest]
        assert image.config is not None, "what docker knows has a config"
        layers = [path_in_layout(layer.digest) for layer in image.layers]
        entries.append(_Entry(path_in_layout(image.config.digest), layers, sorted(names)))
    return msgspec.json.encode(entries)


def _one_image(root: Descriptor, manifests: Mapping[Digest, Manifest], platform: Platform) -> Manifest | None:
    """The image below a root that docker shall load; None if there is none that it can."""
    manifest = manifests.get(root.digest)
    if manifest is None or not manifest.is_index:
        return manifest if manifest and _is_dockers(manifest) else None
    fitting = sorted(manifest.manifests, key=lambda child: not _fits(child, platform))
    found = (_one_image(child, manifests, platform) for child in fitting)
    return next((image for image in found if image), None)


def _fits(child: Descriptor, platform: Platform) -> bool:
    return child.platform is not None and child.platform.matches(platform)


def _is_dockers(manifest: Manifest) -> bool:
    """Whether docker can load it: an image's config, and every layer in the archive."""
    kinds = (media.OCI_CONFIG, media.DOCKER_CONFIG)
    own = manifest.config is not None and manifest.config.media_type in kinds
    return own and len(manifest.blobs) == 1 + len(manifest.layers)
