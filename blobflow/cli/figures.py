"""Figures and names as people read them. Pure; what is shown to a terminal passes through `one_line`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from blobflow.visible import visible

_UNITS = ("kB", "MB", "GB", "TB", "PB")
_FACTORS = {"": 1, "b": 1} | {
    spelt: base ** (power + 1)
    for power, letter in enumerate("kmgtp")
    for base, spellings in ((1000, (letter, f"{letter}b")), (1024, (f"{letter}i", f"{letter}ib")))
    for spelt in spellings
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII)


def one_line(text: str) -> str:
    """`text` with everything a terminal could obey made visible, and bounded: see `blobflow.visible`."""
    return visible(text)


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


def parse_size(text: str) -> int:
    """Bytes as people write them: `20GB` is in powers of ten, `512MiB` of two, `65536` plain.

    Raises ValueError with a sentence.
    """
    found = _AMOUNT.fullmatch(text.strip())
    factor = _FACTORS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError(f"{one_line(text)!r} is no amount of bytes; write it as 20GB, 512MiB or 1048576")
    return int(Fraction(found[1]) * factor)


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
