"""What layers come to, and that no layer gets out of the folder that it is unpacked in."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import BlobflowError, DigestMismatch, StorageError, UnsupportedContent, UsageError
from blobflow.oci import digest_of
from blobflow.transports.rootfs import Layer, apply_layers, read_tree, temporary_folder, unpack, write_tar
from blobflow.transports.rootfs.tree import Entry, FileTree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def folder(path: str, **more: Any) -> Entry:
    return Entry(path, "folder", **more)


def file(path: str, **more: Any) -> Entry:
    return Entry(path, "file", **more)


def link(path: str, target: str) -> Entry:
    return Entry(path, "symlink", target=target)


def hard(path: str, target: str) -> Entry:
    return Entry(path, "hardlink", target=target)


def names(tree: FileTree) -> set[str]:
    """All names; of hard links with that of the content that they have in front."""
    found = {f"{folder.path}/" for folder in tree.folders if folder.path}
    for item in tree.items:
        first, *others = item.paths
        found |= {first, *(f"{first}={other}" for other in others)}
    return found


CASES: dict[str, tuple[list[list[Entry]], set[str]]] = {
    "one layer over the other": ([[file("a")], [file("b")]], {"a", "b"}),
    "no layer": ([], set()),
    "folders that nobody mentions": ([[file("a/b/c")]], {"a/", "a/b/", "a/b/c"}),
    "a whiteout": ([[file("a"), file("b")], [file(".wh.a")]], {"b"}),
    "a whiteout of a folder": ([[file("a/b/c")], [file(".wh.a")]], set()),
    "a whiteout of nothing": ([[file("a")], [file("x/.wh.b"), file(".wh.c")]], {"a"}),
    "a whiteout spares its own layer": ([[], [file(".wh.a"), file("a")]], {"a"}),
    "before and after": ([[file("a")], [file("a"), file(".wh.a")]], {"a"}),
    "a whiteout spares what its layer put below": (
        [[file("a/old")], [file("a/new"), file(".wh.a")]],
        {"a/", "a/new"},
    ),
    "an opaque folder": (
        [[file("a/b"), file("a/c/d")], [file("a/e"), file("a/.wh..wh..opq")]],
        {"a/", "a/e"},
    ),
    "opaque, told first": ([[file("a/b")], [file("a/.wh..wh..opq"), file("a/e")]], {"a/", "a/e"}),
    "aufs's own files": ([[file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs")]], set()),
    "a file over a folder": ([[file("a/b")], [file("a")]], {"a"}),
    "a folder over a file": ([[file("a")], [folder("a"), file("a/b")]], {"a/", "a/b"}),
    "a folder over a link": ([[folder("b"), link("a", "b")], [folder("a")]], {"a/", "b/"}),
    "through a link": (
        [[folder("usr/lib"), link("lib", "usr/lib")], [file("lib/x")]],
        {"usr/", "usr/lib/", "usr/lib/x", "lib"},
    ),
    "through a link from the root": (
        [[folder("r"), link("a/l", "/r")], [file("a/l/x")]],
        {"r/", "r/x", "a/", "a/l"},
    ),
    "through a link to nothing": ([[link("a", "b")], [file("a/x")]], {"a", "b/", "b/x"}),
    "a whiteout through a link": ([[file("r/x"), link("l", "r")], [file("l/.wh.x")]], {"r/", "l"}),
    "a hard link": ([[file("a"), hard("b", "a")]], {"a", "a=b"}),
    "a hard link to a lower layer": ([[file("a")], [hard("b", "a")]], {"a", "a=b"}),
    "a hard link outlives its target": ([[file("a"), hard("b", "a")], [file(".wh.a")]], {"b"}),
    "a hard link to what is replaced": ([[file("a"), hard("b", "a")], [file("a")]], {"a", "b"}),
    "a hard link to a link": ([[link("a", "x"), hard("b", "/a")]], {"a", "a=b"}),
    "the root itself": ([[folder("./", mode=0o700)], [folder("/")]], set()),
    "absolute and upward paths": (
        [[file("/a"), file("../b"), file("x/../../c"), file("./d")]],
        {"a", "b", "c", "d"},
    ),
    "up through a link": ([[link("l", "../../../r"), folder("r")], [file("l/x")]], {"l", "r/", "r/x"}),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_come_to(case: str) -> None:
    layers, expected = CASES[case]
    assert names(apply_layers(layers)) == expected


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([hard("a", "b")], "hard link to 'b', which is not in the image"),
        ([hard("a", "../../etc/passwd")], "which is not in the image"),
        ([folder("b"), hard("a", "b")], "which is a folder"),
        ([hard("a", "")], "hard link"),
        ([file("a"), file("a/b")], "'a', which is no folder"),
        ([link("a", "b"), link("b", "a"), file("a/x")], "in a circle"),
        ([file("/".join("d" * 300))], "deep"),
        ([file("n" * 256)], "no file system takes that"),
        ([file("x/.wh.a/b")], "below a whiteout"),
        ([file("a\0b")], "no file system takes that"),
        ([link("a", "x\0y")], "points to no path"),
    ],
)
def test_what_no_file_system_can_be_made_of_is_one_sentence(entries: list[Entry], words: str) -> None:
    with pytest.raises(UnsupportedContent, match=words):
        apply_layers([entries])


def test_the_last_word_on_a_folder_counts_and_its_content_stays() -> None:
    tree = apply_layers([[folder("a", mode=0o700), file("a/b")], [folder("a", mode=0o555)]])
    [entry] = [folder.entry for folder in tree.folders if folder.path == "a"]
    assert entry is not None
    assert (entry.mode, names(tree)) == (0o555, {"a/", "a/b"})


_names = st.sampled_from(["a", "b", ".wh.a", ".wh.b", ".wh..wh..opq", "..", "l"])
_paths = st.lists(_names, min_size=1, max_size=4).map("/".join)
_entries = st.builds(
    Entry,
    _paths,
    st.sampled_from(["folder", "file", "symlink", "hardlink"]),
    target=st.sampled_from(["a", "/b", "../l", "a/b", "l"]),
)


@given(st.lists(st.lists(_entries, max_size=8), max_size=4))
def test_whatever_the_layers_say_the_tree_has_no_way_out(layers: list[list[Entry]]) -> None:
    try:
        tree = apply_layers(layers)
    except UnsupportedContent:
        return
    paths = [path for item in tree.items for path in item.paths]
    folders = [folder.path for folder in tree.folders]
    assert len(paths) == len(set(paths))
    assert not set(paths) & set(folders)
    for path in (*paths, *folders):
        assert ".." not in path.split("/")
        assert not any(part.startswith(".wh.") for part in path.split("/"))
        assert path.rpartition("/")[0] in folders  # what is above is a folder, no link


# Writing


def member(path: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: Any) -> tuple[Any, bytes]:
    found = tarfile.TarInfo(path)
    found.type, found.size, found.mode = kind, len(content), more.pop("mode", 0o644)
    for key, value in more.items():
        setattr(found, key, value)
    return found, content


def layer(folder: Path, name: str, *members: tuple[Any, bytes], packed: str = "gz") -> Layer:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    packers: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstandard.compress}
    path = folder / f"{name}.layer"
    return layer_at(path, packers.get(packed, bytes)(out.getvalue()), out.getvalue(), name)


def layer_at(path: Path, content: bytes, bare: bytes, name: str = "layer") -> Layer:
    """A layer in a file, and what it has to be without its compression."""
    path.write_bytes(content)
    return Layer(name, path, digest_of(bare))


def unpacked(folder: Path, layers: Sequence[Layer], **more: bool) -> Path:
    root = folder / "rootfs"
    with temporary_folder(root) as made:
        unpack(read_tree(layers), layers, made, **more)
    return root


@pytest.fixture
def two_layers(tmp_path: Path) -> list[Layer]:
    return [
        layer(
            tmp_path,
            "low",
            member("bin", tarfile.DIRTYPE, mode=0o755),
            member("bin/tool", content=b"tool", mode=0o4755, mtime=1_600_000_000),
            member("bin/again", tarfile.LNKTYPE, linkname="bin/tool"),
            member("gone", content=b"gone"),
            member("locked", tarfile.DIRTYPE, mode=0o555, mtime=1_500_000_000),
            member("locked/inside", content=b"x" * 3_000_000),
            packed="zst",
        ),
        layer(
            tmp_path,
            "high",
            member(".wh.gone"),
            member("sh", tarfile.SYMTYPE, linkname="/bin/tool"),
            member("bin/tüte", content=b"u"),
            member("pipe", tarfile.FIFOTYPE),
            packed="bare",
        ),
    ]


def test_a_folder_has_modes_links_times_and_contents(tmp_path: Path, two_layers: list[Layer]) -> None:
    root = unpacked(tmp_path, two_layers)
    listed = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert listed == {"bin", "bin/tool", "bin/again", "bin/tüte", "locked", "locked/inside", "sh", "pipe"}
    tool = (root / "bin/tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_mtime, tool.st_nlink) == (0o4755, 1_600_000_000, 2)
    assert (root / "bin/again").read_bytes() == b"tool"
    assert (root / "sh").readlink() == Path("/bin/tool")
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    locked = (root / "locked").stat()
    assert (stat.S_IMODE(locked.st_mode), locked.st_mtime) == (0o555, 1_500_000_000)
    assert (root / "locked/inside").read_bytes() == b"x" * 3_000_000
    (root / "locked").chmod(0o755)  # so that the test's folder can be removed by others than root


def test_a_tar_holds_what_the_folder_would(tmp_path: Path, two_layers: list[Layer]) -> None:
    out = bytearray()
    write_tar([("", read_tree(two_layers), two_layers)], out.extend)
    again = bytearray()
    write_tar([("", read_tree(two_layers), two_layers)], again.extend)
    assert out == again
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert {m.name: (m.type, m.mode, m.linkname) for m in tar} == {
            "bin": (tarfile.DIRTYPE, 0o755, ""),
            "locked": (tarfile.DIRTYPE, 0o555, ""),
            "bin/again": (tarfile.REGTYPE, 0o4755, ""),
            "bin/tool": (tarfile.LNKTYPE, 0o4755, "bin/again"),
            "locked/inside": (tarfile.REGTYPE, 0o644, ""),
            "sh": (tarfile.SYMTYPE, 0o644, "/bin/tool"),
            "bin/tüte": (tarfile.REGTYPE, 0o644, ""),
            "pipe": (tarfile.FIFOTYPE, 0o644, ""),
        }
        inside = tar.extractfile("locked/inside")
        assert inside is not None
        assert inside.read() == b"x" * 3_000_000


def test_a_tar_of_several_platforms_has_a_folder_for_each(tmp_path: Path, two_layers: list[Layer]) -> None:
    out = bytearray()
    tree = read_tree(two_layers[1:])
    write_tar([("linux_amd64", tree, two_layers[1:]), ("linux_arm64", tree, two_layers[1:])], out.extend)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert {"linux_amd64", "linux_amd64/sh", "linux_arm64/bin/tüte"} <= set(tar.getnames())


def test_what_a_ustar_header_does_not_hold_is_in_a_pax_header(tmp_path: Path) -> None:
    long = "d" * 90 + "/" + "f" * 120
    entry = member(
        long,
        mtime=1.25,
        uid=3_000_000,
        linkname="",
        pax_headers={"SCHILY.xattr.user.note": "é", "mtime": "1.25"},
    )
    layers = [layer(tmp_path, "only", entry, member("l", tarfile.SYMTYPE, linkname="t" * 200))]
    out = bytearray()
    write_tar([("", read_tree(layers), layers)], out.extend)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        found = tar.getmember(long)
        assert (found.mtime, found.uid) == (1.25, 3_000_000)
        assert found.pax_headers["SCHILY.xattr.user.note"] == "é"
        assert tar.getmember("l").linkname == "t" * 200


EVIL = {
    "an absolute path": [member("/escaped", content=b"1")],
    "a path upward": [member("../escaped", content=b"1"), member("a/../../escaped", content=b"1")],
    "below a link outward": [
        member("out", tarfile.SYMTYPE, linkname="/"),
        member("out/escaped", content=b"1"),
    ],
    "below a relative link outward": [
        member("out", tarfile.SYMTYPE, linkname="../../.."),
        member("out/escaped", content=b"1"),
    ],
    "over a link outward": [
        member("escaped", tarfile.SYMTYPE, linkname="../escaped"),
        member("escaped", content=b"1"),
    ],
    "through a hard link to a link": [
        member("a", tarfile.SYMTYPE, linkname="../escaped"),
        member("escaped", tarfile.LNKTYPE, linkname="a"),
        member("escaped", content=b"1"),
    ],
}


@pytest.mark.parametrize("case", EVIL)
def test_nothing_gets_out_of_the_folder(tmp_path: Path, case: str) -> None:
    layers = [layer(tmp_path, "evil", *EVIL[case])]
    before = set(tmp_path.iterdir())
    root = unpacked(tmp_path, layers)
    assert set(tmp_path.iterdir()) - before == {root}
    assert (root / "escaped").read_bytes() == b"1"
    assert not Path("/escaped").exists()


def test_a_hard_link_to_what_is_outside_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    layers = [layer(tmp_path, "evil", member("x", tarfile.LNKTYPE, linkname="../../../etc/passwd"))]
    with pytest.raises(UnsupportedContent, match="not in the image"):
        unpacked(tmp_path, layers)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.layer"]


@needs_root
@pytest.mark.parametrize("asked", [False, True])
def test_device_nodes_are_made_by_root_and_when_asked_to(tmp_path: Path, asked: bool) -> None:
    null = member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3)
    layers = [layer(tmp_path, "dev", null, member("dev/file", content=b"1"))]
    root = tmp_path / "rootfs"
    with temporary_folder(root) as made:
        left = unpack(read_tree(layers), layers, made, devices=asked)
    assert (left.devices, (root / "dev/null").exists()) == (0 if asked else 1, asked)
    assert not asked or stat.S_ISCHR((root / "dev/null").stat().st_mode)


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs" / "mine").touch()
    with pytest.raises(UsageError, match="is not empty"):
        unpacked(tmp_path, [layer(tmp_path, "a", member("x"))])
    assert (tmp_path / "rootfs" / "mine").exists()


def test_an_empty_folder_is_taken_and_a_link_is_not(tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    layers = [layer(tmp_path, "a", member("x"))]
    assert (unpacked(tmp_path, layers) / "x").exists()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="no folder"), temporary_folder(tmp_path / "link"):
        pass


@pytest.mark.parametrize("content", [b"", bytes(1024), gzip.compress(bytes(1024))])
def test_an_empty_layer_brings_nothing(tmp_path: Path, content: bytes) -> None:
    bare = gzip.decompress(content) if content.startswith(b"\x1f") else content
    assert names(read_tree([layer_at(tmp_path / "empty", content, bare)])) == set()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"no tar at all" * 100, UnsupportedContent),
        (gzip.compress(b"no tar")[:-4], StorageError),
        (b"BZh91AY&SY", StorageError),
        (b"LZIP\1", UnsupportedContent),
    ],
)
def test_what_is_no_layer_is_named(tmp_path: Path, content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match="layer sha256:1"):
        read_tree([layer_at(tmp_path / "x", content, content, "layer sha256:1")])


@pytest.mark.parametrize("record", [b"xx a=b\n", b"0 a=b\n", b"99 a=b\n", b"1 a=b\n", b"=====\n"])
def test_a_pax_record_that_does_not_say_its_length_is_damage(tmp_path: Path, record: bytes) -> None:
    info, _ = member("pax", tarfile.XHDTYPE, content=record)
    content = info.tobuf() + record + bytes(-len(record) % 512) + bytes(1024)
    with pytest.raises(StorageError, match="pax header"):
        read_tree([layer_at(tmp_path / "l", content, content)])


@pytest.mark.parametrize(
    "said",
    [{"mtime": "1e999999999"}, {"mtime": "nan"}, {"uid": "-1"}, {"gid": "9" * 40}, {"mtime": "99999999999"}],
)
def test_numbers_that_no_system_takes_do_no_harm(tmp_path: Path, said: dict[str, str]) -> None:
    """As raw pax records: the standard library would not write them."""
    records = b"".join(
        f"{len(key) + len(value) + 3 + size} {key}={value}\n".encode()
        for key, value in said.items()
        for size in [len(str(len(key) + len(value) + 5))]
    )
    info, _ = member("pax", tarfile.XHDTYPE, content=records)
    plain, _ = member("x")
    content = info.tobuf() + records + bytes(-len(records) % 512) + plain.tobuf() + bytes(1024)
    layers = [layer_at(tmp_path / "l", content, content)]
    assert (unpacked(tmp_path, layers) / "x").exists()
    write_tar([("", read_tree(layers), layers)], lambda block: None)


def flipped() -> bytes:
    """A tar with every kind of entry, in six kilobytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in (
            member("d", tarfile.DIRTYPE, mode=0o755),
            member("d/" + "n" * 110, content=b"long", mtime=1.5),
            member("d/l", tarfile.SYMTYPE, linkname="n"),
            member("h", tarfile.LNKTYPE, linkname="d/l"),
            member("d/p", tarfile.FIFOTYPE),
            member("d/.wh.x"),
        ):
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()[:6144]


FLIPPED = flipped()


@given(
    st.lists(st.tuples(st.integers(0, 6143), st.integers(0, 255)), min_size=1, max_size=6),
    st.sampled_from([bytes, gzip.compress]),
)
def test_whatever_is_wrong_with_a_layer_is_an_error_of_ours(
    flips: list[tuple[int, int]], pack: Callable[[bytes], bytes]
) -> None:
    """Headers are flipped with their checksums made good again, so that what they say is believed."""
    content = bytearray(FLIPPED)
    for at, value in flips:
        content[at] = value
        start = at - at % 512
        content[start + 148 : start + 156] = b" " * 8
        content[start + 148 : start + 156] = b"%06o\0 " % (sum(content[start : start + 512]) & 0o777777)
    with tempfile.TemporaryDirectory() as folder:
        layers = [layer_at(Path(folder) / "x", pack(bytes(content)), bytes(content))]
        with suppress(BlobflowError):
            tree = read_tree(layers)
            write_tar([("", tree, layers)], lambda block: None)
            with temporary_folder(Path(folder) / "rootfs") as made:
                unpack(tree, layers, made)
            shutil.rmtree(Path(folder) / "rootfs")


# Layers are what the config says


@pytest.mark.parametrize("packed", ["gz", "zst", "bare"])
def test_a_layer_that_is_not_what_its_config_says_is_not_unpacked(tmp_path: Path, packed: str) -> None:
    right = layer(tmp_path, "low", member("a", content=b"a"), packed=packed)
    wrong = msgspec.structs.replace(right, diff_id=digest_of(b"another"))
    with pytest.raises(DigestMismatch, match=r"low, uncompressed, has digest sha256:[0-9a-f]{64}, expected"):
        unpacked(tmp_path, [right, wrong])
    assert [path.name for path in tmp_path.iterdir()] == ["low.layer"]
    assert (unpacked(tmp_path, [right, right]) / "a").read_bytes() == b"a"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_all_of_a_layer_is_looked_at_and_what_is_behind_its_tar_too(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """A layer may lack the end of a tar, even its padding, or have more behind it: its digest decides."""
    info, content = member("a", content=b"some bytes")
    entry = info.tobuf() + content
    for bare in (
        entry,
        entry + bytes(502),
        entry + bytes(1014),
        entry + bytes(5000),
        entry + bytes(1526) + b"x",
    ):
        whole = layer_at(tmp_path / "l", pack(bare), bare)
        assert names(read_tree([whole])) == {"a"}
        with pytest.raises((DigestMismatch, StorageError)):
            read_tree([layer_at(tmp_path / "l", pack(bare + b"\0"), bare)])
    if pack is not bytes:
        for cut in range(6, len(pack(entry))):
            with pytest.raises(StorageError, match="is cut off"):
                read_tree([layer_at(tmp_path / "l", pack(entry)[:cut], entry)])


def test_zeros_in_the_middle_of_a_layer_are_not_its_end(tmp_path: Path) -> None:
    """Go's reader, and so docker and containerd, take them for damage; what is behind them would be lost."""
    entries = [member(name)[0].tobuf() for name in "ab"]
    bare = entries[0] + bytes(512) + entries[1] + bytes(1024)
    with pytest.raises(StorageError, match="at byte 512 it has zeros, and more behind"):
        read_tree([layer_at(tmp_path / "l", bare, bare)])


def test_what_was_begun_is_removed_from_folders_that_nobody_may_write_in(tmp_path: Path) -> None:
    locked = layer(tmp_path, "l", member("locked", tarfile.DIRTYPE, mode=0o500), member("locked/f"))
    (tmp_path / "outside").mkdir(mode=0o555)

    def half_done() -> None:
        with temporary_folder(tmp_path / "rootfs") as made:
            unpack(read_tree([locked]), [locked], made)
            (made / "out").symlink_to(tmp_path / "outside")
            raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="full"):
        half_done()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.layer", "outside"]
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) == 0o555
