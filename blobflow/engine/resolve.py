"""Resolve: from references to a graph of digests. Asks the sources only.

A tag is resolved to a digest once, and everything after that goes by digest. Roots and closures are two
steps, because most of a repeated run needs only the first: a root that its targets are known to have whole is
never read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from blobflow.content import Site, SourceAt
from blobflow.engine.bodies import blame
from blobflow.engine.lane import Lane, together
from blobflow.engine.plan import Graph, Pair, site_of
from blobflow.errors import BlobflowError, UnsupportedContent, UsageError
from blobflow.oci import Descriptor, Digest, Manifest, Reference, parse_manifest

# Indexes inside indexes. The spec sets no limit; real ones have one level, attestation bundles two.
MAX_NESTING = 8


class Resolved(msgspec.Struct, frozen=True):
    """Roots by source, and the errors of those that have none."""

    roots: dict[Reference, Descriptor]
    failures: dict[Reference, BlobflowError]


async def resolve_roots(sources: Iterable[Reference], source_at: SourceAt, lane: Lane) -> Resolved:
    """Pin each source to the digest that it names now, one small request each."""
    roots: dict[Reference, Descriptor] = {}
    failures: dict[Reference, BlobflowError] = {}

    async def resolve(reference: Reference) -> None:
        try:
            with blame("source"):
                roots[reference] = await source_at(site_of(reference)).resolve(reference.name)
        except BlobflowError as error:
            failures[reference] = error

    await lane.each(resolve, sorted(set(sources)))
    return Resolved(roots, failures)


def clashes(pairs: Iterable[Pair], roots: Mapping[Reference, Descriptor]) -> dict[Pair, BlobflowError]:
    """Pairs that aim different digests at one tag of one target: none of them may win by chance."""
    aimed: dict[Reference, list[Pair]] = {}
    for pair in sorted(set(pairs)):
        if pair.target.tag and pair.source in roots:
            place = Reference(pair.target.host, pair.target.repository, pair.target.tag)
            aimed.setdefault(place, []).append(pair)
    failures: dict[Pair, BlobflowError] = {}
    for place, rivals in aimed.items():
        if len({roots[pair.source].digest for pair in rivals}) > 1:
            sources = " and ".join(f"{p.source} ({roots[p.source].digest[:19]}…)" for p in rivals[:3])
            for pair in rivals:
                failures[pair] = UsageError(
                    f"{place} is aimed at by {sources}, which differ; give one of them another target",
                    side="target",
                )
    return failures


async def read_graph(roots: Mapping[Reference, Descriptor], source_at: SourceAt, lane: Lane) -> GraphRead:
    """Read the closure of each root by digest.

    A manifest that several sources list is read once. A source whose closure can't be read whole is in
    `failures`, and the graph then leaves it out.
    """
    reader = _Reader(source_at)
    failures: dict[Reference, BlobflowError] = {}

    async def read(reference: Reference) -> None:
        try:
            with blame("source"):
                await reader.read(roots[reference], site_of(reference), 0)
        except BlobflowError as error:
            failures[reference] = error

    await lane.each(read, sorted(roots))
    kept = {reference: root for reference, root in roots.items() if reference not in failures}
    origins = {digest: tuple(sorted(sites)) for digest, sites in reader.origins.items()}
    return GraphRead(Graph(reader.manifests, kept, origins), failures)


class GraphRead(msgspec.Struct, frozen=True):
    graph: Graph
    failures: dict[Reference, BlobflowError]


class _Reader:
    """Reads manifests, each digest once however many ask for it at the same time."""

    def __init__(self, source_at: SourceAt) -> None:
        self._source_at = source_at
        self._reading: dict[Digest, asyncio.Lock] = {}
        self._walked: set[tuple[Site, Digest]] = set()
        self.manifests: dict[Digest, Manifest] = {}
        self.origins: dict[Digest, set[Site]] = {}

    async def read(self, descriptor: Descriptor, site: Site, depth: int) -> None:
        digest = descriptor.digest
        if (site, digest) in self._walked:
            return
        if depth > MAX_NESTING:
            raise UnsupportedContent(
                f"index {digest} in {site} is nested more than {MAX_NESTING} levels deep"
            )
        manifest = await self._manifest(descriptor, site)
        self.origins.setdefault(digest, set()).add(site)
        for blob in manifest.blobs:
            self.origins.setdefault(blob.digest, set()).add(site)
        await together(self.read(child, site, depth + 1) for child in manifest.manifests)
        self._walked.add((site, digest))

    async def _manifest(self, descriptor: Descriptor, site: Site) -> Manifest:
        digest = descriptor.digest
        async with self._reading.setdefault(digest, asyncio.Lock()):
            if digest not in self.manifests:
                raw = await self._source_at(site).read(descriptor)
                self.manifests[digest] = parse_manifest(raw, descriptor.media_type, digest=digest)
            return self.manifests[digest]
