"""Archives and layers in every compression that is read, told by their first bytes; the others by name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import lz4.frame
import pytest
import zstandard

from blobflow.errors import BlobflowError, DigestMismatch, StorageError, UnsupportedContent
from blobflow.oci import Digest
from blobflow.transports.archive import CompressMode
from blobflow.transports.archive.detection import detect_transport
from blobflow.transports.compression import bzip2_xz_lz4, decompressor
from blobflow.transports.compression.detection import decompressor_for
from blobflow.transports.rootfs import Layer, read_tree
from tests.fakes.archives import (
    LAYERS,
    NAME,
    Reading,
    bare_layers,
    config_of,
    digest,
    layer_of,
    podman_entries,
    tar_of,
)

Pack = Callable[[bytes], bytes]


@cache
def bzip2(raw: bytes) -> bytes:
    return bz2.compress(raw, 1)


@cache
def xz(raw: bytes) -> bytes:
    return lzma.compress(raw, preset=0)


def frame(raw: bytes) -> bytes:
    pack: Pack = lz4.frame.compress
    return pack(raw)


def in_parts(pack: Pack) -> Pack:
    """Three streams, members or frames one behind the other, as parallel compressors write them."""
    return lambda raw: b"".join(map(pack, (raw[:1000], raw[1000:-700], raw[-700:])))


def as_pzstd(raw: bytes) -> bytes:
    """Each frame behind a skippable one that says how long it is."""
    frames = [zstandard.compress(part) for part in (raw[: len(raw) // 2], raw[len(raw) // 2 :])]
    return b"".join(
        b"\x50\x2a\x4d\x18\4\0\0\0" + len(frame).to_bytes(4, "little") + frame for frame in frames
    )


def with_window(raw: bytes, byte: int) -> bytes:
    """A frame of bare blocks whose header asks for a window: 2^(10 + byte / 8) bytes, and eighths of it."""
    cuts = [raw[at : at + 65536] for at in range(0, len(raw), 65536)]
    heads = [(len(cut) << 3 | (n == len(cuts) - 1)).to_bytes(3, "little") for n, cut in enumerate(cuts)]
    return b"\x28\xb5\x2f\xfd\0" + bytes([byte]) + b"".join(map(bytes.__add__, heads, cuts))


LONG_28 = 18 << 3
STANDARD: dict[str, Pack] = {"gzip": gzip.compress, "zstd": zstandard.compress}
OLD: dict[str, Pack] = {
    "bzip2": bzip2,
    "bzip2 in parts": in_parts(bzip2),
    "xz": xz,
    "xz in parts": in_parts(xz),
    "xz in parts with padding": lambda raw: xz(raw[:1000]) + bytes(8) + xz(raw[1000:]),
    "lz4": frame,
    "lz4 in parts": in_parts(frame),
}
ALL: dict[str, Pack] = {
    **STANDARD,
    **OLD,
    "gzip in parts": in_parts(gzip.compress),
    "zstd in parts": in_parts(zstandard.compress),
    "pzstd": as_pzstd,
    "zstd --long=28": lambda raw: with_window(raw, LONG_28),
}


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    made = Reading(tmp_path / "store")
    yield made
    made.close()
    made.store.close()


@pytest.fixture(scope="module")
def plain() -> bytes:
    return tar_of(podman_entries({NAME: LAYERS}))


@pytest.mark.parametrize("form", ALL)
async def test_an_archive_is_the_same_image_in_every_compression(
    reading: Reading, tmp_path: Path, plain: bytes, form: str
) -> None:
    (tmp_path / "plain").write_bytes(plain)
    (tmp_path / "a.tar").write_bytes(ALL[form](plain))  # whatever the name says
    assert detect_transport(tmp_path / "a.tar") == "docker-archive"
    archive = reading.archive(f"docker-archive:{tmp_path}/a.tar")
    made = await archive.resolve("")
    assert made == await reading.archive(f"docker-archive:{tmp_path}/plain").resolve(NAME)
    assert await bare_layers(archive) == list(LAYERS)


async def test_an_archive_through_a_pipe_as_well(reading: Reading, tmp_path: Path, plain: bytes) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    writer = threading.Thread(target=pipe.write_bytes, args=(lzma.compress(plain),))
    writer.start()
    assert await bare_layers(reading.archive(f"docker-archive:{pipe}")) == list(LAYERS)
    writer.join()


# Layers in docker's archives

BARE = layer_of("bare", 1_300_000)  # more than one block of a compressor


def archive_of(layer: bytes) -> bytes:
    listed = f'[{{"Config":"c.json","RepoTags":["{NAME}"],"Layers":["l"]}}]'.encode()
    return tar_of([("l", layer), ("c.json", config_of(BARE)), ("manifest.json", listed)])


@pytest.mark.parametrize("mode", ["gzip", "none"])
@pytest.mark.parametrize("outer", [bytes, gzip.compress])
@pytest.mark.parametrize("form", OLD)
async def test_a_layer_that_oci_has_no_type_for_is_what_it_would_be_bare(
    reading: Reading, tmp_path: Path, form: str, outer: Pack, mode: CompressMode
) -> None:
    (tmp_path / "a").write_bytes(outer(archive_of(OLD[form](BARE))))
    (tmp_path / "bare").write_bytes(archive_of(BARE))
    archive = reading.archive(f"docker-archive:{tmp_path}/a", mode)
    assert await bare_layers(archive) == [BARE]
    bare = reading.archive(f"docker-archive:{tmp_path}/bare", mode)
    assert await archive.resolve("") == await bare.resolve("")


@pytest.mark.parametrize("outer", [bytes, gzip.compress])
@pytest.mark.parametrize("form", OLD)
@pytest.mark.parametrize(
    ("spoil", "errors", "words"),
    [
        (lambda pack: pack(layer_of("other")), DigestMismatch, "has digest"),
        (lambda pack: pack(BARE)[:-3], (StorageError, DigestMismatch), "l of .*cut off|has digest"),
        (lambda pack: pack(BARE) + b"junk" * 5, StorageError, "behind its|damaged"),
    ],
)
async def test_and_it_has_to_be_the_one_that_the_config_names(
    reading: Reading,
    tmp_path: Path,
    form: str,
    outer: Pack,
    spoil: Callable[[Pack], bytes],
    errors: type[BlobflowError] | tuple[type[BlobflowError], ...],
    words: str,
) -> None:
    (tmp_path / "a").write_bytes(outer(archive_of(spoil(OLD[form]))))
    with pytest.raises(errors, match=words):
        await reading.archive(f"docker-archive:{tmp_path}/a").resolve("")
    assert list((reading.store.root / "partials").iterdir()) == []


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
async def test_an_empty_layer_is_one(reading: Reading, tmp_path: Path, packed: Pack) -> None:
    listed = b'[{"Config":"c.json","Layers":["l","l"]}]'
    entries = [("l", b""), ("c.json", config_of(b"", b"")), ("manifest.json", listed)]
    (tmp_path / "a").write_bytes(packed(tar_of(entries)))
    assert await bare_layers(reading.archive(f"docker-archive:{tmp_path}/a")) == [b"", b""]


@pytest.mark.parametrize("form", ALL)
def test_a_layer_is_unpacked_from_every_compression(tmp_path: Path, form: str) -> None:
    """Media types say nothing here: it is the bytes that tell."""
    (tmp_path / "layer").write_bytes(ALL[form](BARE))
    tree = read_tree([Layer("the layer", tmp_path / "layer", Digest(digest(BARE)))])
    assert [item.paths for item in tree.items] == [("srv/bare",)]


@pytest.mark.parametrize("form", ALL)
def test_what_is_cut_off_is_told_wherever_that_is(form: str) -> None:
    packed = ALL[form](tar_of([("file", b"x" * 3000)]))
    for end in range(20, len(packed) - 1, 41):
        inflater = decompressor_for(packed[:end], "the layer")
        assert inflater is not None
        try:
            list(inflater.whole([packed[:7], packed[7:end]]))
        except StorageError as error:
            assert "cut off" in str(error) or "damaged" in str(error)
            continue
        # only where a stream ends may it do so without a word; its digest tells
        assert "parts" in form or form == "pzstd", end


@pytest.mark.parametrize("size", [1, 3, 64])
def test_padding_may_lie_across_blocks(size: int) -> None:
    packed = xz(b"one") + bytes(200) + xz(b"two") + bytes(4)
    blocks = [packed[at : at + size] for at in range(0, len(packed), size)]
    inflater = decompressor_for(packed[:16], "the layer")
    assert inflater is not None and b"".join(inflater.whole(blocks)) == b"onetwo"


# What an inflater may hold


@pytest.mark.parametrize("byte", [LONG_28 | 1, 19 << 3, 21 << 3, 31 << 3 | 7])
def test_a_window_beyond_the_bound_is_named_with_the_command(byte: int) -> None:
    window = (8 + (byte & 7)) << (7 + (byte >> 3))
    inflater = decompressor_for(packed := with_window(bytes(512), byte), "a.tar")
    assert inflater is not None and decompressor.MAX_WINDOW == 2**28
    words = rf"a\.tar is zstd with a window of {window // 2**20} MiB; up to 256 MiB is .*: zstd -dc --long=31"
    with pytest.raises(UnsupportedContent, match=words):
        list(inflater.whole([packed[:5], packed[5:]]))


def test_a_single_segment_is_its_own_window() -> None:
    head = b"\x28\xb5\x2f\xfd\xe0" + (2**30).to_bytes(8, "little")
    inflater = decompressor_for(head, "a.tar")
    assert inflater is not None
    with pytest.raises(UnsupportedContent, match="window of 1024 MiB"):
        list(inflater.decompress(head))


def test_a_dictionary_beyond_the_bound_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """xz -9 has 64 MiB."""
    packed = lzma.compress(bytes(512), preset=9)
    inflater = decompressor_for(packed, "a.tar")
    assert inflater is not None and b"".join(inflater.whole([packed])) == bytes(512)
    monkeypatch.setattr(bzip2_xz_lz4, "MAX_WINDOW", 32 * 1024 * 1024)
    inflater = decompressor_for(packed, "a.tar")
    assert inflater is not None
    with pytest.raises(UnsupportedContent, match=r"a\.tar is xz with a larger dictionary; up to .*: xz -dc"):
        list(inflater.decompress(packed))


@pytest.mark.parametrize("form", ["bzip2", "xz", "lz4"])
def test_what_inflates_without_end_is_not_read_to_its_end(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompressor, "BOMB_FROM", 2_000_000)
    packed = OLD[form](bytes(20_000_000))
    inflater = decompressor_for(packed, "a.tar")
    assert inflater is not None
    with pytest.raises(UnsupportedContent, match="200 times"):
        assert all(len(piece) <= 2**20 for piece in inflater.decompress(packed))


@pytest.mark.parametrize("form", ["bzip2", "xz", "lz4"])
def test_streams_without_content_are_bounded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompressor, "PARTS_FROM", 1000)
    packed = OLD[form](b"") * 1000 + OLD[form](b"end")
    inflater = decompressor_for(packed, "a.tar")
    assert inflater is not None
    with pytest.raises(UnsupportedContent, match=f"is {form} of 1001 parts"):
        list(inflater.decompress(packed))


@pytest.mark.parametrize(("form", "module"), [("bzip2", "bz2"), ("xz", "lzma")])
def test_a_python_without_the_library_is_told(
    form: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedContent, match=f"this Python can't read; unpack it first: {form} -dc"):
        decompressor_for(OLD[form](b"x"), "a.tar")


def test_a_tar_is_none_of_them() -> None:
    """Whatever the first file is called."""
    for name in ("]", "PK", "BZ", "LZ", "7z", "docker"):
        assert decompressor_for(tar_of([(name, b"")]), "a.tar") is None
