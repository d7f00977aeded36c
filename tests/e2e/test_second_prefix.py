"""A set that a real registry has comes again under another prefix: by mounts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartsRegistries
from tools import imageset
from tools.processes import Registry, blobflow


@pytest.fixture
def layout(tmp_path: Path) -> imageset.Layout:
    return imageset.synthetic(tmp_path / "set", seed=5)


def sync(target: Registry, prefix: str, layout: imageset.Layout, home: Path, *more: str) -> dict[str, Any]:
    """Mirror the set to `prefix`; the totals of its report."""
    report = home.parent / "report.json"
    run = blobflow(
        *("sync", "--from", f"oci:{layout.path}", "--to", f"{target.host}/{prefix}"),
        *("--images", str(layout.path / "images.txt"), "--report", str(report), *more),
        home=home,
    )
    assert run.code == 0, run.err
    totals: dict[str, Any] = json.loads(report.read_bytes())["totals"]
    return totals


def test_the_second_prefix_moves_no_byte_of_a_blob(
    target: Registry, layout: imageset.Layout, home: Path
) -> None:
    first = sync(target, "one", layout, home)
    assert first["blobs_copied"] > 0
    second = sync(target, "two", layout, home)
    assert second["blobs_copied"] == 0
    assert second["blobs_mounted"] == first["blobs_copied"] + first["blobs_mounted"]
    sent = first["bytes_written"] - second["bytes_written"]
    assert second["bytes_mounted"] == sent + first["bytes_mounted"], "what is sent now are manifests alone"


def test_docker_registry_refuses_none_of_the_mounts(
    start_registry: StartsRegistries, layout: imageset.Layout, home: Path
) -> None:
    target = start_registry("target")
    sync(target, "one", layout, home)
    target.forget()
    second = sync(target, "two", layout, home)
    asked = target.requests()
    assert len(asked.mounts_201()) == second["blobs_mounted"]
    assert not asked.uploads()
    assert asked.opened_uploads() == 0
