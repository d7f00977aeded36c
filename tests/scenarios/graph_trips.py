"""Graphs of any shape in real registries, and their way through a layout and an archive to another."""

from __future__ import annotations

from pathlib import Path

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.oci import Digest, Reference, parse_manifest
from blobflow.settings import Settings
from blobflow.transports.store import Store
from tests.library import mirror
from tests.scenarios.graphs import Graph


def tagged(graph: Graph) -> Graph:
    """The graph with the tags that a registry can have: one that is put under a tag is named by sha256 there
    ([end-7] has no way to say another digest)."""
    tags = {tag: digest for tag, digest in graph.tags.items() if digest.startswith("sha256:")}
    return Graph(graph.blobs, graph.manifests, tags)


def serve_graph(store: Store, repository: str, graph: Graph) -> None:
    """Put the graph into an embedded registry's store as if it had been pushed."""
    for digest, content in graph.blobs.items():
        store.blobs.write_small(content, digest)
        store.repositories.add(repository, digest)
    for digest, (media_type, raw) in graph.manifests.items():
        store.blobs.write_small(raw, digest)
        store.repositories.add(repository, digest, media_type)
    for tag, digest in graph.tags.items():
        store.repositories.set_tag(repository, tag, digest)


async def trip(graph: Graph, repository: str, source: str, target: str, folder: Path) -> None:
    """Registry → layout → archive → registry, each leg a run of its own, with one cache for all."""
    settings = Settings(cache_dir=folder / "cache")

    async def leg(one: Reference, other: Reference) -> None:
        pairs = [
            Pair(msgspec.structs.replace(one, tag=tag), msgspec.structs.replace(other, tag=tag))
            for tag in graph.tags
        ]
        report = await mirror(pairs, settings)
        assert report.ok, [image.error for image in report.images]

    layout, archive = Reference(f"oci:{folder}/layout", ""), Reference(f"oci-archive:{folder}/a.tar", "")
    await leg(Reference(source, repository), layout)
    await leg(layout, archive)
    await leg(archive, Reference(target, repository))


def reached(graph: Graph) -> set[Digest]:
    """The manifests that the tags reach, subjects not counted: they are mentioned, not contained."""
    found: set[Digest] = set()
    todo = list(graph.tags.values())
    while todo:
        digest = todo.pop()
        if digest not in found:
            found.add(digest)
            kind, raw = graph.manifests[digest]
            todo += [child.digest for child in parse_manifest(raw, kind, digest=digest).manifests]
    return found
