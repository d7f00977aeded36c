"""Indexes of blobs, nulls and wrong labels, through docker-registry, layouts and archives and back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blobflow.oci import media
from tests.fakes.layouts import Layout
from tools.processes import Registry, blobflow, blobflow_serve, docker_registry

CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def cache(layout: Layout, kind: str) -> dict[str, Any]:
    """As BuildKit exports a cache to a registry, in OCI's words or in Docker's."""
    layer = DOCKER_LAYER if kind == media.DOCKER_LIST else media.OCI_LAYER_GZIP
    listed = [layout.put(f"step {number}".encode(), layer) for number in range(3)]
    listed[0]["annotations"] = {
        "buildkit/createdat": "2024-01-01T00:00:00Z",
        "containerd.io/uncompressed": None,
    }
    listed.append(layout.put(b'{"layers":null,"records":null}', CACHE_CONFIG))
    return layout.put({"schemaVersion": 2, "mediaType": kind, "manifests": listed}, kind)


def image(layout: Layout, kind: str, **more: Any) -> dict[str, Any]:
    config = layout.put({"os": "linux", "architecture": "amd64", "rootfs": None}, media.OCI_CONFIG)
    layer = layout.put(f"layer of {kind} {more}".encode(), media.OCI_LAYER_GZIP, urls=None)
    document = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer], **more}
    return layout.put({key: value for key, value in document.items() if value != ""}, kind)


def mixed(layout: Layout) -> dict[str, Any]:
    """Images under the other form's names, one of them without a type of its own, and blobs between them."""
    oci, docker = image(layout, media.OCI_MANIFEST), image(layout, media.DOCKER_MANIFEST)
    bare = image(layout, "", annotations=None, subject=None)
    return layout.index(
        {**oci, "mediaType": media.DOCKER_MANIFEST, "platform": {"os": "linux", "architecture": "amd64"}},
        layout.put(b"a step", media.OCI_LAYER_GZIP),
        {**docker, "mediaType": media.OCI_MANIFEST, "platform": None},
        {**bare, "mediaType": media.DOCKER_MANIFEST, "annotations": {"a": None}},
        layout.put(b"{}", CACHE_CONFIG),
    )


MADE: dict[str, tuple[Callable[[Layout], dict[str, Any]], int]] = {
    "a cache in OCI's words": (lambda layout: cache(layout, media.OCI_INDEX), 0),
    "a cache in Docker's words": (lambda layout: cache(layout, media.DOCKER_LIST), 0),
    "an index of images and blobs": (mixed, 2),  # OCI's under Docker's name, and the reverse
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_there_arrives_with_every_digest_and_is_told_of_once(
    name: str, programs: None, tmp_path: Path, home: Path
) -> None:
    make, told = MADE[name]
    layout = Layout(tmp_path / "layout")
    root = make(layout)
    layout.tag(root, "x")
    with docker_registry(tmp_path / "docker") as docker, blobflow_serve(tmp_path / "serve") as serve:
        legs = [
            f"oci:{layout.folder}:x",
            f"{docker.host}/app:1",
            f"oci:{tmp_path}/out:x",
            f"oci-archive:{tmp_path}/a.tar:x",
            f"{serve.host}/app:1",
            f"{docker.host}/back:1",
        ]
        for source, target in itertools.pairwise(legs):
            run = blobflow("copy", source, target, home=home)
            assert run.code == 0, (source, target, run.err)
            assert run.err.count("by its content it is") == told
            for content in inside(layout, root):
                assert run.err.count(f"calls {content['digest']}") <= 1
        for registry, repository in ((docker, "app"), (docker, "back"), (serve, "app")):
            assert_whole(registry, repository, layout, root)


def inside(layout: Layout, root: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(layout.path(root["digest"]).read_bytes())["manifests"]
    return listed


def assert_whole(registry: Registry, repository: str, layout: Layout, root: dict[str, Any]) -> None:
    """All that the index lists is there: manifests under what they are, blobs as blobs."""
    assert registry.digest_of(repository, "1") == root["digest"]
    for each in inside(layout, root):
        raw = layout.path(each["digest"]).read_bytes()
        is_blob = each["mediaType"] in (CACHE_CONFIG, DOCKER_LAYER, media.OCI_LAYER_GZIP)
        path = f"/v2/{repository}/{'blobs' if is_blob else 'manifests'}/{each['digest']}"
        accept = {} if is_blob else {"Accept": f"{media.OCI_MANIFEST}, {media.DOCKER_MANIFEST}"}
        status, headers, body = registry.ask("GET", path, accept)
        assert (status, body) == (200, raw)
        if not is_blob:
            assert headers["content-type"] == json.loads(raw).get("mediaType", media.OCI_MANIFEST)
