"""Graphs of any shape with signatures and the like on their indexes, their images and on these themselves."""

from __future__ import annotations

import json

import msgspec
from hypothesis import strategies as st

from blobflow.content import Referrer, Site
from blobflow.engine.sources.referrers import MAX_DEPTH
from blobflow.oci import Descriptor, Digest, digest_of, media, parse_manifest
from blobflow.oci.referrers import cosign_tags
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.graphs import Graph, graphs
from tests.scenarios.signed_images import OCI_EMPTY, SIGNATURE, SPDX

# Subject, referrer, and the tag of cosign's that ties them together, if that is what does.
Tie = tuple[Digest, Digest, str]


@st.composite
def signed_graphs(draw: st.DrawFn) -> Graph:
    """Each manifest may have referrers, and these some in turn, by their subjects or by cosign's tags."""
    graph = draw(graphs())
    empty = _blob(graph, b"{}", OCI_EMPTY)
    subjects = list(graph.manifests)
    for number in range(draw(st.integers(1, 6))):
        subject = draw(st.sampled_from(subjects))
        kind, raw = graph.manifests[subject]
        layer = _blob(graph, b"proof %d" % number, SPDX)
        document = {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": empty,
            "layers": [layer],
        }
        suffix = draw(st.sampled_from(["", "", *cosign_tags(subject)]))
        if not suffix:
            document |= {
                "artifactType": draw(st.sampled_from([SIGNATURE, SPDX])),
                "subject": msgspec.to_builtins(Descriptor(kind, subject, len(raw))),
            }
        made = json.dumps(document).encode()
        digest = digest_of(made)
        graph.manifests[digest] = (media.OCI_MANIFEST, made)
        if suffix:
            graph.tags[suffix] = digest
        subjects.append(digest)
    return graph


def _blob(graph: Graph, content: bytes, kind: str) -> dict[str, object]:
    graph.blobs[digest_of(content)] = content
    built: dict[str, object] = msgspec.to_builtins(Descriptor(kind, digest_of(content), len(content)))
    return built


def images_of(graph: Graph) -> list[str]:
    """The tags of the graph that are not cosign's."""
    return [tag for tag in graph.tags if not tag.startswith("sha256-")]


async def ties(registry: MemoryRegistry, site: Site, roots: list[Digest]) -> set[Tie]:
    """All that refers to what is below these, and to that in turn, as deep as it is followed."""
    place = registry.at(site)
    found: set[Tie] = set()
    level, met = _closure(registry, site, roots), set[Digest]()
    for _ in range(MAX_DEPTH):
        met |= level
        referrers: list[Referrer] = []
        for subject in sorted(level):
            referrers += await place.referrers(subject)  # type: ignore[attr-defined]
        found |= {(each.subject, each.manifest.digest, each.tag) for each in referrers}
        level = _closure(registry, site, [each.manifest.digest for each in referrers]) - met
    return found


def _closure(registry: MemoryRegistry, site: Site, roots: list[Digest]) -> set[Digest]:
    held, found, waiting = registry.manifests[site], set[Digest](), list(roots)
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            found.add(digest)
            kind, raw = held[digest]
            waiting += [child.digest for child in parse_manifest(raw, kind, digest=digest).manifests]
    return found
