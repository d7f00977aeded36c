"""The last lines of a terminal, drawn again and again.

The cursor rests at the top of the area, on a line of its own, and what is below belongs to the area. So it
does not matter what a terminal makes of lines when it is resized (some wrap them anew, some cut them): what
was drawn is below the cursor in any case, is drawn over from there on, and what is left of it is erased. The
empty line is for what others write meanwhile, the `^C` of a terminal, or the last words of a program that we
called: no figure is mixed with it.

Every line is one of `Line`, shortened to the width; nothing that is drawn wraps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, TextIO

from rich.cells import cell_len, set_cell_size

Style = Literal["", "strong", "good", "dim", "warn"]
_SGR: Mapping[Style, str] = {"": "", "strong": "1", "good": "32", "dim": "2", "warn": "33"}


class Part(NamedTuple):
    """Text of one style. It must be harmless: see `one_line`."""

    text: str
    style: Style = ""


Line = Sequence[Part]

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"  # DECTCEM
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"


class TerminalArea:
    """Draws lines at the end of what a terminal shows. `colors`: whether it may have any.

    A terminal that went away ends nothing: what is written to it is lost.
    """

    def __init__(self, stream: TextIO, *, colors: bool) -> None:
        self._stream = stream
        self._colors = colors
        self._shown: list[str] = []
        self._size = (0, 0)
        self._open = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now; 80 by 24 where the terminal does not know."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, lines = shutil.get_terminal_size()
        return columns or 80, lines or 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines, as far as they fit."""
        columns, rows = size = self.size
        shown = [self._rendered(line, columns - 1) for line in lines[: max(0, rows - 2)]]
        if self._open and (shown, size) == (self._shown, self._size):
            return
        start = "" if self._open else _HIDE_CURSOR
        self._open, self._shown, self._size = True, shown, size
        self._write(f"{start}\r{self._area()}")

    def print(self, *lines: str) -> None:
        """Write lines that stay, above the area."""
        text = "".join(f"{line}\n" for line in lines)
        self._write(f"\r{_ERASE_BELOW}{text}{self._area()}" if self._open else text)

    def close(self) -> None:
        """Leave nothing of the area behind."""
        if self._open:
            self._write(f"\r{_ERASE_BELOW}{_SHOW_CURSOR}")
            self._open = False

    def _area(self) -> str:
        """What draws the area from where the cursor is, and leaves it there."""
        body = "".join(f"\n{line}{_ERASE_LINE}" for line in self._shown)
        up = f"\x1b[{len(self._shown)}A" if self._shown else ""
        return f"{_ERASE_LINE}{body}{_ERASE_BELOW}{up}\r"

    def _rendered(self, line: Line, width: int) -> str:
        shown, left = [], width
        for text, style in line:
            if left <= 0:
                break
            if (cells := cell_len(text)) > left:
                text = shorten(text, left)
                cells = left
            left -= cells
            code = _SGR[style] if self._colors else ""
            shown.append(f"\x1b[{code}m{text}\x1b[0m" if code else text)
        return "".join(shown)

    def _write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


def shorten(text: str, width: int) -> str:
    """The beginning of a text, in `width` cells at most; what is cut ends in `…`."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def shorten_start(text: str, width: int) -> str:
    """The end of a text, in `width` cells at most: of an image's name it tells most."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"


def padded(text: str, width: int) -> str:
    """The text in exactly `width` cells; it has to fit."""
    return text + " " * max(0, width - cell_len(text))
