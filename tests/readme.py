"""The Python of README.md, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tools.checkout import TOP

README = TOP / "README.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block_with(words: str) -> str:
    """The one block that has these words in it."""
    (found,) = [block for block in _BLOCK.findall(README.read_text()) if words in block]
    return str(found)


def shelf(folder: Path) -> Any:
    """README's class that is a Source and a Sink, with `folder` to keep everything in."""
    names: dict[str, Any] = {}
    exec(compile(block_with("class Shelf"), str(README), "exec"), names)
    names["Shelf"].root = folder
    return names["Shelf"]
