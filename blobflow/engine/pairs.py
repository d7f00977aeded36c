"""Pairs: what is wanted where. The word that all of planning and execution is about."""

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


# What becomes of an image that has none of the platforms that are wanted: an error, or it is skipped.
MissingPlatform = Literal["fail", "skip"]


class Pair(msgspec.Struct, frozen=True, order=True, gc=False):
    """One image, or some of its platforms, wanted at one place. Fan-out is several pairs with one source.

    `target.tag` is the tag that will be written; "" puts the root under its digest alone. `referrers`: what
    is wanted of what refers to it, where the run's policy does not say. `missing_platform`: what becomes of
    it if it is an image for other platforms than those of `choice`.
    """

    source: Reference
    target: Reference
    choice: PlatformChoice = EVERYTHING
    referrers: Lookup = "auto"
    missing_platform: MissingPlatform = "fail"


def site_of(reference: Reference) -> Site:
    """The registry and repository of a reference."""
    return Site(reference.host, reference.repository)
