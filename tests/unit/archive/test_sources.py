"""Archives as sources: every form that others write gives the same image; what is wrong is told in words."""

from __future__ import annotations

import gzip
import json
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blobflow.errors import (
    BlobflowError,
    DigestMismatch,
    NotFound,
    StorageError,
    UnsupportedContent,
    UsageError,
)
from blobflow.oci import Digest, parse_manifest
from blobflow.transports.archive import CompressMode
from blobflow.transports.compression import decompressor
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
    podman_entries,
    tar_of,
    write,
)


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    made = Reading(tmp_path / "store")
    yield made
    made.close()
    made.store.close()


@pytest.mark.parametrize("packed", FORMS)
async def test_what_podman_saves_is_read_whole(reading: Reading, tmp_path: Path, packed: str) -> None:
    path = write(tmp_path / "a", podman_entries({NAME: LAYERS}), packed)
    archive = reading.archive(f"docker-archive:{path}")
    assert await archive.tags() == [NAME]
    assert await bare_layers(archive) == list(LAYERS)


async def test_the_same_image_has_the_same_digest_in_every_form(reading: Reading, tmp_path: Path) -> None:
    entries = podman_entries({NAME: LAYERS})
    last = ("manifest.json", dict(entries)["manifest.json"])
    reordered = [last, *(each for each in entries if each != last)]
    forms: list[tuple[str, Entries]] = [(packed, entries) for packed in FORMS]
    forms += [(packed, reordered) for packed in FORMS]
    found = set()
    for number, (packed, each) in enumerate(forms):
        path = write(tmp_path / f"{number}", each, packed)
        found.add((await reading.archive(f"docker-archive:{path}").resolve("")).digest)
    assert len(found) == 1


async def test_an_archive_comes_through_a_pipe(reading: Reading, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    content = tar_of(podman_entries({NAME: LAYERS}))
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert await bare_layers(reading.archive(f"docker-archive:{pipe}")) == list(LAYERS)
    writer.join()


@pytest.mark.parametrize("packed", FORMS)
async def test_a_second_reading_compresses_nothing(reading: Reading, tmp_path: Path, packed: str) -> None:
    path = write(tmp_path / "a", podman_entries({NAME: LAYERS, "other:1": LAYERS[:1]}), packed)
    archive = reading.archive(f"docker-archive:{path}")
    first = [await archive.resolve(name) for name in ("app:1", "other:1")]
    assert reading.begun == len(LAYERS)
    reading.close()
    again = reading.archive(f"docker-archive:{path}")
    assert [await again.resolve(name) for name in ("app:1", "other:1")] == first
    assert reading.begun == len(LAYERS)
    assert await bare_layers(again, "app:1") == list(LAYERS)


async def test_a_layer_that_the_store_lost_is_compressed_again(reading: Reading, tmp_path: Path) -> None:
    path = write(tmp_path / "a", podman_entries({NAME: LAYERS}), "tar.gz")
    first = await reading.archive(f"docker-archive:{path}").resolve("")
    reading.close()
    for blob in (reading.store.root / "blobs" / "sha256").iterdir():
        reading.store.blobs.drop(Digest(f"sha256:{blob.name}"))
    again = reading.archive(f"docker-archive:{path}")
    assert await again.resolve("") == first
    assert await bare_layers(again) == list(LAYERS)


async def test_layers_left_bare_stay_in_a_plain_archive(reading: Reading, tmp_path: Path) -> None:
    path = write(tmp_path / "a", podman_entries({NAME: LAYERS}))
    archive = reading.archive(f"docker-archive:{path}", "none")
    manifest = parse_manifest(await archive.read(await archive.resolve("")))
    assert [layer.digest for layer in manifest.layers] == [digest(layer) for layer in LAYERS]
    assert await bare_layers(archive) == list(LAYERS)
    assert (reading.begun, reading.held()) == (0, 0)


async def test_only_the_layers_of_the_image_asked_for_are_compressed(
    reading: Reading, tmp_path: Path
) -> None:
    path = write(tmp_path / "a", podman_entries({"one:1": LAYERS[:1], "two:1": LAYERS[1:]}))
    await reading.archive(f"docker-archive:{path}").resolve("two:1")
    assert reading.begun == 1


@pytest.mark.parametrize("packed", FORMS)
async def test_layers_that_are_compressed_already_are_left_as_they_are(
    reading: Reading, tmp_path: Path, packed: str
) -> None:
    layer = gzip.compress(LAYERS[1], mtime=0)
    listed = [{"Config": "c.json", "RepoTags": [NAME], "Layers": ["l.tar"]}]
    catalogue = json.dumps(listed).encode()
    entries = [("l.tar", layer), ("c.json", config_of(LAYERS[1])), ("manifest.json", catalogue)]
    archive = reading.archive(f"docker-archive:{write(tmp_path / 'a', entries, packed)}")
    manifest = parse_manifest(await archive.read(await archive.resolve("")))
    assert [each.digest for each in manifest.layers] == [digest(layer)]
    assert reading.begun == 0


@pytest.mark.parametrize("mode", ["gzip", "zstd"])
async def test_what_is_compressed_does_not_depend_on_how_it_was_read(
    reading: Reading, tmp_path: Path, mode: CompressMode
) -> None:
    """Else the same layer would be another blob from another file."""
    stores = [reading, Reading(tmp_path / "other")]
    found = set()
    for each, packed in zip(stores, ("tar", "tar.zst"), strict=True):
        path = write(tmp_path / packed, podman_entries({NAME: LAYERS}), packed)
        found.add((await each.archive(f"docker-archive:{path}", mode).resolve("")).digest)
    assert len(found) == 1
    assert stores[1].begun == len(LAYERS)
    stores[1].close()
    stores[1].store.close()


@pytest.mark.parametrize("name", ["app:1", "library/app:1", NAME, "@0", "docker.io/app:1"])
async def test_an_image_has_docker_s_short_names_too(reading: Reading, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a", podman_entries({NAME: LAYERS[1:], "quay.io/app:1": LAYERS[:1]}))
    assert await bare_layers(reading.archive(f"docker-archive:{path}"), name) == list(LAYERS[1:])


@pytest.mark.parametrize("name", ["quay.io/app:1", "localhost/app:1", "[::1]:5000/library/app:1"])
async def test_a_name_with_a_host_is_never_another_host_s_image(
    reading: Reading, tmp_path: Path, name: str
) -> None:
    path = write(tmp_path / "a", podman_entries({NAME: LAYERS}))
    with pytest.raises(NotFound, match=re.escape(f"has no image {name}; it has {NAME}")):
        await reading.archive(f"docker-archive:{path}").resolve(name)


async def test_a_name_without_a_host_is_an_image_of_any(reading: Reading, tmp_path: Path) -> None:
    path = write(tmp_path / "a", podman_entries({"localhost/app:1": LAYERS, "localhost/b:1": LAYERS[1:]}))
    assert await bare_layers(reading.archive(f"docker-archive:{path}"), "app:1") == list(LAYERS)


async def test_a_digest_finds_the_image_that_a_plan_pinned(reading: Reading, tmp_path: Path) -> None:
    path = write(tmp_path / "a", podman_entries({"one:1": LAYERS[:1], "two:1": LAYERS[1:]}))
    archive = reading.archive(f"docker-archive:{path}")
    wanted = await archive.resolve("two:1")
    reading.close()
    again = reading.archive(f"docker-archive:{path}")
    assert await again.resolve(wanted.digest) == wanted
    with pytest.raises(NotFound):
        await again.resolve(digest(b"other"))


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("", UsageError, "holds 2 images"),
        ("three:1", NotFound, "it has one:1, quay.io/two:1"),
        ("@2", NotFound, "2 images"),
        ("@x", UsageError, "@0"),
    ],
)
async def test_a_name_that_means_none_is_answered_with_those_that_are_there(
    reading: Reading, tmp_path: Path, name: str, error: type[BlobflowError], words: str
) -> None:
    path = write(tmp_path / "a", podman_entries({"one:1": LAYERS[:1], "quay.io/two:1": LAYERS[1:]}))
    with pytest.raises(error, match=words):
        await reading.archive(f"docker-archive:{path}").resolve(name)


def without(path: str, entries: Entries) -> Entries:
    return [each for each in entries if each[0] != path]


GOOD = podman_entries({NAME: LAYERS[1:]})
LAYER = f"{digest(LAYERS[1])[7:]}.tar"


def listing(**changes: object) -> bytes:
    config = next(path for path, _ in GOOD if path.endswith(".json") and path != "manifest.json")
    entry = {"Config": config, "RepoTags": [NAME], "Layers": [LAYER]} | changes
    return json.dumps([entry]).encode()


def relisted(raw: bytes, *more: tuple[str, bytes | Link]) -> Entries:
    return [*without("manifest.json", GOOD), *more, ("manifest.json", raw)]


BAD: dict[str, tuple[Entries, type[BlobflowError], str]] = {
    "layer missing": (without(LAYER, GOOD), StorageError, "not complete"),
    "list points outside": (relisted(listing(Layers=["../../etc/passwd"])), UnsupportedContent, "outside"),
    "config points outside": (relisted(listing(Config="/etc/passwd")), UnsupportedContent, "outside"),
    "entry outside": ([("../evil", b"x"), *GOOD], UnsupportedContent, "outside"),
    "absolute entry": ([("/evil", b"x"), *GOOD], UnsupportedContent, "outside"),
    "link outside": ([("a", Link("../../x")), *GOOD], UnsupportedContent, "outside"),
    "hard link outside": ([("a", Link("/x", tarfile.LNKTYPE)), *GOOD], UnsupportedContent, "outside"),
    "links in a circle": (
        relisted(listing(Layers=["a"]), ("a", Link("b")), ("b", Link("a"))),
        UnsupportedContent,
        "circle",
    ),
    "the same path twice": ([*GOOD, (LAYER, LAYERS[0])], DigestMismatch, "has digest"),
    "the same name twice": (
        relisted(json.dumps([*json.loads(listing()), *json.loads(listing(Layers=["b"]))]).encode()),
        UnsupportedContent,
        "2 images named .*; write .*:NAME with one of @0, @1",
    ),
    "wrong layer": ([(LAYER, LAYERS[0]), *without(LAYER, GOOD)], DigestMismatch, "has digest"),
    "schema 1": (without("manifest.json", GOOD), UnsupportedContent, "schema 1"),
    "schema 1 config": (relisted(listing(Config="c"), ("c", b'{"id":"x"}')), UnsupportedContent, "schema 1"),
    "number of layers": (relisted(listing(Layers=[LAYER, LAYER])), StorageError, "names 1 layers"),
    "something else": ([("readme", b"hello")], UnsupportedContent, "something else"),
    "an OCI archive": ([("index.json", b"{}")], UnsupportedContent, "write oci-archive:"),
    "no JSON": (relisted(b"[{"), UnsupportedContent, "manifest.json is not"),
    "other JSON": (relisted(b'{"a":1}'), UnsupportedContent, "manifest.json is not"),
}


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("case", BAD)
async def test_what_is_wrong_is_told_in_a_sentence(
    reading: Reading, tmp_path: Path, case: str, packed: str
) -> None:
    entries, error, words = BAD[case]
    path = write(tmp_path / "bad", entries, packed)
    with pytest.raises(error, match=words) as raised:
        await reading.archive(f"docker-archive:{path}").resolve(NAME)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
async def test_a_truncated_archive_is_told(
    reading: Reading, tmp_path: Path, packed: str, left: float
) -> None:
    path = write(tmp_path / "cut", GOOD, packed)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    with pytest.raises(BlobflowError) as raised:
        await reading.archive(f"docker-archive:{path}").resolve(NAME)
    assert isinstance(raised.value, StorageError | UnsupportedContent)


@pytest.mark.parametrize("packed", ["tar.gz", "tar.zst"])
async def test_a_bomb_is_not_inflated(
    reading: Reading, tmp_path: Path, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompressor, "BOMB_FROM", 2_000_000)
    path = write(tmp_path / "bomb", [("zeros", bytes(20_000_000)), *GOOD], packed)
    with pytest.raises(UnsupportedContent, match="200 times"):
        await reading.archive(f"docker-archive:{path}").resolve(NAME)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", UnsupportedContent, "empty"),
        (b"hello", UnsupportedContent, "not a tar"),
        (bytes(2048), UnsupportedContent, "empty"),
        (b"BZh91AY&SY", StorageError, "cut off: its bzip2 stream"),
        (b"\xfd7zXZ\x00", StorageError, "cut off: its xz stream"),
        (b"\x04\x22\x4d\x18junk and more of it", StorageError, "damaged"),
        (b"LZIP\1junk and more of it", UnsupportedContent, "by lzip, which is not read; .*: lzip -dc"),
        (b"\x5d\0\0\x80\0" + b"\xff" * 8 + bytes(9), UnsupportedContent, "by lzma, .*: xz -dc --format=lzma"),
        (b"\x02\x21\x4c\x18" + bytes(9), UnsupportedContent, "lz4's legacy format, .*: lz4 -dc"),
        (b"PK\3\4" + bytes(9), UnsupportedContent, "zip, .*: unzip -p"),
        (b"\x1f\x8bjunk and more of it", StorageError, "damaged|cut off"),
        (b"\x28\xb5\x2f\xfdjunk and more of it", StorageError, "damaged"),
        (gzip.compress(tar_of(GOOD))[:-8] + b"abcdefgh", StorageError, "damaged"),
        (gzip.compress(tar_of(GOOD)) + b"more", StorageError, "behind"),
        (tar_of(GOOD)[: 512 * 1] + b"x" * 512 * 9000, StorageError, "damaged|cut off"),
    ],
)
async def test_what_is_no_archive_is_told(
    reading: Reading, tmp_path: Path, content: bytes, error: type[BlobflowError], words: str
) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(error, match=words):
        await reading.archive(f"docker-archive:{path}").resolve(NAME)


async def test_no_archive_and_a_folder_are_told_apart(reading: Reading, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no archive"):
        await reading.archive(f"oci-archive:{tmp_path}/absent").resolve("")
    with pytest.raises(UnsupportedContent, match=f"oci:{tmp_path}"):
        await reading.archive(f"oci-archive:{tmp_path}").resolve("")


@pytest.mark.parametrize("packed", FORMS)
async def test_a_failed_reading_leaves_nothing_half_done(
    reading: Reading, tmp_path: Path, packed: str
) -> None:
    path = write(tmp_path / "bad", without("manifest.json", GOOD), packed)
    with pytest.raises(BlobflowError):
        await reading.archive(f"docker-archive:{path}").resolve(NAME)
    assert list((reading.store.root / "partials").iterdir()) == []
