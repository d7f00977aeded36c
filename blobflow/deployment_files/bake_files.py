"""What `docker buildx bake` begins with: contexts that are images, and Dockerfiles inside. Pure.

Variables with a default in the file have that; what else stands in `${…}` can't be told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from blobflow.deployment_files.dockerfile import read_dockerfile
from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.hcl import TOKEN, attributes_of, behind, defaults_of
from blobflow.deployment_files.interpolation import expand
from blobflow.deployment_files.source_text import Piece, SourceText
from blobflow.deployment_files.yaml_tree import MappingNode, Scalar

_CONTEXT = "docker-image://"
_INLINE = re.compile(r"\bdockerfile-inline[ \t]*=[ \t]*\Z")
# Characters before a here-document in which its attribute stands.
_LONGEST = 200


def is_bake(name: str) -> bool:
    """Whether a file of this name is a bake file in HCL."""
    return name.startswith("docker-bake") and name.endswith(".hcl")


def is_bake_json(name: str) -> bool:
    """Whether a file of this name is a bake file in JSON."""
    return name.startswith("docker-bake") and name.endswith(".json")


def read_bake(findings: Findings, source: SourceText) -> None:
    """What the targets of a file in HCL begin with."""
    text, whole = source.text, source.whole()
    values = {name: default.text for name, default in defaults_of(attributes_of(source)).items()}
    at = 0
    while token := TOKEN.search(text, at):
        at = token.end()
        if token.lastgroup == "heredoc":
            at = behind(text, token.group("heredoc"), token.end())
            if _INLINE.search(text, max(0, token.start() - _LONGEST), token.start()):
                read_dockerfile(findings, source.part(token.end(), at), "bake ")
        elif token.lastgroup == "string":
            _read_context(findings, whole.cut(token.start(), token.end()).strip('"'), values)


def read_bake_json(findings: Findings, document: MappingNode) -> None:
    """What the targets of a file in JSON begin with."""
    values: dict[str, str] = {}
    variables = document.mapping("variable")
    for name, variable in variables.items() if variables else ():
        default = variable.scalar("default") if isinstance(variable, MappingNode) else None
        if default and not default.is_null:
            values[name.value] = default.value
    targets = document.mapping("target")
    for _, target in targets.items() if targets else ():
        if not isinstance(target, MappingNode):
            continue
        contexts = target.mapping("contexts")
        for _, context in contexts.items() if contexts else ():
            if isinstance(context, Scalar):
                _read_context(findings, context.piece, values)
        if inline := target.scalar("dockerfile-inline"):
            read_dockerfile(findings, inline.piece.source, "bake ")


def _read_context(findings: Findings, piece: Piece, values: Mapping[str, str]) -> None:
    named = piece.without(_CONTEXT)
    if named is piece or not named.text:
        return
    if "$" in named.text:
        findings.expand(named, expand(named.text, values.get).text, "bake context")
    else:
        findings.name(named, "bake context")
