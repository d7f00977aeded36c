"""manifest-tool's ways to describe an index: its YAML file and its template. Pure.

    image: registry.example.com/app:1.2
    tags: ["1", latest]
    annotations: {org.opencontainers.image.licenses: MIT}
    manifests:
      - image: registry.example.com/app:1.2-arm64
        platform: {architecture: arm64, os: linux, variant: v8}

Scalars are text as they are written, as they are to manifest-tool: the tag 1.10 is no number. A platform is
`architecture`, `os`, `variant`, `os.version` and `os.features` (or `osversion`, `osfeatures`: the names that
manifest-tool itself reads); `features` are read and left out, since no index has a place for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Final

import msgspec

from blobflow.cli.inputs.yaml_nodes import compose, drop_empty_keys, line_of, node_at, to_struct
from blobflow.errors import InvalidConfig, InvalidReference, UsageError
from blobflow.file_errors import FileErrors
from blobflow.oci import Platform, Reference, parse_platform, parse_reference
from blobflow.oci.index_draft import parse_label
from blobflow.oci.reference import check_tag
from blobflow.operations.indexes import EntryRequest
from blobflow.typed_values import path_text

_KEYS: Final = "image and manifests"


class IndexSpec(msgspec.Struct, frozen=True):
    """An index to make: its entries, its name and its further tags."""

    target: Reference
    wishes: tuple[EntryRequest, ...]
    tags: tuple[str, ...] = ()
    annotations: dict[str, str] = {}


class _Platform(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    os_features: tuple[str, ...] = msgspec.field(name="os.features", default=())
    osversion: str = ""
    osfeatures: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @property
    def label(self) -> Platform:
        return parse_label(
            self.architecture,
            self.os,
            self.variant,
            self.os_version or self.osversion,
            self.os_features or self.osfeatures,
        )


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    image: str
    platform: _Platform = _Platform()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    image: str
    manifests: tuple[_Entry, ...]
    tags: tuple[str, ...] = ()
    annotations: dict[str, str] = {}


def parse_manifest_tool(text: str, name: str) -> IndexSpec:
    """The index that a file describes; `name` is what the file is called in errors.

    Raises InvalidConfig or InvalidReference with the file, the line and what is wrong there; for several
    errors InvalidFile with all of them.
    """
    node, errors = compose(text, name, "a file of manifest-tool", _KEYS), FileErrors()
    drop_empty_keys(node)
    file = to_struct(node, name, _File, errors, as_written=True)
    if file is None:
        errors.check()
        raise AssertionError("what is without a value has an error")
    if not (file.manifests or errors):
        errors.add(InvalidConfig(f"{name}: `manifests` is empty; an index needs an image"))

    def at(*path: str | int) -> AbstractContextManager[None]:
        line = line_of(node_at(node, *path))
        return errors.at(f"{name} line {line}: {path_text(path)}", line=line)

    wishes, tags = [], []
    for number, entry in enumerate(file.manifests):
        with at("manifests", number, "image"):
            wishes.append(EntryRequest(parse_reference(entry.image), entry.platform.label))
    for number, tag in enumerate(file.tags):
        with at("tags", number):
            tags.append(check_tag(tag))
    with at("image"):
        target = parse_reference(file.image)
    errors.check()
    return IndexSpec(target, tuple(wishes), tuple(tags), file.annotations)


def index_spec_of(target: str, images: Iterable[str], tags: Iterable[str] = ()) -> IndexSpec:
    """An index of images without labels. Raises InvalidReference."""
    return IndexSpec(
        parse_reference(target),
        tuple(EntryRequest(parse_reference(image)) for image in images),
        tuple(_parse_tag(tag, "--tags") for tag in tags),
    )


def index_spec_from_template(
    platforms: Iterable[str], template: str, target: str, tags: Iterable[str] = ()
) -> IndexSpec:
    """An index with one image a platform: `template`, with ARCH, OS and VARIANT (each once) filled in.

    Raises UsageError or InvalidReference.
    """
    wishes = []
    for text in platforms:
        label = parse_platform(text)
        words = {"ARCH": label.architecture, "OS": label.os, "VARIANT": label.variant}
        wishes.append(
            EntryRequest(_parse_image(_fill_template(template, words), f"--template for {text}"), label)
        )
    if not wishes:
        raise UsageError("--platforms names no platform; write --platforms linux/amd64,linux/arm64")
    if len({wish.image for wish in wishes}) < len(wishes):
        raise UsageError(
            f"--template {template} names one image for several platforms; put ARCH into it, and VARIANT for "
            "platforms that differ in it"
        )
    return IndexSpec(
        _parse_image(target, "--target"), tuple(wishes), tuple(_parse_tag(tag, "--tags") for tag in tags)
    )


def _fill_template(template: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        template = template.replace(placeholder, word, 1)
    return template


def _parse_image(text: str, where: str) -> Reference:
    try:
        return parse_reference(text)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None


def _parse_tag(text: str, where: str) -> str:
    try:
        return check_tag(text)
    except InvalidReference as error:
        raise InvalidReference(f"{where}: {error}") from None
