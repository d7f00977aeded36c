"""Custom resources: what their common fields name. Pure.

Nobody's schema says which field is an image, so these are the names that operators use: `image`, `images`,
`…Image`, `relatedImages`, repository and tag apart, steps and sidecars, values of charts, and parameters that
become an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from blobflow.deployment_files.containers import read_container, read_image_key
from blobflow.deployment_files.findings import (
    Findings,
    has_digest,
    is_likely_image,
    likely_text,
    words_of,
)
from blobflow.deployment_files.helm_values import read_nested_values, read_values
from blobflow.deployment_files.image_parts import read_key_with_tag, read_parts
from blobflow.deployment_files.known_resources import read_known
from blobflow.deployment_files.shell_script import read_script
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar, compose, each_mapping
from blobflow.errors import InvalidConfig

_STEPS = {"steps": "step", "sidecars": "sidecar", "stepTemplate": "stepTemplate", "container": "container"}
# Values of a chart: as text, or as a mapping.
_LIKE_OBJECT = re.compile(r"(?m)^[ \t]*kind:[ \t]*\w")
_VALUES = ("values", "valuesContent", "valuesObject", "valuesInline")
# Tekton's and Argo's parameters in a field: $(params.image), {{inputs.parameters.image}}.
_PARAMETER = re.compile(
    r"\$\((?:inputs\.)?params\.([\w-]+)\)|\{\{-?\s*(?:inputs|workflow)\.parameters\.([\w-]+)\s*-?\}\}"
)


def read_custom_resource(
    findings: Findings, document: MappingNode, read_object: Callable[[Node], None]
) -> None:
    """Every image that a custom resource names by common fields. `read_object` reads an object that stands in
    a text, as in Argo's manifests."""
    read_known(findings, document)
    parameters = _Parameters(document)

    def visit(mapping: MappingNode) -> None:
        for key, value in mapping.pairs:
            if isinstance(value, Scalar) and "\n" in value.value and _LIKE_OBJECT.search(value.value):
                _read_object(value, read_object)
            else:
                _read_field(findings, mapping, key.value, value, parameters)

    each_mapping(document, visit)
    parameters.read(findings)


def _read_object(value: Scalar, read_object: Callable[[Node], None]) -> None:
    try:
        documents = compose(value.piece.source)
    except InvalidConfig:
        return  # a template, or text about objects
    for document in documents:
        read_object(document)


def _read_field(
    findings: Findings, mapping: MappingNode, key: str, value: Node, parameters: _Parameters
) -> None:
    if key == "relatedImages":
        for item in value.items if isinstance(value, ListNode) else ():
            if isinstance(item, MappingNode) and (image := item.scalar("image")):
                findings.name(image.piece, "relatedImages")
    elif field := _STEPS.get(key):
        for item in value.items if isinstance(value, ListNode) else [value]:
            if isinstance(item, MappingNode):
                parameters.name_image(findings, item, field)
                read_container(findings, item, field)
    elif words_of(key)[-1:] == ["images"] and not isinstance(value, Scalar):
        _read_images(findings, value)
    elif key in _VALUES:
        if isinstance(value, MappingNode):
            read_values(findings, value)
        elif isinstance(value, Scalar) and "\n" in value.value:
            read_nested_values(findings, value)
    elif key == "script" and isinstance(value, Scalar):
        read_script(findings, value.piece)
    elif isinstance(value, MappingNode):
        if words_of(key)[-1:] == ["image"] and (reference := value.scalar("reference")):
            findings.name(reference.piece, "custom resource image")
        else:
            read_parts(findings, value, key, "custom resource image")
    elif key == "image" and isinstance(value, Scalar) and not value.is_null:
        if not read_parts(findings, mapping, "", "custom resource image"):
            parameters.name_image(findings, mapping, "custom resource image")
    elif isinstance(value, Scalar) and value.value.startswith("docker://"):
        findings.name(value.piece, "custom resource image")
    elif isinstance(value, Scalar) and not read_key_with_tag(
        findings, mapping, key, value, "custom resource image"
    ):
        read_image_key(findings, key, value, "custom resource image")


def _read_images(findings: Findings, value: Node) -> None:
    """A list of names or of mappings with one, or a mapping from what each is for."""
    if isinstance(value, ListNode):
        items = value.items
    else:
        items = [each for _, each in value.pairs] if isinstance(value, MappingNode) else []
    for item in items:
        if isinstance(item, Scalar):
            # Argo CD's overrides of Kustomize are `name=image`.
            piece = item.piece.cut(item.value.rfind("=") + 1)
            if is_likely_image(piece.strip().text):
                findings.name(piece, "custom resource images")
        elif isinstance(item, MappingNode) and not read_parts(
            findings, item, "image", "custom resource images"
        ):
            name = item.scalar("image", "name")
            if name and is_likely_image(name.value.strip()):
                findings.name(name.piece, "custom resource images")


class _Parameters:
    """Parameters with a value in the document, and which of them are an image as a whole."""

    def __init__(self, document: MappingNode) -> None:
        self._values: dict[str, Scalar] = {}
        self._used: dict[str, None] = {}
        # Of tasks and templates elsewhere. Nothing is pushed by its digest.
        self._pinned: list[Scalar] = []

        def visit(mapping: MappingNode) -> None:
            for key in ("params", "parameters"):
                for item in mapping.list(key):
                    value = item.scalar("value", "default") if isinstance(item, MappingNode) else None
                    if value and isinstance(item, MappingNode) and item.text("name"):
                        self._values.setdefault(item.text("name"), value)
                        if has_digest(value.value):
                            self._pinned.append(value)

        each_mapping(document, visit)

    def name_image(self, findings: Findings, mapping: MappingNode, field: str) -> None:
        """The image of a mapping, which may be a parameter."""
        image = mapping.get("image")
        if not isinstance(image, Scalar) or image.is_null:
            return
        text = image.value.strip()
        if not _PARAMETER.search(text):
            findings.name(image.piece, field)
            return
        if whole := _PARAMETER.fullmatch(text):
            self._used[whole.group(1) or whole.group(2)] = None
        findings.name(
            image.piece, field, reason="is a parameter, known when it runs", likely=self._likely(text)
        )

    def _likely(self, text: str) -> str:
        def value_of(found: re.Match[str]) -> str:
            value = self._values.get(found.group(1) or found.group(2))
            return value.value if value else found.group()

        return likely_text(_PARAMETER.sub(value_of, text))

    def read(self, findings: Findings) -> None:
        """The values of parameters that are an image."""
        for name in self._used:
            if value := self._values.get(name):
                findings.name(value.piece, "parameter")
        for value in self._pinned:
            findings.name(value.piece, "parameter")
