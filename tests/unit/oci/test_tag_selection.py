"""Choosing tags: versions and ranges as a table, expressions, and the newest."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import UsageError
from blobflow.oci.tag_selection.matching import check_rules, matching_tags, newest_created, parse_date
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.oci.tag_selection.semver import Version, parse_range, parse_version


def list_of(words: str) -> list[str]:
    return words.split()


# Versions

VERSIONS = {
    "1.2.3": Version((1, 2, 3)),
    "v1.2.3": Version((1, 2, 3)),
    "V1": Version((1, 0, 0)),
    "1.2": Version((1, 2, 0)),
    "01.2.3": Version((1, 2, 3)),
    "1.2.3-rc.1": Version((1, 2, 3), ("rc", 1)),
    "1.2.3-0a.-": Version((1, 2, 3), ("0a", "-")),
    "1.2.3_build.7": Version((1, 2, 3)),
    "1.2.3-rc1_build": Version((1, 2, 3), ("rc1",)),
    "v1.2.3-alpine": Version((1, 2, 3), ("alpine",)),
    "20240102": Version((20240102, 0, 0)),
    "latest": None,
    "": None,
    "1.2.3.4": None,
    "1.2-alpine": None,
    "3-slim": None,
    "1.2.": None,
    "1.2.3-": None,
    "x1.2.3": None,
    "1.2.3 ": None,
    "٣": None,
    "1" * 17: None,
}


@pytest.mark.parametrize(("tag", "version"), VERSIONS.items(), ids=[repr(tag) for tag in VERSIONS])
def test_a_tag_is_this_version(tag: str, version: Version | None) -> None:
    assert parse_version(tag) == version


def test_versions_are_in_the_order_of_the_specification() -> None:
    in_order = list_of(
        "1.0.0-0 1.0.0-2 1.0.0-10 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2"
        " 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1-rc 1.0.1 1.2.0 1.10.0 2.0.0"
    )
    ranks = {text: version.rank for text in in_order if (version := parse_version(text)) is not None}
    backwards = in_order[::-1]
    assert sorted(backwards, key=ranks.__getitem__) == in_order


# Range, what is in it, what is not

RANGES = [
    (">=1.2 <2", "1.2.0 1.2 1.9.9 v1.3", "1.1.9 2 2.0.0 2.0.0-rc.1 1.5.0-rc"),
    (">=1.2,<2", "1.2.0 1.9.9", "1.1.9 2.0.0"),
    (">= 1.2.3 < 1.4.0", "1.2.3 1.3.9", "1.2.2 1.4.0"),
    ("^1.2.3", "1.2.3 1.99.0", "1.2.2 2.0.0 2.0.0-0 1.2.3-rc 1.3.0-rc"),
    ("^0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0"),
    ("^0.0.3", "0.0.3", "0.0.2 0.0.4 0.1.0"),
    ("^0.0", "0.0.0 0.0.9", "0.1.0"),
    ("^0", "0.0.1 0.9.0", "1.0.0"),
    ("^1.x", "1.0.0 1.9.9", "0.9.9 2.0.0"),
    ("^1.2.3-rc.2", "1.2.3-rc.2 1.2.3-rc.10 1.2.3 1.9.0", "1.2.3-rc.1 1.2.4-rc.3 2.0.0-rc"),
    ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
    ("~1.2", "1.2.0 1.2.9", "1.1.9 1.3.0"),
    ("~>1.2", "1.2.9", "1.3.0"),
    ("~1", "1.0.0 1.9.9", "2.0.0"),
    ("1.2.x", "1.2.0 1.2.9", "1.3.0 1.1.9"),
    ("1.2.*", "1.2.0", "1.3.0"),
    ("1.2", "1.2.0 1.2.9 1.2", "1.3.0"),
    ("1.x.3", "1.0.0 1.9.3", "2.0.0"),
    ("1.2.3", "1.2.3 v1.2.3 1.2.3_b1", "1.2.4 1.2.3-rc"),
    ("=1.2.3", "1.2.3", "1.2.4"),
    ("==1.2.3-rc", "1.2.3-rc", "1.2.3-rc.0 1.2.3"),
    ("!=1.2.3 ^1", "1.2.2 1.2.4", "1.2.3 2.0.0"),
    ("!=1.2 ^1", "1.1.0 1.3.0", "1.2.0 1.2.9"),
    (">1.2", "1.3.0", "1.2.9 1.2.0"),
    (">1.2.3", "1.2.4 1.3.0", "1.2.3 1.2.4-rc"),
    (">1.2.3-rc.1", "1.2.3-rc.2 1.2.3-rc.1.1 1.2.3", "1.2.3-rc.1 1.2.4-rc.1"),
    ("<=1.2", "1.2.9 0.1.0", "1.3.0"),
    ("<=1.2.3", "1.2.3 1.2.2", "1.2.4"),
    ("<1.2.3-rc.2", "1.2.3-rc.1 1.2.2", "1.2.3-rc.2 1.2.3"),
    ("1.2 - 1.4", "1.2.0 1.4.9", "1.1.9 1.5.0"),
    ("1.2.3 - 2", "1.2.3 2.9.9", "1.2.2 3.0.0"),
    ("^1.2 || 3", "1.2.0 3.9.9", "2.0.0 4.0.0"),
    ("1||2", "1.0.0 2.0.0", "3.0.0"),
    ("*", "0.0.0 99.0.0", "1.0.0-rc"),
    ("", "0.0.0 99.0.0", "1.0.0-rc"),
    (">*", "", "1.0.0"),
    ("<*", "", "1.0.0"),
    (">=*", "1.0.0", ""),
    ("!=*", "", "1.0.0"),
]


@pytest.mark.parametrize(("text", "inside", "outside"), RANGES, ids=[row[0] for row in RANGES])
def test_a_range_has_these_versions_and_not_those(text: str, inside: str, outside: str) -> None:
    wanted, tags = parse_range(text), [*inside.split(), *outside.split()]
    versions = {tag: parse_version(tag) for tag in tags}
    assert [tag for tag, version in versions.items() if version and wanted.has(version)] == inside.split()


@pytest.mark.parametrize(
    "text",
    ["latest", ">", ">=", "1.2.3.4", "^^1", "1 2x", "=> 1", "1 | 2", "1.2.3 -", "- 1", "(1)", "9" * 513],
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="range of versions"):
        parse_range(text)


@given(st.tuples(*[st.integers(0, 3)] * 3), st.sampled_from(["", "-0", "-rc", "-rc.0", "-1"]))
def test_below_and_from_a_version_split_the_others(core: tuple[int, int, int], pre: str) -> None:
    bound = ".".join(map(str, core)) + (pre or "-0")
    others = [
        parse_version(f"{a}.{b}.{c}{p}")
        for a in range(4)
        for b in range(3)
        for c in range(3)
        for p in ("", "-rc")
    ]
    below, above = parse_range(f"<{bound}"), parse_range(f">={bound}")
    for version in others:
        assert version is not None
        assert below.has(version, prereleases=True) is not above.has(version, prereleases=True)


# Rules

TAGS = list_of("latest 1 1.2 1.2.0 1.2.1 1.10.0 v1.9.0 2.0.0-rc.1 2.0.0 1.2.1-alpine edge nightly-20240101")
RULES = {
    "none": (TagRules(), TAGS),
    "an expression matches from end to end": (TagRules(include=("1", "edg")), ["1"]),
    "one of several is enough": (TagRules(include=("1", "e.*")), ["1", "edge"]),
    "anywhere": (TagRules(include=("^v", "alp"), anywhere=True), ["v1.9.0", "1.2.1-alpine"]),
    "what is excluded goes": (TagRules(exclude=(r".*\d.*", "edge")), ["latest"]),
    "excluded goes before included": (
        TagRules(include=(r"1\..*",), exclude=(".*alpine",)),
        ["1.2", "1.2.0", "1.2.1", "1.10.0"],
    ),
    "a range": (TagRules(semver=("^1.2.1",)), ["1.2.1", "1.10.0", "v1.9.0"]),
    "one of several ranges": (TagRules(semver=("1.2.1", "2")), ["1.2.1", "2.0.0"]),
    "prereleases": (TagRules(semver=(">=1.10.0",), prereleases=True), ["1.10.0", "2.0.0-rc.1", "2.0.0"]),
    "the newest by version": (TagRules(newest=3), ["1.10.0", "v1.9.0", "2.0.0"]),
    "the newest with prereleases": (TagRules(newest=2, prereleases=True), ["2.0.0-rc.1", "2.0.0"]),
    "the newest of a range": (TagRules(semver=("<1.3",), newest=1), ["1.2.1"]),
    "of one version the fuller name": (TagRules(semver=("=1.2.0",), newest=1), ["1.2.0"]),
    "fewer than asked for": (TagRules(semver=("2",), newest=9), ["2.0.0"]),
    "the newest flavours": (TagRules(include=(".*-alpine",), newest=1, prereleases=True), ["1.2.1-alpine"]),
    "by date all are candidates": (
        TagRules(include=("e.*|latest",), newest=1, by="created"),
        ["latest", "edge"],
    ),
    "nothing": (TagRules(include=("none",)), []),
}


@pytest.mark.parametrize(("rules", "chosen"), RULES.values(), ids=RULES)
def test_rules_choose_these_tags_in_the_order_in_which_they_came(rules: TagRules, chosen: list[str]) -> None:
    assert matching_tags(TAGS, check_rules(rules)) == chosen


def test_the_newest_by_date_are_those_created_last() -> None:
    def day(number: int) -> datetime:
        return datetime(2024, 1, number, tzinfo=UTC)

    created = {"a": day(3), "b": day(1), "c": day(2), "d": None, "e": day(1)}
    chosen = {count: newest_created("abcde", created, count) for count in (1, 2, 3, 4, 5, 9)}
    assert ["".join(tags) for tags in chosen.values()] == ["a", "ac", "ace", "abce", "abcde", "abcde"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-02T03:04:05Z", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2024-01-02T03:04:05.123456789+01:00", datetime(2024, 1, 2, 2, 4, 5, 123456, tzinfo=UTC)),
        ("2024-01-02", datetime(2024, 1, 2, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_a_date_of_creation_is_read_and_an_empty_one_is_none(text: str, moment: datetime | None) -> None:
    assert parse_date(text) == moment


BAD = {
    "no expression": (TagRules(include=("(",)), r"'\(' is no regular expression"),
    "no expression to exclude": (TagRules(exclude=("a{1001}",)), "is no regular expression"),
    "too long": (TagRules(include=("a" * 4097,)), "at most 4096 characters"),
    "no range": (TagRules(semver=("new",)), "'new' is no range of versions"),
    "fewer than none": (TagRules(newest=-1), "newest is -1"),
    "a date without a number": (TagRules(by="created"), "add `newest: N`"),
}


@pytest.mark.parametrize(("rules", "sentence"), BAD.values(), ids=BAD)
def test_rules_that_cant_be_read_are_refused(rules: TagRules, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_rules(rules)
