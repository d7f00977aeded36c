"""Layouts and archives between blobflow and the tools that people have: each reads what the other writes."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.e2e.sentences import assert_one_sentence
from tools.imageset import Layout, push
from tools.processes import BLOBFLOW, Registry, Run, blobflow, docker_registry, environment, run, skopeo

ONE = "shop/gateway:1.0"
TWO = "shop/catalog:1.1"
DOCKERS = "shop/payment:1.3"  # has Docker's media types, which skopeo 1.9.3 does not find in a layout
FULL = f"docker.io/{ONE}"

_numbers = itertools.count()

Podman = Callable[..., Run]


@pytest.fixture
def podman(home: Path) -> Iterator[Podman]:
    """podman with a storage of its own, in a folder with a short name: podman takes no long one."""
    program = shutil.which("podman")
    if program is None:
        pytest.skip("needs podman (Debian: apt-get install podman)")

    def call(*arguments: str | Path) -> Run:
        storage = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        done = run([program, *storage, *map(str, arguments)], home)
        assert done.code == 0, done.err
        return done

    with TemporaryDirectory(prefix="podman") as folder:
        yield call


@pytest.fixture(scope="module")
def target(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A docker-registry for all tests, each with repositories of its own."""
    with docker_registry(tmp_path_factory.mktemp("target")) as registry:
        yield registry


@pytest.fixture
def app() -> str:
    """A repository that no other test uses."""
    return f"app{next(_numbers)}"


def moved(*arguments: str | Path, home: Path) -> Run:
    done = blobflow(*arguments, home=home)
    assert done.code == 0, done.err
    return done


def layout_of(small_set: Layout, name: str = "") -> str:
    return f"oci:{small_set.path}:{name}" if name else f"oci:{small_set.path}"


def copied(source: str, destination: str, home: Path, *options: str) -> None:
    done = skopeo("copy", *options, source, destination, home=home)
    assert done.code == 0, done.err


def saved(small_set: Layout, home: Path, path: Path, names: tuple[str, ...] = (ONE,)) -> Path:
    """The images in an archive of ours."""
    listed = home.parent / "names.txt"
    listed.write_text("\n".join(names))
    places = ["--from", layout_of(small_set), "--to", f"oci-archive:{path}:docker.io"]
    moved("sync", *places, "--images", listed, home=home)
    return path


def pushed(
    source: str, target: Registry, repository: str, home: Path, *options: str | Path
) -> dict[str, Any]:
    """Copy to the registry; the run's totals."""
    report = home.parent / "report.json"
    moved("copy", source, f"{target.host}/{repository}:1", "--report", report, *options, home=home)
    totals: dict[str, Any] = json.loads(report.read_bytes())["totals"]
    return totals


def manifest_at(target: Registry, repository: str) -> dict[str, Any]:
    accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
    status, _, raw = target.ask("GET", f"/v2/{repository}/manifests/1", {"Accept": accept})
    assert status == 200
    manifest: dict[str, Any] = json.loads(raw)
    return manifest


def config_and_diff_ids(target: Registry, repository: str) -> tuple[str, list[str]]:
    """The config's digest, and the digests of the layers as they are unpacked."""
    manifest = manifest_at(target, repository)
    diff_ids = []
    for layer in manifest["layers"]:
        _, _, content = target.ask("GET", f"/v2/{repository}/blobs/{layer['digest']}")
        assert layer["mediaType"].endswith("+gzip")
        diff_ids.append(f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}")
    return manifest["config"]["digest"], diff_ids


def amd64(small_set: Layout, name: str) -> tuple[str, list[str]]:
    """What the set has for this machine: the config's digest and the diff_ids in it."""
    blobs = small_set.path / "blobs" / "sha256"
    index = json.loads((blobs / small_set.images[name].digest[7:]).read_bytes())
    child = next(each for each in index["manifests"] if each["platform"]["architecture"] == "amd64")
    config = json.loads((blobs / child["digest"][7:]).read_bytes())["config"]["digest"]
    return config, json.loads((blobs / config[7:]).read_bytes())["rootfs"]["diff_ids"]


def test_a_set_goes_through_every_kind_of_place_and_stays_what_it_is(
    small_set: Layout, target: Registry, home: Path, tmp_path: Path
) -> None:
    push(small_set.path, target.host)
    images: list[str | Path] = ["--images", small_set.path / "images.txt"]
    ways = [
        target.host,
        f"oci:{tmp_path}/layout",
        f"oci-archive:{tmp_path}/a.tar:docker.io",
        f"docker-archive:{tmp_path}/b.tar:docker.io",
        f"{target.host}/back",
    ]
    for number, (source, goal) in enumerate(itertools.pairwise(ways)):
        source = source.replace("docker-archive:", "oci-archive:")  # the whole of it, not docker's list
        moved("sync", "--from", source.removesuffix(":docker.io"), "--to", goal, *images, home=home)
        assert number < 3 or (tmp_path / "a.tar").stat().st_size == (tmp_path / "b.tar").stat().st_size
    for name, image in small_set.images.items():
        assert target.digest_of(f"back/{image.repository}", image.tag) == image.digest, name


def test_what_we_write_is_read_by_skopeo(small_set: Layout, home: Path, tmp_path: Path) -> None:
    archive = saved(small_set, home, tmp_path / "a.tar", names=(ONE, TWO, DOCKERS))
    moved("copy", layout_of(small_set, ONE), f"oci:{tmp_path}/layout:x", home=home)
    sources = [
        (f"oci-archive:{archive}:{FULL}", ONE),
        (f"oci-archive:{archive}:docker.io/{TWO}", TWO),
        (f"oci:{tmp_path}/layout:x", ONE),
    ]
    for source, name in sources:
        shutil.rmtree(tmp_path / "taken", ignore_errors=True)
        copied(source, f"dir:{tmp_path}/taken", home, "--all")
        raw = (tmp_path / "taken" / "manifest.json").read_bytes()
        assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == small_set.images[name].digest
        assert {f"sha256:{file.name}" for file in (tmp_path / "taken").iterdir()} >= set(
            small_set.images[name].blobs
        )
    for name in (ONE, TWO, DOCKERS):
        done = skopeo("inspect", "--config", "--raw", f"docker-archive:{archive}:docker.io/{name}", home=home)
        assert (done.code, json.loads(done.out)["rootfs"]["diff_ids"]) == (0, amd64(small_set, name)[1])


@pytest.mark.parametrize("names", [(ONE,), (ONE, DOCKERS)], ids=["one", "several"])
def test_what_we_write_is_loaded_by_podman(
    small_set: Layout, home: Path, tmp_path: Path, podman: Podman, names: tuple[str, ...]
) -> None:
    podman("load", "-i", saved(small_set, home, tmp_path / "a.tar", names=names))
    listed = podman("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    assert sorted(listed) == sorted(f"docker.io/{name}" for name in names)
    diff_ids = podman("image", "inspect", FULL, "--format", "{{json .RootFS.Layers}}").out
    assert json.loads(diff_ids) == amd64(small_set, ONE)[1]


@pytest.mark.parametrize(
    ("transport", "packed"),
    [
        ("docker-archive", "tar"),
        ("docker-archive", "tar.gz"),
        ("docker-archive", "tar.zst"),
        ("oci-archive", "tar"),
    ],
)
def test_what_skopeo_writes_is_read(
    small_set: Layout, target: Registry, app: str, home: Path, tmp_path: Path, transport: str, packed: str
) -> None:
    path = tmp_path / "a.tar"
    copied(layout_of(small_set, ONE), f"{transport}:{path}:{FULL}", home)
    path = pack(path, packed)
    pushed(f"{transport}:{path}:{FULL}", target, app, home)
    assert config_and_diff_ids(target, app) == amd64(small_set, ONE)


def pack(path: Path, packed: str) -> Path:
    """The archive compressed by the programs that people use."""
    if packed == "tar":
        return path
    if shutil.which("zstd") is None and packed == "tar.zst":
        pytest.skip("needs zstd (Debian: apt-get install zstd)")
    command = ["gzip", str(path)] if packed == "tar.gz" else ["zstd", "-q", "--rm", str(path)]
    subprocess.run(command, check=True)
    return path.with_suffix(f".{packed}")


@pytest.mark.parametrize(
    ("options", "transport"),
    [
        (["--format", "oci-archive"], "oci-archive"),
        (["-m"], "docker-archive"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_podman_saves_is_read(
    small_set: Layout,
    target: Registry,
    app: str,
    home: Path,
    tmp_path: Path,
    podman: Podman,
    options: list[str],
    transport: str,
) -> None:
    podman("load", "-i", saved(small_set, home, tmp_path / "a.tar", names=(ONE, DOCKERS)))
    several = [f"docker.io/{DOCKERS}"] if "-m" in options else []
    podman("save", *options, "-o", tmp_path / "saved.tar", FULL, *several)
    pushed(f"{transport}:{tmp_path}/saved.tar:{FULL}", target, app, home)
    assert config_and_diff_ids(target, app) == amd64(small_set, ONE)
    for name in several:
        pushed(f"{transport}:{tmp_path}/saved.tar:{name}", target, f"{app}/other", home)
        assert config_and_diff_ids(target, f"{app}/other") == amd64(small_set, DOCKERS)


def test_a_second_load_of_a_compressed_archive_moves_nothing(
    small_set: Layout, target: Registry, app: str, home: Path, tmp_path: Path
) -> None:
    copied(layout_of(small_set, ONE), f"docker-archive:{tmp_path}/a.tar:{FULL}", home)
    source = f"docker-archive:{pack(tmp_path / 'a.tar', 'tar.gz')}:{FULL}"
    assert pushed(source, target, app, home)["blobs_copied"] == 5
    again = pushed(source, target, app, home)
    assert (again["blobs_copied"], again["bytes_read"], again["bytes_written"]) == (0, 0, 0)


def test_archives_go_through_pipes(small_set: Layout, home: Path, tmp_path: Path) -> None:
    env = environment(home)
    there = [*BLOBFLOW, "copy", layout_of(small_set, ONE), "oci-archive:-:x"]
    back = [*BLOBFLOW, "copy", "oci-archive:-", f"oci:{tmp_path}/layout"]
    with subprocess.Popen(
        there, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(home)
    ) as first:
        assert first.stdout is not None and first.stderr is not None
        subprocess.run(back, stdin=first.stdout, check=True, env=env, capture_output=True)
        told = first.stderr.read().decode()
    assert first.returncode == 0, told
    assert "1 image: 1 done" in told
    index = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    assert [entry["digest"] for entry in index["manifests"]] == [small_set.images[ONE].digest]


def test_an_image_is_planned_and_inspected_in_an_archive(
    small_set: Layout, home: Path, tmp_path: Path
) -> None:
    archive = saved(small_set, home, tmp_path / "a.tar")
    found = moved("inspect", "--json", f"oci-archive:{archive}", home=home)
    assert json.loads(found.out)["digest"] == small_set.images[ONE].digest
    places = ["--from", f"oci-archive:{archive}", "--to", f"oci:{tmp_path}/layout"]
    planned = moved("plan", *places, "--images", tmp_path / "names.txt", "--json", home=home)
    price = json.loads(planned.out)["price"]
    assert price["bytes_to_read"] == sum(small_set.images[ONE].blobs.values())
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize("level", ["roots", "content"])
def test_an_archive_is_verified_as_it_is(small_set: Layout, home: Path, tmp_path: Path, level: str) -> None:
    archive = saved(small_set, home, tmp_path / "a.tar", (ONE,))
    places = ["--from", layout_of(small_set), "--to", f"oci-archive:{archive}:docker.io"]
    arguments = [*places, "--images", str(tmp_path / "names.txt"), "--verify", level]
    assert moved("verify", *arguments, home=home).out == f"right: oci-archive:{archive}:{FULL}\n"
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1  # in a layer: they are most of it
    archive.write_bytes(content)
    done = blobflow("verify", *arguments, home=home)
    assert done.code == (0 if level == "roots" else 3), done.out
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".blobflow")]


@pytest.mark.parametrize("packed", ["tar", "tar.gz"])
def test_a_truncated_archive_leaves_nothing_at_the_target(
    small_set: Layout, target: Registry, app: str, home: Path, tmp_path: Path, packed: str
) -> None:
    copied(layout_of(small_set, ONE), f"docker-archive:{tmp_path}/a.tar:{FULL}", home)
    path = pack(tmp_path / "a.tar", packed)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = blobflow("copy", f"docker-archive:{path}", f"{target.host}/{app}:1", home=home)
    assert_one_sentence(done, 8, str(path), "cut off")
    assert target.digest_of(app, "1") is None


def test_a_layout_with_a_wrong_blob_leaves_no_archive(small_set: Layout, home: Path, tmp_path: Path) -> None:
    config, _ = amd64(small_set, ONE)
    blob = small_set.path / "blobs" / "sha256" / config[7:]
    blob.write_bytes(blob.read_bytes()[:-1] + b" ")
    done = blobflow("copy", layout_of(small_set, ONE), f"oci-archive:{tmp_path}/a.tar", home=home)
    assert_one_sentence(done, 6, "source", config)
    assert not list(tmp_path.glob("*a.tar*"))


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("oci:absent:x", 2, ["absent", "no OCI layout"]),
        ("oci-archive:absent.tar", 2, ["absent.tar", "no archive"]),
        ("oci::x", 2, ["path"]),
    ],
)
def test_a_place_that_is_none_is_told(source: str, code: int, words: list[str], home: Path) -> None:
    assert_one_sentence(blobflow("copy", source, "127.0.0.1:1/x:1", home=home), code, *words)
