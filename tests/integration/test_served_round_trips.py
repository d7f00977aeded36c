"""serve → layout → archive → serve, over HTTP: what can be in a registry comes back with equal digests."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings

from tests.scenarios.graph_trips import reached, serve_graph, tagged, trip
from tests.scenarios.graphs import Graph, graphs
from tools.registry.faulty import journalling


@settings(max_examples=15, deadline=None)
@given(graphs().map(tagged))
def test_every_digest_comes_back_to_a_registry(graph: Graph) -> None:
    async def there_and_back(folder: Path) -> None:
        async with journalling(folder / "source") as source, journalling(folder / "target") as target:
            serve_graph(source.store, "any/thing", graph)
            await trip(graph, "any/thing", source.host, target.host, folder)
            for tag, digest in graph.tags.items():
                assert target.store.repositories.resolve("any/thing", tag) == digest
            for digest in reached(graph):
                assert target.store.blobs.read_small(digest) == graph.manifests[digest][1]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(there_and_back(Path(folder)))
