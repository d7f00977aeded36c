"""Bazel's MODULE and WORKSPACE files: images that rules_oci and rules_docker pull. Pure."""

from __future__ import annotations

import re

from blobflow.deployment_files.contract import PartKind
from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.source_text import Piece, SourceText

_NAMES = frozenset(("MODULE.bazel", "WORKSPACE", "WORKSPACE.bazel", "WORKSPACE.bzlmod"))
_CALL = re.compile(r"(?m)^[ \t]*(?:oci\.pull|oci_pull|container_pull)\(")
_ATTRIBUTE = re.compile(r"(?:\A|[(,\s])(image|registry|repository|tag|digest)[ \t]*=[ \t]*\"([^\"\n]*)\"")
_COMMENT = re.compile(r"(?m)^[ \t]*#[^\n]*")
# Characters of one call.
_LONGEST = 4000
_FIELD = "bazel pull"


def is_bazel(name: str) -> bool:
    """Whether a file of this name is read here."""
    return name in _NAMES or name.endswith(".MODULE.bazel")


def read_bazel(findings: Findings, source: SourceText) -> None:
    """The image of each call that pulls one."""
    whole = source.whole()
    for call in _CALL.finditer(source.text):
        end = source.text.find(")", call.end(), call.end() + _LONGEST)
        if end < 0:
            continue
        body = whole.cut(call.end() - 1, end)
        text = _COMMENT.sub(lambda found: " " * len(found.group()), body.text)
        given = {found[1]: body.cut(*found.span(2)) for found in _ATTRIBUTE.finditer(text)}
        _read_call(findings, given)


def _read_call(findings: Findings, given: dict[str, Piece]) -> None:
    parts: list[tuple[PartKind, Piece]] = []
    if "image" in given:
        parts.append(("name", given["image"]))
    elif "repository" in given:
        parts += [(kind, given[kind]) for kind in ("registry", "repository") if kind in given]
    else:
        return
    name = "/".join(piece.text.strip("/") for _, piece in parts)
    ends: tuple[tuple[PartKind, str], ...] = (("tag", ":"), ("digest", "@"))
    for kind, sign in ends:
        if kind in given:
            parts.append((kind, given[kind]))
            name += f"{sign}{given[kind].text}"
    findings.join(parts, name, _FIELD)
