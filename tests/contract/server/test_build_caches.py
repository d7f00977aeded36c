"""The embedded registry holds indexes of blobs, as builds cache in registries: pushed, shown, kept, pulled
through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from blobflow.oci import digest_of, media
from blobflow.transports.store import Store
from blobflow.transports.store.clock import now
from blobflow.transports.store.gc import collect_garbage
from blobflow.transports.store.promises import KEPT_SECONDS
from tests.contract.server.client import (
    BLOB,
    DIGEST,
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
from tests.contract.server.pull_through import REPO as NAME
from tests.contract.server.pull_through import edge_of

STEP = descriptor(BLOB, media.OCI_LAYER_GZIP, annotations={"buildkit/createdat": "then"})
CACHE = descriptor(SMALL, "application/vnd.buildkit.cacheconfig.v0")
RAW = index(others=[STEP, CACHE])


async def push_cache(client: ClientSession, raw: bytes = RAW, tag: str = "cache") -> None:
    for content in (BLOB, SMALL):
        await push(client, content)
    assert (await put(client, raw, tag, media.OCI_INDEX)).status == 201


async def test_a_cache_is_taken_and_given_back_as_it_is(registry: ClientSession) -> None:
    await push_cache(registry)
    async with registry.get(f"{REPO}/manifests/cache") as answer:
        assert (await answer.read(), answer.content_type) == (RAW, media.OCI_INDEX)
    for blob in (STEP, CACHE):
        assert await status_of(registry, f"{REPO}/blobs/{blob['digest']}") == 200
        assert await status_of(registry, f"{REPO}/manifests/{blob['digest']}") == 404


@pytest.mark.parametrize("kind", [media.OCI_INDEX, media.DOCKER_LIST])
async def test_where_indexes_have_to_be_whole_their_blobs_have_to_be_there(
    refusing_registry: ClientSession, kind: str
) -> None:
    child = image()
    document = json.loads(index(child, others=[STEP, CACHE])) | {"mediaType": kind}
    raw = json.dumps(document).encode()
    answer = await put(refusing_registry, raw, "1", kind)
    assert await refusal(answer) == (400, "MANIFEST_BLOB_UNKNOWN")
    missing = [error["detail"] for error in (await answer.json())["errors"]]
    assert missing == [digest_of(child), DIGEST, digest_of(SMALL)]
    for content in (BLOB, SMALL):
        await push(refusing_registry, content)
    assert (await put(refusing_registry, child, digest_of(child))).status == 201
    assert (await put(refusing_registry, raw, "1", kind)).status == 201


async def test_a_size_that_an_index_gives_of_a_blob_that_is_here_is_checked(registry: ClientSession) -> None:
    await push(registry, BLOB)
    wrong = index(others=[{**STEP, "size": 7}])
    assert await refusal(await put(registry, wrong, "1", media.OCI_INDEX)) == (400, "SIZE_INVALID")


@pytest.mark.parametrize(
    ("called", "status"),
    [
        (media.OCI_MANIFEST, 201),
        (media.DOCKER_MANIFEST, 201),
        ("", 201),
        (media.OCI_INDEX, 400),
        (media.DOCKER_LIST, 400),
    ],
)
@pytest.mark.parametrize("kind", [media.OCI_MANIFEST, media.DOCKER_MANIFEST])
async def test_an_index_may_call_an_image_by_another_form_s_name_but_no_index(
    registry: ClientSession, kind: str, called: str, status: int
) -> None:
    await push(registry, SMALL)
    child = image(mediaType=kind)
    assert (await put(registry, child, digest_of(child), kind)).status == 201
    answer = await put(registry, index(others=[descriptor(child, called)]), "1", media.OCI_INDEX)
    assert answer.status == status
    async with registry.get(f"{REPO}/manifests/{digest_of(child)}") as got:
        assert got.content_type == kind


async def test_a_sweep_keeps_what_a_cache_lists_and_takes_it_when_the_cache_went(
    registry: ClientSession, registry_store: Store
) -> None:
    await push_cache(registry, index(image(config=b"absent"), others=[STEP, CACHE]))
    stray = await push(registry, b"nobody lists this")

    async def held() -> list[bool]:
        registry_store.state.write("UPDATE blobs SET added = ?, used = 1", now() - KEPT_SECONDS - 1)
        await collect_garbage(registry_store, 0)
        digests = (DIGEST, digest_of(SMALL), stray)
        return [registry_store.blobs.size_of(digest) is not None for digest in digests]  # type: ignore[arg-type]

    assert await held() == [True, True, False]
    assert await status_of(registry, f"{REPO}/blobs/{DIGEST}", "GET") == 200
    assert await status_of(registry, f"{REPO}/manifests/cache", "DELETE") == 202
    assert await held() == [False, False, False]


async def test_the_page_shows_what_a_cache_holds(registry: ClientSession) -> None:
    await push_cache(registry)
    async with registry.get("/") as answer:
        html = await answer.text()
    row = next(line for line in html.split("<tr>") if digest_of(RAW)[:19] in line)
    assert "blobs: 256 kB" in row
    assert "not here" not in row


async def test_a_cache_is_pulled_through(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        client = edge.client_of_upstream
        for content in (BLOB, SMALL):
            await push(client, content, f"/v2/{NAME}")
        raw = index(others=[STEP, CACHE])
        assert (await put(client, raw, "cache", media.OCI_INDEX, f"/v2/{NAME}")).status == 201
        edge.upstream.journal.clear()
        for _ in range(2):
            assert await edge.get(f"/v2/{NAME}/manifests/cache") == (200, raw)
            for blob, content in ((STEP, BLOB), (CACHE, SMALL)):
                assert await edge.get(f"/v2/{NAME}/blobs/{blob['digest']}") == (200, content)
        assert edge.upstream.journal.reads(DIGEST) == 1
        assert (await edge.get(f"/v2/{NAME}/blobs/{digest_of(b'stray')}"))[0] == 404


async def test_who_accepts_no_index_gets_the_image_beside_the_blobs(registry: ClientSession) -> None:
    await push(registry, SMALL)
    child = image()
    assert (await put(registry, child, digest_of(child))).status == 201
    platform: dict[str, Any] = {"os": "linux", "architecture": "amd64"}
    listed = [STEP, descriptor(child, media.OCI_MANIFEST, platform=platform)]
    assert (await put(registry, index(others=listed), "1", media.OCI_INDEX)).status == 201
    async with registry.get(f"{REPO}/manifests/1", headers={"Accept": media.OCI_MANIFEST}) as answer:
        assert await answer.read() == child
    await push_cache(registry)
    headers = {"Accept": media.OCI_MANIFEST}
    async with registry.get(f"{REPO}/manifests/cache", headers=headers) as answer:
        assert await refusal(answer) == (404, "MANIFEST_UNKNOWN")
