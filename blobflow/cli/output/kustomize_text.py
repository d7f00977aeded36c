"""Replaced images as the `images:` list of a kustomization. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import msgspec

from blobflow.deployment_files.contract import NamedImage
from blobflow.errors import InvalidReference
from blobflow.oci import Reference, parse_reference


class KustomizeImage(msgspec.Struct, frozen=True, order=True):
    """An entry: images of this name, as files write it, become the new one; with their own tags and digests,
    where it has none."""

    name: str
    new_name: str
    new_tag: str = ""
    digest: str = ""


def kustomize_images(
    places: Iterable[tuple[NamedImage, Reference]],
) -> tuple[list[KustomizeImage], list[tuple[NamedImage, str]]]:
    """The entries for images and their places, and the images for which there can be none, each with why.

    Kustomize goes by the name without tag and digest: images that differ in those alone need the same entry.
    """
    entries: dict[str, KustomizeImage] = {}
    left: list[tuple[NamedImage, str]] = []
    for image, place in places:
        name = _name_as_written(image)
        tag = place.tag if place.tag != image.reference.tag else ""
        digest = place.digest if place.digest != image.reference.digest else ""
        entry = KustomizeImage(name, f"{place.host}/{place.repository}", tag, digest)
        if entries.setdefault(name, entry) != entry:
            left.append(
                (image, f"needs another entry for {name} than a tag before it, and Kustomize takes one")
            )
    return sorted(entries.values()), left


def _name_as_written(image: NamedImage) -> str:
    """The name that stands in the file, without tag and digest; the whole one, where it stands in parts."""
    name = image.written.removeprefix("docker://").partition("@")[0]
    if ":" in name.rpartition("/")[2]:
        name = name.rpartition(":")[0]
    whole = Reference(image.reference.host, image.reference.repository)
    try:
        read = parse_reference(name)
    except InvalidReference:
        return str(whole)
    return name if Reference(read.host, read.repository) == whole else str(whole)


def kustomize_lines(entries: Iterable[KustomizeImage]) -> list[str]:
    """The list as YAML, an entry a key and line."""
    lines = []
    for entry in entries:
        fields: Mapping[str, str] = {
            "name": entry.name,
            "newName": entry.new_name,
            "newTag": entry.new_tag,
            "digest": entry.digest,
        }
        told = [f"{key}: {json.dumps(value)}" for key, value in fields.items() if value]
        lines += [f"- {told[0]}", *(f"  {each}" for each in told[1:])]
    return ["images:", *lines] if lines else ["images: []"]
