"""Which targets do not take which images, by what the images are: told before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from blobflow.content import Selective, Sink, Site
from blobflow.engine.plan import Pair, Shape, site_of
from blobflow.errors import BlobflowError


def not_taken(
    pairs: Iterable[Pair], shapes: Mapping[Pair, Shape], sink_at: Callable[[Site], Sink]
) -> dict[Pair, BlobflowError]:
    """The pairs whose targets say that they can't hold what shall be there, and why."""
    failures: dict[Pair, BlobflowError] = {}
    for pair in pairs:
        shape, sink = shapes[pair], sink_at(site_of(pair.target))
        if not isinstance(sink, Selective) or not shape.manifests:
            continue
        try:
            manifests = {each.descriptor.digest: each for each in shape.manifests}
            sink.check_image(pair.target.tag, shape.root.digest, manifests)
        except BlobflowError as error:
            error.side = "target"
            failures[pair] = error
    return failures
