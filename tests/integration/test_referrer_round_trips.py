"""Images of any shape, with what hangs on them: registry → layout → archive → bundle in parts → registry."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import NullJournal, Sink, Site, Source
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.events import HostMeter, Meter, ignore
from blobflow.oci import Platform, Reference
from blobflow.oci.local_reference import transport_of
from blobflow.permits import FixedLimiters
from blobflow.transports.archive import ArchiveSink, ArchiveSource, files_of_bundle
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store, StoreCache
from blobflow.transports.union_source import UnionSource
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.graphs import Graph
from tests.scenarios.signed_graphs import images_of, signed_graphs, ties

SITE = Site("source", "app")
# So small that what belongs together is in several parts.
PART_BYTES = 16 * 1024


class Trip:
    """One graph's way, each leg a run of its own with files opened anew."""

    def __init__(self, graph: Graph, folder: Path, store: Store) -> None:
        self.tags = images_of(graph)
        self._folder = folder
        self._store = store
        self._sites: dict[str, Callable[[Site], Source | Sink]] = {}

    def registry(self, name: str, refers: Literal["api", "tag"] = "api") -> MemoryRegistry:
        made = MemoryRegistry(name, refers=refers)
        self._sites[name] = made.at
        return made

    async def leg(self, source: str, target: str) -> None:
        with closing(LocalTransports(self._store, Meter())) as local:

            def at(site: Site) -> Source | Sink:
                return self._sites[site.registry](site)

            services = Services(
                source_at=lambda site: local.source(site) if transport_of(site.registry) else at(site),  # type: ignore[arg-type,return-value]
                sink_at=lambda site: local.sink(site) if transport_of(site.registry) else at(site),  # type: ignore[arg-type,return-value]
                cache=StoreCache(self._store),
                journal=NullJournal(),
                observe=ignore,
                meter=Meter(),
                limiter_at=FixedLimiters().at,
                complete=local.complete,
            )
            await self._run(source, target, services)

    async def bundle(self, source: str, path: Path) -> None:
        """As `save` writes it, in parts."""
        site = Site(f"oci-archive:{path}", "")
        sink = ArchiveSink(site, self._folder, HostMeter(), Platform("amd64", "linux"), limit=PART_BYTES)
        self._sites["bundle"] = lambda site: sink
        await self.leg(source, "bundle")
        await sink.complete()

    async def unbundle(self, path: Path, target: str) -> None:
        """As `load` reads it."""
        with closing(LocalTransports(self._store, Meter())) as parts:
            files = files_of_bundle(path).there
            sources = [parts.source(Site(f"oci-archive:{part}", "")) for part in files]
            for each in sources:
                assert isinstance(each, ArchiveSource)
                each.read_with(sources)  # type: ignore[arg-type]
            roots = {tag: await sources[-1].resolve(tag) for tag in self.tags}
            self._sites["parts"] = lambda site: UnionSource(sources, roots)
            await self.leg("parts", target)

    async def _run(self, source: str, target: str, services: Services) -> None:
        def at(host: str, tag: str) -> Reference:
            return Reference(host, "" if transport_of(host) else SITE.repository, tag)

        pairs = [Pair(at(source, tag), at(target, tag)) for tag in self.tags]
        report = await run_of_pairs(pairs).execute(services)
        assert report.ok, [image.error for image in report.images]
        left = [each for image in report.images for each in image.referrers if each.left]
        assert not left, (source, target, left)


async def round_trip(graph: Graph, folder: Path, last: Literal["api", "tag"]) -> None:
    with closing(Store.open(folder / "store")) as store:
        trip = Trip(graph, folder, store)
        source, back = trip.registry("source"), trip.registry("back", last)
        source.blobs[SITE], source.manifests[SITE] = graph.blobs, graph.manifests
        source.tags = {(SITE, tag): digest for tag, digest in graph.tags.items()}
        await trip.leg("source", f"oci:{folder}/layout")
        await trip.leg(f"oci:{folder}/layout", f"oci-archive:{folder}/a.tar")
        await trip.bundle(f"oci-archive:{folder}/a.tar", folder / "b.tar")
        await trip.unbundle(folder / "b.tar", "back")
        roots = [graph.tags[tag] for tag in trip.tags]
        there = Site("back", SITE.repository)
        assert await ties(back, there, roots) >= await ties(source, SITE, roots)
        for (_, tag), digest in back.tags.items():
            if tag in graph.tags:
                assert digest == graph.tags[tag]


@settings(max_examples=20, deadline=None)
@given(signed_graphs(), st.sampled_from(["api", "tag"]))
def test_every_referrer_is_found_at_the_end_by_its_digest(graph: Graph, last: Literal["api", "tag"]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(round_trip(graph, Path(folder), last))
