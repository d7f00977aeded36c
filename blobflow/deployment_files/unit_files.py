"""Units of systemd: containers, images and volumes of podman's Quadlet. Pure.

podman-systemd.unit(5): `Image=` names an image, or another unit, which ends in `.image` or `.build`.
"""

from __future__ import annotations

import re

from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.source_text import SourceText

_SECTION = re.compile(r"\[([A-Za-z-]+)\][ \t]*\Z")
_IMAGE = re.compile(r"Image[ \t]*=[ \t]*(\S.*)\Z")
_SECTIONS = frozenset(("Container", "Image", "Volume"))
_SUFFIXES = (".container", ".image", ".volume")


def is_unit(name: str) -> bool:
    """Whether a file of this name is read here."""
    return name.endswith(_SUFFIXES)


def read_unit(findings: Findings, source: SourceText) -> None:
    """The images of a unit."""
    section = ""
    for line in source.whole().lines():
        content = line.strip()
        if found := _SECTION.match(content.text):
            section = found[1]
        elif section in _SECTIONS and (image := _IMAGE.match(content.text)):
            value = content.cut(*image.span(1)).strip()
            if value.text.endswith((".image", ".build")):
                continue
            has_specifier = "%" in value.text
            findings.name(
                value, f"quadlet {section}", reason="has a specifier of systemd" if has_specifier else ""
            )
