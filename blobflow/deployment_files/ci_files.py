"""Pipelines of CircleCI, Drone, Woodpecker, Bitbucket and Cloud Build: the images that their steps run in,
which need no tag there. Pure.

Each is known by its shape, or by its name where files of other kinds have the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from blobflow.deployment_files.findings import Findings, is_likely_image
from blobflow.deployment_files.interpolation import expand
from blobflow.deployment_files.shell_script import read_script
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar, each_mapping
from blobflow.oci.reference import looks_like_host

# What stands at the top of a build of Google's Cloud Build.
_CLOUD_BUILD = frozenset(
    [
        "artifacts",
        "availableSecrets",
        "dependencies",
        "gitSource",
        "images",
        "logsBucket",
        "options",
        "queueTtl",
        "secrets",
        "serviceAccount",
        "source",
        "steps",
        "substitutions",
        "tags",
        "timeout",
    ]
)
_CLOUD_STEPS = frozenset(("args", "entrypoint", "script"))
_NAMED_CLOUD_BUILD = re.compile(r"(?i)cloud[._-]?build")
_NAMED_PIPELINE = re.compile(r"(?i)(?:\A|/)\.(?:woodpecker|crow|drone)(?:/|\.ya?ml\Z)")
# What a file with steps and images has if it is a pipeline, and not a recipe or a row of slides.
_PIPELINE = ("services", "clone")
_PIPELINE_STEP = frozenset(
    ("commands", "detach", "entrypoint", "environment", "privileged", "secrets", "settings")
)
_BITBUCKET = ("default", "branches", "tags", "pull-requests", "custom")
_PIPE = "docker://"
_ELSEWHERE = "is a pipe, whose image its own repository names"
_PARAMETER = "<<"


def read_ci(findings: Findings, document: Node, path: str) -> None:
    """What a document names if it is a pipeline of one of these; nothing else is said of it."""
    if not isinstance(document, MappingNode) or document.own("apiVersion"):
        return
    if _is_circle(document):
        _read_circle(findings, document)
    elif _is_drone(document, path):
        _read_drone(findings, document)
    elif _is_bitbucket(document):
        _read_bitbucket(findings, document)
    elif _is_cloud_build(document, path):
        _read_cloud_build(findings, document)


def is_drone(document: Node, path: str) -> bool:
    """Whether a document is a pipeline of Drone or Woodpecker, which may have services as Compose has."""
    return isinstance(document, MappingNode) and _is_drone(document, path)


def _is_circle(document: MappingNode) -> bool:
    version = document.text("version").strip()
    parts = (document.mapping(key) for key in ("jobs", "executors", "orbs"))
    return version.startswith("2") and any(parts) and not document.own("kind")


def _read_circle(findings: Findings, document: MappingNode) -> None:
    """The first image of `docker` is what runs the steps, the others are services."""

    def visit(mapping: MappingNode) -> None:
        for item in _mappings(mapping.own("docker")):
            image = item.scalar("image")
            if image and not image.is_null:
                is_parameter = _PARAMETER in image.value
                reason = "is a parameter, known when it runs" if is_parameter else ""
                findings.name(image.piece, "CircleCI image", reason=reason)

    each_mapping(document, visit)


def _is_drone(document: MappingNode, path: str) -> bool:
    if document.own("kind"):
        return document.text("kind") == "pipeline" and document.own("steps") is not None
    if document.own("runs") or document.own("jobs"):
        return False
    steps = _mappings(document.own("steps") or document.own("pipeline"))
    with_image = sum(1 for step in steps if step.scalar("image"))
    if _NAMED_PIPELINE.search(path):
        return with_image > 0
    given = {key.value for step in steps for key, _ in step.pairs}
    has_more = any(map(document.own, _PIPELINE)) or not given.isdisjoint(_PIPELINE_STEP)
    return 0 < with_image == len(steps) and has_more


def _read_drone(findings: Findings, document: MappingNode) -> None:
    for key in ("clone", "steps", "pipeline", "services"):
        for step in _mappings(document.own(key)):
            image = step.scalar("image")
            if image and not image.is_null:
                findings.name(image.piece, "pipeline image")


def _is_bitbucket(document: MappingNode) -> bool:
    pipelines = document.mapping("pipelines")
    return bool(pipelines and any(pipelines.own(key) for key in _BITBUCKET)) and not document.own("kind")


def _read_bitbucket(findings: Findings, document: MappingNode) -> None:
    def visit(mapping: MappingNode) -> None:
        image = mapping.own("image")
        if isinstance(image, MappingNode):
            image = image.own("name")
        if isinstance(image, Scalar) and not image.is_null:
            findings.name(image.piece, "Bitbucket image")
        for key in ("script", "after-script"):
            for line in mapping.list(key):
                if isinstance(line, Scalar):
                    read_script(findings, line.piece)
        pipe = mapping.own("pipe")
        if isinstance(pipe, Scalar) and pipe.value.startswith(_PIPE):
            findings.name(pipe.piece, "Bitbucket pipe")
        elif isinstance(pipe, Scalar) and not pipe.is_null:
            findings.leave(pipe.piece, "Bitbucket pipe", _ELSEWHERE)

    each_mapping(document, visit)


def _is_cloud_build(document: MappingNode, path: str) -> bool:
    steps = document.list("steps")
    keys = {key.value for key, _ in document.pairs}
    if not steps or not keys <= _CLOUD_BUILD:
        return False
    names = [step.scalar("name") if isinstance(step, MappingNode) else None for step in steps]
    if not all(names):
        return False
    if _NAMED_CLOUD_BUILD.search(path.rpartition("/")[2]):
        return True
    texts = [name.value for name in names if name]
    like_images = all("/" in text and is_likely_image(text) for text in texts)
    has_host = any(looks_like_host(text.partition("/")[0]) for text in texts)
    given = {key.value for step in steps if isinstance(step, MappingNode) for key, _ in step.pairs}
    return like_images and has_host and not given.isdisjoint(_CLOUD_STEPS)


def _read_cloud_build(findings: Findings, document: MappingNode) -> None:
    """Substitutions of the file itself are defaults; others are known where it runs."""
    given = document.mapping("substitutions")
    values = (
        {key.value: value.value for key, value in given.items() if isinstance(value, Scalar)} if given else {}
    )
    for step in _mappings(document.own("steps")):
        name = step.scalar("name")
        if name and not name.is_null:
            if "$" in name.value:
                made = expand(name.value, values.get).text
                findings.expand(
                    name.piece, made, "Cloud Build step", "has a substitution without a value here"
                )
            else:
                findings.name(name.piece, "Cloud Build step")


def _mappings(node: Node | None) -> list[MappingNode]:
    """The mappings of a list, or the values of a mapping that are such."""
    items: Iterable[Node] = ()
    if isinstance(node, ListNode):
        items = node.items
    elif isinstance(node, MappingNode):
        items = [value for _, value in node.items()]
    return [each for each in items if isinstance(each, MappingNode)]
