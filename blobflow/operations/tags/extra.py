"""Which tags of a mirrored repository are extra, and how each may be removed. Pure.

Wanted tags are kept, and so is whatever belongs to the manifests that they reach: a tag `sha256-<hex>`, alone
(the referrers of a digest, distribution-spec "Referrers Tag Schema") or with the suffix `.sig`, `.att` or
`.sbom` (cosign's), stays as long as that digest is reached; what such a tag names is then reached too, so
that the signature of an SBOM stays. All other tags are extra.

A tag may always be removed by itself. Where the registry can't do that its manifest has to be removed, with
every tag that names it and out of every index that lists it: only where nothing that is kept reaches it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import msgspec

from blobflow.errors import UsageError
from blobflow.oci import Digest
from blobflow.oci.referrers import fallback_tag, subject_in_tag


class RepositoryState(msgspec.Struct, frozen=True):
    """The state of a repository: what its tags name, and what its indexes, as far as they were read, list."""

    tags: Mapping[str, Digest]
    lists: Mapping[Digest, Collection[Digest]] = {}

    def reached(self, roots: Iterable[Digest]) -> set[Digest]:
        """The roots, and what is below them."""
        reached: set[Digest] = set()
        todo = list(roots)
        while todo:
            if (digest := todo.pop()) not in reached:
                reached.add(digest)
                todo += self.lists.get(digest, ())
        return reached

    def holders(self, tags: Iterable[str]) -> dict[Digest, str]:
        """Why manifests can't be removed while these tags stay: a reason for each such digest."""
        named = {self.tags[tag]: tag for tag in sorted(tags, reverse=True)}
        why = {digest: f"{tag} names it too" for digest, tag in named.items()}
        for digest, tag in named.items():
            for below in self.reached([digest]) - why.keys():
                why[below] = f"the index {tag} lists it"
        return why


class ExtraTag(msgspec.Struct, frozen=True):
    """An extra tag. `held`: why its manifest has to stay; "" if that may be removed as well."""

    tag: str
    digest: Digest
    held: str


def find_extra_tags(
    standing: RepositoryState, kept: Collection[str], pinned: Collection[Digest] = ()
) -> list[ExtraTag]:
    """The extra tags, in the order of their names.

    `kept`: wanted tags. `pinned`: manifests that are wanted by digest.
    """
    stay = {tag for tag in standing.tags if tag in kept}
    subjects = {tag: subject for tag in standing.tags if (subject := subject_in_tag(tag)) and tag not in stay}
    while True:
        reached = standing.reached([*pinned, *(standing.tags[tag] for tag in stay)])
        known = {fallback_tag(digest) for digest in reached}
        more = {tag for tag, subject in subjects.items() if subject in known} - stay
        if not more:
            break
        stay |= more
    held = dict.fromkeys(standing.reached(pinned), "it is wanted itself") | standing.holders(stay)
    return [
        ExtraTag(tag, standing.tags[tag], held.get(standing.tags[tag], ""))
        for tag in sorted(standing.tags.keys() - stay)
    ]


class PruneLimit(msgspec.Struct, frozen=True):
    """How many tags a run may remove: a number, or a share of all that it found, in percent."""

    number: int
    percent: bool = False

    def allows(self, surplus: int, tags: int) -> bool:
        """Whether `surplus` of `tags` tags may be removed."""
        return surplus * 100 <= self.number * tags if self.percent else surplus <= self.number

    def __str__(self) -> str:
        return f"{self.number} %" if self.percent else str(self.number)


def parse_prune_limit(text: str) -> PruneLimit:
    """Read `20%` or `50`. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,9})\s*(%?)", text.strip(), re.ASCII)
    if found is None or (found[2] and int(found[1]) > 100):
        raise UsageError(f"{text[:50]!r} is no limit of removals; write a share as 20%, or a number of tags")
    return PruneLimit(int(found[1]), bool(found[2]))
