"""A build's cache, an index of blobs, in layouts and archives: `copy`, `save`, `load`, `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.oci import media
from tests.fakes.layouts import NAME, Layout

CACHE = "docker.io/team/app:cache"


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Layout, dict[str, Any]]:
    """A layout with a cache, and the cache's descriptor."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout = Layout(tmp_path / "layout")
    step = layout.put(b"a step", media.OCI_LAYER_GZIP)
    config = layout.put(b"{}", "application/vnd.buildkit.cacheconfig.v0")
    root = layout.index(step, config)
    layout.tag(root, CACHE)
    return layout, root


def run(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done


def whole(folder: Path, root: dict[str, Any], source: Layout) -> bool:
    """Whether a layout has the cache, and all that it lists, byte for byte."""
    (entry,) = json.loads((folder / "index.json").read_bytes())["manifests"]
    listed = json.loads(source.path(root["digest"]).read_bytes())["manifests"]
    paths = [Path("blobs", *each["digest"].split(":")) for each in (root, *listed)]
    same = all((folder / path).read_bytes() == (source.folder / path).read_bytes() for path in paths)
    return bool(entry["digest"] == root["digest"] and same)


def test_a_cache_goes_into_an_archive_and_is_loaded_from_it(
    cached: tuple[Layout, dict[str, Any]], tmp_path: Path
) -> None:
    layout, root = cached
    run("copy", f"oci:{layout.folder}:{CACHE}", f"oci-archive:{tmp_path}/a.tar:{CACHE}")
    done = run("load", tmp_path / "a.tar", "--to", f"oci:{tmp_path}/out")
    assert "2 blobs copied" in done.stdout
    assert whole(tmp_path / "out", root, layout)
    assert "blob " in run("inspect", f"oci-archive:{tmp_path}/a.tar:{CACHE}").stdout


def test_a_cache_is_saved_among_images(cached: tuple[Layout, dict[str, Any]], tmp_path: Path) -> None:
    layout, root = cached
    (tmp_path / "list").write_text(f"{CACHE}\n")
    run("save", "--from", f"oci:{layout.folder}", "--images", tmp_path / "list", "-o", tmp_path / "s.tar")
    run("load", tmp_path / "s.tar", "--to", f"oci:{tmp_path}/out")
    assert whole(tmp_path / "out", root, layout)


def test_a_cache_that_lost_a_blob_fails_and_names_it(
    cached: tuple[Layout, dict[str, Any]], tmp_path: Path
) -> None:
    layout, root = cached
    step, _ = json.loads(layout.path(root["digest"]).read_bytes())["manifests"]
    layout.lose(step)
    failed = run("copy", f"oci:{layout.folder}:{CACHE}", f"oci:{tmp_path}/out:x", code=5)
    assert step["digest"] in failed.stderr
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_cache_can_t_be_joined_with_an_image_of_its_name(
    cached: tuple[Layout, dict[str, Any]], tmp_path: Path
) -> None:
    layout, _ = cached
    run("copy", f"oci:{layout.folder}:{CACHE}", f"oci-archive:{tmp_path}/a.tar:{CACHE}")
    other = Layout(tmp_path / "other")
    other.tag(other.image("amd64"), CACHE)
    run("copy", f"oci:{other.folder}:{CACHE}", f"oci-archive:{tmp_path}/b.tar:{CACHE}")
    failed = run("load", tmp_path / "a.tar", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/out", code=7)
    assert "a.tar" in failed.stderr
    assert "joined" in failed.stderr


def test_a_cache_has_no_files_to_export(cached: tuple[Layout, dict[str, Any]], tmp_path: Path) -> None:
    layout, _ = cached
    failed = run("export", f"oci:{layout.folder}:{CACHE}", "-o", tmp_path / "rootfs", code=7)
    assert "Traceback" not in failed.output
    assert not (tmp_path / "rootfs").exists()


def test_a_layout_s_cache_that_is_called_by_no_name_is_found_by_its_number(
    cached: tuple[Layout, dict[str, Any]], tmp_path: Path
) -> None:
    """As BuildKit's local cache and others leave it."""
    layout, root = cached
    listed = json.loads((layout.folder / "index.json").read_bytes())
    listed["manifests"][0]["annotations"].pop(NAME)
    (layout.folder / "index.json").write_text(json.dumps(listed))
    run("copy", f"oci:{layout.folder}:@0", f"oci:{tmp_path}/out:x")
    assert whole(tmp_path / "out", root, layout)
