"""Inputs for fuzzing: seeds that mean something to a parser, and mutations of them. Deterministic."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

# What breaks parsers: ends of number ranges, quotes and separators, escapes, bytes that are no UTF-8.
_PIECES: tuple[bytes, ...] = (
    *(bytes([byte]) for byte in b" \t\r\n\0\x1b\x7f\"'\\,;:=<>/@[]{}-_.%?#+"),
    *(str(number).encode() for number in (0, -1, 2**31, 2**53, 2**63, 2**64, 10**30, 10**400)),
    *(b'1e400 NaN Infinity null true [] {} "" \\ud800 \\u202e sha256: sha512: bytes= rel=next ..'.split()),
    "é\u202e\u2028\U000e0001\u0663".encode(),
    b"\xff\xfe\x80",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"\\" * 500,
    b", " * 500,
)


def mutations(seeds: Sequence[bytes], source: random.Random) -> Iterator[bytes]:
    """The seeds themselves, then mutations of them without end."""
    yield from seeds
    while True:
        given = bytearray(source.choice(seeds))
        for _ in range(source.choice((1, 1, 2, 3, 8))):
            _mutate(given, seeds, source)
        yield bytes(given)


def _mutate(given: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    at = source.randrange(len(given) + 1)
    end = min(len(given), at + source.choice((1, 1, 2, 4, 16, 64)))
    match source.randrange(7):
        case 0:
            del given[at:end]
        case 1:
            given[at:at] = source.choice(_PIECES)
        case 2:
            given[at:end] = source.choice(_PIECES)
        case 3:
            given[at:end] = source.randbytes(end - at)
        case 4:
            given[at:at] = given[at:end] * source.choice((1, 2, 50))
        case 5:
            other = source.choice(seeds)
            given[at:] = other[source.randrange(len(other) + 1) :]
        case _ if at < len(given):
            given[at] ^= 1 << source.randrange(8)
        case _:
            pass
