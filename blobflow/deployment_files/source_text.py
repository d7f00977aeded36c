"""Texts whose pieces know where in a file they stand, also inside another text: YAML in a ConfigMap, a script
in a workflow. Pure.

Offsets are characters of the file as `decode` makes them of its bytes: no line end is translated, and a byte
order mark counts.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from blobflow.deployment_files.contract import NamePart, PartKind
from blobflow.errors import InvalidConfig

# What a byte order mark says about the rest: PowerShell writes UTF-16 where `>` stands.
_MARKS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_WORD = re.compile(r"\S+")


def decode(raw: bytes, name: str) -> str:
    """The characters of a file: UTF-8, or UTF-16 with a byte order mark, which stays. Raises
    InvalidConfig."""
    encoding = next((word for mark, word in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        raise InvalidConfig(f"{name} is no text in UTF-8") from None
    if "\0" in text:
        raise InvalidConfig(f"{name} is no text: it has a NUL byte")
    return text


class SourceText:
    """The text of a file, but for a byte order mark; or one that stands inside it (`excerpt`)."""

    def __init__(self, path: str, file: str) -> None:
        self.path = path
        self.text = file.removeprefix("\ufeff")
        self._file = self
        self._file_text = file
        self._starts = [0]
        self._targets = [len(file) - len(self.text)]
        self._first = self._targets[0]
        self._line_ends: list[int] | None = None

    def excerpt(self, text: str, segments: Sequence[tuple[int, int]], first: int) -> SourceText:
        """A text inside this one. `segments`: from which of its characters on it is the same as here, from
        which of ours on; empty where it never is. `first`: where here it begins."""
        inner = SourceText.__new__(SourceText)
        inner.path, inner.text, inner._file = self.path, text, self._file
        inner._first = self._in_file(first)
        inner._starts = [start for start, _ in segments]
        inner._targets = [self._in_file(target) for _, target in segments]
        return inner

    def part(self, start: int, end: int) -> SourceText:
        """Some characters of it as a text of its own."""
        inside = [(each - start, each) for each in self._starts if start < each < end]
        known = bool(self._starts) and self._starts[0] <= start
        return self.excerpt(self.text[start:end], [(0, start), *inside] if known else inside, start)

    def _in_file(self, offset: int) -> int:
        segment = bisect_right(self._starts, offset) - 1
        if segment < 0:
            return self._first
        return self._targets[segment] + offset - self._starts[segment]

    def line(self, offset: int) -> int:
        """The line of the file, from 1, in which a character of this text stands."""
        file = self._file
        if file._line_ends is None:
            file._line_ends = [found.start() for found in re.finditer("\n", file._file_text)]
        ends = file._line_ends
        at = self._in_file(offset)
        # bisect_right would put a line end on the next line.
        return bisect_right(ends, at - 1) + 1

    def place(self, start: int, end: int) -> tuple[int, int] | None:
        """Where in the file these characters stand; None where they don't stand there as they are."""
        begin = self._in_file(start)
        stop = begin + end - start
        same = self._file._file_text[begin:stop] == self.text[start:end]
        return (begin, stop) if same and self._starts else None

    def whole(self, quote: str = "") -> Piece:
        """All of the text as a piece."""
        return Piece(self, 0, len(self.text), quote)


class Piece(msgspec.Struct, frozen=True):
    """The characters `start` ≤ i < `end` of a text, with the quote in which they stand in the file."""

    source: SourceText
    start: int
    end: int
    quote: str = ""

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def line(self) -> int:
        """The line of the file, from 1."""
        return self.source.line(self.start)

    def cut(self, start: int, end: int | None = None) -> Piece:
        """The piece from one character of it to another."""
        stop = self.end if end is None else self.start + end
        return Piece(self.source, self.start + start, stop, self.quote)

    def strip(self, characters: str | None = None) -> Piece:
        """Without blanks, or these characters, around it."""
        text = self.text
        left = len(text) - len(text.lstrip(characters))
        return self.cut(left, max(left, len(text.rstrip(characters))))

    def without(self, prefix: str) -> Piece:
        """Without a prefix, if it has that."""
        return self.cut(len(prefix)) if self.text.startswith(prefix) else self

    def words(self) -> Iterator[Piece]:
        """Its words: what blanks separate."""
        return (self.cut(*found.span()) for found in _WORD.finditer(self.text))

    def lines(self) -> Iterator[Piece]:
        """Its lines, without their ends; what behind the last end is empty is none."""
        text = self.text
        start = 0
        while start < len(text):
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            yield self.cut(start, start + len(text[start:end].rstrip("\r")))
            start = end + 1

    def part(self, kind: PartKind = "reference") -> tuple[NamePart, ...]:
        """What would be replaced in the file to replace this piece; nothing where it does not stand there as
        it is, or has no characters."""
        place = self.source.place(self.start, self.end)
        return (NamePart(*place, kind, self.quote),) if place and self.end > self.start else ()


def word_segments(text: str, raw: str, at: int) -> list[tuple[int, int]]:
    """The segments of a text whose words stand in `raw`, in order, with other blanks between them. `at` is
    the offset of `raw`. Ends at the first word that does not."""
    found: list[tuple[int, int]] = []
    cursor = 0
    for word in _WORD.finditer(text):
        there = raw.find(word.group(), cursor)
        if there < 0:
            break
        found.append((word.start(), at + there))
        cursor = there + len(word.group())
    return found
