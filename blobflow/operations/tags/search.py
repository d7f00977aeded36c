"""What is looked for at the sources, and what was found: values."""

from __future__ import annotations

import msgspec

from blobflow.errors import BlobflowError
from blobflow.oci.tag_selection.rules import ALL_TAGS, TagRules


class TagSearch(msgspec.Struct, frozen=True):
    """Where to look and for what.

    `repository` "": in all that `repositories` chooses of the registry's own, by their names below `prefix`.
    """

    host: str
    repository: str
    tags: TagRules = ALL_TAGS
    repositories: TagRules = ALL_TAGS
    prefix: str = ""


class ChosenTags(msgspec.Struct, frozen=True):
    """The tags that were chosen in one repository, in the registry's order, or why none could be. `dated`: so
    many were asked for their date; `others`: so many are of other media types than those that are wanted."""

    repository: str
    tags: tuple[str, ...] = ()
    error: BlobflowError | None = None
    dated: int = 0
    others: int = 0
