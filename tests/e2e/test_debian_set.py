"""A real multi-platform set, from one real registry to others, as the registries themselves tell it.

The registries are Debian's docker-registry; what was read, uploaded and mounted stands in their access logs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.e2e.conftest import StartsRegistries
from tools.access_log import Requests
from tools.imageset import Layout
from tools.processes import BLOBFLOW, Registry, Run, blobflow, blobflow_serve, docker_registry, skopeo
from tools.processes import run as measured

PREFIX = "mirror"
PEAK = 150_000_000  # bytes of memory; a run over 500 MB of blobs must not need more

pytestmark = pytest.mark.timeout(600)  # the set may have to be downloaded and packed first


class Mirrored(msgspec.Struct, frozen=True):
    """One cold run, and what both registries were asked in it. `home` remembers the run."""

    target: Registry
    home: Path
    price: dict[str, int]
    run: Run
    report: dict[str, dict[str, int]]
    at_source: Requests
    at_target: Requests


@pytest.fixture(scope="module")
def mirrored(
    debian_set: Layout, debian_source: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mirrored]:
    folder = tmp_path_factory.mktemp("mirrored")
    home = folder / "home"
    with docker_registry(folder / "target") as target:
        arguments = between(debian_source, [target], debian_set)
        plan = blobflow("plan", *arguments, "--json", home=folder / "elsewhere")
        assert plan.code == 0, plan.err
        debian_source.forget()
        target.forget()
        run = measured([*BLOBFLOW, "sync", *arguments, "--report", str(folder / "report.json")], home)
        assert run.code == 0, run.err
        yield Mirrored(
            target,
            home,
            json.loads(plan.out)["price"],
            run,
            json.loads((folder / "report.json").read_text()),
            debian_source.requests(),
            target.requests(),
        )


def between(source: Registry, targets: Sequence[Registry], layout: Layout) -> list[str]:
    """The arguments that name the whole set, from the source to each target."""
    arguments = ["--from", source.host, "--images", str(layout.path / "images.txt")]
    for target in targets:
        arguments += ["--to", f"{target.host}/{PREFIX}"]
    return arguments


def placements(layout: Layout) -> set[tuple[str, str]]:
    """Every (repository, digest) that a whole mirror of the set has a blob at."""
    return {(image.repository, digest) for image in layout.images.values() for digest in image.blobs}


def tags_at(registry: Registry, layout: Layout, prefix: str = f"{PREFIX}/") -> dict[str, str | None]:
    return {
        name: registry.digest_of(f"{prefix}{image.repository}", image.tag)
        for name, image in layout.images.items()
    }


def roots_of(layout: Layout) -> dict[str, str | None]:
    return {name: image.digest for name, image in layout.images.items()}


def assert_skopeo_gets_all(registry: Registry, layout: Layout, folder: Path) -> None:
    """Copy every image with all of its platforms out of the registry; skopeo checks each blob's digest."""
    for name, image in layout.images.items():
        taken = folder / "taken"
        source = f"docker://{registry.host}/{PREFIX}/{name}"
        run = skopeo("copy", "--all", "--src-tls-verify=false", source, f"dir:{taken}", home=folder / "home")
        assert run.code == 0, run.err
        listing = (taken / "manifest.json").read_bytes()
        assert f"sha256:{hashlib.sha256(listing).hexdigest()}" == image.digest
        assert {f"sha256:{file.name}" for file in taken.iterdir()} >= set(image.blobs)
        shutil.rmtree(taken)


def test_every_tag_names_the_same_index_at_both_ends(
    mirrored: Mirrored, debian_source: Registry, debian_set: Layout
) -> None:
    assert len(debian_set.images) >= 15
    assert debian_set.unique_bytes >= 400_000_000
    assert tags_at(debian_source, debian_set, prefix="") == roots_of(debian_set)
    assert tags_at(mirrored.target, debian_set) == roots_of(debian_set)


def test_each_blob_is_read_exactly_once_from_the_source(mirrored: Mirrored, debian_set: Layout) -> None:
    assert mirrored.at_source.reads_of_blobs() == Counter(debian_set.blobs.keys())


def test_each_blob_is_uploaded_exactly_once_and_mounted_into_the_rest(
    mirrored: Mirrored, debian_set: Layout
) -> None:
    uploads, mounts = mirrored.at_target.uploads(), mirrored.at_target.mounts_201()
    assert uploads == Counter(debian_set.blobs.keys())
    assert len(set(mounts)) == len(mounts) == len(placements(debian_set)) - len(debian_set.blobs)
    assert mirrored.at_target.opened_uploads() == len(debian_set.blobs), "a mount was refused"


def test_the_plan_told_the_mounts_and_bytes_before(mirrored: Mirrored, debian_set: Layout) -> None:
    assert mirrored.price["mounts"] == len(mirrored.at_target.mounts_201())
    assert mirrored.price["bytes_to_read"] == debian_set.unique_bytes


def test_the_report_says_what_the_registries_say(mirrored: Mirrored, debian_set: Layout) -> None:
    totals = mirrored.report["totals"]
    assert (totals["images"], totals["failed"]) == (len(debian_set.images), 0)
    assert totals["blobs_copied"] == mirrored.at_target.uploads().total()
    assert totals["blobs_mounted"] == len(mirrored.at_target.mounts_201())
    assert totals["requests"] == len(mirrored.at_source) + len(mirrored.at_target)
    assert len(mirrored.report["images"]) == len(debian_set.images)


def test_memory_stays_small_over_the_whole_set(mirrored: Mirrored) -> None:
    assert mirrored.run.peak < PEAK


def test_skopeo_copies_every_image_out_of_the_target(
    mirrored: Mirrored, debian_set: Layout, tmp_path: Path
) -> None:
    assert_skopeo_gets_all(mirrored.target, debian_set, tmp_path)


def test_a_second_run_costs_one_head_a_tag_at_each_end_and_nothing_else(
    mirrored: Mirrored, debian_source: Registry, debian_set: Layout
) -> None:
    debian_source.forget()
    mirrored.target.forget()
    run = blobflow("sync", *between(debian_source, [mirrored.target], debian_set), home=mirrored.home)
    assert run.code == 0, run.err
    for registry, prefix in ((debian_source, ""), (mirrored.target, f"{PREFIX}/")):
        asked = Counter((request.method, request.path) for request in registry.requests())
        assert asked == {
            ("HEAD", f"/v2/{prefix}{image.repository}/manifests/{image.tag}"): 1
            for image in debian_set.images.values()
        }


def test_a_run_that_does_not_remember_repairs_a_deleted_child(
    mirrored: Mirrored, debian_source: Registry, debian_set: Layout, home: Path
) -> None:
    name, image = next(iter(debian_set.images.items()))
    repository, child = f"{PREFIX}/{image.repository}", next(iter(image.children))
    status, _, _ = mirrored.target.ask("DELETE", f"/v2/{repository}/manifests/{child}")
    assert status == 202
    assert mirrored.target.digest_of(repository, child) is None
    assert mirrored.target.digest_of(repository, image.tag) == image.digest, f"{name} looks whole"
    debian_source.forget()
    mirrored.target.forget()
    run = blobflow("sync", *between(debian_source, [mirrored.target], debian_set), home=home)
    assert run.code == 0, run.err
    assert mirrored.target.digest_of(repository, child) == child
    assert not debian_source.requests().reads_of_blobs()
    assert not mirrored.target.requests().uploads()


def test_two_targets_cost_one_read_a_blob(
    debian_source: Registry, debian_set: Layout, start_registry: StartsRegistries, tmp_path: Path, home: Path
) -> None:
    targets = [start_registry("one"), start_registry("two")]
    spec = {
        "version": 1,
        "defaults": {"source": debian_source.host, "targets": [f"{t.host}/{PREFIX}" for t in targets]},
        "images": list(debian_set.images),
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))  # JSON is YAML
    debian_source.forget()
    run = blobflow("sync", tmp_path / "spec.yaml", home=home)
    assert run.code == 0, run.err
    assert debian_source.requests().reads_of_blobs() == Counter(debian_set.blobs.keys())
    for target in targets:
        requests = target.requests()
        assert requests.uploads() == Counter(debian_set.blobs.keys())
        assert len(requests.mounts_201()) == len(placements(debian_set)) - len(debian_set.blobs)
        assert tags_at(target, debian_set) == roots_of(debian_set)


def test_the_set_goes_into_blobflow_serve_and_out_of_it_with_skopeo(
    debian_source: Registry, debian_set: Layout, tmp_path: Path, home: Path
) -> None:
    with blobflow_serve(tmp_path / "served") as served:
        run = blobflow("sync", *between(debian_source, [served], debian_set), home=home)
        assert run.code == 0, run.err
        assert tags_at(served, debian_set) == roots_of(debian_set)
        assert_skopeo_gets_all(served, debian_set, tmp_path)
