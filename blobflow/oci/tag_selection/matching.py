"""Which of a repository's tags the rules select. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from blobflow.errors import UsageError
from blobflow.oci.referrers import subject_in_tag
from blobflow.oci.tag_selection.regex import Regex, compile_pattern
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.oci.tag_selection.semver import parse_version
from blobflow.oci.tag_selection.version_ranges import range_of


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
