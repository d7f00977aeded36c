"""Pictures become smaller and stay what they were: every filter of PNG is undone, few colours are kept."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from tools.png import with_palette

WIDTH, HEIGHT = 12, 10


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def filtered(kind: int, row: bytes, above: bytes, size: int) -> bytes:
    """A row as PNG's filters make it: what each byte has beyond what its neighbours let one expect."""
    line = bytearray([kind])
    for at, value in enumerate(row):
        left, up = (row[at - size] if at >= size else 0), above[at]
        corner = above[at - size] if at >= size else 0
        near = [abs(left + up - corner - each) for each in (left, up, corner)]
        nearest = (left, up, corner)[near.index(min(near))]
        line.append((value - (0, left, up, (left + up) // 2, nearest)[kind]) % 256)
    return bytes(line)


def picture(rows: list[bytes], size: int) -> bytes:
    """A PNG in two parts of content, whose lines take all filters in turn."""
    above = [bytes(WIDTH * size), *rows]
    lines = b"".join(filtered(at % 5, row, above[at], size) for at, row in enumerate(rows))
    packed = zlib.compress(lines)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2 if size == 3 else 6, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", packed[:20]), (b"IDAT", packed[20:]), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def pixels_of(made: bytes) -> list[bytes]:
    """The pixels of a PNG with a palette and no filters."""
    parts, at = {}, 8
    while at < len(made):
        length, name = struct.unpack(">I4s", made[at : at + 8])
        parts[name] = made[at + 8 : at + 8 + length]
        assert struct.unpack(">I", made[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            name + parts[name]
        )
        at += length + 12
    assert parts[b"IHDR"] == struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)
    lines, palette = zlib.decompress(parts[b"IDAT"]), parts[b"PLTE"]
    numbers = [lines[row * (WIDTH + 1) + 1 : (row + 1) * (WIDTH + 1)] for row in range(HEIGHT)]
    return [palette[3 * number : 3 * number + 3] for row in numbers for number in row]


@pytest.mark.parametrize("size", [3, 4])
def test_a_picture_of_few_colours_stays_as_it_is(size: int) -> None:
    dice = random.Random(size)
    colors = [bytes((red, green, 7))[:3] for red in range(0, 256, 64) for green in range(0, 256, 64)]
    rows = [[dice.choice(colors) for _ in range(WIDTH)] for _ in range(HEIGHT)]
    drawn = picture([b"".join(pixel + b"\xff" * (size - 3) for pixel in row) for row in rows], size)
    assert pixels_of(with_palette(drawn)) == [pixel for row in rows for pixel in row]


def test_of_many_colours_the_nearest_are_taken() -> None:
    ground, near, word = b"\xf0\xf0\xf0", b"\xf1\xf2\xf3", b"\x10\x80\x20"
    rows = [[ground] * WIDTH for _ in range(HEIGHT)]
    rows[3][4], rows[5][6] = near, word
    found = pixels_of(with_palette(picture([b"".join(row) for row in rows], 3)))
    assert found[3 * WIDTH + 4] == ground and found[5 * WIDTH + 6] == word


def test_another_kind_of_png_is_refused() -> None:
    with pytest.raises(ValueError, match="8 bits a channel"):
        with_palette(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 1, 0, 0, 0, 0)))
