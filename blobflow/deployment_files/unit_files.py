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
# A command, with what systemd reads before its path, and the lines that it goes on.
_COMMAND = re.compile(r"(?m)^[ \t]*Exec[A-Z]\w*[ \t]*=[ \t]*[-@:+!|]*((?:[^\\\n]|\\.|\\\r?\n)+)")
_SERVICE = ".service"
_SUFFIXES = (".container", ".image", ".volume", _SERVICE)


def is_unit(name: str) -> bool:
    """Whether a file of this name is read here."""
    return name.endswith(_SUFFIXES)


def read_unit(findings: Findings, source: SourceText) -> None:
    """The images of a unit."""
    if source.path.endswith(_SERVICE):
        for command in _COMMAND.finditer(source.text):
            read_script(findings, source.whole().cut(*command.span(1)))
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


def _name(findings: Findings, value: Piece, field: str) -> None:
    if not value.text.endswith((".image", ".build")):
        findings.name(value, field, reason="has a specifier of systemd" if "%" in value.text else "")
