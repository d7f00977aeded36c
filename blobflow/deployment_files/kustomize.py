"""Kustomizations and components: what `images:` puts in, and images in patches and values. Pure."""

from __future__ import annotations

import posixpath

from blobflow.deployment_files.containers import CONTAINER_LISTS, read_environment
from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.helm_values import read_values
from blobflow.deployment_files.kubernetes import ObjectReader, walk_pods
from blobflow.deployment_files.kustomize_builds import Kustomization
from blobflow.deployment_files.kustomize_entries import image_entry, read_entry
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar, compose
from blobflow.errors import InvalidConfig

# Keys whose items are files, or folders with a kustomization.
_RESOURCES = ("resources", "bases", "components", "patchesStrategicMerge")
_PATCHES = ("patches", "patchesStrategicMerge", "patchesJson6902")


def read_kustomization(findings: Findings, document: MappingNode, objects: ObjectReader) -> None:
    """What a kustomization names."""
    for entry in document.list("images"):
        if isinstance(entry, MappingNode):
            read_entry(findings, entry)
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


def kustomization_of(path: str, document: MappingNode) -> Kustomization:
    """What a kustomization replaces, and in what."""
    folder = posixpath.dirname(path)
    listed: list[Node | None] = [each for key in _RESOURCES for each in document.list(key)]
    listed += [each.get("path") for each in document.list("patches") if isinstance(each, MappingNode)]
    entries = [each for each in document.list("images") if isinstance(each, MappingNode)]
    return Kustomization(
        path,
        tuple(image_entry(each) for each in entries),
        tuple(
            dict.fromkeys(
                posixpath.normpath(posixpath.join(folder, each.value.strip()))
                for each in listed
                if isinstance(each, Scalar) and "\n" not in each.value
            )
        ),
    )


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
