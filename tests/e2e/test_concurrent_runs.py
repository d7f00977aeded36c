"""Two runs of the same set into one registry, at the same time: the end is that of one run.

They share a store, or have one each; who of them uploads, mounts or puts what is left to chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tools import imageset
from tools.processes import Registry, Run, blobflow, blobflow_serve, docker_registry

RUNS = 2
PREFIX = "mirror"
Starts = Callable[[Path], AbstractContextManager[Registry]]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> imageset.Layout:
    return imageset.synthetic(tmp_path_factory.mktemp("set"), seed=4)


@pytest.fixture(scope="module")
def source(
    programs: None, layout: imageset.Layout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("source")) as registry:
        imageset.push(layout.path, registry.host)
        yield registry


def sync(source: Registry, target: Registry, layout: imageset.Layout, home: Path, report: Path) -> Run:
    images = layout.path / "images.txt"
    arguments = ["--from", source.host, "--to", f"{target.host}/{PREFIX}", "--images", str(images)]
    return blobflow("sync", "--quiet", *arguments, "--report", report, home=home)


def kept(registry: Registry) -> dict[str, bytes]:
    """Every file of content under the registry's root, with what it says (links) or how long it is (blobs).

    What is kept besides, for the server's own use, is not content: its database and its lock.
    """
    found = {}
    for file in sorted(registry.root.rglob("*")):
        path = file.relative_to(registry.root)
        if file.is_file() and (path.parts[0] in ("docker", "blobs", "partials")):
            found[str(path)] = file.read_bytes() if file.name == "link" else b"%d" % file.stat().st_size
    return found


def whole(registry: Registry, layout: imageset.Layout) -> bool:
    """Whether every tag names its image, and each repository has all of its blobs."""
    for image in layout.images.values():
        repository = f"{PREFIX}/{image.repository}"
        if registry.digest_of(repository, image.tag) != image.digest:
            return False
        for digest in image.blobs:
            if registry.ask("HEAD", f"/v2/{repository}/blobs/{digest}")[0] != 200:
                return False
    return True


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
@pytest.mark.parametrize("starts", [docker_registry, blobflow_serve], ids=["docker-registry", "embedded"])
def test_two_runs_at_once_into_one_registry_end_as_one_run_does(
    starts: Starts, shared: bool, source: Registry, layout: imageset.Layout, tmp_path: Path
) -> None:
    with starts(tmp_path / "alone") as alone:
        assert sync(source, alone, layout, tmp_path / "home", tmp_path / "alone.json").code == 0
        expected = kept(alone)
    homes = [tmp_path / ("both" if shared else f"own-{number}") for number in range(RUNS)]
    reports = [tmp_path / f"{number}.json" for number in range(RUNS)]
    with starts(tmp_path / "target") as target:
        with ThreadPoolExecutor(RUNS) as at_once:
            pending = [
                at_once.submit(sync, source, target, layout, home, report)
                for home, report in zip(homes, reports, strict=True)
            ]
            runs = [each.result() for each in pending]
        assert [(run.code, run.err) for run in runs] == [(0, "")] * RUNS
        for report in reports:
            assert json.loads(report.read_bytes())["totals"]["failed"] == 0
        assert whole(target, layout)
        assert kept(target) == expected
        again = sync(source, target, layout, homes[0], tmp_path / "again.json")
        totals = json.loads((tmp_path / "again.json").read_bytes())["totals"]
        assert again.code == 0
        assert (totals["blobs_copied"], totals["blobs_mounted"], totals["manifests_put"]) == (0, 0, 0)
