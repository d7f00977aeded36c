"""Artifacts: files as the layers of a manifest, in the form that oras gives them. Pure.

image-spec manifest.md, "Guidelines for Artifact Usage": a manifest with an `artifactType` and the empty
config. A layer's title is the file's name; a folder is a tar+gzip that says so by two annotations of oras'.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from blobflow.errors import UnsupportedContent, UsageError
from blobflow.lazy_pattern import LazyPattern
from blobflow.oci import media
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.digest import Digest
from blobflow.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from blobflow.printable import printable

TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
# The layer is a tar of a folder; and the digest of that tar as it was before it was compressed.
UNPACK, UNPACKED_DIGEST = "io.deis.oras.content.unpack", "io.deis.oras.content.digest"
# The layer is a file that can be run. An annotation of our own: other tools write a plain file.
EXECUTABLE = "io.blobflow.file.executable"

EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY_DIGEST = Digest("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
EMPTY_DESCRIPTOR = Descriptor(EMPTY_TYPE, _EMPTY_DIGEST, len(EMPTY))
# Of files that nobody has said anything about, as oras has it.
FILE_TYPE = "application/vnd.oci.image.layer.v1.tar"
FOLDER_TYPE = media.OCI_LAYER_GZIP
ARTIFACT_TYPE = "application/vnd.unknown.artifact.v1"

# RFC 6838, 4.2: a type and a subtype, each of at most 127 characters.
_WORD = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = LazyPattern(rf"{_WORD}/{_WORD}\Z")
# RFC 3339, 5.6
_TIME = LazyPattern(
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt]"
    r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
# Linux' bound of a name, and of a path.
_MAX_NAME, _MAX_PATH = 255, 4096


class NamedFile(msgspec.Struct, frozen=True):
    """A layer that is a file, or with `unpack` a folder in a tar+gzip.

    `parts`: of its path, as its title says; none for a folder "." as `oras push REF .` makes it, which is the
    one that all is written to. `unpacked`: the digest of the tar alone; "" where none is told. `executable`:
    a file to be run.
    """

    blob: Descriptor
    parts: tuple[str, ...]
    unpack: bool = False
    unpacked: str = ""
    executable: bool = False

    @property
    def title(self) -> str:
        return "/".join(self.parts) or "."


def check_media_type(text: str, what: str) -> str:
    """The media type. Raises UsageError where it is none; `what` is what it should be the type of."""
    if not _MEDIA_TYPE.match(text):
        raise UsageError(
            f"{printable(text)!r} is no media type for {what}; write type/subtype, as text/plain"
        )
    return text


def make_artifact(
    artifact_type: str,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str],
    subject: Descriptor | None = None,
) -> Manifest:
    """The manifest of an artifact; without layers it has the empty one. Fields are in the order of oras.

    Raises UsageError for a `CREATED` that is not RFC 3339's, and for more than a manifest may hold.
    """
    if CREATED in annotations and not _TIME.match(annotations[CREATED]):
        raise UsageError(f"{CREATED} is {annotations[CREATED][:60]!r}; write it as 2026-01-31T12:00:00Z")
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": _item(EMPTY_DESCRIPTOR),
        "layers": [_item(each) for each in layers or (EMPTY_DESCRIPTOR,)],
    }
    if subject is not None:
        document["subject"] = _item(subject)
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    raw = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    if len(raw) > MAX_MANIFEST_BYTES:
        raise UsageError(
            f"the artifact's manifest would have {len(raw)} bytes, and registries take {MAX_MANIFEST_BYTES}; "
            "give fewer files, or a folder, which is one layer"
        )
    try:
        manifest = parse_manifest(raw, media.OCI_MANIFEST)
        named_files(manifest)
    except UnsupportedContent as error:
        raise UsageError(f"these files make no artifact that can be pulled: {error.message}") from None
    return manifest


def _item(descriptor: Descriptor) -> dict[str, Any]:
    item: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        item["annotations"] = dict(sorted(descriptor.annotations.items()))
    if descriptor.digest == _EMPTY_DIGEST and descriptor.media_type == EMPTY_TYPE:
        item["data"] = "e30="  # its bytes, base64 (image-spec descriptor.md)
    return item


def named_files(manifest: Manifest) -> tuple[NamedFile, ...]:
    """The layers that say which file they are, in their order.

    Raises UnsupportedContent where a title is no path below a folder, two layers have the same, or one is a
    file and the other in a folder of that name.
    """
    files = tuple(_named_file(layer) for layer in manifest.layers if (layer.annotations or {}).get(TITLE))
    taken: set[tuple[str, ...]] = set()
    for each in files:
        if each.parts in taken:
            raise UnsupportedContent(f"two layers are called {printable(each.title)!r}")
        taken.add(each.parts)
    for each in files:
        for length in range(1, len(each.parts)):
            if each.parts[:length] in taken:
                above = "/".join(each.parts[:length])
                raise UnsupportedContent(
                    f"a layer is called {printable(above)!r}, and another is in a folder of that name"
                )
    return files


def _named_file(layer: Descriptor) -> NamedFile:
    annotations = layer.annotations or {}
    unpack = annotations.get(UNPACK) == "true"
    is_here = unpack and posixpath.normpath(annotations[TITLE]) == "."
    return NamedFile(
        layer,
        () if is_here else path_parts(annotations[TITLE]),
        unpack,
        annotations.get(UNPACKED_DIGEST, ""),
        annotations.get(EXECUTABLE) == "true",
    )


def path_parts(title: str) -> tuple[str, ...]:
    """The parts of a path that is below whatever folder it is written to.

    Raises UnsupportedContent for all others: absolute ones, those with `..`, and those that no file can have.
    """
    parts = tuple(part for part in title.split("/") if part not in ("", "."))
    bad = (
        title.startswith("/")
        or ".." in parts
        or not parts
        or "\0" in title
        or len(title.encode(errors="surrogatepass")) > _MAX_PATH
        or any(len(part.encode(errors="surrogatepass")) > _MAX_NAME for part in parts)
    )
    if bad:
        raise UnsupportedContent(
            f"a layer is called {printable(title[:200])!r}, which is no path inside of a folder"
        )
    return parts
