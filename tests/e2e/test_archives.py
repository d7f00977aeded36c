"""Archives that real programs packed, and what real programs make of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.imageset import Layout, synthetic
from tools.processes import blobflow, run, skopeo

PACKERS: dict[str, Sequence[str]] = {
    "gzip": ("gzip", "-c"),
    "zstd": ("zstd", "-q", "-c"),
    "zstd with a long window": ("zstd", "-q", "--long=28", "-c"),
    "zstd on two threads": ("zstd", "-q", "-T2", "-19", "-c"),
    "bzip2": ("bzip2", "-c"),
    "xz": ("xz", "-c", "-T2", "--block-size=65536"),
    "lz4": ("lz4", "-q", "-c"),
    "lz4, the smallest blocks in a chain": ("lz4", "-q", "-B4", "-BD", "-c"),
}


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program} on PATH")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return synthetic(tmp_path_factory.mktemp("set"), seed=3, images=2, layer_size=100_000)


def packed(archive: Path, command: Sequence[str]) -> bytes:
    """Through a pipe, so that the program does not know how much will come."""
    done = subprocess.run(command, input=archive.read_bytes(), capture_output=True, check=True)
    return done.stdout


@pytest.mark.parametrize("form", PACKERS)
def test_what_a_program_packed_is_loaded(home: Path, tmp_path: Path, images: Layout, form: str) -> None:
    needs(PACKERS[form][0])
    names = tmp_path / "list"
    names.write_text("\n".join(images.images))
    saved = blobflow(
        "save", "--from", f"oci:{images.path}", "--images", names, "-o", tmp_path / "a.tar", home=home
    )
    assert saved.code == 0, saved.err
    (tmp_path / "packed").write_bytes(packed(tmp_path / "a.tar", PACKERS[form]))
    loaded = blobflow("load", tmp_path / "packed", "--to", f"oci:{tmp_path}/out", home=home)
    assert loaded.code == 0, loaded.err
    listed = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert {each["digest"] for each in listed} == {image.digest for image in images.images.values()}


def test_a_window_that_is_too_long_is_named(home: Path, tmp_path: Path) -> None:
    needs("zstd")
    (tmp_path / "a.tar").write_bytes(bytes(20_000))
    (tmp_path / "a.zst").write_bytes(packed(tmp_path / "a.tar", ("zstd", "-q", "--long=31", "-c")))
    loaded = blobflow("load", tmp_path / "a.zst", "--to", f"oci:{tmp_path}/out", home=home)
    assert loaded.code == 7
    assert "window of 2048 MiB" in loaded.err and "zstd -dc --long=31" in loaded.err


def test_skopeo_reads_what_docker_shall_load(
    programs: None, home: Path, tmp_path: Path, images: Layout
) -> None:
    name = next(iter(images.images))
    copied = blobflow(
        "copy", f"oci:{images.path}:{name}", f"docker-archive:{tmp_path}/d.tar:team/app:1", home=home
    )
    assert copied.code == 0, copied.err
    read = skopeo("copy", f"docker-archive:{tmp_path}/d.tar", f"oci:{tmp_path}/back:1", home=home)
    assert read.code == 0, read.err
    with tarfile.open(tmp_path / "d.tar") as tar:
        file = tar.extractfile("repositories")
        assert file is not None
        [top] = json.load(file)["team/app"].values()
        assert f"blobs/sha256/{top}" in tar.getnames()


def test_a_layer_that_umoci_inserted_is_unpacked_and_loaded(
    programs: None, home: Path, tmp_path: Path, images: Layout
) -> None:
    """umoci writes such a layer without padding and without the end of a tar."""
    needs("umoci")
    name = next(iter(images.images))
    taken = skopeo("copy", f"oci:{images.path}:{name}", f"oci:{tmp_path}/one:x", home=home)
    assert taken.code == 0, taken.err
    note = tmp_path / "note"
    note.write_text("hello " * 50)
    made = run(
        ("umoci", "insert", "--rootless", "--image", f"{tmp_path}/one:x", str(note), "/etc/note"), home
    )
    assert made.code == 0, made.err
    unpacked = blobflow("export", f"oci:{tmp_path}/one", "-o", tmp_path / "root", home=home)
    assert unpacked.code == 0, unpacked.err
    assert (tmp_path / "root/etc/note").read_text() == "hello " * 50
    saved = blobflow("copy", f"oci:{tmp_path}/one", f"docker-archive:{tmp_path}/d.tar:app:1", home=home)
    assert saved.code == 0, saved.err
    loaded = blobflow("load", tmp_path / "d.tar", "--to", f"oci:{tmp_path}/loaded", home=home)
    assert loaded.code == 0, loaded.err
