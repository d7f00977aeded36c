"""Texts in which Jinja's comments and statements are blanks, so that what is left of a `*.j2` stands where it
stands in the file. Pure.

Expressions stay: what one of them fills in can't be told. All branches of a condition stay, too, since each
may be the one that is deployed.
"""

from __future__ import annotations

from pathlib import PurePath

from blobflow.deployment_files.source_text import SourceText

_SUFFIXES = (".j2", ".jinja2", ".jinja")
# What opens and closes what is no text of the result.
_PAIRS = (("{#", "#}"), ("{%", "%}"))
REASON = "is a template of Jinja, which variables fill in"


def name_inside(name: str) -> str:
    """The name of the file that a template makes: `compose.yaml` of `compose.yaml.j2`; "" if it is none."""
    path = PurePath(name)
    return path.stem if path.suffix in _SUFFIXES else ""


def without_statements(source: SourceText) -> SourceText:
    """The text with blanks for Jinja's comments and statements; what is not closed stays."""
    text = source.text
    pieces: list[str] = []
    at = 0
    closed = dict.fromkeys((opening for opening, _ in _PAIRS), True)
    while True:
        found = [
            (start, opening, closing)
            for opening, closing in _PAIRS
            if closed[opening] and (start := text.find(opening, at)) >= 0
        ]
        if not found:
            break
        start, opening, closing = min(found)
        end = text.find(closing, start + len(opening))
        if end < 0:
            closed[opening] = False
            continue
        end += len(closing)
        pieces += [text[at:start], _blank(text[start:end])]
        at = end
    return source.excerpt("".join([*pieces, text[at:]]), [(0, 0)], 0)


def _blank(text: str) -> str:
    """Blanks for a text, on as many lines as it has."""
    return "\n".join(" " * len(line) for line in text.split("\n"))
