"""What Debian's docker-registry and skopeo refuse as a manifest we refuse too, and what they take we take."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from blobflow.oci import digest_of, media
from tools.processes import Registry, blobflow, blobflow_serve, docker_registry, skopeo

CONFIG, LAYER = b'{"os":"linux","architecture":"amd64"}', b"a layer, never unpacked"


def described(content: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}


IMAGE: dict[str, object] = {
    "schemaVersion": 2,
    "mediaType": media.OCI_MANIFEST,
    "config": described(CONFIG, media.OCI_CONFIG),
    "layers": [described(LAYER, media.OCI_LAYER_GZIP)],
}
CHILD = json.dumps(IMAGE).encode()
LISTED = described(CHILD, media.OCI_MANIFEST) | {"platform": {"os": "linux", "architecture": "amd64"}}
INDEX: dict[str, object] = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [LISTED]}
UNTYPED_IMAGE, UNTYPED_INDEX = ({k: v for k, v in d.items() if k != "mediaType"} for d in (IMAGE, INDEX))


class Case(NamedTuple):
    """A document, what it is served as, and whether it is taken."""

    raw: bytes
    kind: str
    taken: bool


def case(document: dict[str, object], kind: str, taken: bool, **more: object) -> Case:
    return Case(json.dumps(document | more).encode(), kind, taken)


OCI, LIST = media.OCI_MANIFEST, media.OCI_INDEX
CASES = {
    "an image": case(IMAGE, OCI, True),
    "an image and an index": case(IMAGE, OCI, False, manifests=[LISTED]),
    "an image and an empty index": case(IMAGE, OCI, False, manifests=[]),
    "an image and null": case(IMAGE, OCI, True, manifests=None),
    "an image and an index in other letters": case(IMAGE, OCI, False, Manifests=[LISTED]),
    "an index and an image": case(INDEX, LIST, False, config=IMAGE["config"]),
    "an index and layers": case(INDEX, LIST, False, layers=[]),
    "an index and null": case(INDEX, LIST, True, config=None, layers=None),
    "both, as an index": case(UNTYPED_IMAGE, LIST, False, manifests=[LISTED]),
    "both, as an image": case(UNTYPED_IMAGE, OCI, False, manifests=[LISTED]),
    "an image without a type": case(UNTYPED_IMAGE, OCI, True),
    "an index without a type": case(UNTYPED_INDEX, LIST, True),
    "an image called an index": case(IMAGE, LIST, False),
    "null for all that may lack": case(
        IMAGE | {"layers": [{**described(LAYER, media.OCI_LAYER_GZIP), "annotations": None, "urls": None}]},
        OCI,
        True,
        annotations={"a": None},
        subject=None,
    ),
    "an index with nulls": case(
        INDEX | {"manifests": [{**LISTED, "annotations": {"b": None}, "urls": None}]},
        LIST,
        True,
        subject=None,
    ),
    "a platform that is null": case(INDEX | {"manifests": [{**LISTED, "platform": None}]}, LIST, True),
    "an image without a layer": case(IMAGE, OCI, True, layers=None),
    "words in annotations": case(IMAGE, OCI, True, annotations={"Layers": "x", "size": "y"}),
    "more behind it": Case(json.dumps(IMAGE).encode() + b"{}", OCI, False),
    "a byte order mark": Case(b"\xef\xbb\xbf" + json.dumps(IMAGE).encode(), OCI, False),
    "a version in quotes": case(IMAGE, OCI, False, schemaVersion="2"),
    "a list": Case(b"[]", OCI, False),
}


@pytest.fixture(scope="module")
def registry(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("documents")) as made:
        yield made


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with blobflow_serve(tmp_path_factory.mktemp("documents-serve")) as made:
        yield made


async def put(host: str, raw: bytes, kind: str) -> int:
    """The status of pushing a document with all that it names."""
    async with aiohttp.ClientSession(f"http://{host}") as client:
        for content in (CONFIG, LAYER):
            async with client.post("/v2/app/blobs/uploads/") as begun:
                location = begun.headers["Location"]
            joined = f"{location}{'&' if '?' in location else '?'}digest={digest_of(content)}"
            async with client.put(joined, data=content) as answer:
                assert answer.status == 201
        for content, called, name in ((CHILD, OCI, digest_of(CHILD)), (raw, kind, "1")):
            async with client.put(
                f"/v2/app/manifests/{name}", data=content, headers={"Content-Type": called}
            ) as answer:
                status = answer.status
        return status


def layout(folder: Path, raw: bytes, kind: str) -> Path:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for content in (CONFIG, LAYER, CHILD, raw):
        (blobs / digest_of(content)[7:]).write_bytes(content)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = described(raw, kind) | {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


@pytest.mark.parametrize("name", CASES)
def test_what_others_refuse_is_refused_and_what_they_take_is_taken(
    name: str, registry: Registry, serve: Registry, tmp_path: Path, home: Path
) -> None:
    raw, kind, taken = CASES[name]
    assert (asyncio.run(put(registry.host, raw, kind)) == 201) is taken
    folder = layout(tmp_path / "layout", raw, kind)
    copied = skopeo("copy", "--all", f"oci:{folder}:1", f"oci:{tmp_path}/theirs:1", home=home)
    assert (copied.code == 0) is taken, copied.err
    assert asyncio.run(put(serve.host, raw, kind)) == (201 if taken else 400)
    verbs: list[tuple[str, ...]] = [
        ("copy", f"oci:{folder}:1", f"{serve.host}/copied:1"),
        ("inspect", f"oci:{folder}:1"),
    ]
    if taken:
        verbs.append(("copy", f"{registry.host}/app:1", f"{serve.host}/pulled:1"))
    for verb in verbs:
        run = blobflow(*verb, home=home)
        assert run.code == (0 if taken else 7), run.err
        assert "Traceback" not in run.err
