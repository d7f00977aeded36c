"""Graphs of manifests and blobs of any shape, drawn by hypothesis."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from hypothesis import strategies as st

from blobflow.oci import Descriptor, Digest, Platform, digest_of, media
from tests.scenarios.signed_images import OCI_EMPTY

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
