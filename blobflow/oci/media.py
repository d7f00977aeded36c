"""Media types: image-spec media-types.md, and Docker's equivalents.

Manifest media types are a closed set, because a manifest that can't be read can't be mirrored whole. Config
and layer media types are opaque: blobs are bytes.
"""

from __future__ import annotations

from typing import Literal

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

# What becomes of bare layers where they are compressed.
CompressMode = Literal["gzip", "gzip-portable", "zstd", "none"]

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
MANIFESTS = INDEXES | IMAGES
# What a manifest is in OCI's words that calls itself nothing, and was called so by others.
OCI_FORMS = {DOCKER_LIST: OCI_INDEX, DOCKER_MANIFEST: OCI_MANIFEST}
# What is taken for the config of an image: moby takes some words that tools of old wrote, too
# (distribution/registry.go).
IMAGE_CONFIGS = frozenset(
    {OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", "application/json", "text/html", ""}
)
SCHEMA1 = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})

# Registries answer an index with 404, or with one platform of it, to a client that does not list its type.
ACCEPT_MANIFESTS = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*;q=0.1"))

_FOREIGN_LAYERS = (
    "application/vnd.docker.image.rootfs.foreign.diff.",
    "application/vnd.oci.image.layer.nondistributable.",
)


def is_nondistributable(media_type: str) -> bool:
    """Layers that registries are not meant to hold (Windows base layers); image-spec layer.md."""
    return media_type.startswith(_FOREIGN_LAYERS)


def is_manifest(media_type: str) -> bool:
    """Whether what an index lists under a media type is a manifest: known, of another kind (schema 1, the
    former artifact manifest; what they list could not be carried), or not said.

    All else that an index lists is a blob, as for containerd: BuildKit's registry cache is an index of
    layers and a cache config.
    """
    if media_type in MANIFESTS:
        return True
    kind = without_parameters(media_type)
    return kind in MANIFESTS or not kind or ".manifest." in kind or ".image.index." in kind


def equivalent_types(one: str, other: str) -> bool:
    """Whether both are media types of images, or both of indexes, in OCI's or Docker's words."""
    return any(one in kinds and other in kinds for kinds in (IMAGES, INDEXES))


def belied(said: str, kind: str) -> bool:
    """Whether a label says of a manifest that is `kind` that it is another one."""
    label = without_parameters(said)
    return label != kind and (label in MANIFESTS or label in SCHEMA1)


def is_specific(media_type: str) -> bool:
    """Whether a media type says what kind of OCI or Docker content something is; text/plain, application/json
    and application/octet-stream, with which plain web servers and some registries answer, do not."""
    return media_type.startswith(("application/vnd.oci.", "application/vnd.docker."))


def without_parameters(content_type: str) -> str:
    """A Content-Type header's media type, without parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
