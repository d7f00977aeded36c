"""Values of Helm charts: images in one piece and in parts. Pure."""

from __future__ import annotations

from blobflow.deployment_files.containers import (
    CONTAINER_LISTS,
    read_arguments,
    read_container,
    read_environment,
    read_image_key,
)
from blobflow.deployment_files.findings import Findings, is_bare, words_of
from blobflow.deployment_files.image_parts import read_key_with_tag, read_lone_tag, read_parts
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar, compose, each_mapping
from blobflow.errors import InvalidConfig

_FIELD = "helm values"
# Lists of containers under names of charts' own.
_MORE_CONTAINERS = ("sidecars", "extraContainers", "extraInitContainers", "sidecarContainers")


def read_values(findings: Findings, document: Node, field: str = _FIELD) -> None:
    """Every image that values name."""
    registry = ""
    found: list[bool] = []
    each_mapping(document, lambda mapping: found.append(bool(mapping.text("hub"))))
    hub = any(found)
    if isinstance(document, MappingNode) and (of_all := document.mapping("global")):
        registry = of_all.text("imageRegistry").strip().rstrip("/")
    todo: list[tuple[Node, str]] = [(document, "")]
    seen = set[int]()
    while todo:
        node, key = todo.pop()
        if id(node) in seen or isinstance(node, Scalar):
            continue
        seen.add(id(node))
        if isinstance(node, ListNode):
            todo += [(item, key) for item in node.items]
        elif isinstance(node, MappingNode):
            _read_mapping(findings, node, key, field, registry, hub=hub)
            # What stands below `images` is one image each, under a name of its own.
            each_is_image = words_of(key)[-1:] == ["images"]
            todo += [(value, "image" if each_is_image else name.value) for name, value in node.pairs]


def _read_mapping(
    findings: Findings, node: MappingNode, key: str, field: str, registry: str, *, hub: bool
) -> None:
    in_parts = read_parts(findings, node, key, field, registry)
    if not in_parts:
        read_lone_tag(findings, node, key, field)
    for name, value in node.pairs:
        if isinstance(value, Scalar):
            if name.value == "image":
                if in_parts or value.is_null or "\n" in value.value.strip():
                    continue
                if hub or not read_key_with_tag(findings, node, "image", value, field):
                    _read_image(findings, value, field, hub=hub)
            elif in_parts and words_of(name.value)[-1:] != ["image"]:
                continue
            elif not read_key_with_tag(findings, node, name.value, value, field):
                read_image_key(findings, name.value, value, field)
                findings.guess(value.piece, field)
        elif isinstance(value, ListNode):
            if name.value in CONTAINER_LISTS or name.value in _MORE_CONTAINERS:
                for item in value.items:
                    if isinstance(item, MappingNode):
                        read_container(findings, item, CONTAINER_LISTS.get(name.value, "container"))
            elif name.value in ("env", "extraEnv", "extraEnvVars"):
                read_environment(findings, value)
            elif words_of(name.value)[-1:] in (["args"], ["command"]):
                read_arguments(findings, value.items, set())
            else:
                for item in value.items:
                    if isinstance(item, Scalar):
                        findings.guess(item.piece, field)


def _read_image(findings: Findings, image: Scalar, field: str, *, hub: bool) -> None:
    """The value of `image:`. `hub`: the file has a registry that charts put before such names, as Istio's."""
    if hub and is_bare(image.value.strip()):
        findings.leave(image.piece, field, "is put together with `hub` and `tag` by the chart")
    else:
        findings.name(image.piece, field)


def read_nested_values(findings: Findings, value: Scalar, field: str = _FIELD) -> None:
    """Values that stand as YAML in a text."""
    try:
        documents = compose(value.piece.source)
    except InvalidConfig:
        return  # a template, whose places have no form that is known here
    for document in documents:
        read_values(findings, document, field)


def read_chart(findings: Findings, chart: MappingNode) -> None:
    """The images that a Chart.yaml lists for catalogues (`artifacthub.io/images`)."""
    annotations = chart.mapping("annotations")
    listed = annotations.get("artifacthub.io/images") if annotations else None
    if not isinstance(listed, Scalar):
        return
    try:
        documents = compose(listed.piece.source)
    except InvalidConfig:
        return
    for document in documents:
        for item in document.items if isinstance(document, ListNode) else ():
            image = item.scalar("image") if isinstance(item, MappingNode) else None
            if image:
                findings.name(image.piece, "annotation artifacthub.io/images")
