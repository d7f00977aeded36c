"""Sizes in bytes as people write them. Pure."""

from __future__ import annotations

import re
from fractions import Fraction

from blobflow.lazy_pattern import LazyPattern
from blobflow.printable import printable

_FACTORS = {"": 1, "b": 1} | {
    spelt: base ** (power + 1)
    for power, letter in enumerate("kmgtp")
    for base, spellings in ((1000, (letter, f"{letter}b")), (1024, (f"{letter}i", f"{letter}ib")))
    for spelt in spellings
}
_AMOUNT = LazyPattern(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes as people write them: `20GB` is in powers of ten, `512MiB` of two, `65536` plain.

    Raises ValueError with a sentence.
    """
    found = _AMOUNT.fullmatch(text.strip())
    factor = _FACTORS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError(f"{printable(text)!r} is no amount of bytes; write it as 20GB, 512MiB or 1048576")
    return int(Fraction(found[1]) * factor)
