"""`blobflow warm` through real pull-through caches: what it fetches, what it leaves alone, what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow.oci import digest_of
from tools import imageset
from tools.processes import Registry, Run, blobflow, blobflow_serve, docker_registry, run


class Edge(msgspec.Struct, frozen=True):
    """A pull-through cache, what it fetches from, and the list of all images there."""

    registry: Registry
    upstream: Registry
    images: Path
    home: Path

    def warm(self, *arguments: str) -> Run:
        where = ["--from", self.upstream.host, "--images", str(self.images), "--edge", self.registry.host]
        return blobflow("warm", *where, *arguments, home=self.home)

    def warmed(self, *arguments: str) -> list[dict[str, Any]]:
        """As `warm`, which must succeed: what it says of each image."""
        done = self.warm(*arguments, "--json")
        assert done.code == 0, done.err
        images: list[dict[str, Any]] = json.loads(done.out)["images"]
        return images

    def stop_upstream(self) -> None:
        self.upstream.process.terminate()
        self.upstream.process.wait()


@pytest.fixture
def upstream(programs: None, small_set: imageset.Layout, tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "upstream") as registry:
        imageset.push(small_set.path, registry.host)
        yield registry


@pytest.fixture
def edge(upstream: Registry, small_set: imageset.Layout, tmp_path: Path, home: Path) -> Iterator[Edge]:
    with docker_registry(tmp_path / "edge", upstream.host) as registry:
        upstream.forget()
        yield Edge(registry, upstream, small_set.path / "images.txt", home)


def placements(layout: imageset.Layout) -> list[tuple[str, str]]:
    """Every (repository, digest) under which a blob of the set can be asked for."""
    return sorted({(image.repository, digest) for image in layout.images.values() for digest in image.blobs})


def pull_all(registry: Registry, layout: imageset.Layout, folder: Path) -> list[Run]:
    """Pull every image with all its platforms, as skopeo does."""
    return [
        run(
            [
                *("skopeo", "--insecure-policy", "copy", "--all", "--src-tls-verify=false"),
                f"docker://{registry.host}/{name}",
                f"oci:{folder / str(number)}:it",
            ],
            folder,
        )
        for number, name in enumerate(layout.images)
    ]


def test_a_warm_edge_serves_everything_when_its_upstream_is_gone(
    edge: Edge, small_set: imageset.Layout, tmp_path: Path
) -> None:
    images = edge.warmed()

    assert [image["status"] for image in images] == ["warm"] * len(small_set.images)
    # docker-registry 2.8.2 reads a cold blob once for the client and once for itself, for each repository;
    # and once more when we look before it has stored it.
    reads, there = edge.upstream.requests().reads_of_blobs(), placements(small_set)
    assert set(reads) == {digest for _, digest in there}
    assert 2 * len(there) <= reads.total() < 3 * len(there)

    edge.upstream.forget()
    assert [image["pulled"] for image in edge.warmed()] == [0] * len(images)
    assert edge.upstream.requests().reads_of_blobs() == {}

    edge.stop_upstream()
    pulls = pull_all(edge.registry, small_set, tmp_path / "pulled")
    assert [(pull.code, pull.err) for pull in pulls] == [(0, "")] * len(small_set.images)


def test_blobflow_as_the_edge_reads_each_blob_once(
    upstream: Registry, small_set: imageset.Layout, tmp_path: Path, home: Path
) -> None:
    with blobflow_serve(tmp_path / "edge", "--upstream", upstream.host) as registry:
        upstream.forget()
        edge = Edge(registry, upstream, small_set.path / "images.txt", home)
        images = edge.warmed()

        assert [image["status"] for image in images] == ["warm"] * len(small_set.images)
        reads = upstream.requests().reads_of_blobs()
        assert reads == dict.fromkeys({digest for _, digest in placements(small_set)}, 1)
        edge.stop_upstream()
        for repository, digest in placements(small_set):
            status, _, body = registry.ask("GET", f"/v2/{repository}/blobs/{digest}")
            assert (status, digest_of(body)) == (200, digest)


def test_only_the_chosen_platforms_are_pulled_and_an_image_that_is_not_there_fails_alone(
    edge: Edge, small_set: imageset.Layout, tmp_path: Path
) -> None:
    listed = tmp_path / "more.txt"
    listed.write_text(edge.images.read_text() + "\nno/such:thing\n")
    more = msgspec.structs.replace(edge, images=listed)

    done = more.warm("--platform", "linux/arm64")

    lines = done.out.splitlines()
    assert [line for line in lines if not line.startswith("warm: ")] == [lines[-1]]
    assert lines[-1].startswith(f"failed: {edge.registry.host}/no/such:thing: ")
    assert done.err.splitlines()[-1] == f"blobflow: 1 of {len(lines)} images are not warm"
    assert done.code == 3
    read = edge.upstream.requests().reads_of_blobs()
    assert 0 < len(read) < len({digest for _, digest in placements(small_set)})
