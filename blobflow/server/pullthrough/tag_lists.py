"""Lists of an upstream's tags, as they are kept: packed, since a repository may have a quarter million.

A string costs more than its letters; so names are joined, a thousand at a time, and taken apart again where a
page is wanted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from blobflow.server.routes import is_tag

# Names that are joined. A page has as many at most, so that two of these are taken apart for one.
_JOINED = 1000


class TagList:
    """Tags in byte order. What is no tag by the spec's grammar is left out. Never changed."""

    __slots__ = ("_firsts", "_parts")

    def __init__(self, tags: Iterable[str]) -> None:
        names = sorted({name for name in tags if is_tag(name)})
        parts = [names[at : at + _JOINED] for at in range(0, len(names), _JOINED)]
        self._firsts = [part[0] for part in parts]
        self._parts = ["\n".join(part).encode() for part in parts]

    def after(self, last: str, n: int) -> list[str]:
        """The first `n` tags after `last`."""
        found: list[str] = []
        at = max(0, bisect_right(self._firsts, last) - 1)
        while len(found) < n and at < len(self._parts):
            names = self._parts[at].decode().split("\n")
            found += names[bisect_right(names, last) :]
            at += 1
        return found[:n]

    @property
    def weight(self) -> int:
        """Bytes in memory, roughly."""
        return 300 + sum(len(part) + 300 for part in self._parts)
