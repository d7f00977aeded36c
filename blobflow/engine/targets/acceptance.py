"""Which targets do not take which images, by what the images are: told before anything is written, or
remembered of an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from blobflow.content import Journal, Selective, Sink, Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.errors import BlobflowError

# The journal's key for what a registry did with an index that lacked children.
_SPARSE, _REFUSED = "sparse", "refused"


def unacceptable_pairs(
    pairs: Iterable[Pair], desired_images: Mapping[Pair, DesiredImage], sink_at: Callable[[Site], Sink]
) -> dict[Pair, BlobflowError]:
    """The pairs whose targets can't hold their images, and why."""
    failures: dict[Pair, BlobflowError] = {}
    for pair in pairs:
        desired = desired_images[pair]
        if not desired.manifests:
            continue
        sink = sink_at(site_of(pair.target))
        if not isinstance(sink, Selective):
            continue
        try:
            manifests = {each.descriptor.digest: each for each in desired.manifests}
            sink.check_image(pair.target.tag, desired.root.digest, manifests)
        except BlobflowError as error:
            error.side = "target"
            failures[pair] = error
    return failures


def refuses_sparse(journal: Journal, registry: str) -> bool:
    """Whether a registry is known to refuse indexes that lack children."""
    return journal.note(registry, _SPARSE) == _REFUSED


def note_sparse_refused(journal: Journal, registry: str) -> None:
    """Have this run and later ones know that a registry refused such an index."""
    journal.record_note(registry, _SPARSE, _REFUSED)
