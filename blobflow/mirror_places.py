"""Mirror places: where images have their place in a mirror, derived from what a run maps to what."""

from __future__ import annotations

import msgspec

from blobflow.oci import Reference


class PlaceRule(msgspec.Struct, frozen=True, order=True):
    """Everything below `source` (a host, or a host and the first components of a repository) is below
    `target`, with the rest of its repository's name and its tag unchanged. `exact`: the one repository
    `source` alone."""

    source: str
    target: str
    exact: bool = False


class MirrorPlaces(msgspec.Struct, frozen=True):
    """The rules of a mirror, most specific first. Several mirrors in order are several `MirrorPlaces`."""

    rules: tuple[PlaceRule, ...]

    def place_of(self, image: Reference) -> Reference | None:
        """The image's place in the mirror, its tag and digest kept; None where no rule is for it."""
        raise NotImplementedError
