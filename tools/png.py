"""Makes pictures of screens small: 256 colours do for text on a plain ground, and take half the bytes.

Reads what chromium writes: PNG of 8 bits a channel, RGB or RGBA, not interlaced. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLORS = 256


def with_palette(picture: bytes) -> bytes:
    """The same picture in 256 colours that most of it has; others become the nearest of these.

    Raises ValueError for a PNG of another kind.
    """
    width, height, depth, kind, *_, interlaced = struct.unpack(">IIBBBBB", dict(_chunks(picture))[b"IHDR"])
    if depth != 8 or kind not in (2, 6) or interlaced:
        raise ValueError("a PNG of 8 bits a channel in RGB or RGBA is wanted, not interlaced")
    size = 3 if kind == 2 else 4
    content = zlib.decompress(b"".join(part for name, part in _chunks(picture) if name == b"IDAT"))
    rows = list(_rows(content, width, height, size))
    pixels = [bytes(row[at : at + 3]) for row in rows for at in range(0, width * size, size)]
    found = Counter(pixels)
    colors = _palette(found)
    numbers = {color: number for number, color in enumerate(colors)}
    for color in found.keys() - numbers.keys():
        numbers[color] = min(range(len(colors)), key=partial(_distance, colors, color))
    flat = bytes(map(numbers.__getitem__, pixels))
    lines = b"".join(b"\0" + flat[at : at + width] for at in range(0, len(flat), width))
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    made = (b"IHDR", head), (b"PLTE", b"".join(colors)), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")
    return _SIGNATURE + b"".join(_chunk(*each) for each in made)


def _palette(found: Counter[bytes]) -> list[bytes]:
    """The most common colours, one of each neighbourhood: of small coloured words some are kept, too."""
    chosen: dict[tuple[int, ...], bytes] = {}
    for color, _ in found.most_common():
        chosen.setdefault(tuple(value >> 4 for value in color), color)
        if len(chosen) == _COLORS:
            break
    return list(chosen.values())


def _distance(colors: list[bytes], color: bytes, number: int) -> int:
    return sum((a - b) ** 2 for a, b in zip(colors[number], color, strict=True))


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(picture):
        length, name = struct.unpack(">I4s", picture[at : at + 8])
        yield name, picture[at + 8 : at + 8 + length]
        at += length + 12


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _rows(content: bytes, width: int, height: int, size: int) -> Iterator[bytearray]:
    """The lines of pixels, with their filters undone (PNG specification, 9.2)."""
    above = bytearray(width * size)
    length = width * size + 1
    for number in range(height):
        kind, line = content[number * length], bytearray(content[number * length + 1 : (number + 1) * length])
        for at, value in enumerate(line):
            if kind == 0:
                break
            left = line[at - size] if at >= size else 0
            corner = above[at - size] if at >= size else 0
            expected = (0, left, above[at], (left + above[at]) // 2, _paeth(left, above[at], corner))[kind]
            line[at] = (value + expected) & 255
        above = line
        yield line


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))
