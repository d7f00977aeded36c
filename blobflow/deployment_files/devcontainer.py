"""Development containers (`devcontainer.json`): the image, and the features, which are artifacts.

The file is JSON with comments (containers.dev, "Dev Container metadata reference"). Pure.
"""

from __future__ import annotations

import re

from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.source_text import SourceText
from blobflow.deployment_files.yaml_tree import MappingNode, Scalar, compose

_NAMES = frozenset(("devcontainer.json", ".devcontainer.json"))
_PIECES = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?')
_LOCAL = ("./", "../", "https:", "http:")


def is_devcontainer(name: str) -> bool:
    """Whether a file of this name is read here."""
    return name in _NAMES


def read_devcontainer(findings: Findings, source: SourceText) -> None:
    """What starting the container pulls. Raises NotYaml, and what `compose` raises."""
    for document in compose(source.excerpt(_without_comments(source.text), [(0, 0)], 0)):
        if not isinstance(document, MappingNode):
            continue
        if image := document.scalar("image"):
            filled = "${" in image.value
            reason = "has a variable, known where it is started" if filled else ""
            findings.name(image.piece, "devcontainer image", reason=reason)
        features = document.mapping("features")
        for name, _ in features.items() if features else ():
            if isinstance(name, Scalar) and "/" in name.value and not name.value.startswith(_LOCAL):
                findings.name(name.piece, "devcontainer feature")


def _without_comments(text: str) -> str:
    """The text with blanks for its comments."""

    def blank(found: re.Match[str]) -> str:
        said = found.group()
        return said if said.startswith('"') else re.sub(r"[^\n]", " ", said)

    return _PIECES.sub(blank, text)
