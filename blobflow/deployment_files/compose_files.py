"""Compose files, with or without `services:`. Pure.

Variables have the defaults that stand in them; what an `.env` beside the file says is only what they are
likely, since the environment goes before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from blobflow.deployment_files.containers import read_environment
from blobflow.deployment_files.dockerfile import read_dockerfile
from blobflow.deployment_files.findings import (
    Findings,
    is_likely_image,
    likely_text,
    names_an_image,
    words_of,
)
from blobflow.deployment_files.interpolation import Expanded, expand, nothing
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar

_IMAGE = "compose image"
_CACHE = re.compile(r"(?:\A|,)ref=([^,]+)")
_CONTEXT = "docker-image://"
_SETTING = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=(.*)\Z")
# Of CI systems whose files have `services:`, too.
_PIPELINE_KEYS = ("steps", "pipeline", "stages", "jobs")
_SERVICE_KEYS = frozenset(("image", "build", "extends"))


def is_compose(document: Node, *, named: bool = False) -> bool:
    """Whether a document is a Compose file. `named`: its name says so; then services may stand at its top,
    as in the first version."""
    if not isinstance(document, MappingNode) or document.own("kind") or document.own("apiVersion"):
        return False
    if any(document.own(key) for key in _PIPELINE_KEYS):
        return False
    services = document.mapping("services")
    if services:
        return named or any(_pulls_or_builds(value) for _, value in services.items())
    return named and any(_pulls_or_builds(value) for _, value in document.items())


def _pulls_or_builds(node: Node) -> bool:
    return isinstance(node, MappingNode) and any(node.get(key) for key in _SERVICE_KEYS)


def read_compose(findings: Findings, document: MappingNode, env: Mapping[str, str]) -> None:
    """What every service of a file pulls. `env`: what the `.env` beside it sets."""
    services = document.mapping("services") or document
    reader = _Reader(findings, env, _built(services))
    for name, service in services.items():
        if isinstance(service, MappingNode) and not (services is document and name.value.startswith("x-")):
            reader.read_container_of(service)


def _built(services: MappingNode) -> frozenset[str]:
    """The names that services give to what they build and never pull. One that is built or pulled is an image
    wherever it is named, as it is in its service."""
    built = (each for _, each in services.items() if isinstance(each, MappingNode) and _is_built(each))
    return frozenset(each.text("image").strip() for each in built)


def _is_built(service: MappingNode) -> bool:
    """Whether a service is always built, and never pulled; else it is, where it can be had."""
    return service.get("build") is not None and service.text("pull_policy") == "build"


def read_env_file(text: str) -> dict[str, str]:
    """The variables of an `.env` file."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        setting = _SETTING.match(line)
        if setting and not line.lstrip().startswith("#"):
            value = setting.group(2).strip()
            if value[:1] in ("'", '"') and value.endswith(value[0]) and len(value) > 1:
                value = value[1:-1]
            else:
                value = value.partition(" #")[0].rstrip()
            found[setting.group(1)] = value
    return found


class _Reader:
    def __init__(self, findings: Findings, env: Mapping[str, str], built: frozenset[str]) -> None:
        self._findings = findings
        self._env = env
        self._built = built

    def read_container_of(self, service: MappingNode) -> None:
        if (image := service.scalar("image")) and not _is_built(service):
            self._name(image.piece, _IMAGE)
        if build := service.mapping("build"):
            self._read_build(build)
        read_environment(self._findings, service.get("environment"))
        for volume in service.list("volumes"):
            is_image = isinstance(volume, MappingNode) and volume.text("type") == "image"
            if is_image and isinstance(volume, MappingNode) and (source := volume.scalar("source")):
                self._name(source.piece, "compose volume")

    def _read_build(self, build: MappingNode) -> None:
        for item in build.list("cache_from"):
            if not isinstance(item, Scalar):
                continue
            found = _CACHE.search(item.value)
            if found and item.value.startswith("type="):
                if "type=registry" in item.value:
                    self._name(item.piece.cut(*found.span(1)), "compose build cache_from")
            elif not item.value.startswith("type="):
                self._name(item.piece, "compose build cache_from")
        contexts = build.get("additional_contexts")
        if isinstance(contexts, MappingNode):
            pieces = [value.piece for _, value in contexts.items() if isinstance(value, Scalar)]
        else:
            items = contexts.items if isinstance(contexts, ListNode) else []
            pieces = [
                item.piece.cut(item.value.find("=") + 1) for item in items if isinstance(item, Scalar)
            ]  # fmt: skip
        for piece in pieces:
            if piece.text.startswith(_CONTEXT):
                self._name(piece.without(_CONTEXT), "compose build context")
        self._read_arguments(build.get("args"))
        inline = build.scalar("dockerfile_inline")
        if inline and "\n" in inline.value:
            read_dockerfile(self._findings, inline.piece.source, "compose build ")

    def _read_arguments(self, arguments: Node | None) -> None:
        """Those whose name says that they are an image, which is what builds are from."""
        given: list[tuple[str, Piece]] = []
        if isinstance(arguments, MappingNode):
            given = [
                (key.value, value.piece) for key, value in arguments.items() if isinstance(value, Scalar)
            ]
        elif isinstance(arguments, ListNode):
            given = [
                (item.value[:end], item.piece.cut(end + 1))
                for item in arguments.items
                if isinstance(item, Scalar) and (end := item.value.find("=")) >= 0
            ]
        for name, piece in given:
            text = piece.strip().text
            is_variable = "$" in text and words_of(name)[-1:] == ["image"]
            if names_an_image(name) and (is_variable or is_likely_image(text)) and text not in self._built:
                self._name(piece, "compose build argument")

    def _name(self, piece: Piece, field: str) -> None:
        piece = piece.strip()
        text = piece.text
        if "$" not in text:
            self._findings.name(piece, field)
            return
        made = expand(text, nothing, escape="$")
        by_env = expand(text, self._env.get, escape="$").text if self._env else None
        likely = likely_text(by_env) if by_env else ""
        if made.text is None:
            self._findings.expand(piece, None, field, self._reason(made), likely)
        elif likely and likely != likely_text(made.text):
            why = f"has the default {made.text[:100]} here, and another value by the .env beside the file"
            self._findings.leave(piece, field, why, likely)
        else:
            self._findings.expand(piece, made.text, field)

    def _reason(self, made: Expanded) -> str:
        known = [name for name in made.missing if name in self._env]
        names = ", ".join(made.missing[:5])
        what = f"has variables without a default ({names})" if names else "has more than variables"
        return f"{what}; the .env beside the file sets {', '.join(known[:5])}" if known else what
