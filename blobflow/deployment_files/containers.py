"""Containers and what they are told: their image, variables and arguments that name further images. Pure."""

from __future__ import annotations

import re

from blobflow.deployment_files.findings import (
    Findings,
    is_likely_image,
    is_surely_image,
    names_an_image,
    words_of,
)
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar

# Lists of containers in a pod's specification, and what one of each is called.
CONTAINER_LISTS = {
    "containers": "container",
    "initContainers": "initContainer",
    "ephemeralContainers": "ephemeralContainer",
}
_FLAG = re.compile(r"--?([A-Za-z][\w.-]*)(?:=([\s\S]*))?\Z")
# `$(NAME)`: the value of a variable of the same container.
_VARIABLE = re.compile(r"\$\(([\w.-]+)\)")
# What separates several images in one value, with or without keys.
_ITEM = re.compile(r"[^\s,;\"'\[\]{}]+")
_KEY = re.compile(r"[\w.-]+[=]")


def read_container(findings: Findings, container: MappingNode, field: str) -> None:
    """The image of a container, and those in its variables and arguments."""
    image = container.get("image")
    if isinstance(image, Scalar) and not image.is_null:
        findings.name(image.piece, field)
    read_environment(findings, container.get("env"))
    own = {item.text("name") for item in container.list("env") if isinstance(item, MappingNode)}
    for key in ("command", "args"):
        read_arguments(findings, container.list(key), own)


def read_environment(findings: Findings, env: Node | None) -> None:
    """Variables that name images: a list of `name` and `value` or of `NAME=value`, or a mapping."""
    if isinstance(env, MappingNode):
        for key, value in env.items():
            if isinstance(value, Scalar):
                read_variable(findings, key.value, value.piece)
    for item in env.items if isinstance(env, ListNode) else ():
        if isinstance(item, Scalar):
            name, equals, _ = item.value.partition("=")
            if equals:
                read_variable(findings, name, item.piece.cut(len(name) + 1))
        elif isinstance(item, MappingNode):
            if isinstance(given := item.own("value"), Scalar):
                read_variable(findings, item.text("name"), given.piece)
            if isinstance(image := item.own("image"), Scalar):
                findings.name(image.piece, "env written as image")


def read_variable(findings: Findings, name: str, value: Piece) -> None:
    """A variable's value: an image, or several, each alone or behind a key."""
    if findings.guess(value, "env", name):
        return
    if not {"image", "images"}.isdisjoint(words_of(name)) or "\n" in value.text:
        read_several(findings, value, "env")


def read_several(findings: Findings, value: Piece, field: str, *, is_list: bool = False) -> None:
    """A text of several images: separated by commas, blanks or lines, some behind `key=`. `is_list`: its name
    says that they are images."""
    text = value.text
    if len(text) > 100_000:
        return
    for found in _ITEM.finditer(text):
        item = value.cut(*found.span())
        if key := _KEY.match(item.text):
            item = item.cut(key.end())
        if is_surely_image(item.text) or (is_list and is_likely_image(item.text)):
            findings.name(item, field)


def read_arguments(findings: Findings, arguments: list[Node], variables: set[str]) -> None:
    """The arguments of a command: `--proxy-image=NAME`, `--proxy-image` and then NAME, and whatever else is
    surely an image. `variables`: those of the container, whose values stand with them."""
    flag = ""
    for argument in arguments:
        if not isinstance(argument, Scalar):
            flag = ""
            continue
        piece, before, flag = argument.piece, flag, ""
        found = _FLAG.match(piece.text)
        if found and found.group(2) is None:
            flag = found.group(1)
            continue
        name, value = (found.group(1), piece.cut(found.start(2))) if found else (before, piece)
        stripped = value.strip().text
        if (whole := _VARIABLE.fullmatch(stripped)) and whole.group(1) in variables:
            continue
        words = words_of(name)
        if not findings.guess(value, "argument", name) and {"image", "images"} & {*words} and "," in stripped:
            read_several(findings, value, "argument", is_list=words[-1] == "images")


def read_image_key(findings: Findings, key: str, value: Scalar, field: str) -> None:
    """A scalar under a key that says that it is an image, where keys may mean anything: it has to look like
    one, too."""
    piece = value.piece.strip()
    if not names_an_image(key) or value.is_null or "\n" in piece.text:
        return
    if is_likely_image(piece.text):
        findings.name(piece, field)
    else:
        findings.guess(piece, field, key)
