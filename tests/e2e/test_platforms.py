"""Some platforms of real images: at a registry that refuses sparse indexes, and at one that takes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blobflow.oci import media
from tests.e2e.conftest import StartsRegistries
from tests.e2e.pushed_images import put_image, put_index
from tools import imageset
from tools.imageset import Layout
from tools.processes import Registry, Run, blobflow, blobflow_serve, skopeo

ARM64 = ("--platform", "linux/arm64")


@pytest.fixture
def source(tmp_path: Path, small_set: Layout) -> Iterator[Registry]:
    with blobflow_serve(tmp_path / "source") as registry:
        imageset.push(small_set.path, registry.host)
        yield registry


class Synced:
    def __init__(self, source: Registry, layout: Layout, home: Path) -> None:
        self.source, self.layout, self.home = source, layout, home

    def to(self, target: Registry, *arguments: str) -> tuple[Run, list[dict[str, Any]]]:
        report = self.home / "report.json"
        self.home.mkdir(exist_ok=True)
        images = ["--from", self.source.host, "--images", str(self.layout.path / "images.txt")]
        places = [*images, "--to", f"{target.host}/m", "--report", str(report)]
        run = blobflow("sync", *places, *arguments, home=self.home)
        return run, json.loads(report.read_text())["images"]


@pytest.fixture
def synced(source: Registry, small_set: Layout, home: Path) -> Synced:
    return Synced(source, small_set, home)


def index_at(registry: Registry, image: dict[str, Any]) -> dict[str, list[dict[str, dict[str, str]]]]:
    repository, _, tag = image["target"].partition("/")[2].rpartition(":")
    accept = {"Accept": ", ".join(sorted(media.INDEXES))}
    status, _, raw = registry.ask("GET", f"/v2/{repository}/manifests/{tag}", accept)
    assert status == 200
    found: dict[str, list[dict[str, dict[str, str]]]] = json.loads(raw)
    return found


def test_auto_prunes_for_docker_registry_and_the_second_run_moves_nothing(
    synced: Synced, start_registry: StartsRegistries, tmp_path: Path
) -> None:
    target = start_registry("target")
    run, images = synced.to(target, *ARM64)
    assert run.code == 0, run.err
    for image in images:
        assert image["platforms"] == ["linux/arm64/v8"]
        assert image["digest"] != image["source_digest"]
        assert f"{image['source']}@{image['source_digest']} -> {image['target']}@{image['digest']}" in run.out
        [child] = index_at(target, image)["manifests"]
        assert child["platform"]["architecture"] == "arm64"
    taken = skopeo(
        *("copy", "--override-arch", "arm64", "--src-tls-verify=false"),
        *(f"docker://{images[0]['target']}", f"dir:{tmp_path / 'taken'}"),
        home=synced.home,
    )
    assert taken.code == 0, taken.err

    target.forget()
    run, again = synced.to(target, *ARM64)
    assert run.code == 0 and {image["status"] for image in again} == {"present"}
    assert [image["digest"] for image in again] == [image["digest"] for image in images]
    assert target.requests().counts() == Counter({"HEAD manifests": len(images)})


def test_keep_is_refused_by_docker_registry_in_words_that_help(
    synced: Synced, start_registry: StartsRegistries
) -> None:
    target = start_registry("target")
    run, images = synced.to(target, *ARM64, "--index", "keep")
    assert run.code == 3
    assert {image["status"] for image in images} == {"failed"}
    assert "takes no sparse index: use --index prune, or --index auto" in run.err


@pytest.mark.parametrize("mode", ["auto", "keep"])
def test_a_registry_that_takes_sparse_indexes_gets_them_and_later_the_rest(
    synced: Synced, tmp_path: Path, mode: str
) -> None:
    with blobflow_serve(tmp_path / "target", "--sparse", "accept") as target:
        run, images = synced.to(target, *ARM64, "--index", mode)
        assert run.code == 0, run.err
        assert all(image["digest"] == image["source_digest"] for image in images)
        assert len(index_at(target, images[0])["manifests"]) > 1
        run, images = synced.to(target)
        assert run.code == 0, run.err
        assert {image["status"] for image in images} == {"done"}
        assert all(len(image["platforms"]) > 1 for image in images)
        run, images = synced.to(target)
        assert {image["status"] for image in images} == {"present"}


def test_prune_and_only(synced: Synced, tmp_path: Path) -> None:
    with blobflow_serve(tmp_path / "target", "--sparse", "accept") as target:
        run, pruned = synced.to(target, *ARM64, "--index", "prune")
        assert run.code == 0, run.err
        assert all(image["digest"] != image["source_digest"] for image in pruned)
        run, only = synced.to(target, "--index", "only")
        assert run.code == 0, run.err
        assert all(image["digest"] == image["source_digest"] for image in only)
        verified = blobflow(
            *("verify", "--from", synced.source.host, "--to", f"{target.host}/m"),
            *("--images", synced.layout.path / "images.txt", "--index", "only"),
            home=synced.home,
        )
        assert verified.code == 0, verified.out + verified.err


def test_verify_knows_a_pruned_index(synced: Synced, start_registry: StartsRegistries) -> None:
    target = start_registry("target")
    assert synced.to(target, *ARM64)[0].code == 0
    arguments = ["--from", synced.source.host, "--images", str(synced.layout.path / "images.txt")]
    arguments += ["--to", f"{target.host}/m", "--verify", "blobs"]
    right = blobflow("verify", *arguments, *ARM64, home=synced.home)
    assert right.code == 0, right.out + right.err
    wrong = blobflow("verify", *arguments, home=synced.home)
    assert wrong.code == 3


def test_a_saved_plan_keeps_what_was_chosen(
    synced: Synced, start_registry: StartsRegistries, tmp_path: Path
) -> None:
    target, lock = start_registry("target"), tmp_path / "mirror.lock"
    images = ["--from", synced.source.host, "--images", str(synced.layout.path / "images.txt")]
    planned = blobflow(
        "plan",
        *images,
        "--to",
        f"{target.host}/m",
        *ARM64,
        "--index",
        "prune",
        "--out",
        lock,
        home=synced.home,
    )
    assert planned.code == 0, planned.err
    applied = blobflow("apply", lock, home=synced.home)
    assert applied.code == 0, applied.err
    run, again = synced.to(target, *ARM64, "--index", "prune")
    assert run.code == 0 and {image["status"] for image in again} == {"present"}
    assert all(image["digest"] != image["source_digest"] for image in again)


def test_docker_registry_gets_whole_what_lists_one_digest_for_two_platforms(
    start_registry: StartsRegistries, home: Path, tmp_path: Path
) -> None:
    """Nothing that it lists is absent, so it is not sparse; an image for amd64 alone is skipped."""
    source, target = start_registry("source"), start_registry("target")
    image = put_image(source, "twice")
    root = put_index(source, "twice", [image, image], "1")
    put_image(source, "alone", "1")
    images, report = tmp_path / "images.txt", tmp_path / "report.json"
    images.write_text("twice:1\nalone:1\n")
    run = blobflow(
        *("sync", "--from", source.host, "--to", target.host, "--images", images, "--report", report, *ARM64),
        home=home,
    )
    assert run.code == 0, run.err
    twice, alone = json.loads(report.read_text())["images"]
    assert (twice["status"], twice["digest"]) == ("done", root)
    assert (alone["status"], alone["reason"]) == (
        "skipped",
        "there is no linux/arm64 here; there is linux/amd64",
    )
    assert target.ask("GET", "/v2/alone/tags/list")[0] == 404
    for architecture in ("amd64", "arm64"):
        taken = skopeo(
            *("inspect", "--override-arch", architecture, "--tls-verify=false", "--format", "{{.Digest}}"),
            f"docker://{target.host}/twice:1",
            home=home,
        )
        assert taken.code == 0 and taken.out.strip() == root, taken.err
