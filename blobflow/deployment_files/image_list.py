"""Plain lists: one image a line, `#` starts a comment. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from blobflow.deployment_files.findings import Findings, is_filled_in, is_likely_image, reference_or_reason
from blobflow.deployment_files.source_text import Piece, SourceText

_FIELD = "image list"
# Lines that are looked at to find out what a text is.
_SAMPLE = 200


def is_image_list(text: str, *, named: bool = False) -> bool:
    """Whether a text is a list of images: each of its lines begins with one. `named`: its name says so; then
    single words are images, too, and most lines are enough."""
    words = [
        line.text.split()[0] for _, line in zip(range(_SAMPLE), _lines(SourceText("", text)), strict=False)
    ]
    good = [
        word for word in words if not isinstance(reference_or_reason(word.removeprefix("docker://")), str)
    ]
    if named:
        return bool(words) and 2 * len([*good, *filter(is_filled_in, words)]) >= len(words)
    likely = sum(1 for word in good if is_likely_image(word))
    return bool(good) and len(good) == len(words) and 2 * likely > len(words)


def read_image_list(findings: Findings, source: SourceText) -> None:
    """The image of each line; what stands behind it is left alone. An expression may have blanks in it."""
    for line in _lines(source):
        findings.name(line if "{{" in line.text else next(line.words()), _FIELD)


def _lines(source: SourceText) -> Iterator[Piece]:
    for line in source.whole().lines():
        content = line.cut(0, len(line.text.partition("#")[0])).strip()
        if content.text:
            yield content
