"""Where here-documents end. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from blobflow.deployment_files.source_text import Piece


class HeredocEnds:
    """The lines of a text by what stands in them."""

    def __init__(self, lines: Sequence[Piece]) -> None:
        self._exact: dict[str, list[int]] = {}
        self._without_tabs: dict[str, list[int]] = {}
        for index, line in enumerate(lines):
            text = line.text
            self._exact.setdefault(text, []).append(index)
            self._without_tabs.setdefault(text.lstrip("\t"), []).append(index)

    def find(self, word: str, index: int, *, tabs: bool) -> int | None:
        """The first line from `index` on that is the word alone, with tabs before it if that is allowed; None
        if the here-document never ends."""
        lines = (self._without_tabs if tabs else self._exact).get(word, [])
        at = bisect_left(lines, index)
        return lines[at] if at < len(lines) else None
