"""Plain files in bundles, lists of digests beside them, and where images are from: `save`, `bundle ls`,
`load`."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow import cli
from blobflow.oci import digest_of, media, parse_reference
from blobflow.oci.artifact import EMPTY, EMPTY_DESCRIPTOR, TITLE, make_artifact
from blobflow.oci.bundle import FILES_TYPE, FORMAT, SOURCE, file_names
from blobflow.oci.descriptor import Descriptor
from blobflow.operations.airgap import bundled_files
from tests.fakes.archives import tar_of
from tools import imageset

SCRIPT = b"#!/bin/sh\necho installed\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to be in, with files; nothing of the machine's."""
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    work = tmp_path / "work"
    (work / "conf" / "sub").mkdir(parents=True)
    (work / "Install.sh").write_bytes(SCRIPT)
    (work / "conf" / "a.conf").write_text("a")
    (work / "conf" / "sub" / "b.conf").write_text("b")
    monkeypatch.chdir(work)
    yield work
    asyncio.set_event_loop(None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> imageset.Layout:
    return imageset.synthetic(tmp_path_factory.mktemp("set"), seed=1, images=2, layer_size=8_000)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, list(map(str, arguments)))


def done(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(code: int, *arguments: str | Path) -> str:
    """The one sentence that a run ends with."""
    result = run(*arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("blobflow: ")]
    assert (result.exit_code, len(lines)) == (code, 1), result.output
    assert "Traceback" not in result.output
    return lines[0]


def save(images: imageset.Layout, name: str, *options: str | Path) -> Path:
    Path("list.txt").write_text("\n".join(images.images))
    done("save", "--from", f"oci:{images.path}", "--images", "list.txt", "-o", name, *options)
    return Path(name)


def index_of(bundle: Path) -> Any:
    with tarfile.open(bundle) as tar:
        content = tar.extractfile("index.json")
        assert content is not None
        return json.load(content)


def members_of(bundle: Path) -> list[tuple[str, bytes]]:
    """What is in a bundle but for its index."""
    with tarfile.open(bundle) as tar:
        files = [(each.name, tar.extractfile(each)) for each in tar if each.name != "index.json"]
        return [(name, file.read()) for name, file in files if file is not None]


def tree(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


FILES = {"Install.sh": SCRIPT, "conf/a.conf": b"a", "conf/sub/b.conf": b"b"}


# Files in and out


def test_files_and_folders_travel_with_the_images_and_come_out_as_they_were(images: imageset.Layout) -> None:
    bundle = save(images, "b.tar", "--file", "Install.sh:text/x-sh", "--file", "conf")
    said = done("load", bundle, "--to", "oci:out", "--files-to", "there")
    assert tree(Path("there")) == FILES
    assert said.splitlines()[-1].startswith("2 files written, ")
    roots = {
        entry["annotations"]["org.opencontainers.image.ref.name"]
        for entry in json.loads(Path("out/index.json").read_bytes())["manifests"]
    }
    assert roots == {*images.images, "files/install.sh:latest", "files/conf:latest"}
    done("pull", "oci:out:files/install.sh:latest", "-o", "pulled")
    assert tree(Path("pulled")) == {"Install.sh": SCRIPT}


def test_a_file_that_can_be_run_can_be_on_the_other_side(images: imageset.Layout, folder: Path) -> None:
    (folder / "Install.sh").chmod(0o750)
    (folder / "same.sh").write_bytes(SCRIPT)
    bundle = save(images, "b.tar", "--file", "Install.sh", "--file", "same.sh")
    for _ in range(2):
        done("load", bundle, "--to", "oci:out", "--files-to", "there")
        modes = {path.name: path.stat().st_mode & 0o777 for path in Path("there").iterdir()}
        assert modes == {"Install.sh": 0o755, "same.sh": 0o644}
        Path("there/Install.sh").chmod(0o644)
    done("pull", "oci:out:files/install.sh:latest", "-o", "pulled")
    assert Path("pulled/Install.sh").stat().st_mode & 0o777 == 0o755


def test_files_come_out_without_a_registry_and_again_over_what_is_there(images: imageset.Layout) -> None:
    bundle = save(images, "b.tar", "--file", "Install.sh", "--file", "conf", "--split-size", "40kB")
    for _ in range(2):
        done("load", bundle, "--files-to", "there")
        assert tree(Path("there")) == FILES
        Path("there/Install.sh").write_text("somebody's")
    assert not Path("out").exists()


def test_a_bundle_may_hold_files_alone() -> None:
    done("save", "--file", "Install.sh", "-o", "b.tar")
    row, total = done("bundle", "ls", "b.tar").splitlines()
    assert row.split()[0] == "files/install.sh:latest" and "file Install.sh" in row
    assert total.startswith("1 file: 3 blobs and manifests, ")
    done("load", "b.tar", "--files-to", "there")
    assert tree(Path("there")) == {"Install.sh": SCRIPT}


def test_an_empty_file_is_a_file_too(folder: Path) -> None:
    (folder / "none").touch()
    done("save", "--file", "none", "-o", "b.tar")
    done("bundle", "verify", "b.tar")
    done("load", "b.tar", "--files-to", "there")
    assert tree(Path("there")) == {"none": b""}


def test_the_same_files_give_the_same_bytes_whenever_they_were_written(images: imageset.Layout) -> None:
    given = ("--file", "Install.sh", "--file", "conf")
    first = save(images, "one.tar", *given).read_bytes()
    for path in ("Install.sh", "conf/a.conf", "conf"):
        os.utime(path, (1, 1))
    assert save(images, "two.tar", *given).read_bytes() == first


def test_a_later_bundle_has_its_files_whole(images: imageset.Layout) -> None:
    """Images lie at a registry that has them already; files are nowhere on the other side."""
    save(images, "april.tar", "--file", "Install.sh")
    save(images, "may.tar", "--file", "Install.sh", "--since", "april.tar")
    done("load", "may.tar", "--files-to", "there")
    assert tree(Path("there")) == {"Install.sh": SCRIPT}


def test_files_have_names_that_registries_take() -> None:
    titles = [
        "etc/App.conf",
        "a b.txt",
        "a_b.txt",
        "a..b",
        "日本",
        "日本/x",
        ".env",
        "x" * 300,
        "A-b.txt",
        "a/-/b",
    ]
    names = file_names(titles)
    assert names[:4] == [
        *("files/etc/app.conf:latest", "files/a-b.txt:latest"),
        *("files/a_b.txt:latest", "files/a-b:latest"),
    ]
    assert names[5:7] == ["files/x:latest", "files/env:latest"]
    assert names[8].startswith("files/a-b.txt-") and names[9] == "files/a/b:latest"
    assert len(set(names)) == len(names)
    for name in names:
        assert parse_reference(f"registry.example.com/{name}").tag == "latest"


# What `bundle ls` tells


def test_ls_tells_files_charts_and_artifacts_from_images(images: imageset.Layout, folder: Path) -> None:
    done("push", "oci:lay:team/sbom:1", "Install.sh", "--artifact-type", "text/x-sbom")
    chart_layout(folder / "lay", "charts/app:1.2.3")
    first, *_ = images.images
    done("copy", f"oci:{images.path}:{first}", f"oci:lay:{first}")
    Path("list.txt").write_text(f"{first}\nteam/sbom:1\ncharts/app:1.2.3\n")
    given = ("--from", "oci:lay", "--images", "list.txt", "--file", "Install.sh", "--file", "conf")
    done("save", *given, "-o", "b.tar")
    *rows, total = done("bundle", "ls", "b.tar").splitlines()
    kinds = {row.split()[0]: " ".join(row.split()[2:4]) for row in rows}
    assert kinds == {
        "charts/app:1.2.3": "chart 392",
        "files/conf:latest": "file conf",
        "files/install.sh:latest": "file Install.sh",
        first: "linux/amd64, linux/arm64/v8,",
        "team/sbom:1": "artifact text/x-sbom",
    }
    assert total.startswith("1 image, 1 chart, 1 artifact, 2 files: ")
    found = {each["names"][0]: each for each in json.loads(done("bundle", "ls", "--json", "b.tar"))["images"]}
    assert found["files/conf:latest"]["kind"] == "files"
    assert found["files/conf:latest"]["files"] == ["conf"]
    assert found["team/sbom:1"]["artifact_type"] == "text/x-sbom"
    assert found["charts/app:1.2.3"]["kind"] == "chart" and found[first]["kind"] == "image"


def chart_layout(layout: Path, name: str) -> None:
    """A chart as `helm push` leaves one, in the layout."""
    config, chart = b'{"name":"app"}', b"chart as .tgz"
    document = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.cncf.helm.config.v1+json",
            "digest": digest_of(config),
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                "digest": digest_of(chart),
                "size": len(chart),
            }
        ],
    }
    raw = json.dumps(document).encode()
    for content in (config, chart, raw):
        (layout / "blobs" / digest_of(content).replace(":", "/")).write_bytes(content)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"].append(
        {
            "mediaType": media.OCI_MANIFEST,
            "digest": digest_of(raw),
            "size": len(raw),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }
    )
    (layout / "index.json").write_text(json.dumps(index))


# Lists of digests


@pytest.mark.parametrize("options", [(), ("--split-size", "40kB")])
def test_a_list_of_digests_is_what_sha256sum_checks(images: imageset.Layout, options: Sequence[str]) -> None:
    bundle = save(images, "b.tar", "--digests", *options)
    checked = subprocess.run(["sha256sum", "-c", "b.tar.sha256"], capture_output=True, text=True)
    files = sorted(path.name for path in Path().glob("b*.tar"))
    assert checked.stdout.splitlines() == [f"{name}: OK" for name in files]
    assert checked.returncode == 0
    done("bundle", "ls", bundle, "--digests", "b.tar.sha256")
    done("load", bundle, "--to", "oci:out", "--digests", "b.tar.sha256")
    last = Path(files[-1])
    content = bytearray(last.read_bytes())
    content[-1] ^= 1  # where no digest of an image would see it
    last.write_bytes(content)
    assert f"{last}, which b.tar.sha256 lists, has digest sha256:" in failed(
        6, "load", bundle, "--to", "oci:other", "--files-to", "there", "--digests", "b.tar.sha256"
    )
    assert not Path("other").exists() and not Path("there").exists()
    assert "damaged" in failed(8, "bundle", "verify", bundle, "--digests", "b.tar.sha256")


def test_a_part_that_the_list_has_and_we_have_not_is_named(images: imageset.Layout) -> None:
    bundle = save(images, "b.tar", "--digests", "--split-size", "40kB")
    last = sorted(Path().glob("b.0*.tar"))[-1]
    last.unlink()
    given = ("--to", "oci:out", "--digests", "b.tar.sha256")
    assert failed(2, "load", bundle, *given).endswith(f"lists {last}, and that part is not there")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("", 2, "list.sha256 lists no file"),
        ("hello\n", 2, "list.sha256 line 1 is no SHA-256 and file, as `sha256sum` writes them"),
        (
            f"{'0' * 64}  other.tar\n",
            2,
            "list.sha256 does not list b.tar; give the list that was made with it",
        ),
        (
            f"{'0' * 64}  b.tar\n{'1' * 64}  x/b.tar\n",
            2,
            "list.sha256 has two digests for files called b.tar",
        ),
        (f"{'0' * 64} *./b.tar\n", 6, "expected sha256:" + "0" * 64),
        (f"SHA256 (b.tar) = {'0' * 64}\r\n", 6, "expected sha256:" + "0" * 64),
    ],
)
def test_lists_that_do_not_fit_are_told(text: str, code: int, says: str) -> None:
    done("save", "--file", "Install.sh", "-o", "b.tar")
    Path("list.sha256").write_text(text)
    assert says in failed(code, "load", "b.tar", "--files-to", "there", "--digests", "list.sha256")
    assert not Path("there").exists()


def test_names_that_sha256sum_escapes_are_read_back() -> None:
    name = "a\\b\nc.tar"
    done("save", "--file", "Install.sh", "-o", name, "--digests")
    line = Path(f"{name}.sha256").read_text()
    assert line == f"\\{hashlib.sha256(Path(name).read_bytes()).hexdigest()}  a\\\\b\\nc.tar\n"
    done("load", name, "--files-to", "there", "--digests", f"{name}.sha256")


def test_no_bundle_gets_no_list(images: imageset.Layout) -> None:
    Path("list.txt").write_text("team/none:1")
    given = ("--from", f"oci:{images.path}", "--images", "list.txt", "--file", "Install.sh")
    result = run("save", *given, "-o", "b.tar", "--digests")
    assert result.exit_code == 3
    assert not Path("b.tar").exists() and not Path("b.tar.sha256").exists()
    assert "standard output has no name" in failed(2, "save", *given, "-o", "-", "--digests")


# What is wrong


def test_a_file_that_is_not_there_ends_the_save_before_anything_is_read(
    images: imageset.Layout, tmp_path: Path
) -> None:
    Path("list.txt").write_text("\n".join(images.images))
    given = ("save", "--from", f"oci:{images.path}", "--images", "list.txt", "-o", "b.tar")
    assert failed(2, *given, "--file", "nothing").endswith("there is no file nothing")
    os.mkfifo("pipe")
    assert failed(2, *given, "--file", "pipe").endswith("pipe is neither a file nor a folder")
    (tmp_path / "Install.sh").write_text("another")
    two = (*given, "--file", "Install.sh", "--file", tmp_path / "Install.sh")
    assert failed(2, *two).endswith("two files would be called 'Install.sh'; give each once")
    assert not Path("b.tar").exists()


def test_files_may_come_by_two_ways_if_they_are_the_same(images: imageset.Layout, tmp_path: Path) -> None:
    Path("conf/list.txt").write_text("shop/none:1\n")
    for more in ("Install.sh", "conf/a.conf"):
        given = ("save", "--file", "conf", "--file", more, "-o", "b.tar")
        done(*given)
        done("load", "b.tar", "--files-to", "there")
    assert tree(Path("there")).keys() == {*FILES, "conf/list.txt"}
    (tmp_path / "conf").write_text("a file where there is a folder")
    assert "two files would be called 'conf'" in failed(
        2, *given[:3], *given[5:], "--file", tmp_path / "conf"
    )


def test_a_file_that_no_part_can_hold_ends_the_save_before_anything_is_read(images: imageset.Layout) -> None:
    Path("large").write_bytes(os.urandom(100_000))
    Path("list.txt").write_text("\n".join(images.images))
    given = ("save", "--from", f"oci:{images.path}", "--images", "list.txt", "-o", "b.tar")
    assert "so --split-size has to be" in failed(2, *given, "--file", "large", "--split-size", "60kB")


@pytest.mark.parametrize("left", [b"something else", b"#!", SCRIPT + b"more", None])
def test_a_file_that_changes_while_the_images_come_ends_the_save(
    left: bytes | None, images: imageset.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("b.tar").write_text("what was there before")
    make = bundled_files.make_bundled_files

    def then_change(*given: Any) -> Any:
        made = make(*given)
        Path("Install.sh").unlink()
        if left is not None:
            Path("Install.sh").write_bytes(left)
        return made

    monkeypatch.setattr("blobflow.operations.airgap.save.make_bundled_files", then_change)
    Path("list.txt").write_text("\n".join(images.images))
    given = ("save", "--from", f"oci:{images.path}", "--images", "list.txt", "-o", "b.tar")
    said = run(*given, "--file", "Install.sh")
    assert said.exit_code == 6
    assert (
        f"{Path('Install.sh').absolute()} changed while it was read; try again once it is whole"
        in said.stderr
    )
    assert Path("b.tar").read_text() == "what was there before"


def test_a_file_with_an_image_s_name_is_refused(images: imageset.Layout) -> None:
    first, *_ = images.images
    done("copy", f"oci:{images.path}:{first}", "oci:lay:files/install.sh:latest")
    Path("list.txt").write_text("files/install.sh:latest")
    given = ("--from", "oci:lay", "--images", "list.txt", "--file", "Install.sh", "-o", "b.tar")
    assert "a file of the bundle would be called files/install.sh:latest" in failed(2, "save", *given)


def test_a_full_disk_leaves_each_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    done("save", "--file", "Install.sh", "--file", "conf", "-o", "b.tar")
    Path("there").mkdir()
    Path("there/Install.sh").write_text("before")

    def full(path: Path, target: Path) -> Path:
        if Path(target).name == "Install.sh":
            raise OSError(errno.ENOSPC, "No space left on device")
        return path.rename(target)

    monkeypatch.setattr(Path, "replace", full)
    said = failed(8, "load", "b.tar", "--files-to", "there")
    assert "can't write there/Install.sh: the disk is full" in said
    assert tree(Path("there")).get("Install.sh") == b"before"
    assert not [*Path("there").glob(".blobflow-*")]


def bundle_of(files: Sequence[tuple[str, bytes]], annotations: dict[str, str]) -> bytes:
    """A bundle of files with these titles, as no `save` would write it."""
    entries: list[tuple[str, bytes]] = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')]
    blobs = {EMPTY_DESCRIPTOR.digest: EMPTY}
    listed = []
    for number, (title, content) in enumerate(files):
        layer = Descriptor("text/plain", digest_of(content), len(content), annotations={TITLE: "plain"})
        manifest = make_artifact(FILES_TYPE, [layer], {})
        raw = manifest.raw.replace(b'"plain"', json.dumps(title).encode())
        blobs |= {digest_of(content): content, digest_of(raw): raw}
        listed.append(
            {
                "mediaType": media.OCI_MANIFEST,
                "digest": digest_of(raw),
                "size": len(raw),
                "annotations": {"org.opencontainers.image.ref.name": f"files/f{number}:latest"},
            }
        )
    index = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": listed,
        "annotations": annotations,
    }
    entries += [(f"blobs/{digest.replace(':', '/')}", content) for digest, content in blobs.items()]
    return tar_of([*entries, ("index.json", json.dumps(index).encode())])


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([("fine", b"1"), ("../out", b"2")], "which is no path inside of a folder"),
        ([("/etc/x", b"1")], "which is no path inside of a folder"),
        ([("same", b"1"), ("same", b"2")], "two files of the bundle are called 'same'"),
        (
            [("a", b"1"), ("a/b", b"2")],
            "a file of the bundle is called 'a', and another one is in a folder of",
        ),
    ],
)
def test_titles_that_lead_elsewhere_are_refused_before_anything_is_written(
    files: Sequence[tuple[str, bytes]], says: str
) -> None:
    Path("b.tar").write_bytes(bundle_of(files, {FORMAT: "1"}))
    assert says in failed(7, "load", "b.tar", "--to", "oci:out", "--files-to", "there")
    assert not Path("there").exists() and not Path("out").exists() and not Path("../out").exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    Path("b.tar").write_bytes(bundle_of([("way/x", b"1")], {FORMAT: "1"}))
    (tmp_path / "elsewhere").mkdir()
    Path("there").mkdir()
    Path("there/way").symlink_to(tmp_path / "elsewhere")
    assert "there/way is a link" in failed(7, "load", "b.tar", "--files-to", "there")
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_an_origin_that_is_none_is_one_sentence(images: imageset.Layout) -> None:
    bundle = save(images, "b.tar")
    index = index_of(bundle)
    for entry in index["manifests"]:
        entry["annotations"][SOURCE] = "no/Reference at all"
    bundle.write_bytes(tar_of([*members_of(bundle), ("index.json", json.dumps(index).encode())]))
    said = failed(7, "load", bundle, "--to", "oci:out")
    assert "b.tar says where " in said and "is not a reference" in said
    assert "from no/Reference at all" in done("bundle", "ls", bundle)


@pytest.mark.parametrize(
    "verb", [("load", "b.tar", "--to", "oci:out"), ("bundle", "ls", "b.tar"), ("bundle", "verify", "b.tar")]
)
def test_a_bundle_of_a_newer_form_is_one_sentence(verb: Sequence[str]) -> None:
    Path("b.tar").write_bytes(bundle_of([("x", b"1")], {FORMAT: "2"}))
    said = failed(7, *verb)
    assert (
        "b.tar is of a bundle of the form 2, and this blobflow reads form 1; read it with a newer one" in said
    )


def test_what_load_is_for_has_to_be_said() -> None:
    done("save", "--file", "Install.sh", "-o", "b.tar")
    assert "say where to with --to" in failed(2, "load", "b.tar")
    assert "--nodes is about a mirror" in failed(2, "load", "b.tar", "--files-to", "x", "--nodes", "podman")
    assert "oci:x is no registry" in failed(2, "load", "b.tar", "--to", "oci:x", "--nodes", "podman")
    assert "is not FORMAT or FORMAT:DIR" in failed(2, "load", "b.tar", "--to", "x:1", "--nodes", "podmen")
    Path("list.txt").write_text(f"{'0' * 64}  b.tar\n")
    piped = ("load", "oci-archive:-", "--files-to", "x", "--digests", "list.txt")
    assert "--digests goes by the names of files" in failed(2, *piped)
