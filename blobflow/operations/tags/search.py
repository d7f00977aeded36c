"""A search for tags at the sources, and its result, as values."""

from __future__ import annotations

import msgspec

from blobflow.errors import BlobflowError
from blobflow.oci.tag_selection.rules import ALL_TAGS, TagRules


class TagSearch(msgspec.Struct, frozen=True):
    """Where to search, and for which tags.

    `repository` "": in all of the registry's repositories that `repositories` chooses, by their names below
    `prefix`.
    """

    host: str
    repository: str
    tags: TagRules = ALL_TAGS
    repositories: TagRules = ALL_TAGS
    prefix: str = ""


class ChosenTags(msgspec.Struct, frozen=True):
    """The tags that were chosen in one repository, in the registry's order, or why none could be. `dated`:
    how many were asked for their date; `others`: how many have other media types than the wanted ones."""

    repository: str
    tags: tuple[str, ...] = ()
    error: BlobflowError | None = None
    dated: int = 0
    others: int = 0
