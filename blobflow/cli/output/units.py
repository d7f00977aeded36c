"""Bytes, durations, counts and names as people read them. Pure.

Text from elsewhere passes through `one_line` before it is printed.
"""

from __future__ import annotations

from collections.abc import Sequence

from blobflow.printable import printable

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def one_line(text: str) -> str:
    """`text` with everything a terminal could obey made visible, and bounded: see `blobflow.printable`."""
    return printable(text)


def size_text(count: int) -> str:
    """Bytes in powers of ten, as registries and networks are priced: `512 B`, `1.5 MB`."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in _UNITS:
        amount /= 1000
        if amount < 999.5 or unit == _UNITS[-1]:
            break
    return f"{amount:.1f} {unit}" if amount < 99.95 else f"{amount:.0f} {unit}"


def seconds_text(seconds: float) -> str:
    """A duration: `0.42 s`, `12.3 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count_text(count: int, thing: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def short_digest(digest: str) -> str:
    """Enough of a digest to recognise it: `sha256:0123456789ab`."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[:12]}"


def table(rows: Sequence[tuple[str, ...]], *, indent: str = "") -> list[str]:
    """Lines of left-aligned columns, two spaces apart; all rows have as many cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
