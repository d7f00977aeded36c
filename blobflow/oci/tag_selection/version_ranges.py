"""Version ranges, in the dialect of the file that they are in. Pure.

    npm          our own spec: see `semver`
    masterminds  skopeo's images-by-semver: Masterminds/semver 3, as in Helm
    regsync      semverRange in regsync.yml, which has rules of its own

What the dialects differ in is what a tag has to be to be a version, and which prereleases are meant.

Masterminds reads `3-alpine` as the prerelease `alpine` of 3.0.0, and knows no `V` and no build metadata
behind `_`. A range is alternatives between `||`, each of comparators between blanks or commas that all have
to hold; `1.2 - 1.4` is both of its ends. If none of an alternative's comparators has a prerelease, no version
with one is in it; if one has, all are looked at by their order alone (where npm wants the same
major.minor.patch).

regsync has comparators between blanks, and neither alternatives nor `x`; a partial version is the one with
zeros for what is missing, so that `=1.2` is 1.2.0 alone and `~1` ends below 1.1. Versions may have any count
of numbers (10.0.17763.2114), and prereleases count as any other version.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import takewhile, zip_longest

import msgspec

from blobflow.errors import UsageError
from blobflow.oci.tag_selection.rules import Dialect
from blobflow.oci.tag_selection.semver import Version, identifiers, parse_range, parse_version

# Whether a tag is a version in the range.
Has = Callable[[str], bool]

_MAX_RANGE = 512
# Go's numbers have 64 bits.
_NUMBER = r"\d{1,19}"
_PRE = r"-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)"
_META = r"\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"


def range_of(text: str, dialect: Dialect = "npm", *, prereleases: bool = False) -> Has:
    """Read a range; `prereleases`: of npm's, take them as any other version. Raises UsageError."""
    if dialect == "npm":
        npm = parse_range(text)

        def has(tag: str) -> bool:
            version = parse_version(tag)
            return version is not None and npm.has(version, prereleases=prereleases)

        return has
    if len(text) > _MAX_RANGE:
        raise UsageError(f"a range of versions has at most {_MAX_RANGE} characters, this one {len(text)}")
    return _masterminds(text) if dialect == "masterminds" else _regsync(text)


# Masterminds

_MASTERMINDS = re.compile(
    rf"v?({_NUMBER})(?:\.({_NUMBER}))?(?:\.({_NUMBER}))?(?:{_PRE})?(?:{_META})?\Z", re.ASCII
)
_PARTIAL = rf"v?({_NUMBER}|[xX*])(?:\.({_NUMBER}|[xX*]))?(?:\.({_NUMBER}|[xX*]))?(?:{_PRE})?(?:{_META})?"
_COMPARATOR = re.compile(rf"(!=|>=|=>|<=|=<|~>|[=<>~^])?\s*{_PARTIAL}(?=[\s,]|\Z)", re.ASCII)
_WHOLE_PARTIAL = rf"v?(?:{_NUMBER}|[xX*])(?:\.(?:{_NUMBER}|[xX*])){{0,2}}(?:-[0-9A-Za-z.-]*[0-9A-Za-z-])?"
_HYPHEN = re.compile(rf"({_WHOLE_PARTIAL})\s+-\s+({_WHOLE_PARTIAL})(?=[\s,|]|\Z)", re.ASCII)
_GAP = re.compile(r"\s*,?\s*")
_OPERATORS = {"": "=", "=>": ">=", "=<": "<=", "~>": "~"}


class _Comparator(msgspec.Struct, frozen=True):
    """`fixed`: so many of the version's numbers are said; the others are 0 in it."""

    operator: str
    version: Version
    fixed: int

    def has(self, version: Version) -> bool:
        """Whether this holds of a version, prereleases aside."""
        order = (version.rank > self.version.rank) - (version.rank < self.version.rank)
        match self.operator:
            case "=":
                return self._near(version, order) if self.fixed < 3 else order == 0
            case "!=":
                if self.fixed == 2:
                    return not self._agrees(version) or version.pre != self.version.pre
                return not self._agrees(version) if self.fixed == 1 else order != 0
            case ">":
                return order > 0 and not (self.fixed in (1, 2) and self._agrees(version))
            case "<":
                return order < 0
            case ">=":
                return order >= 0
            case "<=":
                return order <= 0 or (self.fixed < 3 and self._agrees(version))
            case "~":
                return self._near(version, order)
            case _:
                return self._compatible(version, order)

    def _agrees(self, version: Version) -> bool:
        count = self.fixed or 2
        return version.core[:count] == self.version.core[:count]

    def _near(self, version: Version, order: int) -> bool:
        """At least this, and with its major and minor number, as far as they are said."""
        if order < 0 or self.fixed == 0 or (self.fixed == 3 and self.version.core == (0, 0, 0)):
            return order >= 0
        count = min(self.fixed, 2)
        return version.core[:count] == self.version.core[:count]

    def _compatible(self, version: Version, order: int) -> bool:
        """At least this, and with the same numbers up to the first that is not 0, or the last said."""
        if order < 0:
            return False
        core = self.version.core
        said = self.fixed or 3
        place = next((at for at, number in enumerate(core[:said]) if number), said - 1)
        return version.core[: place + 1] == core[: place + 1]


def _masterminds(text: str) -> Has:
    joined = _HYPHEN.sub(r">=\1, <=\2", text)
    alternatives = [_comparators(part, text) for part in joined.split("||")]
    named = [any(each.version.pre for each in alternative) for alternative in alternatives]

    def has(tag: str) -> bool:
        version = _masterminds_version(tag)
        return version is not None and any(
            (pre or not version.pre) and all(each.has(version) for each in alternative)
            for alternative, pre in zip(alternatives, named, strict=True)
        )

    return has


def _masterminds_version(tag: str) -> Version | None:
    found = _MASTERMINDS.match(tag)
    if found is None or _zero_led(found[4]):
        return None
    return Version((int(found[1]), int(found[2] or 0), int(found[3] or 0)), identifiers(found[4]))


def _zero_led(pre: str | None) -> bool:
    """Numbers in a prerelease have no leading zeros (SemVer, 9)."""
    return any(part.isdigit() and len(part) > 1 and part[0] == "0" for part in (pre or "").split("."))


def _comparators(text: str, whole: str) -> list[_Comparator]:
    found: list[_Comparator] = []
    text, at = text.strip(), 0
    while at < len(text) or not found:
        comparator = _COMPARATOR.match(text, at)
        if comparator is None or _zero_led(comparator[5]):
            raise UsageError(
                f"{whole[:100]!r} is no range of versions, at {text[at : at + 30]!r}; write as '>=1.2 <2', "
                "'^1.4', '1.x || 3', '1.2 - 1.4'"
            )
        numbers = [int(n) for n in takewhile(lambda n: n and n.isdigit(), comparator.groups()[1:4])]
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        version = Version((major, minor, patch), identifiers(comparator[5]))
        operator = comparator[1] or ""
        found.append(_Comparator(_OPERATORS.get(operator, operator), version, len(numbers)))
        gap = _GAP.match(text, comparator.end())
        at = gap.end() if gap else comparator.end()
    return found


# regsync

_REGSYNC = re.compile(rf"v?({_NUMBER}(?:\.{_NUMBER}){{0,15}})(?:-([^+]*))?(?:\+.*)?\Z", re.ASCII)
_OPERATOR = re.compile(r"(>=|<=|[<>=^~]?)(.*)", re.DOTALL)
_PIECES = re.compile(r"(\D*)(\d*)", re.ASCII)

_Rank = tuple[tuple[int, ...], bool, tuple[tuple[str, int], ...]]


def _regsync(text: str) -> Has:
    spans: list[tuple[str, _Rank]] = []
    for part in text.split():
        operator, rest = _OPERATOR.match(part).groups()  # type: ignore[union-attr]  # it matches anything
        bound = _regsync_version(rest)
        if bound is None:
            raise UsageError(
                f"{text[:100]!r} is no range of versions for regsync, at {part[:30]!r}; it knows comparators "
                "between blanks, as '>=1.2 <2', '^1.4' and '~1.4.2', and alternatives as items of the list"
            )
        if operator in ("^", "~"):
            spans += ((">=", bound), ("<", _end(operator, bound[0])))
        else:
            spans.append((operator or "=", bound))

    def has(tag: str) -> bool:
        version = _regsync_version(tag)
        return version is not None and all(_holds(operator, version, bound) for operator, bound in spans)

    return has


def _end(operator: str, numbers: tuple[int, ...]) -> _Rank:
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    if operator == "~":
        return (major, minor + 1), True, ()
    if major:
        return (major + 1,), True, ()
    return ((0, minor + 1) if minor else (0, 0, patch + 1)), True, ()


def _holds(operator: str, version: _Rank, bound: _Rank) -> bool:
    """Numbers that one of the two has not are 0."""
    pairs = zip_longest(version[0], bound[0], fillvalue=0)
    order = next((a - b for a, b in pairs if a != b), 0)
    order = order or (version[1:] > bound[1:]) - (version[1:] < bound[1:])
    match operator:
        case ">=":
            return order >= 0
        case "<=":
            return order <= 0
        case ">":
            return order > 0
        case "<":
            return order < 0
        case _:
            return order == 0


def _regsync_version(text: str) -> _Rank | None:
    found = _REGSYNC.match(text)
    if found is None:
        return None
    pieces = tuple(
        (word, int(number[:19] or -1)) for word, number in _PIECES.findall(found[2] or "") if word or number
    )
    return tuple(map(int, found[1].split("."))), not found[2], pieces
