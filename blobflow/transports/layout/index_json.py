"""Reads and writes index.json of layouts and archives: their images and these images' names; checks
manifests.

image-spec image-layout.md: index.json is an image index whose entries are the images; the annotation
`org.opencontainers.image.ref.name` names one. It is changed with all that it says kept, unknown keys too.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from blobflow.content import Sink
from blobflow.errors import DigestMismatch, Rejected, SizeMismatch, UnsupportedContent
from blobflow.oci import MAX_MANIFEST_BYTES, Descriptor, Digest, Manifest, digest_of, media, parse_manifest
from blobflow.oci.bundle import FORMAT, OWN_FORMAT, SOURCE, check_format
from blobflow.oci.digest import algorithm_of, encoded_of
from blobflow.transports.files import open_to_read, translate_os_errors
from blobflow.transports.layout.image_names import (
    IMAGE_NAME,
    REF_NAME,
    ImageNames,
    digest_or_none,
    tagged_name,
    unambiguous_names,
)

OCI_LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'  # the content of the file oci-layout
EMPTY_INDEX = f'{{"schemaVersion":2,"mediaType":"{media.OCI_INDEX}","manifests":[]}}'.encode()

IndexEntries = Sequence[tuple[tuple[str, ...], Descriptor]]


def digest_in_path(path: str) -> Digest | None:
    """The digest of the blob whose place in a layout `path` is."""
    parts = path.split("/")
    return digest_or_none(":".join(parts[1:])) if len(parts) == 3 and parts[0] == "blobs" else None


def path_of_blob(digest: Digest) -> str:
    """Where a layout has the blob."""
    return f"blobs/{algorithm_of(digest)}/{encoded_of(digest)}"


def parse_index_json(raw: bytes, path: str) -> list[tuple[tuple[str, ...], Descriptor]]:
    """The entries of an index.json, each with the names that its annotations give it.

    Raises UnsupportedContent naming `path`, also for a bundle of a newer form.
    """
    try:
        index = parse_manifest(raw, media.OCI_INDEX, as_listed=True)
    except UnsupportedContent as error:
        raise UnsupportedContent(f"{path} is not the index of an OCI layout: {error}") from None
    check_format(index.annotations, path)
    return [(_names(entry.annotations or {}), entry) for entry in index.manifests]


def _names(annotations: dict[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(annotations[key] for key in (REF_NAME, IMAGE_NAME) if annotations.get(key)))


def unambiguous_names_of(images: IndexEntries) -> list[str]:
    """One name for each image that has any, as it is to be asked for."""
    return unambiguous_names(images, _digest_of_entry)


def image_names(images: IndexEntries) -> ImageNames[Descriptor]:
    """The entries of an index.json, to be found by their names."""
    return ImageNames(images, _digest_of_entry)


def find_image(
    images: ImageNames[Descriptor],
    name: str,
    place: str,
    read: Callable[[Descriptor], bytes],
    own: Sequence[int] | None = None,
) -> Descriptor:
    """The manifest that a name means, see `ImageNames`; `read` is asked where the entry does not say what it
    is."""
    entry = images.choose(name, place, own)
    if entry.media_type in media.MANIFESTS:
        return Descriptor(entry.media_type, entry.digest, entry.size)
    return parse_manifest(read(entry), entry.media_type, digest=entry.digest).descriptor


def _digest_of_entry(entry: Descriptor) -> Digest:
    return entry.digest


def descriptor_of(raw: bytes, digest: Digest) -> Descriptor:
    """What the bytes say of themselves that a digest names."""
    return parse_manifest(raw, digest=digest).descriptor


def read_small(path: Path) -> bytes:
    """A file that is no larger than manifests are. Raises FileNotFoundError, UnsupportedContent."""
    with translate_os_errors("read", path):
        try:
            with open(path, "rb", opener=lambda *_: open_to_read(path)) as file:
                if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                    raise UnsupportedContent(f"{path} is a pipe; a layout is made of files")
                raw = file.read(MAX_MANIFEST_BYTES + 1)
        except FileNotFoundError:
            raw = None
    if raw is None:
        raise FileNotFoundError(path)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise UnsupportedContent(f"{path} has more than the {MAX_MANIFEST_BYTES} bytes that a manifest may")
    return raw


def check_manifest(raw: bytes, manifest: Descriptor, what: str) -> None:
    """Raise IntegrityError unless `raw` is the manifest."""
    check_size(raw, manifest, what)
    actual = digest_of(raw, algorithm_of(manifest.digest))
    if actual != manifest.digest:
        raise DigestMismatch(what, expected=manifest.digest, actual=actual)


def check_size(raw: bytes, manifest: Descriptor, what: str) -> None:
    """Raise SizeMismatch unless `raw` is as long as the descriptor says; for bytes with the right digest."""
    if manifest.sized and len(raw) != manifest.size:
        raise SizeMismatch(what, expected=manifest.size, actual=len(raw))


async def check_blobs(sink: Sink, manifest: Manifest) -> None:
    """Raise Rejected, as a registry would, if `sink` lacks a blob of the image. An index may be sparse."""
    if manifest.is_index:
        return
    missing = [blob.digest for blob in manifest.blobs if not await sink.has(blob)]
    if missing:
        raise Rejected(
            f"manifest {manifest.descriptor.digest} needs {', '.join(missing[:3])}, not here yet",
            missing=missing,
            code="MANIFEST_BLOB_UNKNOWN",
        )


def with_tags(raw: bytes, manifest: Descriptor, tags: Iterable[str]) -> bytes:
    """An index.json in which `tags` name the manifest, and nothing else. Raises UnsupportedContent for one
    that `parse_index_json` reads and that Python can't: numbers of thousands of digits, or nested a
    thousandfold."""
    try:
        document: dict[str, Any] = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UnsupportedContent(f"the index.json of the layout can't be changed: {error}") from None
    tags = list(tags)
    kept = [entry for entry in document.get("manifests") or () if not entry or _ref_name(entry) not in tags]
    document["manifests"] = kept + [index_entry(manifest, tag) for tag in tags]
    return json.dumps(document, separators=(",", ":")).encode()


def write_index_json(
    tags: Mapping[str, Descriptor],
    origins: Mapping[str, str] | None = None,
    unlike_images: Collection[str] = (),
) -> bytes:
    """An index.json in which these tags name these manifests, in the order of the tags. `origins`: it is a
    bundle's, and these tags say where their image was. `unlike_images`: tags that containerd shall not take
    for images' names."""
    document: dict[str, Any] = json.loads(EMPTY_INDEX)
    document["manifests"] = [index_entry(manifest, tag) for tag, manifest in sorted(tags.items())]
    if origins is not None:
        document["annotations"] = {FORMAT: str(OWN_FORMAT)}
        for entry in document["manifests"]:
            if entry["annotations"][REF_NAME] in unlike_images:
                entry["annotations"].pop(IMAGE_NAME, None)
            if origin := origins.get(entry["annotations"][REF_NAME]):
                entry["annotations"][SOURCE] = origin
    return json.dumps(document, separators=(",", ":")).encode()


def _ref_name(entry: dict[str, Any]) -> str | None:
    name: str | None = (entry.get("annotations") or {}).get(REF_NAME)
    return name


def index_entry(manifest: Descriptor, tag: str) -> dict[str, Any]:
    """The entry of index.json that names a manifest; a full reference is named for containerd too."""
    plain = Descriptor(manifest.media_type, manifest.digest, manifest.size)
    annotations = {REF_NAME: tag}
    if full := tagged_name(tag):
        annotations[IMAGE_NAME] = full
    described: dict[str, Any] = msgspec.to_builtins(plain)
    return described | {"annotations": annotations}
