"""Units of systemd: containers, images and volumes of Quadlet, and services that run an engine. Pure.

podman-systemd.unit(5): `Image=` names an image, or another unit, which ends in `.image` or `.build`.
`Mount=type=image` has one as its source.
"""

from __future__ import annotations

import re

from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.shell_script import read_script
from blobflow.deployment_files.source_text import Piece, SourceText

_SECTION = re.compile(r"\[([A-Za-z-]+)\][ \t]*\Z")
_IMAGE = re.compile(r"Image[ \t]*=[ \t]*(\S.*)\Z")
_SECTIONS = frozenset(("Container", "Image", "Volume"))
_MOUNT = re.compile(r"Mount[ \t]*=[ \t]*(?=\S*type=image)\S*?(?:source|src)=([^,\s]+)")
# Comments between the lines that a command goes on, which systemd skips.
_BETWEEN = r"(?:[ \t]*[#;][^\n]*(?:\n|\Z))*"
# A command, with what systemd reads before its path, and the lines that it goes on.
_COMMAND = re.compile(rf"(?m)^[ \t]*Exec[A-Z]\w*[ \t]*=[ \t]*[-@:+!|]*((?:[^\\\n]|\\\r?\n{_BETWEEN}|\\.)+)")
_COMMENTS = re.compile(rf"(?<=\\\n){_BETWEEN}|(?<=\\\r\n){_BETWEEN}")
_SERVICE = ".service"
_SUFFIXES = (".container", ".image", ".volume", _SERVICE)


def is_unit(name: str) -> bool:
    """Whether a file of this name is read here."""
    return name.endswith(_SUFFIXES)


def read_unit(findings: Findings, source: SourceText) -> None:
    """The images of a unit."""
    if source.path.endswith(_SERVICE):
        for command in _COMMAND.finditer(source.text):
            read_script(findings, _without_comments(source, *command.span(1)), in_unit=True)
        return
    section = ""
    for line in source.whole().lines():
        content = line.strip()
        if found := _SECTION.match(content.text):
            section = found[1]
        elif section in _SECTIONS and (image := _IMAGE.match(content.text)):
            _name(findings, content.cut(*image.span(1)).strip(), f"quadlet {section}")
        elif section == "Container" and (mount := _MOUNT.match(content.text)):
            _name(findings, content.cut(*mount.span(1)), "quadlet Mount")


def _without_comments(source: SourceText, start: int, end: int) -> Piece:
    """A command without the comments between its lines."""
    segments: list[tuple[int, int]] = []
    text = ""
    for found in (*_COMMENTS.finditer(source.text, start, end), None):
        if stop := (found.start() if found else end) - start:
            segments.append((len(text), start))
            text += source.text[start : start + stop]
        start = found.end() if found else end
    return source.excerpt(text, segments, segments[0][1]).whole()


def _name(findings: Findings, value: Piece, field: str) -> None:
    if not value.text.endswith((".image", ".build")):
        findings.name(value, field, reason="has a specifier of systemd" if "%" in value.text else "")
