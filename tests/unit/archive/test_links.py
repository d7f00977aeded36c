"""Links among the blobs of OCI archives and layouts: tar's hard links, symbolic ones, chains of them."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from blobflow.content import Site
from blobflow.errors import BlobflowError, IntegrityError, NotFound, StorageError, UnsupportedContent
from blobflow.events import HostMeter
from blobflow.oci import Descriptor, media, parse_manifest
from blobflow.transports.archive.detection import detect_transport
from blobflow.transports.layout.layout import OciLayout
from tests.contract.implementations import blob_of, image_of
from tests.fakes.archives import FORMS, Entries, Link, Reading, write
from tests.fakes.registry import collect

CONFIG, LAYER = b"{}", gzip.compress(b"a layer", mtime=0)
IMAGE, RAW = image_of(blob_of(CONFIG), blob_of(LAYER))
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "manifests": [{"mediaType": media.OCI_MANIFEST, "digest": IMAGE.digest, "size": IMAGE.size}],
    }
).encode()


def at(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


MANIFEST, BLOB = at(IMAGE.digest), at(blob_of(LAYER).digest)
CONTENT = {IMAGE.digest: RAW, **{blob_of(raw).digest: raw for raw in (CONFIG, LAYER)}}
OTHERS: list[tuple[str, bytes | Link]] = [("index.json", INDEX), (at(blob_of(CONFIG).digest), CONFIG)]


def hard(target: str) -> Link:
    return Link(target, tarfile.LNKTYPE)


def chain(length: int) -> list[tuple[str, bytes | Link]]:
    """The layer, behind so many links."""
    links: list[tuple[str, bytes | Link]] = [(f"l/{n}", Link(f"{n + 1}")) for n in range(1, length)]
    return [(BLOB, Link("../../l/1")), *links, (f"l/{length}", LAYER)]


LINKED: dict[str, Entries] = {
    "a symbolic link": [(MANIFEST, RAW), ("layer.tar.gz", LAYER), (BLOB, Link("../../layer.tar.gz"))],
    "before what it leads to": [(BLOB, Link("../../layer.tar.gz")), (MANIFEST, RAW), ("layer.tar.gz", LAYER)],
    "a neighbour": [(MANIFEST, RAW), ("blobs/sha256/layer", LAYER), (BLOB, Link("layer"))],
    "a hard link": [(MANIFEST, RAW), ("layer.tar.gz", LAYER), (BLOB, hard("layer.tar.gz"))],
    "a hard link to a symbolic one": [
        (MANIFEST, RAW),
        ("blobs/sha256/s", Link("../../o")),
        ("o", LAYER),
        (BLOB, hard("blobs/sha256/s")),
    ],
    "the manifest": [("m.json", RAW), (MANIFEST, Link("./../../m.json")), (BLOB, LAYER)],
    "a folder": [
        ("content/sha256", Link("../all")),
        ("blobs", Link("content")),
        *[(f"all/{digest[7:]}", raw) for digest, raw in CONTENT.items()],
    ],
    "a chain": [(MANIFEST, RAW), *chain(30)],
}


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    made = Reading(tmp_path / "store")
    yield made
    made.close()
    made.store.close()


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("case", LINKED)
async def test_links_are_followed_inside_of_an_archive(
    reading: Reading, tmp_path: Path, case: str, packed: str
) -> None:
    others = OTHERS[:1] if case == "a folder" else OTHERS
    archive = reading.archive(f"oci-archive:{write(tmp_path / 'a', [*others, *LINKED[case]], packed)}")
    assert await archive.resolve("") == IMAGE
    manifest = parse_manifest(await archive.read(IMAGE))
    for blob, content in zip(manifest.blobs, (CONFIG, LAYER), strict=True):
        async with archive.open(blob) as chunks:
            assert await collect(chunks) == content
    if case != "a folder":
        assert {blob.digest for blob in manifest.blobs} <= await archive.held()


def test_content_beside_the_blobs_makes_no_docker_archive(tmp_path: Path) -> None:
    for case in ("a symbolic link", "a hard link", "a folder"):
        path = write(tmp_path / "a", [*LINKED[case], ("README", b"hello"), OTHERS[0]])
        assert detect_transport(path) == "oci-archive"
        path = write(tmp_path / "b", [*LINKED[case], OTHERS[0], ("manifest.json", b"[]")])
        assert detect_transport(path) == "docker-archive"


async def test_index_json_may_be_one_as_well(reading: Reading, tmp_path: Path) -> None:
    entries: Entries = [("index.json", Link("i")), ("i", INDEX), (MANIFEST, RAW)]
    for packed in FORMS:
        archive = reading.archive(f"oci-archive:{write(tmp_path / packed, entries, packed)}")
        assert await archive.resolve("") == IMAGE


BAD: dict[str, tuple[Entries, type[BlobflowError], str]] = {
    "in a circle": ([(BLOB, Link("x")), ("blobs/sha256/x", Link(BLOB[13:]))], UnsupportedContent, "circle"),
    "to itself": ([(BLOB, Link(BLOB[13:]))], UnsupportedContent, "circle"),
    "on and on": (chain(60), UnsupportedContent, "circle"),
    "outside": ([(BLOB, Link("../../../secret"))], UnsupportedContent, "outside"),
    "outside by its whole path": ([(BLOB, Link("/secret"))], UnsupportedContent, "outside"),
    "hard, and outside": ([(BLOB, hard("../secret"))], UnsupportedContent, "outside"),
    "to nothing": ([(BLOB, Link("gone"))], NotFound, "has no blob"),
    "to a folder": ([("d/x", b""), (BLOB, Link("../../d"))], NotFound, "has no blob"),
    "to something else": ([("x", b"x" * len(LAYER)), (BLOB, Link("../../x"))], IntegrityError, ""),
}


@pytest.mark.parametrize("packed", FORMS)
@pytest.mark.parametrize("case", BAD)
async def test_links_that_lead_elsewhere_are_refused_in_a_sentence(
    reading: Reading, tmp_path: Path, case: str, packed: str
) -> None:
    entries, error, words = BAD[case]
    path = write(tmp_path / "a", [*OTHERS, (MANIFEST, RAW), *entries], packed)
    archive = reading.archive(f"oci-archive:{path}")
    if error is IntegrityError:  # whatever it leads to is hashed when it is moved
        async with archive.open(blob_of(LAYER)) as chunks:
            assert await collect(chunks) != LAYER
        return
    with pytest.raises(error, match=words) as raised:
        await archive.resolve("")
        async with archive.open(blob_of(LAYER)) as chunks:
            await collect(chunks)
    assert "\n" not in str(raised.value)


async def blob_in(folder: Path, blob: Descriptor) -> bytes:
    async with OciLayout(Site(f"oci:{folder}", ""), folder, HostMeter()).open(blob) as chunks:
        return await collect(chunks)


async def test_a_layout_has_links_as_files_have_them(tmp_path: Path) -> None:
    """As bazel's rules make layouts: every blob is a link to where it was built."""
    (tmp_path / "l/blobs/sha256").mkdir(parents=True)
    (tmp_path / "built").write_bytes(LAYER)
    (path := tmp_path / "l" / BLOB).symlink_to("../../../built")
    assert await blob_in(tmp_path / "l", blob_of(LAYER)) == LAYER
    path.unlink()
    path.hardlink_to(tmp_path / "built")
    assert await blob_in(tmp_path / "l", blob_of(LAYER)) == LAYER
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(StorageError, match="links lead in a circle"):
        await blob_in(tmp_path / "l", blob_of(LAYER))
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(NotFound):
        await blob_in(tmp_path / "l", blob_of(LAYER))
