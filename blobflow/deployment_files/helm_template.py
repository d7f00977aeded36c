"""Templates of Helm charts, and others, as they are before rendering: no YAML, so they are read line by line.
Pure.

What a template fills in can't be told; an image that stands there in full can.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from blobflow.deployment_files.findings import Findings, is_likely_image, names_an_image
from blobflow.deployment_files.source_text import Piece, SourceText

_LINE = re.compile(r"([ \t]*+(?:- )*+[ \t]*+)([\"']?)([\w./-]+)\2:[ \t]+(\S.*)\Z")
# A mapping in braces, on one line.
_IN_FLOW = re.compile(r"[{,][ \t]*image:[ \t]+(\"[^\"{}]*\"|'[^'{}]*'|[^\s,{}\"']+)[ \t]*[,}]")
_CONTAINER_KEY = re.compile(r"[ \t]*(?:- )?(initContainers|containers|ephemeralContainers):[ \t]*(\S.*)?\Z")
_CONTROL = re.compile(r"[ \t]*\{\{-?[ \t]*(?:if|with|range|else|end|/\*|\$?\w+ *:=)[^}]*\}\}[ \t]*\Z")
_OF_CONTAINERS = re.compile(r"\.[\w.]{0,200}(?:[cC]ontainers|sidecars)\b")
# Of an expression: a value or named template that is an image, not how it is pulled, nor its tag alone.
_OF_IMAGE = re.compile(
    r"[iI]mage\b(?!\.(?:tag|pullPolicy|pullSecrets|version))|[iI]mage\.(?:repository|name)\b"
)
_BLOCK = re.compile(r"\{\{-?[ \t]*(?:with|range)\b")
_LOOKED_BACK = 10
_ARGUMENT = re.compile(r"[ \t]*- [\"']?--?([\w.-]+)=(.*)\Z")
_COMMENT = re.compile(r"[ \t]#.*\Z")
_REASON = "is a template of Helm, which values fill in"
_FIELD = "helm template"


def read_template(
    findings: Findings,
    source: SourceText,
    *,
    field: str = _FIELD,
    reason: str = _REASON,
    likely: Callable[[str], str] = lambda _: "",
) -> None:
    """The lines that name images, and those that take whole containers from values. `field` and `reason`: for
    templates of another kind. `likely`: what an expression is by the defaults in it."""
    reader = _Lines(findings, field, reason, likely)
    lines = [line for line in source.whole().lines() if not line.text.lstrip().startswith("#")]
    last_name = ""
    for index, line in enumerate(lines):
        text = line.text
        if _takes_containers(lines, index):
            findings.leave(line.strip(), field, "takes containers from values, which are not here")
        elif found := _LINE.match(text):
            key = found.group(3)
            value = line.cut(*found.span(4))
            if key == "name":
                last_name = found.group(4).strip("\"' ")
            reader.read_value(key, last_name, value)
        elif (argument := _ARGUMENT.match(text)) and names_an_image(argument.group(1)):
            value = line.cut(*argument.span(2)).strip().strip("\"'")
            if "{{" in value.text or is_likely_image(value.text):
                findings.name(value, "argument", reason=reason if "{{" in value.text else "")
        for each in _IN_FLOW.finditer(text):
            reader.read_value("image", "", line.cut(*each.span(1)))


class _Lines(NamedTuple):
    """What is made of the values of lines: see `read_template`."""

    findings: Findings
    field: str
    reason: str
    likely: Callable[[str], str]

    def read_value(self, key: str, name: str, value: Piece) -> None:
        """The value of a key, and of a variable of this name."""
        if comment := _COMMENT.search(value.text):
            value = value.cut(0, comment.start())
        value = value.strip()
        for quote in "\"'":
            if len(value.text) > 1 and value.text[0] == value.text[-1] == quote:
                value = Piece(value.source, value.start + 1, value.end - 1, quote)
        of_env = key == "value" and names_an_image(name)
        if not (names_an_image(key) or of_env):
            return
        field = "env" if of_env else f"{self.field} container" if key == "image" else self.field
        if "{{" in value.text:
            if key == "image" or _OF_IMAGE.search(value.text):
                self.findings.leave(value, field, self.reason, self.likely(value.text))
        elif is_likely_image(value.text) or key == "image":
            self.findings.name(value, field)


def _takes_containers(lines: list[Piece], index: int) -> bool:
    """Whether containers come from values here: at the key of the list, or where more are put behind it."""
    text = lines[index].text
    if key := _CONTAINER_KEY.match(text):
        if key.group(2):
            return "{{" in key.group(2)
        following = next((line.text for line in lines[index + 1 : index + 4] if not _control(line.text)), "")
        return "{{" in following and re.match(r"[ \t]*- (?!\{\{)", following) is None
    if "{{" not in text or not _OF_CONTAINERS.search(text):
        return False
    if "toYaml" in text or "tpl " in text or "include " in text or "tplvalues" in text:
        return not _CONTAINER_KEY.match(_before(lines, index)) and not _opens_containers(lines, index - 1)
    following = lines[index + 1].text if index + 1 < len(lines) else ""
    is_block = _BLOCK.search(text) is not None and not _CONTAINER_KEY.match(_before(lines, index))
    return is_block and "{{" in following and "toYaml" in following


def _opens_containers(lines: list[Piece], index: int) -> bool:
    """Whether a line begins a block about containers whose next line puts them in: that line tells of it."""
    if index < 0:
        return False
    text = lines[index].text
    return _BLOCK.search(text) is not None and bool(_OF_CONTAINERS.search(text))


def _before(lines: list[Piece], index: int) -> str:
    """The nearest line before one that is more than control; of the few that are looked at."""
    nearest = reversed(lines[max(index - _LOOKED_BACK, 0) : index])
    return next((line.text for line in nearest if not _control(line.text)), "")


def _control(text: str) -> bool:
    return not text.strip() or _CONTROL.match(text) is not None
