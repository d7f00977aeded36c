"""Inspection: what one reference names, and what is under it."""

from __future__ import annotations

import msgspec

from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.discovery import MAX_SMALL_REQUESTS
from blobflow.engine.pairs import site_of
from blobflow.engine.services import Services
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.errors import error_side
from blobflow.oci import Digest, Manifest, Reference
from blobflow.oci.platform_choice import PlatformChoice


class Inspection(msgspec.Struct, frozen=True):
    """A reference's manifest and, if it is an index, the manifests under it that are there.

    The root is whole. Of the others those are lean (without `raw` and annotations) that would make the whole
    too much for memory, see `engine.sources.manifests`.
    """

    reference: Reference
    root: Manifest
    manifests: tuple[Manifest, ...]

    @property
    def absent(self) -> frozenset[Digest]:
        """What indexes list that is not there: they are sparse."""
        there = {manifest.descriptor.digest for manifest in self.manifests}
        listed = {child.digest for each in (self.root, *self.manifests) for child in each.manifests}
        return frozenset(listed - there)


async def inspect(services: Services, reference: Reference, *, alone: bool = False) -> Inspection:
    """Read a reference's manifest and those under it, unless it is wanted `alone`. What a sparse index lists
    may lack. Raises what the source answers otherwise."""
    with error_side("source"):
        root = await services.source_at(site_of(reference)).resolve(reference.name)
    read = await read_graph(
        {reference: root},
        services.source_at,
        BoundedRunner(MAX_SMALL_REQUESTS),
        choices={reference: [PlatformChoice(index="only")]} if alone else {},
        sparse=True,
        reader=GraphReader(
            services.source_at, manifest_budget=services.manifest_budget, observe=services.observe
        ),
    )
    for error in read.failures.values():
        raise error
    below = read.graph.closure(root.digest)[:-1]
    return Inspection(reference, read.graph.whole(root.digest), tuple(below))
