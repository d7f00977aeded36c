"""Images that Kustomize replaces: names in resources that an `images:` entry of a kustomization matches. Such
a name has to stay as it is, or the entry matches nothing any more. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath

from blobflow.deployment_files.contract import NamedImage
from blobflow.deployment_files.source_text import SourceText, decode
from blobflow.deployment_files.yaml_tree import MappingNode, Node, Scalar, compose
from blobflow.errors import InvalidConfig

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# Keys whose items are files, or folders with a kustomization.
_RESOURCES = ("resources", "bases", "components", "patchesStrategicMerge")


class _Kustomization:
    """`matches`: the names of its entries. `resources`: the paths that it names."""

    def __init__(self, path: str, document: MappingNode) -> None:
        entries = [each for each in document.list("images") if isinstance(each, MappingNode)]
        self.matches = frozenset(entry.text("name").strip() for entry in entries) - {""}
        folder = posixpath.dirname(path)
        listed: list[Node | None] = [each for key in _RESOURCES for each in document.list(key)]
        listed += [each.get("path") for each in document.list("patches") if isinstance(each, MappingNode)]
        self.resources = [
            posixpath.normpath(posixpath.join(folder, each.value.strip()))
            for each in listed
            if isinstance(each, Scalar) and "\n" not in each.value
        ]


def matched_images(
    images: Iterable[NamedImage], files: Iterable[str], read: Callable[[str], bytes]
) -> dict[NamedImage, str]:
    """Those of the images that Kustomize replaces, each with the kustomization that does.

    `files`: all that were read, among which kustomizations find their resources; `read` gives what stands in
    one. A kustomization that can't be read matches nothing.
    """
    kustomizations = {
        posixpath.normpath(path): found
        for path in files
        if PurePath(path).name in NAMES and (found := _read(path, read)) is not None
    }
    # Of each file, the names that are matched there, with the kustomization that matches them.
    matched: dict[str, dict[str, str]] = {}
    for path, kustomization in kustomizations.items():
        if kustomization.matches:
            for file in _reached(path, kustomizations):
                names = matched.setdefault(file, {})
                for name in kustomization.matches:
                    names.setdefault(name, path)
    return {
        image: by
        for image in images
        if not image.field.startswith("kustomize")
        and (by := matched.get(posixpath.normpath(image.path), {}).get(_name_of(image.written)))
    }


def _read(path: str, read: Callable[[str], bytes]) -> _Kustomization | None:
    try:
        documents: list[Node] = compose(SourceText(path, decode(read(path), path)))
    except InvalidConfig:
        return None
    document = documents[0] if documents else None
    return _Kustomization(path, document) if isinstance(document, MappingNode) else None


def _reached(path: str, kustomizations: Mapping[str, _Kustomization]) -> set[str]:
    """The files below a kustomization: its own, its resources, and theirs."""
    seen: set[str] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        if (found := kustomizations.get(file)) is not None:
            for each in found.resources:
                todo.append(each)
                todo += [posixpath.join(each, name) for name in NAMES]
    return seen


def _name_of(written: str) -> str:
    """A name without tag and digest, as Kustomize compares it."""
    name = written.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
