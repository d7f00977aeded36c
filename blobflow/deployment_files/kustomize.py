"""Kustomizations and components: what `images:` puts in, and images in patches and values. Pure."""

from __future__ import annotations

import posixpath

from blobflow.deployment_files.containers import CONTAINER_LISTS, read_environment
from blobflow.deployment_files.contract import PartKind
from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.helm_values import read_values
from blobflow.deployment_files.kubernetes import ObjectReader, walk_pods
from blobflow.deployment_files.kustomize_builds import ImageEntry, Kustomization
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_numbers import read_as_another
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar, compose
from blobflow.errors import InvalidConfig

# Keys whose items are files, or folders with a kustomization.
_RESOURCES = ("resources", "bases", "components", "patchesStrategicMerge")
_PATCHES = ("patches", "patchesStrategicMerge", "patchesJson6902")
_ELSEWHERE = "which is in the resources"


def read_kustomization(findings: Findings, document: MappingNode, objects: ObjectReader) -> None:
    """What a kustomization names."""
    for entry in document.list("images"):
        if isinstance(entry, MappingNode):
            _read_entry(findings, entry)
    for key in _PATCHES:
        for patch in document.list(key):
            text = patch.scalar("patch") if isinstance(patch, MappingNode) else patch
            if isinstance(text, Scalar) and "\n" in text.value:
                _read_patch(findings, text, objects)
    for generator in document.list("configMapGenerator"):
        if isinstance(generator, MappingNode):
            read_environment(findings, generator.get("literals"))
    for chart in document.list("helmCharts"):
        if isinstance(chart, MappingNode) and (values := chart.mapping("valuesInline")):
            read_values(findings, values)


def _read_entry(findings: Findings, entry: MappingNode) -> None:
    """An entry of `images:`: its name is only matched; a new name, tag or digest is what comes in."""
    name, new_name = entry.scalar("name"), entry.scalar("newName")
    tag, digest = entry.scalar("newTag"), entry.scalar("digest")
    at = _start_of(entry)
    repository = new_name or name
    if repository is None:
        return
    if tag is None and digest is None:
        if new_name and (":" in new_name.value.rpartition("/")[2] or "@" in new_name.value):
            findings.name(new_name.piece, "kustomize newName")
        elif new_name:
            findings.keep_open(new_name.piece, "kustomize newName")
            why = f"has no newTag: its tag is that of {name.value if name else 'the image'}, {_ELSEWHERE}"
            findings.leave(new_name.piece, "kustomize newName", why)
        else:
            why = f"is an entry that changes nothing: image and tag are those of a resource, {_ELSEWHERE}"
            findings.leave(repository.piece, "kustomize images", why)
        return
    text = repository.value.strip()
    pieces: list[tuple[PartKind, Piece]] = [("name", repository.piece)]
    field = "kustomize newName" if new_name else "kustomize name"
    if tag and (reason := read_as_another(tag)):
        findings.leave(at, f"{field} + newTag", reason, written=f"{text} + {tag.value.strip()}")
        return
    if tag:
        text += f":{tag.value.strip()}"
        pieces.append(("tag", tag.piece))
        field += " + newTag"
    if digest:
        text += f"@{digest.value.strip()}"
        pieces.append(("digest", digest.piece))
        field += " + digest"
    findings.join(pieces, text, field, at=at, replaceable=new_name is not None)


def kustomization_of(path: str, document: MappingNode) -> Kustomization:
    """What a kustomization replaces, and in what."""
    folder = posixpath.dirname(path)
    listed: list[Node | None] = [each for key in _RESOURCES for each in document.list(key)]
    listed += [each.get("path") for each in document.list("patches") if isinstance(each, MappingNode)]
    entries = [each for each in document.list("images") if isinstance(each, MappingNode)]
    return Kustomization(
        path,
        tuple(_image_entry(each) for each in entries),
        tuple(
            posixpath.normpath(posixpath.join(folder, each.value.strip()))
            for each in listed
            if isinstance(each, Scalar) and "\n" not in each.value
        ),
    )


def _image_entry(entry: MappingNode) -> ImageEntry:
    name, new_name, tag, digest = (
        entry.scalar("name"),
        entry.scalar("newName"),
        entry.scalar("newTag"),
        entry.scalar("digest"),
    )
    known = not (tag and read_as_another(tag))
    parts = [each for each in (new_name or name, tag, digest if known else None) if each]
    at = _start_of(entry) if tag or digest else (parts[0].piece if parts else _start_of(entry))
    return ImageEntry(
        entry.text("name").strip(),
        entry.text("newName").strip(),
        entry.text("newTag").strip(),
        entry.text("digest").strip(),
        entry.text("tagSuffix").strip(),
        at.line,
        " + ".join(each.value.strip() for each in parts),
        known,
    )


def _start_of(entry: MappingNode) -> Piece:
    """The first key of an entry."""
    return entry.pairs[0][0].piece


def _read_patch(findings: Findings, patch: Scalar, objects: ObjectReader) -> None:
    """A patch as text: an object, or a list of operations."""
    try:
        documents = compose(patch.piece.source)
    except InvalidConfig:
        return  # Kustomize says so itself
    for document in documents:
        if isinstance(document, ListNode):
            read_operations(findings, document)
        else:
            objects.read(document)


def is_operations(node: Node) -> bool:
    """Whether a document is a JSON patch (RFC 6902)."""
    if not isinstance(node, ListNode) or not node.items:
        return False
    first = node.items[0]
    return isinstance(first, MappingNode) and bool(first.scalar("op") and first.scalar("path"))


def read_operations(findings: Findings, operations: ListNode) -> None:
    """The images that a JSON patch (RFC 6902) puts in: values of paths that end in `image`, containers."""
    for operation in operations.items:
        if not isinstance(operation, MappingNode):
            continue
        value, path = operation.get("value"), operation.text("path")
        if isinstance(value, Scalar) and path.endswith(("/image", "Image", "/reference")):
            findings.name(value.piece, "patch")
        elif isinstance(value, MappingNode):
            parent = path.rstrip("/0123456789-").rpartition("/")[2]
            if image := value.scalar("image"):
                findings.name(image.piece, CONTAINER_LISTS.get(parent, "patch"))
            walk_pods(findings, value)
        elif isinstance(value, ListNode):
            for item in value.items:
                image = item.scalar("image") if isinstance(item, MappingNode) else None
                if image:
                    findings.name(image.piece, "patch")
