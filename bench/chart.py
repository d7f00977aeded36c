"""A plot as SVG, written by hand: scenario by scenario one bar a tool, each scenario to its own scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

WIDTH = 900
LABELS = 250  # pixels left of the bars
VALUES = 150  # and right of them
BAR = 16
GAP = 4
HEADLINE = 30
# Told apart also by those who see no red and green, and in grey (Okabe and Ito's palette).
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#999999", "#000000")

Bars = Mapping[str, Mapping[str, float]]


def plot(title: str, unit: str, bars: Bars) -> str:
    """An SVG document. `bars`: values by scenario and by tool, shorter is better, in `unit`."""
    tools = list(dict.fromkeys(tool for by_tool in bars.values() for tool in by_tool))
    colours = {tool: COLOURS[place % len(COLOURS)] for place, tool in enumerate(tools)}
    height = HEADLINE + sum(HEADLINE + len(by_tool) * (BAR + GAP) for by_tool in bars.values()) + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{GAP}" y="20" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    top = HEADLINE
    for scenario, by_tool in bars.items():
        lines.append(f'<text x="{GAP}" y="{top + 20}" font-weight="bold">{escape(scenario)}</text>')
        top += HEADLINE
        lines += _group(by_tool, colours, top, unit)
        top += len(by_tool) * (BAR + GAP)
    return "\n".join([*lines, "</svg>", ""])


def _group(by_tool: Mapping[str, float], colours: Mapping[str, str], top: int, unit: str) -> Iterator[str]:
    longest = max(by_tool.values(), default=0) or 1
    for tool, value in by_tool.items():
        length = max(1.0, (WIDTH - LABELS - VALUES) * value / longest)
        middle = top + BAR - GAP
        yield f'<text x="{LABELS - 8}" y="{middle}" text-anchor="end">{escape(tool)}</text>'
        yield f'<rect x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR}" fill="{colours[tool]}"/>'
        yield f'<text x="{LABELS + length + 6:.1f}" y="{middle}">{value:.3g} {escape(unit)}</text>'
        top += BAR + GAP
