"""Rules that say which tags of a repository are wanted, by names, versions and dates, as values.

In this order, each on what the one before has left:

    include   regular expressions: tags that one of them matches (all tags, if there is none)
    exclude   regular expressions: not those
    semver    a range of versions; what is no version goes
    newest    so many, by version (what is none goes) or by the date of their creation (what only belongs to
              an image goes, as its signatures)

Expressions (see `regex`) match a tag from end to end unless `anywhere`. `matching` applies them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

By = Literal["version", "created"]
# Who writes ranges of versions has one of these ways: see `version_ranges`.
Dialect = Literal["npm", "masterminds", "regsync"]


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
