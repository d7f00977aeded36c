"""Inspection: reads the manifest that a reference names, and those below it."""

from __future__ import annotations

import msgspec

from blobflow.engine.concurrency.bounded_runner import MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.engine.services import Services
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.errors import error_side
from blobflow.oci import Digest, Manifest, Reference
from blobflow.oci.platform_choice import PlatformChoice


class Inspection(msgspec.Struct, frozen=True):
    """A reference's manifest and, if it is an index, the manifests below it that are there.

    The root is whole. Others may be lean (without `raw` and annotations) if all of them together would take
    too much memory, see `engine.sources.manifests`.
    """

    reference: Reference
    root: Manifest
    manifests: tuple[Manifest, ...]

    @property
    def absent(self) -> frozenset[Digest]:
        """The children that sparse indexes list and that are not there."""
        there = {manifest.descriptor.digest for manifest in self.manifests}
        listed = {child.digest for each in (self.root, *self.manifests) for child in each.manifests}
        return frozenset(listed - there)


async def inspect(services: Services, reference: Reference, *, alone: bool = False) -> Inspection:
    """Read a reference's manifest and, unless it is wanted `alone`, those below it. Children of a sparse
    index may be missing; any other error of the source is raised."""
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
