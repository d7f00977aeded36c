"""Archives as sinks: one tar for everybody, the same bytes for the same images, whole or not there."""

from __future__ import annotations

import hashlib
import json
import random
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from blobflow.content import Site
from blobflow.errors import ConnectionLost, StorageError, UsageError
from blobflow.events import HostMeter
from blobflow.oci import Descriptor, digest_of, media, parse_platform
from blobflow.transports.archive import ArchiveSink
from blobflow.transports.archive import sink as sink_module
from blobflow.transports.archive.tar_reader import header_of
from tests.contract.implementations import blob_of, image_of
from tests.fakes.registry import Bytes, body_that

BLOBS = [b"{}", b"layer one" * 9000, b"layer two" * 200_000, b""]
NAME = "docker.io/library/app:1"


def sink_at(path: Path | str, platform: str = "linux/amd64") -> ArchiveSink:
    return ArchiveSink(
        Site(f"oci-archive:{path}", ""), Path("/nowhere"), HostMeter(), parse_platform(platform)
    )


async def push(sink: ArchiveSink, contents: Iterable[bytes]) -> None:
    for content in contents:
        await sink.push(blob_of(content), Bytes(content))


def image(*contents: bytes) -> tuple[Descriptor, bytes]:
    return image_of(*map(blob_of, contents))


def index(*children: tuple[Descriptor, str]) -> tuple[Descriptor, bytes]:
    listed = [
        {
            "mediaType": child.media_type,
            "digest": child.digest,
            "size": child.size,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for child, architecture in children
    ]
    raw = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": listed}).encode()
    return Descriptor(media.OCI_INDEX, digest_of(raw), len(raw)), raw


def files_in(path: Path) -> dict[str, bytes]:
    """What another reader of tars finds, every file once."""
    with tarfile.open(path) as tar:
        found = [(member.name, tar.extractfile(member)) for member in tar.getmembers()]
        files = {name: file.read() for name, file in found if file}
    assert len(files) == len(found)
    return files


def json_in(path: Path, name: str) -> Any:
    return json.loads(files_in(path)[name])


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[ArchiveSink]:
    made = sink_at(tmp_path / "a.tar")
    yield made
    made.abandon()


async def written(path: Path, order: Sequence[bytes], *, expecting: bool = True) -> bytes:
    sink = sink_at(path)
    if expecting:
        sink.expect(map(blob_of, BLOBS))
    await push(sink, order)
    await sink.put(*image(*BLOBS), [NAME, "2"])
    await sink.complete()
    return path.read_bytes()


async def test_the_same_images_give_the_same_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    orders = [random.Random(seed).sample(BLOBS, len(BLOBS)) for seed in range(6)]
    assert len(set(map(tuple, orders))) > 1
    found = {await written(tmp_path / f"{number}.tar", order) for number, order in enumerate(orders)}
    assert len(found) == 1


async def test_an_archive_is_a_layout_and_has_docker_s_list(tmp_path: Path) -> None:
    await written(path := tmp_path / "a.tar", BLOBS)
    files = files_in(path)
    manifest, raw = image(*BLOBS)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    blobs = [*BLOBS, raw]
    assert {name for name in files if name.startswith("blobs/")} == {
        f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}" for blob in blobs
    }
    entries = json.loads(files["index.json"])["manifests"]
    assert [entry["digest"] for entry in entries] == [manifest.digest] * 2
    assert [entry["annotations"] for entry in entries] == [
        {"org.opencontainers.image.ref.name": "2"},
        {"org.opencontainers.image.ref.name": NAME, "io.containerd.image.name": NAME},
    ]
    (listed,) = json.loads(files["manifest.json"])
    assert listed["RepoTags"] == [NAME]
    assert [files[listed["Config"]], *(files[layer] for layer in listed["Layers"])] == BLOBS


@pytest.mark.parametrize(
    ("platform", "chosen"), [("linux/amd64", 0), ("linux/arm64/v8", 1), ("linux/s390x", 0)]
)
async def test_docker_s_list_knows_the_platform_asked_for(tmp_path: Path, platform: str, chosen: int) -> None:
    sink = sink_at(tmp_path / "a.tar", platform)
    await push(sink, BLOBS)
    children = [image(BLOBS[0], BLOBS[1]), image(BLOBS[0], BLOBS[2])]
    for child in children:
        await sink.put(*child)
    await sink.put(*index((children[0][0], "amd64"), (children[1][0], "arm64")), [NAME])
    await sink.complete()
    (listed,) = json_in(tmp_path / "a.tar", "manifest.json")
    assert listed["Layers"] == [f"blobs/sha256/{blob_of(BLOBS[chosen + 1]).digest[7:]}"]


async def test_a_name_that_is_no_reference_and_what_is_no_image_are_in_the_index_alone(
    sink: ArchiveSink, tmp_path: Path
) -> None:
    await push(sink, BLOBS)
    await sink.put(*image(*BLOBS), ["1.0"])
    artifact = image(*BLOBS)[1].replace(media.OCI_CONFIG.encode(), b"application/vnd.example.config")
    await sink.put(
        Descriptor(media.OCI_MANIFEST, digest_of(artifact), len(artifact)), artifact, ["x/chart:1"]
    )
    await sink.complete()
    assert json_in(tmp_path / "a.tar", "manifest.json") == []
    assert len(json_in(tmp_path / "a.tar", "index.json")["manifests"]) == 2


@pytest.mark.parametrize("failing", range(len(BLOBS) - 1))
async def test_what_failed_leaves_no_room_behind(tmp_path: Path, failing: int) -> None:
    """The archive is what it would have been had the failed blob never been begun."""
    good = [blob for number, blob in enumerate(BLOBS) if number != failing]
    sinks = [sink_at(tmp_path / "with.tar"), sink_at(tmp_path / "without.tar")]
    sinks[0].expect(map(blob_of, BLOBS))
    sinks[1].expect(map(blob_of, good))
    broken = blob_of(BLOBS[failing])
    for sink in sinks:
        await push(sink, good[:1])
        if sink is sinks[0]:
            with pytest.raises(ConnectionLost):
                await sink.push(broken, body_that(BLOBS[failing][:1], ConnectionLost("gone")))
        await push(sink, good[1:])
        await sink.put(*image(*good), ["1"])
        await sink.complete()
    assert (tmp_path / "with.tar").read_bytes() == (tmp_path / "without.tar").read_bytes()
    files_in(tmp_path / "with.tar")


async def test_a_blob_that_failed_may_come_again(sink: ArchiveSink, tmp_path: Path) -> None:
    blob = BLOBS[2]
    with pytest.raises(ConnectionLost):
        await sink.push(blob_of(blob), body_that(blob[:1_200_000], ConnectionLost("gone")))
    assert not await sink.has(blob_of(blob))
    await push(sink, BLOBS)
    await sink.put(*image(*BLOBS), ["1"])
    await sink.complete()
    assert blob in files_in(tmp_path / "a.tar").values()


async def test_what_no_name_reaches_is_not_kept(sink: ArchiveSink, tmp_path: Path) -> None:
    await push(sink, BLOBS)
    await sink.put(*image(*BLOBS))
    await sink.put(*image(BLOBS[0]), ["1"])
    await sink.complete()
    names = [name for name in files_in(tmp_path / "a.tar") if name.startswith("blobs/")]
    assert len(names) == 2


@pytest.mark.parametrize("tags", [[], ["1"]])
async def test_an_archive_is_there_when_it_is_complete_and_not_before(
    tmp_path: Path, tags: list[str]
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"former")
    for complete in (False, True):
        sink = sink_at(path)
        await push(sink, BLOBS)
        await sink.put(*image(*BLOBS), tags)
        assert path.read_bytes() == b"former"
        if complete:
            await sink.complete()
        sink.abandon()
    assert (path.read_bytes() == b"former") == (not tags)
    assert list(tmp_path.iterdir()) == [path]


async def test_an_archive_without_a_folder_to_be_in_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no folder"):
        await sink_at(tmp_path / "absent" / "a.tar").is_empty()
    with pytest.raises(StorageError, match=f"oci:{tmp_path}"):
        await sink_at(tmp_path).is_empty()


async def test_a_number_is_no_name_to_write(sink: ArchiveSink) -> None:
    await push(sink, BLOBS)
    with pytest.raises(UsageError, match="@0"):
        await sink.put(*image(*BLOBS), ["@0"])


async def test_long_paths_are_read_by_others(sink: ArchiveSink, tmp_path: Path) -> None:
    """A sha512 digest makes a path that a plain tar header has no room for."""
    blob = blob_of(BLOBS[1], "sha512")
    await sink.push(blob, Bytes(BLOBS[1], blob=blob))
    await sink.put(*image_of(blob), ["1"])
    await sink.complete()
    assert files_in(tmp_path / "a.tar")[f"blobs/sha512/{blob.digest[7:]}"] == BLOBS[1]


def test_a_file_over_eight_gigabytes_has_headers_for_it() -> None:
    size = 9 * 1024**3
    entry = tarfile.TarInfo.frombuf(header_of("blobs/x", size), "utf-8", "strict")
    assert (entry.name, entry.size, entry.mtime) == ("blobs/x", size, 0)


async def test_manifests_that_are_too_many_for_memory_wait_beside_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "HELD_BYTES", 0)
    put_aside: list[bytes] = []

    class Kept:
        def keep(self, content: bytes) -> Callable[[], bytes]:
            put_aside.append(content)
            return lambda: content

    path = tmp_path / "a.tar"
    site, platform = Site(f"oci-archive:{path}", ""), parse_platform("linux/amd64")
    sink = ArchiveSink(site, tmp_path, HostMeter(), platform, aside=Kept())
    described, raw = image(*BLOBS)
    await push(sink, BLOBS)
    await sink.put(described, raw, [NAME])
    await sink.put(described, raw, [NAME])
    assert put_aside == [raw]
    assert await sink.read(described) == raw and await sink.has(described)
    await sink.complete()
    assert files_in(path)[f"blobs/sha256/{described.digest[7:]}"] == raw
    assert "manifest.json" in files_in(path)
