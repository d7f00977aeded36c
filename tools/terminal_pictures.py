"""Draws the pictures of `docs/pictures`: what a terminal shows of the runs in `tools.screens`, as SVG.

    python -m tools.terminal_pictures docs/pictures

They are of real runs, so figures and digests differ a little each time; the registries get names.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import groupby
from pathlib import Path
from typing import Protocol
from xml.sax.saxutils import escape

from tools import screens
from tools.screens import Scene

# Pixels of a character and of a line; colours of a terminal that is dark.
_WIDTH, _HEIGHT, _MARGIN = 8.4, 19, 14
_BACKGROUND, _FOREGROUND = "#14181f", "#d7dce2"
_COLOURS = {"green": "#7bc275", "brown": "#e5b95c", "default": _FOREGROUND}
_FAINT = "#7d8794"
_EMPTY = "─"  # of a bar, what is to come

# What is to be on the screen, and the columns.
Shot = tuple[str, int, tuple[str, ...]]
SCENES: tuple[tuple[Callable[[Path], AbstractAsyncContextManager[Scene]], tuple[Shot, ...]], ...] = (
    (screens.slow, (("slow", 100, (" left",)), ("slow-60", 60, ("transfer 0/8 ",)))),
    (screens.stalled, (("stalled", 100, ("0 B/s for 7 s",)), ("stalled-200", 200, ("sha256:",)))),
    (screens.unavailable, (("unavailable", 100, ("answers 503",)),)),
    (screens.many_images, (("many-images", 100, ("resolve 120/200", "answered for 3 s")),)),
)


class Screen(Protocol):
    """What is drawn of a `tools.terminal.Terminal`."""

    @property
    def columns(self) -> int: ...
    @property
    def cells(self) -> Sequence[Sequence[tuple[str, str, bool]]]: ...


def svg_of(terminal: Screen, names: dict[str, str], title: str) -> str:
    """The terminal's screen as a picture. `names`: what is called otherwise there."""
    rows = [_row(cells, names) for cells in terminal.cells]
    while rows and not rows[0]:
        rows.pop(0)
    width = round(terminal.columns * _WIDTH + 2 * _MARGIN)
    height = round(len(rows) * _HEIGHT + 2 * _MARGIN)
    lines = [
        f'<text x="{_MARGIN}" y="{_MARGIN + _HEIGHT * (number + 0.75):g}">{"".join(row)}</text>'
        for number, row in enumerate(rows)
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            "<style>text{font:14px ui-monospace,Menlo,Consolas,monospace;white-space:pre}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{_BACKGROUND}"/>',
            *lines,
            "</svg>\n",
        )
    )


def _row(cells: Iterable[tuple[str, str, bool]], names: dict[str, str]) -> list[str]:
    """A line's characters, those of one look together; nothing for an empty line."""
    runs, column = [], 0
    for (_, colour, bold), group in groupby(cells, key=lambda cell: (cell[0] == _EMPTY, *cell[1:])):
        text = "".join(cell[0] for cell in group)
        start, column = column, column + len(text)
        shown = text.rstrip()
        if not shown:
            continue
        for told, name in names.items():
            shown = shown.replace(told, name)
        fill = _FAINT if shown.startswith(_EMPTY) else _COLOURS.get(colour, _FOREGROUND)
        weight = ' font-weight="bold"' if bold else ""
        # Fonts differ in how wide their lines are: the length makes all characters equally wide.
        runs.append(
            f'<tspan x="{_MARGIN + start * _WIDTH:g}" fill="{fill}"{weight}'
            f' textLength="{len(shown) * _WIDTH:g}">{escape(shown)}</tspan>'
        )
    return runs


async def _shots(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Each picture, with its name."""
    for made, shots in SCENES:
        place = folder / shots[0][0]
        place.mkdir()
        async with made(place) as scene, scene.on_terminal(shots[0][1]) as terminal:
            names = {scene.source: "source.example", scene.target: "target.example"}
            for name, columns, words in shots:
                if columns != terminal.columns:
                    await terminal.resized(columns)
                await terminal.shows(*words)
                title = f"A run on a terminal: {name}"
                yield name, svg_of(terminal, names, title)
            if made is screens.unavailable:
                terminal.interrupt()
                await terminal.ended()
                yield "interrupted", svg_of(terminal, names, "A run after Ctrl-C")


async def _draw(target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async for name, picture in _shots(Path(folder)):
            (target / f"terminal-{name}.svg").write_text(picture)


def main() -> None:
    """Draw them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", type=Path, help="the folder for the pictures")
    asyncio.run(_draw(parser.parse_args().target))


if __name__ == "__main__":
    main()
