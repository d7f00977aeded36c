"""Images that skaffold builds: their names in manifests beside its configuration are in no registry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

import msgspec

from blobflow.deployment_files.contract import NamedImage, UntoldImage
from blobflow.deployment_files.kustomize_builds import bare_name
from blobflow.deployment_files.yaml_tree import MappingNode, Node, each_mapping


class SkaffoldArtifacts(msgspec.Struct, frozen=True):
    """What a configuration builds: the names of its artifacts."""

    path: str
    names: frozenset[str]


def artifacts_of(path: str, document: Node) -> SkaffoldArtifacts | None:
    """What a document builds, if it is a configuration of skaffold."""
    if not isinstance(document, MappingNode) or not document.text("apiVersion").startswith("skaffold/"):
        return None
    names: set[str] = set()

    def visit(mapping: MappingNode) -> None:
        for artifact in mapping.list("artifacts"):
            if isinstance(artifact, MappingNode):
                names.add(artifact.text("image").strip())

    each_mapping(document, visit)
    return SkaffoldArtifacts(path, frozenset(names - {""}))


def builders_of(images: Iterable[NamedImage], built: Sequence[SkaffoldArtifacts]) -> dict[NamedImage, str]:
    """Those of the images that a configuration in their folder, or above, builds; each with that."""
    by_name: dict[str, list[SkaffoldArtifacts]] = {}
    for each in built:
        for name in each.names:
            by_name.setdefault(name, []).append(each)
    found: dict[NamedImage, str] = {}
    for image in images:
        for each in by_name.get(bare_name(image.written), ()):
            if PurePath(image.path).is_relative_to(PurePath(each.path).parent):
                found.setdefault(image, each.path)
    return found


def without_built(
    images: Sequence[NamedImage],
    untold: Sequence[UntoldImage],
    builders: Mapping[NamedImage, str],
    files: Sequence[str],
) -> tuple[tuple[NamedImage, ...], tuple[UntoldImage, ...]]:
    """The images that are pulled, and the places that can't be told, in the order of files and lines."""
    order = {file: number for number, file in enumerate(files)}
    more = [
        UntoldImage(image.path, image.line, image.written, image.field, f"is built by {builders[image]}")
        for image in images
        if image in builders
    ]
    places = sorted((*untold, *more), key=lambda each: (order[each.path], each.line)) if more else untold
    return tuple(image for image in images if image not in builders), tuple(places)
