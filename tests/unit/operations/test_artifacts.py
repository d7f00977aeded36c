"""Files as artifacts: the form that oras reads, and that nothing is written where it should not be."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.oci import digest_of, media
from blobflow.oci.artifact import EMPTY_DESCRIPTOR, EMPTY_TYPE, TITLE, UNPACK, UNPACKED_DIGEST
from blobflow.operations.artifacts import files, push, unpack
from blobflow.operations.artifacts.files import stays_inside, title_of
from tests.fakes.layouts import NAME, Layout

CREATED = ("-a", "org.opencontainers.image.created=2026-01-02T03:04:05Z")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: with a file, and a folder with a link and a program in it."""
    here = tmp_path / "here"
    (here / "d" / "sub").mkdir(parents=True)
    (here / "a.txt").write_text("hello")
    (here / "d" / "sub" / "b").write_text("there")
    (here / "d" / "run").write_text("#!/bin/sh\n")
    (here / "d" / "run").chmod(0o755)
    (here / "d" / "link").symlink_to("sub/b")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(here)
    return here


def blobflow(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, done.output
    return done


def refused(*words: str, code: int) -> str:
    """The one sentence that is said, and nothing else."""
    done = blobflow(*words, code=code)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("Usage: ", "Try ")) and line]
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    return lines[0]


def manifest(place: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(blobflow("inspect", "--raw", place).stdout)
    return found


def test_the_manifest_has_the_form_that_oras_gives_it() -> None:
    said = ("--artifact-type", "application/vnd.example", *CREATED, "-a", "by=me")
    blobflow("push", "oci:lay:x", "a.txt:text/plain", "d", *said)
    raw = blobflow("inspect", "--raw", "oci:lay:x").stdout
    assert raw.startswith('{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",')
    found = json.loads(raw)
    assert list(found) == [
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "annotations",
    ]
    assert found["artifactType"] == "application/vnd.example"
    assert found["config"] == {
        "mediaType": EMPTY_TYPE,
        "digest": digest_of(b"{}"),
        "size": 2,
        "data": "e30=",
    }
    assert found["annotations"] == {"by": "me", "org.opencontainers.image.created": "2026-01-02T03:04:05Z"}
    text, packed = found["layers"]
    assert text == {
        "mediaType": "text/plain",
        "digest": digest_of(b"hello"),
        "size": 5,
        "annotations": {TITLE: "a.txt"},
    }
    blob = Path("lay/blobs/sha256", packed["digest"][7:]).read_bytes()
    tar = gzip.decompress(blob)
    assert packed["mediaType"] == media.OCI_LAYER_GZIP
    assert packed["annotations"] == {TITLE: "d", UNPACK: "true", UNPACKED_DIGEST: digest_of(tar)}
    with tarfile.open(fileobj=io.BytesIO(tar)) as entries:
        listed = entries.getmembers()
    assert [each.name for each in listed] == ["d", "d/link", "d/run", "d/sub", "d/sub/b"]
    assert {(each.mtime, each.uid, each.gid, each.uname) for each in listed} == {(0, 0, 0, "")}


def test_the_same_files_make_the_same_bytes() -> None:
    blobflow("push", "oci:one:x", "d", *CREATED)
    os.utime("d/sub/b", (1, 1))
    blobflow("push", "oci:two:x", "d", *CREATED)
    assert manifest("oci:one:x") == manifest("oci:two:x")


def test_what_nobody_has_said_anything_of_is_called_as_oras_calls_it() -> None:
    blobflow("push", "oci:lay:x", "a.txt")
    found = manifest("oci:lay:x")
    assert found["artifactType"] == "application/vnd.unknown.artifact.v1"
    assert found["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar"
    assert found["annotations"].keys() == {"org.opencontainers.image.created"}


def test_an_artifact_may_be_its_annotations_alone() -> None:
    done = blobflow("push", "oci:lay:x", "-a", "reviewed=yes", "--json")
    assert json.loads(done.stdout)["files"] == []
    [layer] = manifest("oci:lay:x")["layers"]
    assert (layer["digest"], layer["data"]) == (EMPTY_DESCRIPTOR.digest, "e30=")


@pytest.mark.parametrize("place", ["oci:lay:x", "oci-archive:x.tar:x"])
def test_what_is_pulled_is_what_was_pushed(place: str, folder: Path) -> None:
    (folder / "twice").write_text("hello")
    (folder / "empty").touch()
    (folder / "e").mkdir()
    blobflow("push", place, "a.txt", "twice", "empty", "d/sub/b", "e")
    done = json.loads(blobflow("pull", place, "-o", "out/deep", "--json").stdout)
    assert [(each["title"], each["status"]) for each in done["files"]] == [
        (title, "written") for title in ("a.txt", "twice", "empty", "d/sub/b", "e")
    ]


def test_folders_and_files_come_back(folder: Path) -> None:
    (folder / "twice").write_text("hello")
    (folder / "empty").touch()
    blobflow("push", "oci:lay:x", "a.txt", "twice", "empty", "d")
    blobflow("pull", "oci:lay:x", "-o", "out")
    out = folder / "out"
    assert {p.relative_to(out).as_posix() for p in out.rglob("*")} == {
        *("a.txt", "twice", "empty", "d", "d/sub", "d/sub/b", "d/run", "d/link")
    }
    assert (out / "twice").read_text() == "hello"
    assert (out / "d" / "link").read_text() == "there"
    assert os.access(out / "d" / "run", os.X_OK)
    assert not os.access(out / "d" / "sub" / "b", os.X_OK)
    (out / "a.txt").write_text("changed")
    assert (out / "twice").read_text() == "hello", "no two files are one"


def test_what_is_there_stays_and_what_differs_is_refused_before_anything_is_read(folder: Path) -> None:
    (folder / "c").write_text("third")
    blobflow("push", "oci:lay:x", "a.txt", "c")
    blobflow("pull", "oci:lay:x", "-o", "out")
    before = (folder / "out" / "c").stat().st_mtime_ns
    assert "is there already" in blobflow("pull", "oci:lay:x", "-o", "out").stdout
    (folder / "out" / "a.txt").write_text("mine")
    assert "--overwrite" in refused("pull", "oci:lay:x", "-o", "out", code=2)
    assert (folder / "out" / "a.txt").read_text() == "mine"
    blobflow("pull", "oci:lay:x", "-o", "out", "--overwrite")
    assert (folder / "out" / "a.txt").read_text() == "hello"
    assert (folder / "out" / "c").stat().st_mtime_ns == before
    (folder / "out" / "a.txt").unlink()
    (folder / "out" / "a.txt").mkdir()
    assert "a folder" in refused("pull", "oci:lay:x", "-o", "out", "--overwrite", code=2)


def test_a_folder_that_is_there_keeps_what_else_is_in_it(folder: Path) -> None:
    blobflow("push", "oci:lay:x", "d")
    (folder / "out" / "d" / "sub").mkdir(parents=True)
    (folder / "out" / "d" / "mine").write_text("mine")
    (folder / "out" / "d" / "sub" / "b").write_text("old")
    refused("pull", "oci:lay:x", "-o", "out", code=2)
    blobflow("pull", "oci:lay:x", "-o", "out", "--overwrite")
    assert (folder / "out" / "d" / "mine").read_text() == "mine"
    assert (folder / "out" / "d" / "sub" / "b").read_text() == "there"


@pytest.mark.parametrize(("is_folder", "kind"), [(["sub", "sub/b"], "a folder"), ([], "no folder")])
def test_a_folder_in_the_way_deeper_down_changes_nothing(
    is_folder: list[str], kind: str, folder: Path
) -> None:
    blobflow("push", "oci:lay:x", "a.txt", "d")
    below = folder / "out" / "d"
    below.mkdir(parents=True)
    for each in is_folder:
        (below / each).mkdir()
    if not is_folder:
        (below / "sub").symlink_to("..")
    said = refused("pull", "oci:lay:x", "-o", "out", "--overwrite", code=2)
    assert f"is there already, and {kind}; -o DIR writes elsewhere" in said
    assert [path.name for path in (folder / "out").iterdir()] == ["d"]
    assert [path.name for path in below.iterdir()] == ["sub"]


def artifact(layers: list[dict[str, Any]], **more: Any) -> Layout:
    """A layout with an artifact that others made."""
    layout = Layout(Path("made"))
    content = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": "application/vnd.example",
        "config": layout.put(b"{}", EMPTY_TYPE),
        "layers": [
            layout.put(each.pop("content"), "text/plain", annotations=each.pop("notes")) for each in layers
        ],
        **more,
    }
    layout.tag(layout.put(content, media.OCI_MANIFEST))
    return layout


def called(*titles: str) -> list[dict[str, Any]]:
    return [{"content": title.encode(), "notes": {TITLE: title}} for title in titles]


@pytest.mark.parametrize(
    ("titles", "sentence"),
    [
        (("/etc/x",), "'/etc/x', which is no path inside of a folder"),
        (("../x",), "'../x', which is no path"),
        (("good", "a/../../x"), "'a/../../x', which is no path"),
        ((".",), "'.', which is no path"),
        (("a\0b",), "which is no path"),
        (("n" * 256,), "which is no path"),
        (("p/" * 2048 + "q",), "which is no path"),
        (("x", "./x"), "two layers are called 'x'"),
        (("x", "x/y"), "is in a folder of that name"),
    ],
)
def test_a_title_that_leads_elsewhere_is_refused_and_nothing_is_written(
    titles: tuple[str, ...], sentence: str, folder: Path
) -> None:
    artifact(called(*titles))
    before = sorted(folder.rglob("*"))
    assert sentence in refused("pull", "oci:made:x", "-o", "out", code=7)
    assert sorted(folder.rglob("*")) == before


def test_a_link_in_the_way_is_not_followed(folder: Path, tmp_path: Path) -> None:
    artifact(called("dir/x"))
    (folder / "out").mkdir()
    (folder / "out" / "dir").symlink_to(tmp_path)
    assert "is a link" in refused("pull", "oci:made:x", "-o", "out", code=7)
    assert not (tmp_path / "x").exists()


def test_a_link_of_the_name_itself_is_replaced_and_not_written_through(folder: Path, tmp_path: Path) -> None:
    artifact(called("x"))
    (tmp_path / "precious").write_text("mine")
    (folder / "out").mkdir()
    (folder / "out" / "x").symlink_to(tmp_path / "precious")
    refused("pull", "oci:made:x", "-o", "out", code=2)
    blobflow("pull", "oci:made:x", "-o", "out", "--overwrite")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (folder / "out" / "x").read_text() == "x"


def packed(*entries: tuple[str, str, str]) -> bytes:
    """A tar+gzip of (kind, name, content or aim)."""
    raw = io.BytesIO()
    kinds = {
        "dir": tarfile.DIRTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for kind, name, words in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kinds.get(kind, tarfile.REGTYPE)
            if kind == "file":
                entry.size = len(words)
                tar.addfile(entry, io.BytesIO(words.encode()))
            else:
                entry.linkname = words
                tar.addfile(entry)
    return gzip.compress(raw.getvalue(), mtime=0)


def with_folder(content: bytes, **notes: str) -> None:
    said: Mapping[str, str] = {TITLE: "d", UNPACK: "true", **notes}
    artifact([{"content": content, "notes": said}])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (packed(("file", "e/x", "no")), "'e/x' in it, which leads out of it"),
        (packed(("file", "d/../x", "no")), "which leads out of it"),
        (packed(("file", "/d/x", "no")), "which leads out of it"),
        (packed(("link", "d/l", "/etc")), "the link 'd/l' in it, which leads out of it"),
        (packed(("link", "d/l", "../x")), "the link 'd/l' in it, which leads out of it"),
        (packed(("link", "d/l", "."), ("file", "d/l/x", "no")), "below the link"),
        (packed(("file", "d/x", "1"), ("file", "d/x", "2")), "'d/x' in it twice"),
        (packed(("fifo", "d/x", "")), "neither file, folder nor link"),
        (packed(("file", "d/x", "1"), ("hard", "d/y", "d/x")), "neither file, folder nor link"),
        (b"no gzip", "is no tar+gzip"),
        (gzip.compress(b"no tar" * 200), "is no tar+gzip"),
        (packed(("file", "d/x", "1"))[:-12], "is no tar+gzip"),
    ],
)
def test_a_folder_that_leads_elsewhere_is_refused_and_nothing_is_left(
    content: bytes, sentence: str, folder: Path
) -> None:
    with_folder(content)
    assert sentence in refused("pull", "oci:made:x", "-o", "out", code=7)
    assert not (folder / "out").exists()


# As `oras push REF .` packs the folder that it runs in.
HERE = (
    ("dir", ".", ""),
    ("file", "x", "1"),
    ("dir", "sub", ""),
    ("file", "sub/y", "2"),
    ("link", "l", "sub/y"),
)


@pytest.mark.parametrize("title", [".", "./", "./."])
def test_a_folder_that_is_called_by_a_dot_is_the_one_that_is_written_to(title: str, folder: Path) -> None:
    with_folder(packed(*HERE), **{TITLE: title})
    blobflow("pull", "oci:made:x", "-o", "out")
    out = folder / "out"
    assert {each.relative_to(out).as_posix() for each in out.rglob("*")} == {"x", "sub", "sub/y", "l"}
    assert (out / "l").read_text() == "2"
    (out / "mine").write_text("mine")
    (out / "x").write_text("changed")
    assert "has files" in refused("pull", "oci:made:x", "-o", "out", code=2)
    assert (out / "x").read_text() == "changed"
    blobflow("pull", "oci:made:x", "-o", "out", "--overwrite")
    assert ((out / "x").read_text(), (out / "mine").read_text()) == ("1", "mine")
    (folder / "empty").mkdir()
    (folder / "to").symlink_to("empty")
    blobflow("pull", "oci:made:x", "-o", "to")
    assert (folder / "empty" / "sub" / "y").read_text() == "2"


def beside_here(title: str) -> None:
    artifact([{"content": packed(*HERE), "notes": {TITLE: ".", UNPACK: "true"}}, *called(title)])


def test_beside_a_folder_that_is_called_by_a_dot_there_may_be_others(folder: Path) -> None:
    beside_here("other/z")
    done = json.loads(blobflow("pull", "oci:made:x", "-o", "out", "--json").stdout)
    assert [each["title"] for each in done["files"]] == [".", "other/z"]
    assert (folder / "out" / "other" / "z").read_text() == "other/z"


def test_what_a_folder_that_is_called_by_a_dot_has_no_other_layer_may_be(folder: Path) -> None:
    beside_here("sub/z")
    assert "two layers have 'sub'" in refused("pull", "oci:made:x", "-o", "out", code=7)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "entry",
    [
        ("file", "../x", "no"),
        ("file", "/x", "no"),
        ("file", "..", "no"),
        ("link", "l", "../x"),
        ("link", "l", "/x"),
        ("link", "a/l", "../../x"),
    ],
)
def test_out_of_a_folder_that_is_called_by_a_dot_leads_no_way(
    entry: tuple[str, str, str], folder: Path
) -> None:
    with_folder(packed(entry), **{TITLE: "."})
    assert "which leads out of it" in refused("pull", "oci:made:x", "-o", "out", code=7)
    assert not (folder / "out").exists()


def test_a_folder_has_to_be_the_one_that_was_packed(folder: Path) -> None:
    good = packed(("dir", "d", ""), ("file", "d/x", "1"))
    with_folder(good, **{UNPACKED_DIGEST: digest_of(b"another")})
    assert "the folder d, unpacked, has digest" in refused("pull", "oci:made:x", "-o", "out", code=6)
    assert not (folder / "out").exists()


def test_a_folder_unpacks_to_no_more_than_is_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_ALWAYS", 1000)
    monkeypatch.setattr(unpack, "_MAX_RATIO", 2)
    with_folder(packed(("file", "d/x", "1" * 5000)))
    assert "more than 2 times its size" in refused("pull", "oci:made:x", "-o", "out", code=7)


@pytest.mark.parametrize(
    ("link", "inside"),
    [
        *(("x", True), ("./x", True), ("../x", True), ("../../x", False), ("/x", False)),
        *(("a/../x", False), (".", True), ("..", True), ("../..", False)),
    ],
)
def test_links_stay_inside(link: str, inside: bool) -> None:
    assert stays_inside("top", "top/e/l", link) == inside
    assert stays_inside("a/top", "a/top/e/l", link) == inside


def test_of_folders_that_were_made_for_nothing_none_is_left_and_others_stay(folder: Path) -> None:
    layout = artifact(called("x"))
    layout.path(digest_of(b"x")).write_bytes(b"y")
    (folder / "there").mkdir()
    refused("pull", "oci:made:x", "-o", "there/new/out", code=6)
    assert [*(folder / "there").iterdir()] == []
    refused("pull", "oci:made:x", "-o", "there", code=6)
    assert [*(folder / "there").iterdir()] == []


def test_wrong_bytes_are_not_written(folder: Path) -> None:
    layout = artifact(called("x"))
    layout.path(digest_of(b"x")).write_bytes(b"y")
    refused("pull", "oci:made:x", "-o", "out", code=6)
    assert not (folder / "out").exists()


def test_what_has_no_files_by_name_is_told_where_it_can_go() -> None:
    layout = Layout(Path("lay"))
    image = layout.image("amd64")
    index = layout.index(image)
    named = {
        "schemaVersion": 2,
        "manifests": [{**image, "annotations": {NAME: "i"}}, {**index, "annotations": {NAME: "x"}}],
    }
    (layout.folder / "index.json").write_text(json.dumps(named))
    sentence = refused("pull", "oci:lay:i", code=7)
    assert "`blobflow copy oci:lay:i oci:DIR`" in sentence and "`docker load`" in sentence
    assert "--platform" in refused("pull", "oci:lay:x", code=7)
    assert "is an image" in refused("pull", "oci:lay:x", "--platform", "linux/amd64", code=7)


def test_layers_without_a_name_are_told_of_and_left(folder: Path) -> None:
    artifact([*called("x"), {"content": b"unnamed", "notes": {}}])
    done = blobflow("pull", "oci:made:x", "-o", "out")
    assert "1 layer without a file name left out" in done.stderr
    assert [path.name for path in (folder / "out").iterdir()] == ["x"]
    other = Path("made")
    assert other.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("push oci:lay:x", "no file to push"),
        ("push oci:lay:x none.txt", "there is no file none.txt"),
        ("push oci:lay:x -", "there is no file -; write what a pipe gives into a file first"),
        ("push oci:lay:x a.txt:text", "is written a.txt:text:); write type/subtype, as text/plain"),
        ("push oci:lay:x :text/plain", "names no file"),
        ("push oci:lay:x a.txt --artifact-type nonsense", "is no media type for --artifact-type"),
        ("push oci:lay:x a.txt -a nonsense", "is not KEY=VALUE"),
        ("push oci:lay:x a.txt -a k=1 -a k=2", "given twice"),
        ("push oci:lay:x a.txt -a org.opencontainers.image.created=now", "write it as 2026-01-31T12:00:00Z"),
        ("push oci:lay:x a.txt ./a.txt", "two files would be called 'a.txt'"),
        ("push oci:lay:x d d/sub/b", "is in a folder of that name"),
        ("push oci:lay:x /dev/null", "neither a file nor a folder"),
        ("push oci:lay a.txt", "write oci:lay:NAME"),
        (f"push oci:lay:x@sha256:{'0' * 64} a.txt", "follows from the files"),
        ("push docker-archive:x.tar:x a.txt", "holds images alone"),
        ("attach oci:lay:x a.txt", "--artifact-type is missing"),
        ("attach oci:lay:x --artifact-type a/b", "there is nothing to attach"),
        ("attach oci-archive:x.tar:x a.txt --artifact-type a/b", "is an archive, which is written whole"),
    ],
)
def test_what_can_not_be_put_is_one_sentence_and_leaves_nothing(words: str, sentence: str) -> None:
    assert sentence in refused(*words.split(), code=2)
    assert not Path("lay").exists() and not Path("x.tar").exists()


def test_a_link_that_leads_out_of_a_folder_is_not_packed(folder: Path) -> None:
    (folder / "d" / "bad").symlink_to("../a.txt")
    assert "could not be pulled" in refused("push", "oci:lay:x", "d", code=2)


@pytest.mark.parametrize("left", ["hello, changed", "hel", "HELLO", None])
def test_a_file_that_changes_while_it_is_pushed_is_named(
    left: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*words: Any) -> None:
        write_layout(*words)
        (folder / "a.txt").unlink()
        if left is not None:
            (folder / "a.txt").write_text(left)

    write_layout = push._write_layout
    monkeypatch.setattr(push, "_write_layout", meanwhile)
    said = refused("push", "oci:lay:x", "a.txt", code=6)
    assert said == f"blobflow: {folder / 'a.txt'} changed while it was read; try again once it is whole"


def test_a_place_for_packed_folders_that_is_full_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*words: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_add", write)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = refused("push", "oci:lay:x", "d", code=8)
    assert f"can't pack d into {tmp_path} (TMPDIR): the disk is full" in said


def test_what_is_attached_to_has_to_be_there() -> None:
    blobflow("push", "oci:lay:x", "a.txt")
    before = Path("lay/index.json").read_bytes()
    for platform in ((), ("--platform", "linux/amd64")):
        said = refused("attach", "oci:lay:y", "a.txt", "--artifact-type", "a/b", *platform, code=5)
        assert said.startswith("blobflow: target: ") and "y" in said
    assert Path("lay/index.json").read_bytes() == before


def test_what_is_attached_hangs_on_the_image_and_on_what_was_attached(folder: Path) -> None:
    layout = Layout(folder / "lay")
    image = layout.image("amd64")
    layout.tag(layout.index(image, layout.image("arm64")))
    where = "oci:lay:x"
    sbom = json.loads(blobflow("attach", where, "a.txt", "--artifact-type", "text/spdx", "--json").stdout)
    assert (
        sbom["subject"]["digest"]
        == json.loads((folder / "lay/index.json").read_text())["manifests"][0]["digest"]
    )
    assert list(manifest(f"oci:lay@{sbom['digest']}")) == [
        *("schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations")
    ]
    blobflow("attach", f"oci:lay@{sbom['digest']}", "-a", "k=v", "--artifact-type", "text/sig")
    blobflow("attach", where, "a.txt", "--artifact-type", "text/spdx", "--platform", "linux/amd64")
    found = json.loads(blobflow("referrers", where, "--json").stdout)
    [on_index] = found["image"]["referrers"]
    [on_image] = found["image"]["manifests"][0]["referrers"]
    assert (on_index["digest"], on_index["artifactType"]) == (sbom["digest"], "text/spdx")
    assert [each["artifactType"] for each in on_index["referrers"]] == ["text/sig"]
    assert on_image["digest"] != on_index["digest"]
    assert found["count"] == 3
    blobflow("pull", f"oci:lay@{sbom['digest']}", "-o", "out")
    assert (folder / "out" / "a.txt").read_text() == "hello"
    pruning = ("copy", "--dry-run", "-v", where, "oci:two:x", "--platform", "linux/amd64", "--index", "prune")
    left = [line for line in blobflow(*pruning).stdout.splitlines() if line.startswith("left: ")]
    assert [line.split()[1:4] for line in left] == [
        [each["digest"], "of", "oci:two:x:"] for each in (on_index, *on_index["referrers"])
    ]


@pytest.mark.parametrize(
    ("path", "title"),
    [
        *(("a", "a"), ("./a/../b", "b"), ("d/sub/b", "d/sub/b"), ("../here/a", "a"), ("/x/y.txt", "y.txt")),
        (".", "here"),
    ],
)
def test_a_file_is_called_by_its_path_or_its_last_part(path: str, title: str) -> None:
    assert title_of(Path(path)) == title
