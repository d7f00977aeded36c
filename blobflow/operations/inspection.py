"""Composition: what one reference names, to be looked at."""

from __future__ import annotations

import msgspec

from blobflow.client import NO_PLACES, open_services
from blobflow.custom_transports import CustomTransports
from blobflow.engine.concurrency.bounded import BoundedRunner
from blobflow.engine.execution import MAX_SMALL_REQUESTS
from blobflow.engine.plan.steps import site_of
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.environment import from_environment
from blobflow.errors import error_side
from blobflow.events import Meter, Observer, ignore
from blobflow.oci import Digest, Manifest, Reference
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.settings import Settings


class Inspection(msgspec.Struct, frozen=True):
    """A reference's manifest and, if it is an index, the manifests under it that are there.

    The root is whole. Of the others those are lean (without `raw` and annotations) that would make the whole
    too much for memory, see `engine.documents`.
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


async def inspect(
    reference: Reference,
    settings: Settings | None = None,
    *,
    alone: bool = False,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: CustomTransports = NO_PLACES,
) -> Inspection:
    """Read a reference's manifest and those under it, unless it is wanted `alone`. What a sparse index lists
    may lack. Raises what the source answers otherwise."""
    if settings is None:  # who only looks needs no store that can be written
        settings = msgspec.structs.replace(from_environment(sources={reference.host}), cache_dir=None)
    async with open_services(settings, observer, meter or Meter(), places=places) as services:
        with error_side("source"):
            root = await services.source_at(site_of(reference)).resolve(reference.name)
        read = await read_graph(
            {reference: root},
            services.source_at,
            BoundedRunner(MAX_SMALL_REQUESTS),
            choices={reference: [PlatformChoice(index="only")]} if alone else {},
            sparse=True,
            reader=GraphReader(services.source_at, documents=services.documents, observe=services.observe),
        )
        for error in read.failures.values():
            raise error
        below = read.graph.closure(root.digest)[:-1]
        return Inspection(reference, read.graph.whole(root.digest), tuple(below))
