"""Rules that select the wanted tags of a repository, by names, versions and dates. Pure.

In this order, each on what the one before has left:

    include   regular expressions: tags that one of them matches (all tags, if there is none)
    exclude   regular expressions: not those
    semver    a range of versions; what is no version goes
    newest    so many, by version (what is none goes) or by the date of their creation (what only belongs to
              an image goes, as its signatures)

Expressions (see `regex`) match a tag from end to end unless `anywhere`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from blobflow.errors import UsageError
from blobflow.oci.tag_selection.regex import Regex, compile_pattern
from blobflow.oci.tag_selection.semver import parse_version
from blobflow.oci.tag_selection.version_ranges import Dialect, range_of

# "Referrers Tag Schema" cuts the encoded digest at so many characters (a sha512 has 128).
_ENCODED = 64
_OF_SUBJECT = re.compile(
    rf"(sha256|sha512)-([0-9a-f]{{{_ENCODED}}})(?:[0-9a-f]{{{_ENCODED}}})?(?:\.[a-z0-9]+)?\Z"
)
By = Literal["version", "created"]


class TagRules(msgspec.Struct, frozen=True):
    """Rules that choose tags; one that says nothing chooses all of them.

    `semver`: ranges, of which one is enough, as `version_ranges` has them written. `newest`: 0 is no limit.
    `prereleases`: versions with a prerelease count as any other. `anywhere`: expressions need not match from
    end to end. `any_of`: rules of which one is enough, before all others. `types`: media types of manifests,
    for which the registry has to be asked tag by tag; not those of others.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    semver: tuple[str, ...] = ()
    newest: int = 0
    by: By = "version"
    prereleases: bool = False
    anywhere: bool = False
    ranges: Dialect = "npm"
    any_of: tuple[TagRules, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def dated(self) -> bool:
        """Whether dates of creation are needed, which the registry has to be asked for tag by tag."""
        return self.newest > 0 and self.by == "created"


ALL_TAGS = TagRules()


def check_rules(rules: TagRules) -> TagRules:
    """Check expressions and ranges and return the rules. Raises UsageError that says what is wrong."""
    for pattern in (*rules.include, *rules.exclude):
        compile_pattern(pattern)
    for text in rules.semver:
        range_of(text, rules.ranges)
    for each in rules.any_of:
        check_rules(each)
    if rules.newest < 0:
        raise UsageError(f"newest is {rules.newest}; write how many of the newest tags are wanted")
    if rules.by == "created" and not rules.newest:
        raise UsageError("`by: created` says how to find the newest tags; add `newest: N`")
    return rules


def matching_tags(tags: Iterable[str], rules: TagRules) -> list[str]:
    """What the rules leave of `tags`, in their order, before a registry is asked for types and dates.

    So it is all that is chosen, unless there are `rules.types` or they are `dated`. Raises UsageError for
    rules that can't be read.
    """
    if rules.any_of:
        tags = list(tags)
        chosen = {tag for each in rules.any_of for tag in matching_tags(tags, each)}
        tags = [tag for tag in tags if tag in chosen]
    left = _matching(tags, rules)
    if rules.semver:
        ranges = [range_of(text, rules.ranges, prereleases=rules.prereleases) for text in rules.semver]
        left = [tag for tag in left if any(has(tag) for has in ranges)]
    if rules.newest and rules.by == "version":
        left = _newest_versions(left, rules)
    elif rules.dated:
        left = [tag for tag in left if not subject_in_tag(tag)]
    return left


def _matching(tags: Iterable[str], rules: TagRules) -> list[str]:
    include, exclude = [[compile_pattern(each) for each in side] for side in (rules.include, rules.exclude)]

    def matches(patterns: list[Regex], tag: str) -> bool:
        return any(p.is_in(tag) if rules.anywhere else p.is_whole(tag) for p in patterns)

    return [tag for tag in tags if (not include or matches(include, tag)) and not matches(exclude, tag)]


def _newest_versions(tags: list[str], rules: TagRules) -> list[str]:
    """The tags with the highest versions. Without a range that may name some, prereleases have to be asked
    for. Of tags for one version the longer, which says more, is before the shorter: 1.2.0 before 1.2."""
    ranked = []
    for tag in tags:
        version = parse_version(tag)
        if version is not None and (not version.pre or rules.prereleases or rules.semver):
            ranked.append((version.rank, len(tag), tag))
    ranked.sort(reverse=True)
    newest = {tag for _, _, tag in ranked[: rules.newest]}
    return [tag for tag in tags if tag in newest]


def newest_created(tags: Iterable[str], created: Mapping[str, datetime | None], count: int) -> list[str]:
    """The `count` tags that were created last, in the order of `tags`; those without a date come last.

    Of tags with one date (an image under several tags) the greater name is before the other.
    """
    tags = list(tags)
    epoch = datetime.min.replace(tzinfo=UTC)
    ranked = sorted(tags, key=lambda tag: (created.get(tag) or epoch, tag), reverse=True)
    newest = set(ranked[:count])
    return [tag for tag in tags if tag in newest]


def subject_in_tag(tag: str) -> str:
    """What a tag belongs to by its name, as `fallback_tag` has it: the list of the referrers of a digest
    (distribution-spec, "Referrers Tag Schema") or what cosign made for it (`.sig`, `.att`, `.sbom`). "" for
    any other tag."""
    found = _OF_SUBJECT.match(tag)
    return f"{found[1]}-{found[2]}" if found else ""


def parse_date(text: str) -> datetime | None:
    """The moment that `created` names (RFC 3339, as image-spec config.md has it), None if it names none.

    1970 and before is none: what builds reproducibly has no other date.
    """
    try:
        moment = datetime.fromisoformat(text[:64])
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment if moment.year > 1970 else None
