"""Pairs of a source and a target: the unit of planning and execution."""

from __future__ import annotations

from typing import Literal

import msgspec

from blobflow.content import Site
from blobflow.oci import Reference
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice

# When what refers to an image is looked up:
#   auto    when it moves, or if that was never done
#   always  again for images that have not changed, too
#   off     never
Lookup = Literal["auto", "always", "off"]


# Whether an image that has none of the wanted platforms is an error or is skipped.
MissingPlatform = Literal["fail", "skip"]


class Pair(msgspec.Struct, frozen=True, order=True, gc=False):
    """One image, or some of its platforms, and its target. Fan-out is several pairs with one source.

    `target.tag` is the tag that will be written; "" puts the root under its digest alone. `referrers`: when
    referrers are looked up, where the run's policy does not say. `missing_platform`: whether the pair fails
    or is skipped if the image has none of the platforms of `choice`. `backup`: under which tag to keep what
    `target.tag` names before it names another image, as "{tag}-old" (see `engine.backups`); "": nowhere.
    `signature_policy`: the name that the run's policy has for the signature policy of this pair; "": that of
    all.
    """

    source: Reference
    target: Reference
    choice: PlatformChoice = EVERYTHING
    referrers: Lookup = "auto"
    missing_platform: MissingPlatform = "fail"
    backup: str = ""
    signature_policy: str = ""


def site_of(reference: Reference) -> Site:
    """The registry and repository of a reference."""
    return Site(reference.host, reference.repository)
