"""Across an air gap with the tools that people have: podman's archives in, root file systems out.

The whole Debian set takes minutes of podman's and umoci's time, so it is run by name (`pytest -m soak`); a
part of it, and the sample set, always.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tools.imageset import Layout, push
from tools.processes import Registry, blobflow, blobflow_serve, docker_registry, run

ARCHITECTURES = ("amd64", "arm64", "arm")
OCI = "application/vnd.oci.image"
K3S = "rancher/"  # what the eight images of K3s have in front of their names


@pytest.fixture
def target(programs: None, tmp_path: Path) -> Iterator[Registry]:
    with docker_registry(tmp_path / "target") as registry:
        yield registry


def moved(*arguments: str | Path, home: Path) -> dict[str, Any]:
    """Run blobflow, and return the report that it writes."""
    report = home.parent / "report.json"
    done = blobflow(*arguments, "--report", report, home=home)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(report.read_bytes())
    return found


def read(registry: Registry, repository: str, kind: str, name: str, media_type: str = "") -> Any:
    accept = {"Accept": media_type} if media_type else None
    status, _, raw = registry.ask("GET", f"/v2/{repository}/{kind}/{name}", accept)
    assert status == 200, (repository, name)
    return json.loads(raw)


# podman save -m


def podman_saves(registry: Registry, images: Sequence[str], folder: Path, home: Path) -> list[Path]:
    """Pull the images once for each architecture, and save each lot as K3s ships it: in one .tar.gz."""
    program = shutil.which("podman")
    if program is None:
        pytest.skip("needs podman (Debian: apt-get install podman)")
    (home / "docker").mkdir(parents=True, exist_ok=True)
    (home / "docker" / "config.json").write_text("{}")
    archives = []
    names = [f"{registry.host}/{image}" for image in images]
    for architecture in ARCHITECTURES:
        archive = folder / f"k3s-airgap-images-{architecture}.tar"
        with TemporaryDirectory(prefix="podman") as place:  # podman takes no long names
            storage = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
            pull = ["pull", "--quiet", "--tls-verify=false", "--platform", f"linux/{architecture}", *names]
            for command in (pull, ["save", "--quiet", "-m", "-o", str(archive), *names]):
                done = run([program, *storage, *command], home)
                assert done.code == 0, done.err
        packed = archive.with_suffix(".tar.gz")
        packed.write_bytes(gzip.compress(archive.read_bytes(), 1))
        archive.unlink()
        archives.append(packed)
    return archives


def assert_indexes_of_their_configs(registry: Registry, images: Sequence[str]) -> int:
    """Every name is an index whose children each have the platform of their config; returns their number."""
    children = 0
    for image in images:
        repository, _, tag = image.partition(":")
        index = read(registry, repository, "manifests", tag, f"{OCI}.index.v1+json")
        for child in index["manifests"]:
            manifest = read(registry, repository, "manifests", child["digest"], f"{OCI}.manifest.v1+json")
            config = read(registry, repository, "blobs", manifest["config"]["digest"])
            keys = ("architecture", "os", "variant")
            assert child["platform"] == {key: config[key] for key in keys if config.get(key)}
            children += 1
        assert [child["platform"]["architecture"] for child in index["manifests"]] == sorted(ARCHITECTURES)
    return children


def load_and_load_again(archives: Sequence[Path], images: Sequence[str], target: Registry, home: Path) -> int:
    first = moved("load", *archives, "--to", target.host, "--arch-tags", home=home)
    assert first["totals"]["failed"] == 0
    children = assert_indexes_of_their_configs(target, images)
    kept = {path: path.stat().st_mtime_ns for path in (home / "cache/blobflow/blobs").rglob("*")}
    target.forget()
    again = moved("load", *archives, "--to", target.host, "--arch-tags", home=home)
    assert {image["status"] for image in again["images"]} == {"present"}
    assert again["totals"]["bytes_written"] == 0
    assert {path: path.stat().st_mtime_ns for path in (home / "cache/blobflow/blobs").rglob("*")} == kept
    assert target.requests().counts() == {"HEAD manifests": len(again["images"])}
    return children


def test_what_podman_saves_for_each_architecture_is_one_image_for_all(
    target: Registry, small_set: Layout, home: Path, tmp_path: Path
) -> None:
    images = list(small_set.images)[:3]
    with docker_registry(tmp_path / "source") as source:
        push(small_set.path, source.host)
        archives = podman_saves(source, images, tmp_path, home)
    assert load_and_load_again(archives, images, target, home) == 9


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_k3s_case(
    target: Registry, debian_set: Layout, debian_source: Registry, home: Path, tmp_path: Path
) -> None:
    images = [name for name in debian_set.images if name.startswith(K3S)]
    archives = podman_saves(debian_source, images, tmp_path, home)
    assert load_and_load_again(archives, images, target, home) == 24


# A set, as one file, through and back


def test_a_bundle_in_parts_goes_from_one_registry_to_another(
    target: Registry, small_set: Layout, home: Path, tmp_path: Path
) -> None:
    with blobflow_serve(tmp_path / "source") as source:
        push(small_set.path, source.host)
        images: list[str | Path] = ["--images", small_set.path / "images.txt"]
        moved(
            "save", "--from", source.host, *images, "-o", tmp_path / "b.tar", "--split-size", "1MB", home=home
        )
    assert len(list(tmp_path.glob("b.*.tar"))) > 2
    moved("load", tmp_path / "b.tar", "--to", f"{target.host}/mirror", home=home)
    for image in small_set.images.values():
        assert target.digest_of(f"mirror/{image.repository}", image.tag) == image.digest


# Root file systems


def tree(root: Path) -> dict[str, tuple[int, str, int, int, int]]:
    """Every path with its mode, its content or where it points, its owner, and its names."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            about = path.lstat()
            what = ""
            if stat.S_ISLNK(about.st_mode):
                what = str(path.readlink())
            elif stat.S_ISREG(about.st_mode):
                what = hashlib.sha256(path.read_bytes()).hexdigest()
            names = 0 if stat.S_ISDIR(about.st_mode) else about.st_nlink
            key = str(path.relative_to(root))
            found[key] = (about.st_mode, what, about.st_uid, about.st_gid, names)
    return found


def assert_equals_umoci(layout: Layout, image: str, child: str, folder: Path, home: Path) -> None:
    program = shutil.which("umoci")
    if program is None:
        pytest.skip("needs umoci (Debian: apt-get install umoci)")
    source = f"oci:{layout.path}@{child}"
    moved("copy", source, f"oci:{folder}/one:x", "--format", "oci", home=home)  # all that umoci takes
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    done = run([program, "unpack", *rootless, "--image", f"{folder}/one:x", f"{folder}/bundle"], home)
    assert done.code == 0, done.err
    moved("export", source, "--output", f"type=local,dest={folder}/out", home=home)
    theirs, ours = tree(folder / "bundle" / "rootfs"), tree(folder / "out")
    assert len(theirs) > 10
    assert {path: (theirs.get(path), ours.get(path)) for path in theirs.keys() ^ ours.keys()} == {}
    assert {path: (theirs[path], ours[path]) for path in theirs if theirs[path] != ours[path]} == {}
    for name in ("one", "bundle", "out"):
        shutil.rmtree(folder / name)


def children_of(layout: Layout, image: str) -> list[str]:
    listed = json.loads(layout.blob(layout.images[image].digest).read_bytes())["manifests"]
    return [child["digest"] for child in listed]


@pytest.mark.parametrize(
    ("image", "number"),
    [
        ("rancher/library-busybox:1.32.1", 0),
        ("rancher/coredns-coredns:1.8.3", 1),
        ("rancher/metrics-server:v0.3.6", 2),
    ],
)
def test_an_unpacked_image_is_what_umoci_unpacks(
    debian_set: Layout, home: Path, tmp_path: Path, image: str, number: int
) -> None:
    assert_equals_umoci(debian_set, image, children_of(debian_set, image)[number], tmp_path, home)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_all_unpacked_images_are_what_umoci_unpacks(debian_set: Layout, home: Path, tmp_path: Path) -> None:
    for image in debian_set.images:
        for child in children_of(debian_set, image):
            assert_equals_umoci(debian_set, image, child, tmp_path, home)
