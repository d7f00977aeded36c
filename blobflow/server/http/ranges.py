"""The two range grammars of a registry, which look alike and differ. Pure.

Reading a blob ([end-2]) takes HTTP's `Range: bytes=a-b` (RFC 9110, 14.1.2). Uploading a chunk ([end-5],
[end-6]) takes the spec's own `Content-Range: a-b`: inclusive, without a unit and without a total; and an
upload's state comes back as `Range: 0-b`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*\Z", re.ASCII)
# Twenty digits hold any 64-bit number: no header makes us build a bigger one.
_CHUNK = re.compile(r"([0-9]{1,20})-([0-9]{1,20})\Z", re.ASCII)


class ByteRange(NamedTuple):
    """Bytes `start` ≤ i < `end`."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


class RangeNotSatisfiable(ValueError):
    """A range that is well formed and has no byte in the blob: 416."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The part of a blob of `size` bytes that a Range header asks for; None means the whole.

    A header that is malformed, of another unit or of several ranges is ignored, as RFC 9110 allows; the
    answer then is 200. Raises RangeNotSatisfiable.
    """
    found = _ONE_RANGE.match(header) if header else None
    if found is None or max(map(len, found.groups())) > 20:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        length = min(int(last), size)
        if not length:
            raise RangeNotSatisfiable
        return ByteRange(size - length, size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable
    return ByteRange(start, min(int(last) + 1, size) if last else size)


def parse_chunk_range(header: str) -> ByteRange | None:
    """The span of an upload chunk's Content-Range; None if it breaks the spec's grammar."""
    found = _CHUNK.match(header)
    if found is None:
        return None
    start, last = int(found[1]), int(found[2])
    return ByteRange(start, last + 1) if last >= start else None


def upload_range(offset: int) -> str:
    """The Range header of an upload that has `offset` bytes.

    The grammar has no word for "none": `0-0` is what registries answer for no byte as well as for one.
    """
    return f"0-{max(offset - 1, 0)}"
