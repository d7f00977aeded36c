"""Layers of docker's archives are what the configs say, on every road; of two entries with one name the last
one counts."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from blobflow.errors import BlobflowError, DigestMismatch, IntegrityError, StorageError, UnsupportedContent
from blobflow.oci import media, parse_manifest
from blobflow.transports.archive import ArchiveSource, codec
from blobflow.transports.compression import detection
from blobflow.transports.store import ImportCache
from tests.fakes.archives import (
    FORMS,
    LAYERS,
    NAME,
    Entries,
    Link,
    Reading,
    bare_layers,
    config_of,
    digest,
    layer_of,
    tar_of,
    write,
)

BARE, OTHER = LAYERS[1], layer_of("other", 100_000)
Pack = Callable[[bytes], bytes]


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    made = Reading(tmp_path / "store")
    yield made
    made.close()
    made.store.close()


def in_members(layer: bytes) -> bytes:
    """As pigz -i and stargz write layers: several members."""
    return b"".join(gzip.compress(layer[start : start + 30_000]) for start in range(0, len(layer), 30_000))


def in_frames(layer: bytes) -> bytes:
    """As zstd:chunked writes layers: several frames, and one at the end that holds none of it."""
    parts = (layer[start : start + 30_000] for start in range(0, len(layer), 30_000))
    return b"".join(map(zstandard.compress, parts)) + b"\x50\x2a\x4d\x18\x04\x00\x00\x00more"


PACKED: dict[str, Pack] = {
    "gzip": gzip.compress,
    "gzip of several members": in_members,
    "zstd": zstandard.compress,
    "zstd of several frames": in_frames,
}


def listing(*paths: str, config: str = "c.json") -> tuple[str, bytes]:
    listed = [{"Config": config, "RepoTags": [NAME], "Layers": list(paths)}]
    return "manifest.json", json.dumps(listed).encode()


def archive_of(layer: bytes) -> Entries:
    """One layer, in front of all that tells what it has to be."""
    return [("l", layer), ("c.json", config_of(BARE)), listing("l")]


def opened(reading: Reading, folder: Path, entries: Entries, packed: str = "tar") -> ArchiveSource:
    return reading.archive(f"docker-archive:{write(folder / 'a', entries, packed)}")


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("form", PACKED)
async def test_a_compressed_layer_that_is_right_goes_on_as_it_is(
    reading: Reading, tmp_path: Path, form: str, packed: str
) -> None:
    layer = PACKED[form](BARE)
    archive = opened(reading, tmp_path, archive_of(layer), packed)
    [found] = parse_manifest(await archive.read(await archive.resolve(""))).layers
    assert (found.digest, found.size) == (digest(layer), len(layer))


def spoilt(layer: bytes) -> bytes:
    at = len(layer) // 2
    return layer[:at] + bytes([layer[at] ^ 1]) + layer[at + 1 :]


def cut(layer: bytes) -> bytes:
    return layer[: len(layer) * 2 // 3]


WRONG: dict[str, tuple[Callable[[Pack], bytes], tuple[type[BlobflowError], ...], str]] = {
    "another layer": (lambda pack: pack(OTHER), (DigestMismatch,), "has digest"),
    "a part of the layer": (lambda pack: pack(BARE[:50_000]), (DigestMismatch,), "has digest"),
    "more than the layer": (lambda pack: pack(BARE + bytes(512)), (DigestMismatch,), "has digest"),
    "cut off": (lambda pack: cut(pack(BARE)), (StorageError, DigestMismatch), "is cut off|has digest"),
    "without its end": (lambda pack: pack(BARE)[:-3], (StorageError, DigestMismatch), "is cut off"),
    "spoilt": (lambda pack: spoilt(pack(BARE)), (StorageError, DigestMismatch), "is damaged|has digest"),
    "zeros behind it": (lambda pack: pack(BARE) + bytes(512), (StorageError,), "something behind"),
    "junk behind it": (lambda pack: pack(BARE) + b"junk" * 9, (StorageError,), "something behind"),
}


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("form", PACKED)
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_compressed_layer_that_is_not_what_its_config_says_is_refused(
    reading: Reading, tmp_path: Path, wrong: str, form: str, packed: str
) -> None:
    """Zeros and junk as skopeo (containers/image) and Go's gzip do, which read layers for everybody."""
    make, errors, words = WRONG[wrong]
    archive = opened(reading, tmp_path, archive_of(make(PACKED[form])), packed)
    with pytest.raises(errors, match=words) as raised:
        await archive.resolve("")
    assert "\n" not in str(raised.value)
    assert "l of" in str(raised.value)
    assert list((reading.store.root / "partials").iterdir()) == []


async def test_a_layer_through_a_pipe_is_checked_as_well(reading: Reading, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    content = tar_of(archive_of(gzip.compress(OTHER)))
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    with pytest.raises(DigestMismatch, match="has digest"):
        await reading.archive(f"docker-archive:{pipe}").resolve("")
    writer.join()


@pytest.mark.parametrize("packed", FORMS)
async def test_a_layer_is_right_for_one_image_and_wrong_for_another(
    reading: Reading, tmp_path: Path, packed: str
) -> None:
    """And each time that it is asked for: what is remembered is of one file and one config."""
    configs = [("c.json", config_of(BARE)), ("d.json", config_of(OTHER))]
    listed = [{"Config": path, "RepoTags": [path[:1]], "Layers": ["l"]} for path, _ in configs]
    catalogue = ("manifest.json", json.dumps(listed).encode())
    archive = opened(reading, tmp_path, [("l", gzip.compress(BARE)), *configs, catalogue], packed)
    assert await bare_layers(archive, "@0") == [BARE]
    for _ in range(2):
        with pytest.raises(DigestMismatch, match="uncompressed, has digest"):
            await archive.resolve("@1")


@pytest.mark.parametrize("packed", FORMS)
async def test_a_layer_that_is_listed_often_is_inflated_once(
    reading: Reading, tmp_path: Path, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    real = detection.UncompressedDigest.__init__

    def counted(self: detection.UncompressedDigest, head: bytes, name: str) -> None:
        begun.append(name)
        real(self, head, name)

    monkeypatch.setattr(detection.UncompressedDigest, "__init__", counted)
    entries = [("l", gzip.compress(BARE)), ("c.json", config_of(*[BARE] * 500)), listing(*["l"] * 500)]
    archive = opened(reading, tmp_path, entries, packed)
    manifest = parse_manifest(await archive.read(await archive.resolve("")))
    assert (len(manifest.layers), len(begun)) == (500, 1)


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize(("head", "what"), [(b"PK\3\4", "zip"), (b"LZIP\1", "lzip"), (b"junk", "neither")])
async def test_a_layer_that_can_not_be_checked_is_refused(
    reading: Reading, tmp_path: Path, head: bytes, what: str, packed: str
) -> None:
    archive = opened(reading, tmp_path, archive_of(head + os.urandom(2000)), packed)
    with pytest.raises((UnsupportedContent, DigestMismatch), match=f"{what}|neither|has digest"):
        await archive.resolve("")


async def test_what_was_recorded_before_layers_were_checked_is_read_again(
    reading: Reading, tmp_path: Path
) -> None:
    path = write(tmp_path / "a", archive_of(gzip.compress(OTHER)), "tar.gz")
    about = path.stat()
    old = f"{about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns} "
    for version in ("oci", codec("gzip").version):
        ImportCache(reading.store).record_archive(old + version, b"\x93\x80\x80")
    with pytest.raises(DigestMismatch):
        await reading.archive(f"docker-archive:{path}").resolve("")


# Two entries with one name


def layered(*entries: tuple[str, bytes | Link]) -> Entries:
    return [*entries, ("c.json", config_of(BARE)), listing("dir/l")]


EARLIER, LATER = ("dir/l", OTHER), ("dir/l", BARE)
TWICE: dict[str, Entries] = {
    "equal": layered(LATER, LATER),
    "the later one": layered(EARLIER, LATER),
    "three times": layered(LATER, EARLIER, LATER),
    "another spelling": layered(EARLIER, ("./dir//l", BARE)),
    "compressed": layered(("dir/l", gzip.compress(OTHER)), ("dir/l", gzip.compress(BARE))),
    "the earlier one is damaged": layered(("dir/l", gzip.compress(BARE)[:-9]), LATER),
    "a link, then a file": layered(("o", OTHER), ("dir/l", Link("../o")), LATER),
    "a file, then a link": layered(("o", BARE), EARLIER, ("dir/l", Link("../o"))),
    "a link, then another": layered(
        ("o", OTHER), ("p", BARE), ("dir/l", Link("../o")), ("dir/l", Link("../p"))
    ),
    "a link to what comes again": layered(("o", OTHER), ("dir/l", Link("../o")), ("o", BARE)),
    "a hard link to what came": layered(("o", BARE), ("dir/l", Link("o", tarfile.LNKTYPE)), ("o", OTHER)),
    "a hard link to itself": layered(LATER, ("dir/l", Link("dir/l", tarfile.LNKTYPE))),
    "a hard link to a link": layered(
        ("o", BARE), ("s", Link("o")), ("dir/l", Link("s", tarfile.LNKTYPE)), ("s", Link("c.json"))
    ),
    "a file, then a hard link": layered(("o", BARE), EARLIER, ("dir/l", Link("o", tarfile.LNKTYPE))),
    "folders again and again": layered(
        ("dir", Link("", tarfile.DIRTYPE)), LATER, ("dir/", Link("", tarfile.DIRTYPE))
    ),
    "a folder that was a link": layered(("dir", Link("o")), ("dir", Link("", tarfile.DIRTYPE)), LATER),
    "the lists": [listing("gone"), ("c.json", config_of(OTHER)), *layered(LATER)],
}


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("case", TWICE)
async def test_of_two_entries_with_one_name_the_later_one_counts(
    reading: Reading, tmp_path: Path, case: str, packed: str
) -> None:
    archive = opened(reading, tmp_path, TWICE[case], packed)
    assert await bare_layers(archive) == [BARE]


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize(
    "entries",
    [
        layered(LATER, EARLIER),
        layered(LATER, ("dir/l", gzip.compress(BARE)[:-9])),
        layered(LATER, ("dir/l", Link("", tarfile.DIRTYPE))),
        layered(("o", OTHER), ("dir/l", Link("o", tarfile.LNKTYPE)), ("o", BARE)),
    ],
)
async def test_and_not_the_earlier_one(
    reading: Reading, tmp_path: Path, entries: Entries, packed: str
) -> None:
    with pytest.raises((DigestMismatch, StorageError)):
        await opened(reading, tmp_path, entries, packed).resolve("")


@pytest.mark.parametrize("packed", FORMS)
async def test_the_same_holds_for_the_blobs_of_an_oci_archive(
    reading: Reading, tmp_path: Path, packed: str
) -> None:
    """What is damaged does no harm where another entry takes its place."""
    manifest = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []}).encode()
    described = {"mediaType": media.OCI_INDEX, "digest": digest(manifest), "size": len(manifest)}
    index = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    path, wrong = f"blobs/{digest(manifest).replace(':', '/')}", b"x" * len(manifest)
    lists = [("index.json", b"{}"), ("./index.json", index)]
    for name, blobs in {"good": [wrong, manifest], "bad": [manifest, wrong + b"x"]}.items():
        entries = [*lists, *zip((path, f"./{path}"), blobs, strict=True)]
        archive = reading.archive(f"oci-archive:{write(tmp_path / name, entries, packed)}")
        if name == "good":
            assert await archive.read(await archive.resolve("")) == manifest
        else:
            with pytest.raises(IntegrityError):
                await archive.read(await archive.resolve(""))
