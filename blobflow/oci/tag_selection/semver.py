"""Versions and ranges of them: Semantic Versioning 2.0.0 as tags have it, ranges as npm writes them. Pure.

A tag is a version if it is one from end to end: `1.2.3`, `v1.2.3-rc.1`, and short as `1.2` or `3`, where what
is missing is 0. Build metadata can't be in a tag; what is behind `_` or `+` (helm writes `_` for it) counts
for nothing.

A range is alternatives between `||`; an alternative is comparators that all have to hold, between blanks or
commas:

    >=1.2 <2    >1.2.3    =1.2.3    !=1.3.0    1.2.x = 1.2 = 1.2.*    ^1.2.3    ~1.2    1.2 - 1.4    *

Every comparator is a span `low ≤ version < high`, which is exact since every version has a next one: after
1.2.3 comes 1.2.4-0, and after 1.2.3-rc comes 1.2.3-rc.0. A prerelease is in an alternative only if one of its
comparators names a prerelease of the same major.minor.patch (npm's rule: who says ^1.2.3 does not mean a
2.0.0-rc, nor a 1.3.0-rc), or if prereleases are asked for.
"""

from __future__ import annotations

import re

import msgspec

from blobflow.errors import UsageError

# Longer ones are no versions that anybody compares, and the work on them is quadratic. Node has the same.
_MAX_DIGITS = 16
_MAX_RANGE = 512

_NUMBER = rf"\d{{1,{_MAX_DIGITS}}}"
_TAIL = r"(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:[+_][0-9A-Za-z._-]*)?"
_VERSION = re.compile(rf"[vV]?({_NUMBER})(?:\.({_NUMBER}))?(?:\.({_NUMBER}))?{_TAIL}\Z", re.ASCII)

_PART = rf"{_NUMBER}|[xX*]"
_PARTIAL = rf"[vV]?({_PART})(?:\.({_PART}))?(?:\.({_PART}))?{_TAIL}"
_COMPARATOR = re.compile(rf"(>=|<=|!=|==|~>|[<>=~^])?\s*{_PARTIAL}(?=[\s,]|\Z)", re.ASCII)
_HYPHEN = re.compile(rf"{_PARTIAL}\s+-\s+{_PARTIAL}\Z", re.ASCII)
_GAP = re.compile(r"[\s,]*")

Core = tuple[int, int, int]


class Version(msgspec.Struct, frozen=True):
    """A version. `pre`: the identifiers of a prerelease, numbers as numbers; none for a release."""

    core: Core
    pre: tuple[int | str, ...] = ()

    @property
    def rank(self) -> tuple[Core, bool, tuple[tuple[bool, int, str], ...]]:
        """What versions are ordered by (SemVer, 11): a prerelease before its release; numbers before words;
        of equal beginnings the shorter first."""
        parts = ((False, part, "") if isinstance(part, int) else (True, 0, part) for part in self.pre)
        return self.core, not self.pre, tuple(parts)


class Span(msgspec.Struct, frozen=True):
    """`low` ≤ version < `high`, each None for no bound; `outside`: everything but that."""

    low: Version | None = None
    high: Version | None = None
    outside: bool = False

    def __contains__(self, version: Version) -> bool:
        rank = version.rank
        from_low = self.low is None or self.low.rank <= rank
        inside = from_low and (self.high is None or rank < self.high.rank)
        return inside is not self.outside


class _Alternative(msgspec.Struct, frozen=True):
    """Spans that all have to hold. `named`: of which releases prereleases were named."""

    spans: tuple[Span, ...]
    named: frozenset[Core]

    def has(self, version: Version, prereleases: bool) -> bool:
        welcome = not version.pre or prereleases or version.core in self.named
        return welcome and all(version in span for span in self.spans)


class Range(msgspec.Struct, frozen=True):
    """A range of versions; made by `parse_range`."""

    alternatives: tuple[_Alternative, ...]

    def has(self, version: Version, *, prereleases: bool = False) -> bool:
        """Whether the version is in the range; `prereleases`: also those that the range does not name."""
        return any(alternative.has(version, prereleases) for alternative in self.alternatives)


def parse_version(text: str) -> Version | None:
    """The version that a tag is, None if it is none.

    A prerelease needs all three numbers: `3-alpine` and `1.2-slim` name a flavour, and no order is known.
    """
    found = _VERSION.match(text)
    if found is None or (found[4] and found[3] is None):
        return None
    return Version((int(found[1]), int(found[2] or 0), int(found[3] or 0)), identifiers(found[4]))


def parse_range(text: str) -> Range:
    """Read a range. Raises UsageError that says what in it is none."""
    if len(text) > _MAX_RANGE:
        raise UsageError(f"a range of versions has at most {_MAX_RANGE} characters, this one {len(text)}")
    return Range(tuple(_alternative(part.strip(), text) for part in text.split("||")))


def identifiers(text: str | None) -> tuple[int | str, ...]:
    """The identifiers of a prerelease, numbers as numbers."""
    parts = text.split(".") if text else ()
    return tuple(int(p) if p.isdigit() and len(p) <= _MAX_DIGITS else p for p in parts)


class _Partial(msgspec.Struct, frozen=True):
    """A version as a range has it: `numbers` up to the first that is open."""

    numbers: tuple[int, ...]
    pre: tuple[int | str, ...] = ()

    @property
    def low(self) -> Version:
        """The least that it names. The prereleases of an open one are not meant: 1.2 begins at 1.2.0."""
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return Version((major, minor, patch), self.pre)

    @property
    def whole(self) -> bool:
        return len(self.numbers) == 3

    def after(self, place: int) -> Version | None:
        """What comes after all versions that agree with it in its numbers up to `place`: of 1.2.3 and place 1
        that is 1.3.0-0. None where no number is fixed."""
        if not self.numbers:
            return None
        kept = self.numbers[: place + 1]
        major, minor, patch = (*kept[:-1], kept[-1] + 1, 0, 0, 0)[:3]
        return Version((major, minor, patch), (0,))

    @property
    def next(self) -> Version | None:
        """What comes after all that it names."""
        if self.whole and self.pre:
            return Version(self.low.core, (*self.pre, 0))
        return self.after(len(self.numbers) - 1)


def _partial(parts: tuple[str | None, ...]) -> _Partial:
    numbers: list[int] = []
    for part in parts[:3]:
        if part is None or not part.isdigit():
            break
        numbers.append(int(part))
    whole = len(numbers) == 3
    return _Partial(tuple(numbers), identifiers(parts[3]) if whole else ())


def _alternative(text: str, whole: str) -> _Alternative:
    if hyphen := _HYPHEN.match(text):
        first, last = _partial(hyphen.groups()[:4]), _partial(hyphen.groups()[4:])
        return _Alternative((Span(first.low, last.next),), _named(first, last))
    spans, partials, at = [], [], 0
    while at < len(text):
        found = _COMPARATOR.match(text, at)
        if found is None:
            raise UsageError(
                f"{whole[:100]!r} is no range of versions, at {text[at : at + 30]!r}; write as '>=1.2 <2',"
                " '^1.4', '1.x || 3'"
            )
        partial = _partial(found.groups()[1:])
        spans.append(_span(found[1] or "=", partial))
        partials.append(partial)
        gap = _GAP.match(text, found.end())
        at = gap.end() if gap else found.end()
    return _Alternative(tuple(spans), _named(*partials))


def _named(*partials: _Partial) -> frozenset[Core]:
    return frozenset(partial.low.core for partial in partials if partial.pre)


_NOTHING = Span(Version((0, 0, 0), (0,)), Version((0, 0, 0), (0,)))


def _span(operator: str, partial: _Partial) -> Span:
    """What one comparator says; of a partial version each means all that it names: >1.2 begins at 1.3."""
    low = partial.low if partial.numbers else None
    match operator:
        case ">=":
            return Span(low, None)
        case "<":
            # npm: `<2` leaves the prereleases of 2.0.0 out as well
            return Span(None, low if partial.pre else Version(low.core, (0,))) if low else _NOTHING
        case ">":
            return Span(partial.next, None) if partial.numbers else _NOTHING
        case "<=":
            return Span(None, partial.next)
        case "!=":
            return Span(low, partial.next, outside=True)
        case "~" | "~>":
            return Span(low, partial.after(1))
        case "^":
            return Span(low, partial.after(_leftmost(partial.numbers)))
        case _:
            return Span(low, partial.next)


def _leftmost(numbers: tuple[int, ...]) -> int:
    """The place of the number that `^` holds fast: the first that is not 0, or the last that is written."""
    return next((place for place, number in enumerate(numbers) if number), max(0, len(numbers) - 1))
