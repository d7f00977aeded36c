"""The Python of the documentation, as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.documentation.documents import DOCS, blocks_of

OWN_PLACES = DOCS / "tasks" / "own-places.md"


def block_with(words: str, document: Path = OWN_PLACES) -> str:
    """The one block of Python that has these words in it."""
    python = [block.text for block in blocks_of(document) if block.language == "python"]
    (found,) = [text for text in python if words in text]
    return found


def shelf(folder: Path) -> Any:
    """The documented class that is a Source and a Sink, with `folder` to keep everything in."""
    names: dict[str, Any] = {}
    exec(compile(block_with("class Shelf"), str(OWN_PLACES), "exec"), names)
    names["Shelf"].root = folder
    return names["Shelf"]
