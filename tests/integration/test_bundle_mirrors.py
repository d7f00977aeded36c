"""What `load` tells of the mirror that it has filled: node configuration, and deployment files that came
along with the images that they name."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.command_line import NAMES, SAMPLE, Place, blobflow, place, source

__all__ = ["place", "source"]

FIRST, SECOND, THIRD = NAMES
SPEC = """\
version: 1
defaults: {{source: '{source}', targets: [registry.example.com/elsewhere]}}
images:
- {first}
- {{image: {second}, target: base/renamed}}
collect: [deploy]
"""
DEPLOYMENT = """\
kind: Deployment
apiVersion: apps/v1
spec: {{template: {{spec: {{containers: [
  {{name: one, image: '{source}/{first}'}},   # as it is
  {{name: two, image: {source}/{second}}},
  {{name: three, image: {source}/{third}}}]}}}}}}
"""
OTHER = "kind: Pod\napiVersion: v1\nspec: {containers: [{name: other, image: 'example.com/not/there:1'}]}\n"


@pytest.fixture
def bundle(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of a spec that renames an image and collects deployment files."""
    monkeypatch.chdir(place.folder)
    names = {"source": place.source, "first": FIRST, "second": SECOND, "third": THIRD}
    Path("deploy").mkdir()
    Path("deploy/app.yaml").write_text(DEPLOYMENT.format(**names))
    Path("mirror.yaml").write_text(SPEC.format(**names))
    blobflow("save", "mirror.yaml", "-o", "b.tar")
    return place.folder / "b.tar"


def index_of(bundle: Path) -> dict[str, Any]:
    with tarfile.open(bundle) as tar:
        content = tar.extractfile("index.json")
        assert content is not None
        return {
            entry["annotations"]["org.opencontainers.image.ref.name"]: entry
            for entry in json.load(content)["manifests"]
        }


def test_a_bundle_says_where_each_image_was(place: Place, bundle: Path) -> None:
    said = {
        name: entry["annotations"].get("io.blobflow.bundle.source")
        for name, entry in index_of(bundle).items()
    }
    tag = SECOND.rpartition(":")[2]
    assert said == {
        f"{place.source}/{FIRST}": f"{place.source}/{FIRST}",
        f"base/renamed:{tag}": f"{place.source}/{SECOND}",
        f"{place.source}/{THIRD}": f"{place.source}/{THIRD}",
        "files/deployments:latest": None,
    }
    rows = blobflow("bundle", "ls", "b.tar").stdout.splitlines()
    told = {row.split()[0]: row for row in rows}
    assert told[f"base/renamed:{tag}"].endswith(f", from {place.source}/{SECOND}")
    assert "file deploy/app.yaml" in told["files/deployments:latest"]
    assert rows[-1].startswith("3 images, 1 file: ")


def test_nodes_and_files_get_the_places_that_the_load_used(place: Place, bundle: Path) -> None:
    mirror = f"{place.target}/m"
    blobflow(
        *(
            "load",
            "b.tar",
            "--to",
            mirror,
            "--rewrite",
            "made",
            "--rewrite-digests",
            "--nodes",
            "kyverno:node",
        ),
        *("--nodes", "podman:node"),
    )
    tag = SECOND.rpartition(":")[2]
    made = Path("made/deploy/app.yaml").read_text()
    digests = {name: index.digest for name, index in SAMPLE.images.items()}
    assert f"image: '{mirror}/{FIRST}@{digests[FIRST]}'}},   # as it is\n" in made
    assert f"image: {mirror}/base/renamed:{tag}@{digests[SECOND]}}}" in made
    for name in blobflow("images", "made", "--plain").stdout.split():
        blobflow("inspect", name)
    [conf] = Path("node").rglob("*.conf")
    assert f'"{mirror}/base/renamed"' in conf.read_text()
    assert [path.suffix for path in Path("node").rglob("*") if path.is_file()].count(".yaml") == 1


def test_a_format_that_can_not_say_a_rename_is_told_after_the_images_are_there(
    place: Place, bundle: Path
) -> None:
    done = blobflow("load", "b.tar", "--to", place.target, "--nodes", "docker:node", code=2)
    assert "docker" in done.stderr and place.source in done.stderr
    assert not Path("node").exists()
    blobflow("inspect", f"{place.target}/{FIRST}")


def test_what_is_not_in_the_bundle_is_left_and_told(place: Place) -> None:
    (place.folder / "deploy").mkdir()
    (place.folder / "deploy" / "app.yaml").write_text(
        OTHER.replace("example.com/not/there:1", f"{place.source}/{FIRST}")
    )
    (place.folder / "deploy" / "b.yaml").write_text(OTHER)
    bundle = str(place.folder / "b.tar")
    saved = blobflow("save", "--images-from", str(place.folder / "deploy"), "-o", bundle, code=3)
    assert "example.com/not/there:1" in saved.stderr
    made = place.folder / "made"
    done = blobflow("load", bundle, "--to", place.target, "--rewrite", str(made), code=3)
    assert "left: b.yaml line 3: example.com/not/there:1 is not among the images that" in done.stderr
    assert f"{place.target}/{FIRST}" in (made / "app.yaml").read_text()
    assert (made / "b.yaml").read_text() == OTHER


def test_a_bundle_without_deployment_files_has_none_to_rewrite(place: Place) -> None:
    bundle = str(place.folder / "b.tar")
    blobflow("save", "--from", place.source, "--images", str(place.list), "-o", bundle)
    done = blobflow("load", bundle, "--to", place.target, "--rewrite", str(place.folder / "made"), code=2)
    assert "no deployment files are in the bundle; `save --images-from` puts them there" in done.stderr


def test_a_locked_image_is_taken_as_it_is_locked_where_files_name_it_too(place: Place) -> None:
    deploy, lock = place.folder / "app.yaml", place.folder / "images.lock"
    deploy.write_text(OTHER.replace("example.com/not/there:1", f"{place.source}/{FIRST}"))
    blobflow("images", str(deploy), "--lock", "-o", str(lock))
    bundle = place.folder / "b.tar"
    blobflow("save", "--images-from", str(lock), "--images-from", str(deploy), "-o", str(bundle))
    found = index_of(bundle)
    assert set(found) == {f"{place.source}/{FIRST}", "files/deployments:latest"}
    said = found[f"{place.source}/{FIRST}"]["annotations"]["io.blobflow.bundle.source"]
    assert said == f"{place.source}/{FIRST}@{SAMPLE.images[FIRST].digest}"


def test_a_bundle_that_does_not_say_where_images_were_is_loaded_by_its_names(place: Place) -> None:
    """As earlier versions wrote them, and as `sync` writes an archive."""
    bundle = str(place.folder / "b.tar")
    blobflow("sync", "--from", place.source, "--to", f"oci-archive:{bundle}", "--images", str(place.list))
    assert "io.blobflow.bundle.source" not in json.dumps(index_of(Path(bundle)))
    blobflow("load", bundle, "--to", f"{place.target}/m", "--nodes", f"podman:{place.folder / 'node'}")
    [conf] = (place.folder / "node").rglob("*.conf")
    assert f'prefix = "{place.source}"' in conf.read_text() and f"{place.target}/m" in conf.read_text()


def test_single_words_of_other_registries_are_where_sync_has_them_too(place: Place, tmp_path: Path) -> None:
    bundle = str(tmp_path / "b.tar")
    blobflow("copy", f"{place.source}/{FIRST}", f"{place.target}/pause:3.9")
    (tmp_path / "one.txt").write_text("pause:3.9")
    blobflow("save", "--from", place.target, "--images", str(tmp_path / "one.txt"), "-o", bundle)
    blobflow("load", bundle, "--to", f"{place.target}/m")
    for name in ("m/pause", "m/library/pause"):
        found = blobflow("digest", f"{place.target}/{name}:3.9").stdout.strip()
        assert found == SAMPLE.images[FIRST].digest


def test_images_of_one_name_go_each_to_its_place_where_these_differ(place: Place, tmp_path: Path) -> None:
    """As `library/pause` of docker.io and `pause` of another registry."""
    bundle = str(tmp_path / "b.tar")
    tag = FIRST.rpartition(":")[2]
    (tmp_path / "spec.yaml").write_text(
        f"version: 1\ndefaults: {{source: '{place.source}', targets: [registry.example.com]}}\n"
        f"images:\n- {{image: {FIRST}, target: library/pause}}\n"
    )
    blobflow("copy", f"{place.source}/{SECOND}", f"{place.target}/pause:{tag}")
    (tmp_path / "one.txt").write_text(f"{place.target}/pause:{tag}\n")
    options = ("--images-from", str(tmp_path / "one.txt"))
    blobflow("save", str(tmp_path / "spec.yaml"), *options, "-o", bundle)
    blobflow("load", bundle, "--to", f"{place.target}/m")
    for name, image in (("m/pause", SECOND), ("m/library/pause", FIRST)):
        found = blobflow("digest", f"{place.target}/{name}:{tag}").stdout.strip()
        assert found == SAMPLE.images[image].digest


def test_what_a_format_can_not_say_may_be_left_out(place: Place, bundle: Path) -> None:
    done = blobflow("load", "b.tar", "--to", f"{place.target}/m", "--nodes", "containerd:node", "--partial")
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: left out: ")]
    assert len(said) == 1 and "base/renamed" in said[0]
    assert [path.name for path in Path("node").rglob("*") if path.is_file()] == ["hosts.toml"]
    refused = blobflow("load", "b.tar", "--to", place.target, "--partial", code=2)
    assert "--partial is about the files of --nodes FORMAT" in refused.stderr


def test_names_that_kustomize_replaces_stay_on_the_other_side_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's kustomization names no image, and tells that the overlay is for the base."""
    monkeypatch.chdir(place.folder)
    repository, _, tag = f"{place.source}/{FIRST}".rpartition(":")
    files = {
        "base/kustomization.yaml": "resources: [pod.yaml]\n",
        "base/pod.yaml": OTHER.replace("example.com/not/there:1", f"web:{tag}"),
        "prod/kustomization.yaml": "resources: [../base]\n"
        f"images: [{{name: web, newName: '{repository}'}}]\n",
    }
    for name, text in files.items():
        Path("k", name).parent.mkdir(parents=True, exist_ok=True)
        Path("k", name).write_text(text)
    blobflow("save", "--images-from", "k", "-o", "k.tar")
    blobflow("load", "k.tar", "--to", f"{place.target}/m", "--rewrite", "made")
    made = {name: Path("made/k", name).read_text() for name in files}
    assert made["base/pod.yaml"] == files["base/pod.yaml"]
    mirrored = f"{place.target}/m/{FIRST.rpartition(':')[0]}"
    assert made["prod/kustomization.yaml"] == files["prod/kustomization.yaml"].replace(repository, mirrored)
