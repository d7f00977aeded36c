"""OCI layouts: what others find in one, and what runs at the same time or killed ones leave."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

import pytest

from blobflow.content import Site
from blobflow.errors import (
    DigestMismatch,
    NotFound,
    SizeMismatch,
    StorageError,
    UnsupportedContent,
    UsageError,
)
from blobflow.events import HostMeter
from blobflow.transports import files
from blobflow.transports.files import AtomicFile, remove_stale_temporaries
from blobflow.transports.layout.index_json import read_small
from blobflow.transports.layout.layout import OciLayout
from tests.contract.implementations import blob_of, image_of
from tests.fakes.registry import Bytes

CONFIG = blob_of(b"{}")
IMAGE, RAW = image_of(CONFIG)
OTHER, OTHER_RAW = image_of(CONFIG, CONFIG)


def layout_at(folder: Path) -> OciLayout:
    return OciLayout(Site(f"oci:{folder}", ""), folder, HostMeter())


async def tagged(folder: Path, *tags: str) -> OciLayout:
    layout = layout_at(folder)
    await layout.push(CONFIG, Bytes(b"{}"))
    await layout.put(IMAGE, RAW, tags)
    return layout


def index_of(folder: Path) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = json.loads((folder / "index.json").read_bytes())["manifests"]
    return entries


async def test_a_layout_is_what_the_specification_says(tmp_path: Path) -> None:
    await tagged(tmp_path / "new", "1", "docker.io/library/app:1")
    assert json.loads((tmp_path / "new" / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert index_of(tmp_path / "new") == [
        {
            "mediaType": IMAGE.media_type,
            "digest": IMAGE.digest,
            "size": IMAGE.size,
            "annotations": {"org.opencontainers.image.ref.name": "1"},
        },
        {
            "mediaType": IMAGE.media_type,
            "digest": IMAGE.digest,
            "size": IMAGE.size,
            "annotations": {
                "org.opencontainers.image.ref.name": "docker.io/library/app:1",
                "io.containerd.image.name": "docker.io/library/app:1",
            },
        },
    ]


async def test_what_others_wrote_into_the_index_stays(tmp_path: Path) -> None:
    await tagged(tmp_path, "1", "2")
    path = tmp_path / "index.json"
    document = json.loads(path.read_bytes())
    document["annotations"] = {"org.example": "kept"}
    document["manifests"][1]["org.example"] = "kept too"
    path.write_text(json.dumps(document))
    await tagged(tmp_path, "1")
    after = json.loads(path.read_bytes())
    assert after["annotations"] == {"org.example": "kept"}
    assert [entry.get("org.example") for entry in after["manifests"]] == ["kept too", None]


async def test_tags_that_are_put_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    await asyncio.gather(*(tagged(tmp_path, f"tag{number}") for number in range(20)))
    assert set(await layout_at(tmp_path).tags()) == {f"tag{number}" for number in range(20)}


async def test_a_short_blob_is_not_there_and_is_put_again(tmp_path: Path) -> None:
    layout = await tagged(tmp_path, "1")
    blob = tmp_path / "blobs" / "sha256" / CONFIG.digest[7:]
    blob.write_bytes(b"{")
    assert not await layout.has(CONFIG)
    with pytest.raises(SizeMismatch):
        async with layout.open(CONFIG):
            pass
    await layout.push(CONFIG, Bytes(b"{}"))
    assert await layout.has(CONFIG)


async def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    layout = await tagged(tmp_path, "1")
    (tmp_path / "blobs" / "sha256" / IMAGE.digest[7:]).write_bytes(RAW.replace(b"2", b"3"))
    with pytest.raises(DigestMismatch, match=IMAGE.digest):
        await layout.read(IMAGE)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"manifests":[5]}', '{"manifests":[{"digest":"sha256:abc"}]}', '{"schemaVersion":1}'],
)
async def test_an_index_that_is_none_is_told_with_its_path(tmp_path: Path, content: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(UnsupportedContent, match=r"index\.json is not the index"):
        await layout_at(tmp_path).resolve("1")


async def test_the_only_image_needs_no_name_and_one_of_several_does(tmp_path: Path) -> None:
    layout = await tagged(tmp_path, "1")
    assert await layout.resolve("") == await layout.resolve("@0") == IMAGE
    await tagged(tmp_path, "2")
    assert await layout.resolve("") == IMAGE  # one image, whatever the number of its names
    await layout.put(OTHER, OTHER_RAW, ["3"])
    with pytest.raises(UsageError, match=r"holds 2 images; write .*:NAME with one of 1, 3"):
        await layout.resolve("")
    with pytest.raises(NotFound, match="it has 1, 2, 3"):
        await layout.resolve("4")


async def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    with pytest.raises(StorageError, match="letters"):
        await layout_at(tmp_path).is_empty()


async def test_what_is_no_file_is_no_blob(tmp_path: Path) -> None:
    layout = await tagged(tmp_path, "1")
    empty = blob_of(b"")
    os.mkfifo(tmp_path / "blobs" / "sha256" / empty.digest[7:])
    assert not await layout.has(empty)


def test_what_a_killed_run_was_writing_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".blobflow-left"
    left.write_bytes(b"x")
    with AtomicFile(tmp_path) as living:
        remove_stale_temporaries(tmp_path)
        assert left.exists()  # it may have been made this very moment
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        remove_stale_temporaries(tmp_path)
        assert not left.exists()
        living.write(b"content")
        living.land(tmp_path / "landed")
    assert (tmp_path / "landed").read_bytes() == b"content"


def test_a_folder_that_somebody_keeps_locked_is_one_sentence_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.0)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with (
            pytest.raises(StorageError, match=f"have had {tmp_path} locked for 0 seconds; try again"),
            files.locked_folder(tmp_path),
        ):
            raise AssertionError("somebody has it")
    finally:
        os.close(fd)
    with files.locked_folder(tmp_path):
        pass


@pytest.mark.parametrize("odd", ["9" * 5000, "[" * 900 + "]" * 900])
async def test_an_index_that_can_be_read_and_not_changed_is_left_as_it_is(tmp_path: Path, odd: str) -> None:
    layout = await tagged(tmp_path, "1")
    path = tmp_path / "index.json"
    path.write_text(path.read_text()[:-1] + f',"x":{odd}}}')
    before = path.read_bytes()
    try:
        await layout.put(IMAGE, RAW, ["2"])
    except UnsupportedContent:
        assert path.read_bytes() == before
    else:
        assert set(await layout_at(tmp_path).tags()) == {"1", "2"}


async def test_many_names_are_one_reading_of_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = [str(number) for number in range(50)]
    await tagged(tmp_path, *tags)
    read: list[str] = []

    def reading(path: Path) -> bytes:
        read.append(path.name)
        return read_small(path)

    monkeypatch.setattr("blobflow.transports.layout.layout.read_small", reading)
    layout = layout_at(tmp_path)
    assert {(await layout.resolve(tag)).digest for tag in tags} == {IMAGE.digest}
    assert read.count("index.json") == 1

    other = layout_at(tmp_path)
    await other.put(OTHER, OTHER_RAW, ["1"])
    assert (await layout.resolve("1")).digest == OTHER.digest, "what others write meanwhile counts"


async def test_entries_that_say_little_hide_no_other(tmp_path: Path) -> None:
    """Go's tools look at the entry that they are asked for."""
    await tagged(tmp_path, "1")
    named = {"annotations": {"org.opencontainers.image.ref.name": "2"}}
    bare = {"mediaType": OTHER.media_type, "digest": OTHER.digest, **named}
    listed = [None, {}, {"annotations": None}, *index_of(tmp_path), bare]
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    layout = layout_at(tmp_path)
    assert await layout.tags() == ["1", "2"]
    assert await layout.resolve("1") == IMAGE
    await layout.put(OTHER, OTHER_RAW, ["3"])
    assert (await layout.resolve("2")).digest == (await layout.resolve("3")).digest == OTHER.digest
    assert await layout.resolve("1") == IMAGE
    assert (await layout.referrers(IMAGE.digest)) == []


@pytest.mark.parametrize(
    ("manifest_json", "words"),
    [
        (
            '{"schemaVersion": 2}',
            "it is a folder of skopeo's dir: (docker-dir for podman); `skopeo copy dir:",
        ),
        (' [{"Config": "c.json"}]', "it is an unpacked archive of docker; `tar -C "),
        ("junk", "it has no index.json"),
        ("", "it has no index.json"),
    ],
)
async def test_a_folder_of_another_form_is_called_what_it_is(
    tmp_path: Path, manifest_json: str, words: str
) -> None:
    (tmp_path / "manifest.json").write_text(manifest_json)
    with pytest.raises(UnsupportedContent) as caught:
        await layout_at(tmp_path).resolve("")
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)
