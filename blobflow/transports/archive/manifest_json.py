"""Reads and writes manifest.json and `repositories`, which list the images of docker's archives.

Docker's tools are written in Go, whose JSON takes `repoTags` for `RepoTags`, and some writers lean on that.
So keys are read in any case; a key that is there twice, in whatever cases, is refused, since readers differ
in which of them counts. A null is an absent field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from blobflow.errors import UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, Platform, media
from blobflow.oci.digest import encoded_of
from blobflow.oci.manifest import MAX_CHILDREN
from blobflow.oci.reference import DOCKER_HUB
from blobflow.transports.archive.tar_reader import inside
from blobflow.transports.layout.image_names import tagged_name
from blobflow.transports.layout.index_json import path_of_blob

MANIFEST_JSON = "manifest.json"
# What `docker save` wrote alone before 1.10, and after that beside manifest.json: the file in which the top
# layer of each tag is.
REPOSITORIES = "repositories"
# Images, and their layers and names, that one manifest.json lists. 4 MiB of it have room for some 30,000 real
# layers; what is listed is looked up, and tags are compared with what is asked for.
MAX_LISTED = 100_000


class _Entry(msgspec.Struct):
    config: str = msgspec.field(name="Config")
    layers: list[str] | None = msgspec.field(name="Layers", default=None)
    tags: list[str | None] | None = msgspec.field(name="RepoTags", default=None)


class DockerImage(msgspec.Struct, frozen=True):
    """One image of manifest.json, paths from the archive's root."""

    names: tuple[str, ...]
    config: str
    layers: tuple[str, ...]

    @property
    def content(self) -> tuple[str, tuple[str, ...]]:
        """What makes it one image with another that is listed: all but its names."""
        return self.config, self.layers


class _Members(list[tuple[str, Any]]):
    """A JSON object as it is written: its members in order, repeated ones too."""


_json = msgspec.json.Decoder()
_members = json.JSONDecoder(object_pairs_hook=_Members)
_FIELDS = {field.encode_name.casefold(): field.encode_name for field in msgspec.structs.fields(_Entry)}


def parse_manifest_json(raw: bytes, name: str) -> list[DockerImage]:
    """Read manifest.json of the archive `name`. Raises UnsupportedContent, also for paths outside."""
    try:
        _json.decode(raw)  # which is stricter in what is JSON at all
        entries = msgspec.convert([_fields(entry) for entry in _listed(raw)], list[_Entry])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnsupportedContent(f"{name}: its {MANIFEST_JSON} is not what docker writes: {error}") from None
    listed = sum(1 + len(entry.layers or ()) + len(entry.tags or ()) for entry in entries)
    if listed > MAX_LISTED:
        raise UnsupportedContent(
            f"{name}: its {MANIFEST_JSON} lists {listed} images, layers and names, more than {MAX_LISTED}"
        )
    for entry in entries:
        if len(entry.layers or ()) > MAX_CHILDREN:
            raise UnsupportedContent(
                f"{name}: its {MANIFEST_JSON} lists {len(entry.layers or ())} layers of one image, more than "
                f"{MAX_CHILDREN}"
            )
    return [
        DockerImage(
            tuple(dict.fromkeys(tag for tag in entry.tags or () if tag is not None)),
            inside(entry.config, name),
            tuple(inside(layer, name) for layer in entry.layers or ()),
        )
        for entry in entries
    ]


def _listed(raw: bytes) -> list[Any]:
    found = _members.decode(raw.decode())
    if found is None:
        return []
    if type(found) is not list:
        raise ValueError("it is no list")
    return found


def _fields(entry: Any) -> dict[str, Any]:
    """The members of an entry that are read, by their names in docker's case, without those that are null."""
    if not isinstance(entry, _Members):
        raise ValueError("it lists something that is no object")
    found: dict[str, tuple[str, Any]] = {}
    for key, value in entry:
        field = _FIELDS.get(key.casefold())
        if field is None:
            continue
        if field in found:
            raise ValueError(
                f"an image has {found[field][0]!r} and {key!r}, and readers differ in which counts"
            )
        found[field] = key, value
    return {field: value for field, (_, value) in found.items() if value is not None}


def missing_manifest_json(paths: set[str], name: str) -> UnsupportedContent:
    """Why an archive without manifest.json can't be read."""
    if "index.json" in paths:
        return UnsupportedContent(f"{name} is an OCI archive; write oci-archive:{name}")
    if REPOSITORIES in paths:
        return UnsupportedContent(
            f"{name} is of a docker before 1.10 (schema 1); load it there, and save it with a newer one"
        )
    return UnsupportedContent(
        f"{name} is a tar of something else: it has no {MANIFEST_JSON} and no index.json"
    )


def listed_images(
    tags: Mapping[str, Descriptor],
    manifests: Mapping[Digest, Manifest],
    platform: Platform,
    name_of: Callable[[str], str] = tagged_name,
) -> list[tuple[Manifest, list[str]]]:
    """What docker shall load of an archive: images, each with all its names, in the order of these.

    Of an index that is the manifest for `platform`, else its first image. A name of which `name_of` makes no
    reference, and an image that is none to docker, are left out.
    """
    named: dict[Digest, set[str]] = {}
    for tag, root in tags.items():
        full, image = name_of(tag), _one_image(root.digest, manifests, platform)
        if full and image:
            named.setdefault(image.descriptor.digest, set()).add(full)
    return [
        (manifests[digest], sorted(names))
        for digest, names in sorted(named.items(), key=lambda item: min(item[1]))
    ]


def write_manifest_json(images: Sequence[tuple[Manifest, list[str]]]) -> bytes:
    """The manifest.json of an archive whose blobs lie as in an OCI layout: one entry an image."""
    entries = []
    for image, names in images:
        assert image.config is not None, "what docker knows has a config"
        layers = [path_of_blob(layer.digest) for layer in image.layers]
        entries.append(_Entry(path_of_blob(image.config.digest), layers, [*names]))
    return msgspec.json.encode(entries)


def write_repositories(images: Sequence[tuple[Manifest, list[str]]]) -> bytes:
    """The `repositories` of such an archive, as docker 25 and newer write it: repository, tag, and the name
    of the top layer's file in blobs/sha256. Repositories of Docker's own registry have their short names; an
    image without layers is not listed."""
    found: dict[str, dict[str, str]] = {}
    for image, names in images:
        for repository, tag in (name.rsplit(":", 1) for name in names if image.layers):
            found.setdefault(_familiar(repository), {})[tag] = encoded_of(image.layers[-1].digest)
    return msgspec.json.encode(found, order="deterministic")


def _familiar(repository: str) -> str:
    """What docker calls a repository: without its own registry's host, and its official images bare."""
    host, _, path = repository.partition("/")
    return path.removeprefix("library/") if host == DOCKER_HUB else repository


def check_loadable(
    root: Digest, manifests: Mapping[Digest, Manifest], platform: Platform, place: str
) -> None:
    """Raise UnsupportedContent, with the reason, unless docker can load something of what is below a root."""
    if _one_image(root, manifests, platform) is None:
        raise UnsupportedContent(
            f"{place} can't hold {root}: {_why_not(manifests[root])}; write it to oci-archive:FILE"
        )


def _why_not(manifest: Manifest) -> str:
    if manifest.is_index:
        return "it is an index of which docker can load nothing"
    if _is_image(manifest):
        return "a layer of it is kept elsewhere (urls)"
    if manifest.config is None:
        kind = "it has no config"
    elif manifest.config.media_type not in _CONFIGS:
        kind = f"its config is {manifest.config.media_type}"
    else:
        kind = f"a layer is {next(each.media_type for each in manifest.layers if not _may_be_tar(each))}"
    return f"it is an artifact, no image that docker can load ({kind})"


def _one_image(root: Digest, manifests: Mapping[Digest, Manifest], platform: Platform) -> Manifest | None:
    """The image below a root that docker shall load; None if there is none that it can."""
    manifest = manifests.get(root)
    if manifest is None or not manifest.is_index:
        return manifest if manifest and _is_dockers(manifest) else None
    fitting = sorted(manifest.manifests, key=lambda child: not _fits(child, platform))
    found = (_one_image(child.digest, manifests, platform) for child in fitting)
    return next((image for image in found if image), None)


def _fits(child: Descriptor, platform: Platform) -> bool:
    return child.platform is not None and child.platform.matches(platform)


def _is_dockers(manifest: Manifest) -> bool:
    """Whether docker can load it: an image's config, and every layer in the archive."""
    return _is_image(manifest) and len(manifest.blobs) == 1 + len(manifest.layers)


def _is_image(manifest: Manifest) -> bool:
    """cosign's signatures and buildx' attestations have an image's config as well, and layers of JSON."""
    own = manifest.config is not None and manifest.config.media_type in _CONFIGS
    return own and all(map(_may_be_tar, manifest.layers))


def _may_be_tar(layer: Descriptor) -> bool:
    return not layer.media_type or "tar" in layer.media_type or "layer" in layer.media_type


_CONFIGS = (media.OCI_CONFIG, media.DOCKER_CONFIG)
