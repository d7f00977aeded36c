"""The graphs that docker-registry 2.8.2 takes, through a layout and an archive and back into it.

What it does not take, and so is not among these:

- content that sha512 names: it knows sha256 alone;
- schema-2 manifests whose layers have `urls`: without `validation.manifests.urls` in its configuration it
  answers 500.

OCI manifests with such layers it takes, and indexes of either kind over manifests of both.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings

from blobflow.oci import media
from tests.scenarios.graph_trips import serve_graph, trip
from tests.scenarios.graphs import Graph, graphs
from tools.processes import Registry, docker_registry
from tools.registry.faulty import journalling

_numbers = count()


@pytest.fixture(scope="module")
def target(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("target")) as registry:
        yield registry


def is_taken(graph: Graph) -> bool:
    manifests = graph.manifests.values()
    return not any(kind == media.DOCKER_MANIFEST and b'"urls"' in raw for kind, raw in manifests)


@settings(
    max_examples=12, deadline=None, phases=[Phase.generate]
)  # what a registry refuses needs no shrinking
@given(graph=graphs(algorithms=("sha256",)).filter(is_taken))
def test_every_digest_comes_back_to_docker_registry(target: Registry, graph: Graph) -> None:
    repository = f"any/thing{next(_numbers)}"

    async def there_and_back(folder: Path) -> None:
        async with journalling(folder / "source") as source:
            serve_graph(source.store, repository, graph)
            await trip(graph, repository, source.host, target.host, folder)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(there_and_back(Path(folder)))
    for tag, digest in graph.tags.items():
        assert target.digest_of(repository, tag) == digest
