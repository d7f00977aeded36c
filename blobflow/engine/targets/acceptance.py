"""Acceptance: which targets can't hold which images, found out before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from blobflow.content import Selective, Sink, Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.errors import BlobflowError


def unacceptable_pairs(
    pairs: Iterable[Pair], desired_images: Mapping[Pair, DesiredImage], sink_at: Callable[[Site], Sink]
) -> dict[Pair, BlobflowError]:
    """The pairs whose targets can't hold their images, and why."""
    failures: dict[Pair, BlobflowError] = {}
    for pair in pairs:
        desired, sink = desired_images[pair], sink_at(site_of(pair.target))
        if not isinstance(sink, Selective) or not desired.manifests:
            continue
        try:
            manifests = {each.descriptor.digest: each for each in desired.manifests}
            sink.check_image(pair.target.tag, desired.root.digest, manifests)
        except BlobflowError as error:
            error.side = "target"
            failures[pair] = error
    return failures
