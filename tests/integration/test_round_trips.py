"""Whatever can be in a registry goes through layout and archive and comes back with every digest equal."""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from blobflow.content import NullJournal, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.events import Meter, ignore
from blobflow.oci import Descriptor, Digest, Platform, Reference, digest_of, media
from blobflow.oci.local_reference import transport_of
from blobflow.permits import FixedLimiters
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store, StoreCache
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.signed_images import OCI_EMPTY

SITE = Site("source", "app")
ATTESTED = {"vnd.docker.reference.type": "attestation-manifest"}
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


class Graph(msgspec.Struct):
    """Content as a registry holds it, and the roots that are tagged."""

    blobs: dict[Digest, bytes] = {}
    manifests: dict[Digest, tuple[str, bytes]] = {}
    tags: dict[str, Digest] = {}


@st.composite
def graphs(draw: st.DrawFn, algorithms: Sequence[str] = ("sha256", "sha256", "sha512")) -> Graph:
    """Images and artifacts, then indexes over what is there already: nested, sharing, of mixed kinds."""
    graph = Graph()
    algorithm = st.sampled_from(algorithms)
    blobs: list[Descriptor] = []
    for content in draw(
        st.lists(st.binary(max_size=300) | st.just(b"") | st.just(b"{}"), min_size=1, max_size=5)
    ):
        digest = digest_of(content, draw(algorithm))
        graph.blobs[digest] = content
        blobs.append(Descriptor(media.OCI_LAYER_GZIP, digest, len(content)))
    made: list[Descriptor] = []
    for number in range(draw(st.integers(1, 7))):
        if draw(st.booleans()) and made:
            kind, document = draw(_index(made, blobs))
        else:
            kind, document = draw(_image(blobs, made))
        raw = json.dumps(document, indent=draw(st.sampled_from([None, 1, 3]))).encode()
        digest = digest_of(raw, draw(algorithm))
        graph.manifests[digest] = (kind, raw)
        made.append(Descriptor(kind, digest, len(raw)))
        if draw(st.booleans()):
            graph.tags[f"t{number}"] = digest
    graph.tags["last"] = made[-1].digest
    return graph


@st.composite
def _image(draw: st.DrawFn, blobs: Sequence[Descriptor], made: Sequence[Descriptor]) -> tuple[str, object]:
    config, *layers = draw(st.lists(st.sampled_from(blobs), min_size=1, max_size=4))
    kind = draw(st.sampled_from([media.OCI_MANIFEST, media.DOCKER_MANIFEST]))
    mentions = [msgspec.to_builtins(layer) for layer in layers]
    if draw(st.booleans()):
        mentions.append(
            {
                "mediaType": FOREIGN,
                "digest": digest_of(b"elsewhere"),
                "size": 9,
                "urls": ["https://example.com"],
            }
        )
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            **msgspec.to_builtins(config),
            "mediaType": draw(st.sampled_from([media.OCI_CONFIG, OCI_EMPTY])),
        },
        "layers": mentions,
    }
    if draw(st.booleans()) and made:
        document["subject"] = msgspec.to_builtins(draw(st.sampled_from(made)))
    return kind, document


@st.composite
def _index(draw: st.DrawFn, made: Sequence[Descriptor], blobs: Sequence[Descriptor]) -> tuple[str, object]:
    """Of manifests, of blobs as a build's cache has them, or of both."""
    kind = draw(st.sampled_from([media.OCI_INDEX, media.DOCKER_LIST]))
    platforms = st.sampled_from([None, Platform("amd64", "linux"), Platform("unknown", "unknown")])
    children = []
    kinds = st.sampled_from([media.OCI_LAYER_GZIP, "application/vnd.buildkit.cacheconfig.v0"])
    others = [msgspec.structs.replace(blob, media_type=draw(kinds)) for blob in blobs]
    for child in draw(st.lists(st.sampled_from([*made, *others]), max_size=4)):
        mention = msgspec.structs.replace(child, platform=draw(platforms))
        children.append(
            {
                **msgspec.to_builtins(mention),
                **draw(st.sampled_from([{}, {"annotations": ATTESTED}, {"annotations": None, "urls": None}])),
            }
        )
    return kind, {"schemaVersion": 2, "mediaType": kind, "manifests": children}


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
