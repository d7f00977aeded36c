"""What a header can cost: bounds in bytes, each with its sentence, work that is linear, and room for all that
is real. Work is counted, memory is measured by tracemalloc."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard
from isal import isal_zlib

from blobflow.errors import StorageError, UnsupportedContent
from blobflow.oci import digest_of
from blobflow.transports.archive import contents, tar_reader
from blobflow.transports.archive.contents import Contents, scan
from blobflow.transports.archive.detection import detect_transport
from blobflow.transports.archive.docker_manifest import diff_ids
from blobflow.transports.archive.manifest_json import MAX_LISTED, parse_manifest_json
from blobflow.transports.archive.tar_input import FileInput
from blobflow.transports.archive.tar_reader import END, padding
from blobflow.transports.compression import decompressor
from blobflow.transports.compression.detection import UncompressedDigest
from blobflow.transports.rootfs import FileTree, Layer, read_tree, tree, write_tar
from blobflow.transports.rootfs.tree import Entry, apply_layers

MIB = 1024 * 1024
PEAK = 24 * MIB  # bytes that whatever is small may take


def record(key: bytes, value: bytes) -> bytes:
    size = len(rest := b" " + key + b"=" + value + b"\n")
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def extra(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    header = tarfile.TarInfo("extra")
    header.type, header.size = kind, len(content)
    return header.tobuf(tarfile.USTAR_FORMAT) + content + padding(len(content))


def entry(path: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    header = tarfile.TarInfo(path)
    header.type, header.linkname = kind, target
    return header.tobuf(tarfile.USTAR_FORMAT)


def layer_of(folder: Path, parts: Iterable[bytes], pack: Callable[[bytes], bytes] = gzip.compress) -> Layer:
    bare = b"".join(parts)
    (folder / "layer").write_bytes(pack(bare))
    return Layer("the layer", folder / "layer", digest_of(bare))


def unpacked(folder: Path, parts: Iterable[bytes]) -> list[str]:
    """The names in the tar that layers come to."""
    layer = layer_of(folder, parts)
    made = bytearray()
    write_tar([("", read_tree([layer]), [layer])], made.extend)
    with tarfile.open(fileobj=io.BytesIO(made)) as found:
        return found.getnames()


def scanned(content: bytes) -> Contents:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return scan(FileInput(file.fileno(), "a.tar"))


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that Python had to hold at once for it."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Headers

LONG = 4096
COSTLY: dict[str, tuple[bytes, str]] = {
    "a long path": (extra(record(b"path", b"a/" * LONG)) + entry("f"), "a path of 8192 bytes"),
    "a path of slashes": (extra(record(b"path", b"/" * 1_000_000)) + entry("f"), "a path of 1000000 bytes"),
    "a long path in two bytes each": (
        extra(record(b"path", "ü".encode() * 2049)) + entry("f"),
        "a path of 4098 bytes",
    ),
    "a long link": (
        extra(record(b"linkpath", b"a/../" * 900)) + entry("l", tarfile.SYMTYPE),
        "a linkpath of 4500 bytes",
    ),
    "GNU's long path": (extra(b"a" * 5000 + b"\0", tarfile.GNUTYPE_LONGNAME) + entry("f"), "a path of 5000"),
    "GNU's long link": (
        extra(b"a" * 5000 + b"\0", tarfile.GNUTYPE_LONGLINK) + entry("f", tarfile.LNKTYPE),
        "a linkpath of 5000",
    ),
    "many records": (extra(b"5 a=\n" * 5000) + entry("f"), "more than 4096 records"),
    "a pax header of some MiB": (extra(bytes(2 * MIB)) + entry("f"), "headers of 2097152 bytes"),
    "pax headers of some MiB together": (extra(record(b"a", bytes(MIB // 2))) * 3 + entry("f"), "headers of"),
    "one behind the other": (extra(record(b"a", b"b")) * 17 + entry("f"), "more than 16 headers before one"),
    "long names without end": (extra(b"a\0", tarfile.GNUTYPE_LONGNAME) * 17 + entry("f"), "more than 16"),
    "headers for all without end": (extra(record(b"a", b"b"), tarfile.XGLTYPE) * 17 + entry("f"), "than 16"),
}


@pytest.mark.parametrize("case", COSTLY)
def test_what_a_header_says_is_bounded_in_layers_and_archives(tmp_path: Path, case: str) -> None:
    content, words = COSTLY[case]
    for read in (lambda: read_tree([layer_of(tmp_path, [content, END])]), lambda: scanned(content + END)):
        with pytest.raises(UnsupportedContent, match=words) as raised:
            read()
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("said", [b"9" * 17, b"9" * 5000, b"-1", b"1x", b"", "²".encode(), "\u0661".encode()])
def test_a_size_that_is_no_number_of_bytes_is_damage(tmp_path: Path, said: bytes) -> None:
    content = extra(record(b"size", said)) + entry("f") + END
    for read in (lambda: read_tree([layer_of(tmp_path, [content])]), lambda: scanned(content)):
        with pytest.raises(StorageError, match="is damaged: it has an entry of"):
            read()


REAL: dict[str, tuple[bytes, int]] = {
    "the longest path": (extra(record(b"path", b"a/" * 200 + b"b" * 255)) + entry("f"), 200),
    "the longest link": (extra(record(b"linkpath", b"a" * 4095)) + entry("l", tarfile.SYMTYPE), 0),
    "the longest attribute": (extra(record(b"SCHILY.xattr.user.a", b"\0" * 65536)) + entry("f"), 0),
    "many attributes": (
        extra(b"".join(record(b"SCHILY.xattr.user.%d" % n, b"v" * 100) for n in range(4000))) + entry("f"),
        0,
    ),
    "all kinds of headers before one": (
        extra(record(b"comment", b"a commit"), tarfile.XGLTYPE)
        + extra(b"l" * 200 + b"\0", tarfile.GNUTYPE_LONGLINK)
        + extra(b"n" * 200 + b"\0", tarfile.GNUTYPE_LONGNAME)
        + extra(record(b"mtime", b"1.5"))
        + entry("l", tarfile.SYMTYPE),
        0,
    ),
}


@pytest.mark.parametrize("case", REAL)
def test_what_is_real_is_unpacked(tmp_path: Path, case: str) -> None:
    content, folders = REAL[case]
    assert len(unpacked(tmp_path, [content, END])) == folders + 1


def test_headers_are_measured_by_what_they_came_out_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they are: what is held of them, passed over or dropped."""
    monkeypatch.setattr(tar_reader, "HEADERS_FROM", 100 * 512)
    same = {
        "files": entry("f") * 3000,
        "whiteouts": entry("a/.wh..wh..opq") * 3000,
        "names": (extra(b"n/" * 100 + b"\0", tarfile.GNUTYPE_LONGNAME) + entry("f")) * 1000,
        "records": (extra(b"5 a=\n" * 4000) + entry("f")) * 200,
        "for all": (extra(record(b"c", bytes(9000)), tarfile.XGLTYPE) + entry("f")) * 400,
    }
    for content in same.values():
        with pytest.raises(UnsupportedContent, match="more than 1000 times its size"):
            read_tree([layer_of(tmp_path, [content, END], zstandard.compress)])
        assert read_tree([layer_of(tmp_path, [content, END], bytes)])


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(level=19).compress])
def test_files_whose_names_count_up_are_not_taken_for_an_attack(
    tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_reader, "HEADERS_FROM", 0)
    mtime = extra(record(b"mtime", b"1700000000.123456"))
    content = [b"".join(mtime + entry(f"usr/share/f{n:06d}") for n in range(3000)), END]
    assert len(read_tree([layer_of(tmp_path, content, pack)]).items) == 3000


# Memory


def attributes(number: int) -> bytes:
    return record(b"SCHILY.xattr.user.a", b"%06d" % number + bytes(MIB - 1000))


def test_attributes_of_files_are_not_held(tmp_path: Path) -> None:
    layer = layer_of(tmp_path, [*(extra(attributes(n)) + entry(f"f{n}") for n in range(30)), END])
    assert peak_of(lambda: read_tree([layer])) < PEAK


def test_of_folders_and_links_so_much_is_held_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_MAX_HELD", 4 * MIB)
    for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE):
        many = layer_of(tmp_path, [*(extra(attributes(n)) + entry(f"f{n}", kind) for n in range(30)), END])

        def refused(layer: Layer = many) -> None:
            with pytest.raises(UnsupportedContent, match="bytes of names, links and attributes"):
                read_tree([layer])

        assert peak_of(refused) < PEAK
        same = layer_of(tmp_path, [*(extra(attributes(0)) + entry(f"f{n}", kind) for n in range(30)), END])
        assert len(names(read_tree([same]))) == 30  # what is the same is held once, as SELinux's labels


def names(found: FileTree) -> list[str]:
    return [each.path for each in found.folders if each.path] + [
        path for i in found.items for path in i.paths
    ]


def test_links_and_names_are_held_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MAX_HELD", MIB)
    for entries in (
        [Entry(f"{n:04d}" + "n" * 250, "file") for n in range(5000)],
        [Entry(f"l{n}", "symlink", target="t" * 4000) for n in range(300)],
    ):
        with pytest.raises(UnsupportedContent, match="bytes of names, links and attributes"):
            apply_layers([entries])


@pytest.mark.parametrize("kind", ["folder", "symlink"])
def test_folders_and_links_are_charged_what_they_take_besides(
    monkeypatch: pytest.MonkeyPatch, kind: Literal["folder", "symlink"]
) -> None:
    monkeypatch.setattr(tree, "_MAX_HELD", MIB)
    apply_layers([[Entry(f"{n:04d}", kind, target="t" if kind == "symlink" else "") for n in range(2000)]])
    with pytest.raises(UnsupportedContent, match="bytes of names, links and attributes"):
        apply_layers(
            [[Entry(f"{n:04d}", kind, target="t" if kind == "symlink" else "") for n in range(2200)]]
        )


def test_a_file_takes_some_hundred_bytes(tmp_path: Path) -> None:
    """Half a million of them, which real images have, some hundred MB; a million, the most, twice that."""
    count = 10_000
    layer = layer_of(tmp_path, [*(entry(f"usr/d{n % 100}/f{n}") for n in range(count)), END], bytes)
    found: list[FileTree] = []
    assert peak_of(lambda: found.append(read_tree([layer]))) < 400 * count + 2 * MIB
    assert len(found[0].items) == count


def test_so_many_names_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MAX_NAMES", 1000)
    assert tree._MAX_NAMES >= 1000
    with pytest.raises(UnsupportedContent, match="more than 1000 files"):
        apply_layers([[Entry(f"f{n}", "file") for n in range(1001)]])
    with pytest.raises(UnsupportedContent, match="more than 1000 files"):
        apply_layers([[Entry("a", "file"), *(Entry(f"f{n}", "hardlink", target="a") for n in range(1001))]])


# Work


def test_long_links_are_followed_for_so_many_steps_and_no_more() -> None:
    """An entry costs what its path and some short links cost, not 40 times 2048 names each."""
    long = Entry("l", "symlink", target="a/../" * 800 + "a")
    files = [Entry(f"l/f{n}", "file") for n in range(5000)]
    with pytest.raises(UnsupportedContent, match="symbolic links lead on for more than 16 steps a file"):
        apply_layers([[Entry("a", "folder"), long, *files]])
    chain = [Entry(f"c{n}", "symlink", target=f"c{n + 1}/" + "./" * 2000) for n in range(39)]
    with pytest.raises(UnsupportedContent, match="symbolic links lead on"):
        apply_layers([[*chain, Entry("c39", "folder"), *(Entry(f"c0/f{n}", "file") for n in range(5000))]])
    hidden = [Entry(f"l/.wh.f{n}", "file") for n in range(5000)]
    with pytest.raises(UnsupportedContent, match="symbolic links lead on"):
        apply_layers([[Entry("a", "folder"), long], hidden])
    linked = [Entry(f"h{n}", "hardlink", target="l/x") for n in range(5000)]
    with pytest.raises(UnsupportedContent, match="symbolic links lead on"):
        apply_layers([[Entry("a", "folder"), Entry("a/x", "file"), long, *linked]])


def test_links_that_are_real_are_followed_for_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged /usr, where a whole layer comes in through /lib, and forty links as Linux follows them."""
    monkeypatch.setattr(tree, "_LINK_STEPS", 0)
    links = [Entry("usr/lib", "folder"), Entry("lib", "symlink", target="usr/lib")]
    found = apply_layers([links, [Entry(f"lib/x86_64/f{n}", "file") for n in range(3000)]])
    assert len(found.items) == 3001
    chain = [Entry(f"c{n}", "symlink", target=f"c{n + 1}") for n in range(40)]
    assert names(apply_layers([[*chain, Entry("c40", "folder"), Entry("c0/f", "file")]]))[-1] == "c40/f"
    with pytest.raises(UnsupportedContent, match="a symbolic link in a circle"):
        apply_layers(
            [[Entry("b", "symlink", target="c0"), *chain, Entry("c40", "folder"), Entry("b/f", "file")]]
        )


def test_a_folder_is_looked_through_once_a_layer_however_often_it_is_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[object] = []
    real = tree._stripped

    def counted(held: Any, layer: int) -> bool:
        looked.append(held)
        return real(held, layer)

    monkeypatch.setattr(tree, "_stripped", counted)
    own = [Entry(f"d/s{n % 20}/f{n}", "file") for n in range(1000)]
    opaque = [Entry(f"d/{below}.wh..wh..opq", "file") for below in ("", "s1/", "s2/")] * 300
    hides = [Entry(".wh.d", "file")] * 300
    found = apply_layers([own, [*own, *opaque, *hides], [Entry("x", "file")]])
    assert len(found.items) == 1001
    assert len(looked) < 2 * len(own) + len(hides) + 100


def test_folders_within_folders_are_hidden_and_written_however_deep() -> None:
    deep = "/".join("d" * 1 for _ in range(255))
    below = [Entry(f"{deep}/f{n}", "file") for n in range(50)]
    assert len(names(apply_layers([below]))) == 255 + 50
    assert names(apply_layers([below, [Entry(".wh.d", "file")]])) == []
    assert names(apply_layers([below, [Entry(".wh..wh..opq", "file")]])) == []


def test_a_link_does_not_make_paths_longer_than_any_or_more_than_so_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far = "/".join("n" * 200 for _ in range(15))
    links = [Entry(far, "folder"), Entry("l", "symlink", target=far)]
    with pytest.raises(UnsupportedContent, match="a path of 4220 bytes"):
        apply_layers([[*links, Entry("l/" + "/".join("m" * 200 for _ in range(6)), "file")]])
    monkeypatch.setattr(tree, "_MAX_PATHS", MIB)
    with pytest.raises(UnsupportedContent, match="paths of more than 1048576 bytes"):
        apply_layers([[*links, *(Entry(f"l/f{n}", "file") for n in range(500))]])


# Archives of images


def test_names_of_an_archive_are_held_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_NAMES", 100_000)
    long = [extra(record(b"path", b"n" * 4000 + b"%d" % n)) + entry("f") for n in range(40)]
    links = [extra(record(b"linkpath", b"n" * 4000)) + entry(f"l{n}", tarfile.SYMTYPE) for n in range(40)]
    for parts in (long, links):
        with pytest.raises(UnsupportedContent, match="more than 100000 bytes of names"):
            scanned(b"".join(parts) + END)


def test_what_lies_deep_in_an_archive_is_no_part_of_an_image() -> None:
    found = scanned(entry("a/" * 40 + "f") + entry("b/f") + END)
    assert set(found.files) == {"b/f"}
    assert found.find("c/" * 40 + "f", "a.tar") is None


def test_links_of_an_archive_are_followed_some_times() -> None:
    chain = [entry(f"c{n}", tarfile.SYMTYPE, f"c{n + 1}") for n in range(49)]
    found = scanned(b"".join(chain) + entry("c49") + END)
    assert found.find("c20", "a.tar") == found.files["c49"]
    with pytest.raises(UnsupportedContent, match="links that lead in a circle"):
        found.find("c0", "a.tar")


def catalogue(**changes: object) -> bytes:
    return json.dumps([{"Config": "c", "RepoTags": None, "Layers": []} | changes]).encode()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (catalogue(Layers=["l"] * 20_001), "20001 layers of one image"),
        (catalogue(RepoTags=["a:1"] * 200_000), "lists 200001 images, layers and names"),
        (b"[" + b",".join([b'{"Config":"c"}'] * 150_000) + b"]", "lists 150000 images"),
        (catalogue(Config="c/" * 100_000), "a path of 200000 characters"),
        (b'[{"Config":' + b"[" * 1_000_000, "not what docker writes"),
        (b'[{"x":' + b'{"a":' * 500_000, "not what docker writes"),
    ],
)
def test_lists_are_bounded(raw: bytes, words: str) -> None:
    with pytest.raises(UnsupportedContent, match=words) as raised:
        parse_manifest_json(raw, "a.tar")
    assert len(str(raised.value)) < 300
    assert MAX_LISTED >= 50 * 1000  # a thousand images of fifty layers


def test_the_number_of_diff_ids_is_looked_at_before_any_of_them() -> None:
    config = json.dumps({"rootfs": {"diff_ids": ["x"] * 300_000}}).encode()
    with pytest.raises(StorageError, match=r"names 300000 layers, but manifest\.json lists 1"):
        diff_ids(config, 1, "c.json")


def test_telling_which_kind_an_archive_is_holds_no_names(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"".join(entry(f"blobs/sha256/{n:064x}") for n in range(12_000)) + END)
    assert peak_of(lambda: detect_transport(tmp_path / "a.tar")) < 1.5 * MIB  # their names alone come to that


def in_nothing(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(b"") * decompressor.PARTS_FROM + pack(b"end")


PARTS_OF_NOTHING = {
    "gzip members": in_nothing(gzip.compress),
    "zstd frames": in_nothing(zstandard.compress),
    "zstd blocks": b"\x28\xb5\x2f\xfd\x00\x58" + decompressor.PARTS_FROM * b"\0\0\0" + b"\x01\0\0",
    "skippable frames": zstandard.compress(b"")
    + decompressor.PARTS_FROM * b"\x50\x2a\x4d\x18\0\0\0\0"
    + zstandard.compress(b""),
}


@pytest.mark.parametrize("packed", PARTS_OF_NOTHING.values(), ids=PARTS_OF_NOTHING.keys())
def test_parts_that_hold_nothing_are_bounded(packed: bytes) -> None:
    with pytest.raises(UnsupportedContent, match="parts with little or nothing in them"):
        UncompressedDigest(packed, "the layer").update(packed)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_small_parts_that_hold_something_are_not(
    monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    """As stargz and zstd:chunked have them: each entry of a tar by itself, which may be a header alone."""
    monkeypatch.setattr(decompressor, "PARTS_FROM", 10)
    entries = [entry(f"file{number}") for number in range(200)] + [END]
    bare = UncompressedDigest(packed := b"".join(map(pack, entries)), "the layer")
    bare.update(packed)
    assert bare.finish() == digest_of(b"".join(entries))


def test_what_follows_a_member_is_not_copied_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in bytes that the decompressor is given: of all members together, and not of each."""
    given, real = 0, isal_zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._state = real(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal given
            given += len(data)
            return bytes(self._state.decompress(data, most))

        def __getattr__(self, name: str) -> object:
            return getattr(self._state, name)

    monkeypatch.setattr(isal_zlib, "decompressobj", Counting)
    short, long = gzip.compress(b"some"), gzip.compress(random.Random(1).randbytes(MIB), 1)
    packed = short * 20_000 + long
    bare = UncompressedDigest(packed, "the layer")
    bare.update(packed)
    bare.finish()
    assert given < 20_001 * decompressor.FIRST_STEP + 8 * len(long)
