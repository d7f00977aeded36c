"""ConfigMaps: values that are images, and YAML inside of values. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from blobflow.deployment_files.containers import read_variable
from blobflow.deployment_files.findings import (
    Findings,
    is_likely_image,
    is_surely_image,
    names_an_image,
    words_of,
)
from blobflow.deployment_files.helm_template import read_template
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_tree import MappingNode, Node, Scalar, compose, each_mapping
from blobflow.errors import InvalidConfig

# What makes it worth a try to read a value as YAML.
_LIKE_YAML = re.compile(
    r"(?m)^[ \t-]*+[\"']?(?:image|kind|containers|initContainers|[\w.-]*Image)[\"']?[ \t]*:"
)
_PROPERTY = re.compile(r"(?m)^[ \t]*([A-Za-z_][\w.-]*)[ \t]*=[ \t]*(\S+)[ \t]*\r?$")
_FIELD = "ConfigMap value"


def read_config_map(findings: Findings, config_map: MappingNode, read_object: Callable[[Node], None]) -> None:
    """The values of a ConfigMap that name images. `read_object` reads an object that stands in a value."""
    metadata = config_map.mapping("metadata")
    of_images = "images" in words_of(metadata.text("name") if metadata else "")
    found = config_map.mapping("data")
    for key, value in found.items() if found else ():
        # Examples in documentation begin so, by a custom of Knative.
        if isinstance(value, Scalar) and not key.value.startswith("_"):
            _read_value(findings, key.value, value.piece, of_images, read_object)


def _read_value(
    findings: Findings, key: str, value: Piece, of_images: bool, read_object: Callable[[Node], None]
) -> None:
    text = value.strip().text
    if not text:
        return
    if "\n" not in text:
        if of_images and is_likely_image(text):
            findings.name(value, _FIELD)
        else:
            findings.guess(value, _FIELD, key)
        return
    if _LIKE_YAML.search(text):
        _read_yaml(findings, value, read_object)
    for found in _PROPERTY.finditer(value.text):
        read_variable(findings, found.group(1), value.cut(*found.span(2)))


def _read_yaml(findings: Findings, value: Piece, read_object: Callable[[Node], None]) -> None:
    source = value.source
    try:
        documents = compose(source)
    except InvalidConfig:
        # Text of a program, or a template that an operator fills in.
        documents = []
    if "{{" in source.text and (not documents or _has_braces(documents)):
        read_template(findings, source)
        return
    for document in documents:
        read_object(document)
        _read_images(findings, document)


def _has_braces(documents: list[Node]) -> bool:
    found: list[bool] = []
    for document in documents:
        each_mapping(document, lambda mapping: found.append(mapping.braces))
    return any(found)


def _read_images(findings: Findings, document: Node) -> None:
    """Fields called `image`, or so that they are one, of what a program is configured with."""

    def visit(mapping: MappingNode) -> None:
        for key, value in mapping.pairs:
            if not isinstance(value, Scalar) or not names_an_image(key.value):
                continue
            text = value.piece.strip().text
            if is_surely_image(text) or (key.value == "image" and is_likely_image(text) and ":" in text):
                findings.name(value.piece, _FIELD)

    each_mapping(document, visit)
