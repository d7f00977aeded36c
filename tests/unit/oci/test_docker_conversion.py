"""Manifests in the other family's words: what is mixed, as some clients write it."""

from __future__ import annotations

import json

import pytest

from blobflow.errors import UnsupportedContent
from blobflow.oci import digest_of, media, parse_manifest
from blobflow.oci.docker_conversion import convert_manifest

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_OCI_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def _raw(kind: str, config: str, *layers: str) -> bytes:
    def described(media_type: str, content: bytes) -> dict[str, object]:
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    listed = [described(layer, str(number).encode()) for number, layer in enumerate(layers)]
    document = {"schemaVersion": 2, "mediaType": kind, "config": described(config, b"{}"), "layers": listed}
    return json.dumps(document).encode()


def _kinds(raw: bytes) -> list[str]:
    document = json.loads(raw)
    layers = [each["mediaType"] for each in document["layers"]]
    return [document["mediaType"], document["config"]["mediaType"], *layers]


@pytest.mark.parametrize(
    ("config", "layer"),
    [
        (media.OCI_CONFIG, _DOCKER_LAYER),
        (media.DOCKER_CONFIG, media.OCI_LAYER_GZIP),
        (media.OCI_CONFIG, media.OCI_LAYER_GZIP),
    ],
)
def test_a_manifest_of_dockers_that_describes_ocis_blobs_becomes_dockers_throughout(
    config: str, layer: str
) -> None:
    """Docker's readers of docker's manifests refuse it otherwise. (appendlayer writes such ones.)"""
    manifest = parse_manifest(_raw(media.DOCKER_MANIFEST, config, _DOCKER_LAYER, layer))
    made = convert_manifest(manifest, "v2s2", {})
    assert _kinds(made.raw) == [media.DOCKER_MANIFEST, media.DOCKER_CONFIG, _DOCKER_LAYER, _DOCKER_LAYER]
    assert [each.digest for each in made.blobs] == [each.digest for each in manifest.blobs]


def test_what_is_dockers_throughout_stays_as_it_is() -> None:
    """Also with layers of kinds that nobody has a word for (python-dxf's)."""
    kinds = (_DOCKER_LAYER, "application/octet-stream")
    manifest = parse_manifest(_raw(media.DOCKER_MANIFEST, media.DOCKER_CONFIG, *kinds))
    assert convert_manifest(manifest, "v2s2", {}) is manifest


def test_layers_of_ocis_that_docker_has_no_word_for_are_refused_also_there() -> None:
    manifest = parse_manifest(_raw(media.DOCKER_MANIFEST, media.OCI_CONFIG, _OCI_ZSTD))
    with pytest.raises(UnsupportedContent, match="no word"):
        convert_manifest(manifest, "v2s2", {})


def test_a_manifest_of_ocis_may_describe_dockers_layers() -> None:
    """image-spec, media-types.md: they are compatible, and its readers read both."""
    manifest = parse_manifest(_raw(media.OCI_MANIFEST, media.OCI_CONFIG, _DOCKER_LAYER))
    assert convert_manifest(manifest, "oci", {}) is manifest
