"""The embedded registry takes no document that means two things: 400, MANIFEST_INVALID, nothing is held."""

from __future__ import annotations

import json

import pytest
from aiohttp import ClientSession

from blobflow.oci import digest_of, media
from tests.contract.server.client import (
    REPO,
    SMALL,
    descriptor,
    image,
    index,
    push,
    put,
    refusal,
    status_of,
)

CHILD = descriptor(b"child", media.OCI_MANIFEST)


def without_type(raw: bytes, **more: object) -> bytes:
    document = json.loads(raw)
    del document["mediaType"]
    return json.dumps(document | more).encode()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (image(manifests=[CHILD]), media.OCI_MANIFEST),
        (image(manifests=[]), media.OCI_MANIFEST),
        (image(Manifests=[CHILD]), media.OCI_MANIFEST),
        (image(fsLayers=[]), media.OCI_MANIFEST),
        (image(mediaType=media.DOCKER_MANIFEST, manifests=[CHILD]), media.DOCKER_MANIFEST),
        (without_type(image(), manifests=[CHILD]), media.OCI_MANIFEST),
        (without_type(image(), manifests=[CHILD]), media.OCI_INDEX),
        (without_type(image()), media.OCI_INDEX),
        (without_type(image()), media.DOCKER_MANIFEST),
        (without_type(index()), media.OCI_MANIFEST),
        (without_type(index(), layers=[]), media.OCI_INDEX),
        (image(), media.OCI_INDEX),
        (image(), media.DOCKER_MANIFEST),
        (image(), media.OCI_CONFIG),
        (index(), media.OCI_MANIFEST),
        (image()[:-1] + b',"layers":[]}', media.OCI_MANIFEST),
        (image() + b"{}", media.OCI_MANIFEST),
        (image(schemaVersion=1), media.OCI_MANIFEST),
        (image(schemaVersion="2"), media.OCI_MANIFEST),
        (b"\xef\xbb\xbf" + image(), media.OCI_MANIFEST),
        (image(more="@").replace(b"@", b"\xff"), media.OCI_MANIFEST),
        (image({**descriptor(SMALL), "size": -1}), media.OCI_MANIFEST),
    ],
)
async def test_what_means_two_things_or_nothing_is_refused(
    registry: ClientSession, raw: bytes, kind: str
) -> None:
    await push(registry, SMALL)
    for name in ("1.0", digest_of(raw)):
        assert await refusal(await put(registry, raw, name, kind)) == (400, "MANIFEST_INVALID")
        assert await status_of(registry, f"{REPO}/manifests/{name}") == 404


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (without_type(image()), media.OCI_MANIFEST),
        (without_type(index()), media.OCI_INDEX),
        (image(manifests=None), media.OCI_MANIFEST),
        (image(annotations={"Layers": "x", "digest": "y"}), media.OCI_MANIFEST),
        (image(mediaType=media.DOCKER_MANIFEST), media.DOCKER_MANIFEST),
    ],
)
async def test_what_means_one_thing_is_taken_as_that(registry: ClientSession, raw: bytes, kind: str) -> None:
    await push(registry, SMALL)
    assert (await put(registry, raw, "1.0", kind)).status == 201
    async with registry.get(f"{REPO}/manifests/1.0") as answer:
        assert (await answer.read(), answer.content_type) == (raw, kind)


@pytest.mark.parametrize("size", [0, 1, len(image()) + 1])
async def test_an_index_says_the_size_of_a_manifest_that_is_here_or_is_refused(
    registry: ClientSession, refusing_registry: ClientSession, size: int
) -> None:
    """Also where its manifests may lack: what is here is looked at."""
    wrong = index(image()).replace(b'"size": %d' % len(image()), b'"size": %d' % size)
    for each in (registry, refusing_registry):
        await push(each, SMALL)
        await put(each, image(), digest_of(image()))
        assert await refusal(await put(each, wrong, "1.0", media.OCI_INDEX)) == (400, "SIZE_INVALID")
        assert (await put(each, index(image()), "1.0", media.OCI_INDEX)).status == 201


@pytest.mark.parametrize("called", [media.OCI_INDEX, media.DOCKER_LIST])
async def test_an_index_calls_a_manifest_that_is_here_what_it_is_or_is_refused(
    registry: ClientSession, called: str
) -> None:
    await push(registry, SMALL)
    await put(registry, image(), digest_of(image()))
    listed = descriptor(image(), called)
    raw = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [listed]}).encode()
    assert await refusal(await put(registry, raw, "1.0", media.OCI_INDEX)) == (400, "MANIFEST_INVALID")
