"""Content that real registries lost under images that are current: found by later runs, and brought again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.oci import parse_reference
from blobflow.settings import Settings
from tests.library import mirror
from tools import imageset
from tools.access_log import Requests
from tools.processes import Registry, Run, blobflow, docker_registry


@pytest.fixture
def layout(tmp_path: Path) -> imageset.Layout:
    return imageset.synthetic(tmp_path / "set", seed=5)


@pytest.fixture
def source(programs: None, layout: imageset.Layout, tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "source") as registry:
        imageset.push(layout.path, registry.host)
        yield registry


def sync(source: Registry, target: Registry, layout: imageset.Layout, home: Path, *more: str) -> Run:
    images = layout.path / "images.txt"
    return blobflow(
        *("sync", "--from", source.host, "--to", target.host, "--images", str(images), *more), home=home
    )


def lose(registry: Registry, repository: str, digest: str, *, manifest: bool = False) -> None:
    """Let a registry lose a blob or a manifest of a repository, as a crash or a careless hand does."""
    repositories = registry.root / "docker/registry/v2/repositories"
    if repositories.exists():
        kind = "_manifests/revisions" if manifest else "_layers"
        (repositories / repository / kind / digest.replace(":", "/") / "link").unlink()
    else:
        kind = "manifests" if manifest else "blobs"
        assert registry.ask("DELETE", f"/v2/{repository}/{kind}/{digest}")[0] == 202


def holds(registry: Registry, repository: str, digest: str) -> bool:
    return registry.ask("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200


def pairs_of(source: Registry, target: Registry, names: Sequence[str]) -> list[Pair]:
    return [
        Pair(parse_reference(f"{source.host}/{name}"), parse_reference(f"{target.host}/{name}"))
        for name in names
    ]


async def test_a_blob_that_got_lost_is_found_by_rolling_runs_and_put_again(
    source: Registry, target: Registry, layout: imageset.Layout, tmp_path: Path
) -> None:
    settings = Settings(cache_dir=tmp_path / "cache")
    images = list(layout.images.values())[:2]
    pairs = pairs_of(source, target, [image.name for image in images])
    assert (await mirror(pairs, settings)).ok
    repository, lost = images[1].repository, sorted(images[1].blobs)[0]
    lose(target, repository, lost)
    assert not holds(target, repository, lost)
    parts = sum(1 + len(image.children) + 6 * len(image.children) for image in images)
    for _ in range(5 * parts):
        report = await mirror(pairs, settings)
        assert report.ok
        if report.totals.incomplete:
            break
    assert holds(target, repository, lost)
    assert lost in report.notes[0]
    assert [image.status for image in report.images] == ["present", "done"]


@pytest.mark.parametrize("manifest", [True, False])
def test_what_got_lost_is_put_again_where_everything_is_audited(
    source: Registry, target: Registry, layout: imageset.Layout, home: Path, manifest: bool
) -> None:
    assert sync(source, target, layout, home).code == 0
    for image in layout.images.values():
        lost = sorted(image.children if manifest else image.blobs)[-1]
        lose(target, image.repository, lost, manifest=manifest)
    assert sync(source, target, layout, home, "--audit", "none").out.count("present") > 0
    source.forget()
    planned = sync(source, target, layout, home, "--audit", "all", "--dry-run")
    assert planned.code == 0
    assert "0 current" in planned.out
    done = sync(source, target, layout, home, "--audit", "all")
    assert done.code == 0, done.err
    assert f"{len(layout.images)} done" in done.out
    for image in layout.images.values():
        for digest in image.children:
            assert target.digest_of(image.repository, digest) == digest
        assert all(holds(target, image.repository, digest) for digest in image.blobs)
    again = sync(source, target, layout, home, "--audit", "all")
    assert f"{len(layout.images)} present" in again.out
    assert "0 images incomplete" in again.out


async def test_a_twentieth_of_the_requests_of_unchanged_runs_is_spent_on_looking(
    source: Registry, programs: None, layout: imageset.Layout, tmp_path: Path
) -> None:
    settings = Settings(cache_dir=tmp_path / "cache")
    with docker_registry(tmp_path / "target") as target:
        pairs = pairs_of(source, target, list(layout.images))
        assert (await mirror(pairs, settings)).ok
        source.forget()
        target.forget()
        requests = 0
        for _ in range(50):
            requests += (await mirror(pairs, settings)).totals.requests
        asked = target.requests()
        looks = len(asked) - _of_tags(asked)
        assert len(asked) + len(source.requests()) == requests
        assert looks * 20 <= requests <= looks * 23
        assert (await mirror(pairs, settings, Policy(audit="all"))).totals.audited == len(pairs)


def _of_tags(asked: Requests) -> int:
    return sum(r.method == "HEAD" and "/manifests/" in r.path and "sha256:" not in r.path for r in asked)


@pytest.mark.parametrize("manifest", [True, False])
def test_damage_that_a_registry_keeps_is_no_success(
    source: Registry, programs: None, layout: imageset.Layout, home: Path, tmp_path: Path, manifest: bool
) -> None:
    """docker-registry answers 201, and does not write again what it has under a digest."""
    with docker_registry(tmp_path / "target") as target:
        assert sync(source, target, layout, home).code == 0
        image = next(iter(layout.images.values()))
        digest = next(iter(image.children if manifest else image.blobs))
        encoded = digest.partition(":")[2]
        data = target.root / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"
        content = data.read_bytes()
        data.write_bytes(content.replace(b'"schemaVersion"', b'"schemaversion"') if manifest else content[:9])
        for mode in ("all", "rolling", "rolling"):
            done = sync(source, target, layout, home, "--audit", mode)
            assert done.code == 3, done.err
            assert f"{'manifest' if manifest else 'blob'} {digest}" in done.err
        data.write_bytes(content)
        assert sync(source, target, layout, home).code == 0
