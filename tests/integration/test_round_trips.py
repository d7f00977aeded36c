"""Whatever can be in a registry goes through layout and archive and comes back with every digest equal."""

from __future__ import annotations

import asyncio
import gzip
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import NullJournal, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.events import Meter, ignore
from blobflow.oci import Reference
from blobflow.oci.local_reference import transport_of
from blobflow.permits import FixedLimiters
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store, StoreCache
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.graphs import Graph, graphs

SITE = Site("source", "app")


async def mirror(source: str, target: str, tags: Sequence[str], store: Store, *ends: MemoryRegistry) -> None:
    """Run the engine from place to place, under the same names."""

    local, registries = LocalTransports(store, Meter()), {each.name: each for each in ends}

    def at(host: str, tag: str) -> Reference:
        return Reference(host, "" if transport_of(host) else SITE.repository, tag)

    services = Services(
        source_at=lambda site: registries[site.registry].at(site) if site.repository else local.source(site),
        sink_at=lambda site: registries[site.registry].at(site) if site.repository else local.sink(site),
        cache=StoreCache(store),
        journal=NullJournal(),
        observe=ignore,
        meter=Meter(),
        limiter_at=FixedLimiters().at,
        complete=local.complete,
    )
    try:
        report = await run_of_pairs([Pair(at(source, tag), at(target, tag)) for tag in tags]).execute(
            services
        )
    finally:
        local.close()
    assert report.ok, [image.error for image in report.images]


async def round_trip(graph: Graph, folder: Path, packed: bool) -> None:
    source, back = MemoryRegistry("source"), MemoryRegistry("back")
    source.blobs[SITE], source.manifests[SITE] = graph.blobs, graph.manifests
    source.tags = {(SITE, tag): digest for tag, digest in graph.tags.items()}
    archive = folder / "a.tar"
    with closing(Store.open(folder / "store")) as store:
        tags = list(graph.tags)
        await mirror("source", f"oci:{folder}/layout", tags, store, source)
        await mirror(f"oci:{folder}/layout", f"oci-archive:{archive}", tags, store)
        if packed:
            archive.write_bytes(gzip.compress(archive.read_bytes(), 1))
        await mirror(f"oci-archive:{archive}", "back", tags, store, back)
    there = Site("back", SITE.repository)
    assert {tag: digest for (_, tag), digest in back.tags.items()} == graph.tags
    assert graph.manifests.items() >= back.manifests[there].items()
    assert graph.blobs.items() >= back.blobs.get(there, {}).items()


@settings(max_examples=40, deadline=None)
@given(graphs(), st.booleans())
def test_every_digest_comes_back_from_layout_and_archive(graph: Graph, packed: bool) -> None:
    """That nothing below a root is missing is what `back`, which refuses such manifests, says."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(round_trip(graph, Path(folder), packed))
