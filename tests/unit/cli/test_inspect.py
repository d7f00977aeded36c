"""`inspect` of indexes that are not all there, and of those that list more than images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.oci import media
from tests.fakes.layouts import NAME, Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Layout(tmp_path / "layout")


def inspect(layout: Layout, *options: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["inspect", *options, f"oci:{layout.folder}:x"])
    assert done.exit_code == code, done.output
    return done


def test_what_a_sparse_index_lacks_is_marked(layout: Layout) -> None:
    """As containerd exports one platform of an image."""
    here, gone = layout.image("amd64"), layout.image("arm64")
    root = layout.index(here, gone)
    layout.tag(root)
    layout.lose(gone)
    first, second = inspect(layout).stdout.split("\nlinux/")[1:]
    assert ("absent" in first, "absent" in second) == (False, True)
    assert gone["digest"] in second
    amd64, arm64 = json.loads(inspect(layout, "--json").stdout)["manifests"]
    assert "absent" not in amd64
    assert len(amd64["layers"]) == 1
    assert (arm64["absent"], arm64["digest"]) == (True, gone["digest"])
    assert "layers" not in arm64
    assert inspect(layout, "--raw").stdout_bytes == layout.path(root["digest"]).read_bytes()


def test_what_an_index_inside_an_index_lacks_is_marked(layout: Layout) -> None:
    here, gone, deep = layout.image("amd64"), layout.image("arm64"), layout.image("s390x")
    inner = layout.index(here, gone)
    lost = layout.index(deep)
    layout.tag(layout.index(here, inner, lost))
    layout.lose(gone)
    layout.lose(lost)
    marked = [line.split()[1] for line in inspect(layout).stdout.splitlines() if line.startswith("  absent")]
    assert marked == [gone["digest"], "not"]
    _, found, not_found = json.loads(inspect(layout, "--json").stdout)["manifests"]
    assert [child.get("absent", False) for child in found["manifests"]] == [False, True]
    assert not_found["absent"]
    assert "manifests" not in not_found


def test_an_index_of_which_nothing_is_there_can_be_looked_at(layout: Layout) -> None:
    gone = layout.image("amd64")
    layout.tag(layout.index(gone))
    layout.lose(gone)
    assert inspect(layout).stdout.count("absent") == 1
    assert json.loads(inspect(layout, "--json").stdout)["manifests"][0]["absent"]


def test_what_an_index_lists_that_is_no_image_is_shown_as_it_lists_it(layout: Layout) -> None:
    image = layout.image("amd64")
    layer = layout.put(b"cached", media.OCI_LAYER_GZIP, annotations={"buildkit/createdat": "then"})
    cache = layout.put(b"{}", "application/vnd.buildkit.cacheconfig.v0")
    layout.tag(layout.index(layer, image, cache))
    lines = inspect(layout).stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("blob ")] == [
        layer["digest"],
        cache["digest"],
    ]
    assert lines[-1].split()[-2:] == ["8", "B"]
    listed = json.loads(inspect(layout, "--json").stdout)["manifests"]
    assert {each["digest"] for each in listed} == {image["digest"], layer["digest"], cache["digest"]}
    assert listed[1:] == [layer, cache]


def test_what_is_there_and_wrong_is_no_gap(layout: Layout) -> None:
    here, wrong = layout.image("amd64"), layout.image("arm64")
    root = layout.index(here, wrong)
    layout.tag(root)
    layout.path(wrong["digest"]).write_bytes(b"{}")
    for options in ((), ("--json",)):
        assert wrong["digest"][7:] in inspect(layout, *options, code=6).stderr
    assert inspect(layout, "--raw").stdout_bytes == layout.path(root["digest"]).read_bytes(), "it is alone"


def test_a_root_that_is_not_there_is_an_error(layout: Layout) -> None:
    root = layout.index()
    layout.tag(root)
    layout.lose(root)
    for options in ((), ("--json",), ("--raw",)):
        assert root["digest"] in inspect(layout, *options, code=5).stderr


def test_configs_are_not_read(layout: Layout) -> None:
    """Whatever they are: 0 bytes, no JSON, or not there."""
    image = layout.image("amd64")
    for content in (b"", b"\x00not JSON"):
        config = layout.put(content, media.OCI_CONFIG)
        document = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": None}
        odd = layout.put(document, media.OCI_MANIFEST)
        layout.tag(layout.index(image, odd))
        assert config["digest"] in inspect(layout).stdout
        layout.lose(config)
        assert config["digest"] in inspect(layout, "--json").stdout


def test_a_layout_may_list_what_is_no_manifest_beside_its_images(layout: Layout) -> None:
    """image-layout.md has such an example: numbers of images count all that index.json lists."""
    image, notes = layout.image("amd64"), layout.put(b"<xml/>", "application/xml")
    listed = {"schemaVersion": 2, "manifests": [notes, {**image, "annotations": {NAME: "x"}}]}
    (layout.folder / "index.json").write_text(json.dumps(listed))
    assert image["digest"] in inspect(layout).stdout
    by_number = CliRunner().invoke(cli, ["inspect", f"oci:{layout.folder}:@1"])
    assert image["digest"] in by_number.stdout
    assert CliRunner().invoke(cli, ["inspect", f"oci:{layout.folder}:@0"]).exit_code == 7
