"""The embedded registry, pushing, listing and deleting: distribution-spec 1.1, [end-7] to [end-10]."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from yarl import URL

from blobflow.oci import MAX_MANIFEST_BYTES, Digest, digest_of, media, parse_manifest
from blobflow.transports.store import Store
from tests.contract.server.client import (
    ABSENT,
    BLOB,
    DIGEST,
    REPO,
    SMALL,
    descriptor,
    image,
    index,
    push,
    pushed_image,
    put,
    refusal,
    status_of,
)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_manifest_can_be_pushed_by_digest(registry: ClientSession, algorithm: str) -> None:
    """[end-7]: 201 with Location and digest; no tag comes of it."""
    await push(registry, SMALL)
    raw = image()
    digest = digest_of(raw, algorithm)
    answer = await put(registry, raw, digest)
    assert answer.status == 201
    assert answer.headers["Location"] == f"{REPO}/manifests/{digest}"
    assert answer.headers["Docker-Content-Digest"] == digest
    async with registry.get(f"{REPO}/manifests/{digest}") as got:
        assert await got.read() == raw
    async with registry.get(f"{REPO}/tags/list") as got:
        assert (await got.json())["tags"] == []


async def test_a_manifest_that_is_not_the_digest_it_is_pushed_by_is_refused(registry: ClientSession) -> None:
    """[end-7]"""
    await push(registry, SMALL)
    assert await refusal(await put(registry, image(), ABSENT)) == (400, "DIGEST_INVALID")


async def test_an_image_without_its_blobs_is_refused_with_all_that_is_missing(
    registry: ClientSession,
) -> None:
    """[end-7]: MANIFEST_BLOB_UNKNOWN, an error for each, the digest in its detail."""
    await push(registry, SMALL)
    await push(registry, BLOB, "/v2/other")
    answer = await put(registry, image(descriptor(BLOB), descriptor(b"two")), "1.0")
    assert await refusal(answer) == (400, "MANIFEST_BLOB_UNKNOWN")
    errors = (await answer.json())["errors"]
    assert [error["detail"] for error in errors] == [DIGEST, digest_of(b"two")]
    assert await status_of(registry, f"{REPO}/manifests/1.0") == 404


async def test_layers_that_live_elsewhere_may_be_missing(registry: ClientSession) -> None:
    """[end-7], image-spec layer.md: layers with urls, and non-distributable ones."""
    await push(registry, SMALL)
    foreign = descriptor(b"windows", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    with_urls = descriptor(b"elsewhere", urls=["https://example.com/layer"])
    assert (await put(registry, image(foreign, with_urls), "1.0")).status == 201


async def test_a_descriptor_with_the_wrong_size_is_refused(registry: ClientSession) -> None:
    await push(registry, SMALL)
    await push(registry, BLOB)
    wrong = {**descriptor(BLOB), "size": 7}
    assert await refusal(await put(registry, image(wrong), "1.0")) == (400, "SIZE_INVALID")


async def test_a_sparse_index_is_accepted_where_that_is_the_rule(registry: ClientSession) -> None:
    """[end-7]: its children may lack; it is served as it is."""
    raw = index(image(), image(config=b"other"))
    assert (await put(registry, raw, "sparse", media.OCI_INDEX)).status == 201
    async with registry.get(f"{REPO}/manifests/sparse") as answer:
        assert (await answer.read(), answer.content_type) == (raw, media.OCI_INDEX)


async def test_a_sparse_index_is_refused_where_that_is_the_rule(refusing_registry: ClientSession) -> None:
    """[end-7]: MANIFEST_BLOB_UNKNOWN with the children that lack."""
    await push(refusing_registry, SMALL)
    present, absent = image(), image(config=b"other")
    assert (await put(refusing_registry, present, digest_of(present))).status == 201
    answer = await put(refusing_registry, index(present, absent), "1.0", media.OCI_INDEX)
    assert await refusal(answer) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert [error["detail"] for error in (await answer.json())["errors"]] == [digest_of(absent)]
    assert (await put(refusing_registry, index(present), "1.0", media.OCI_INDEX)).status == 201


async def test_a_manifest_with_an_absent_subject_is_accepted(registry: ClientSession) -> None:
    """ "Pushing Manifests with Subject": a registry MUST accept it, and say that it takes note of it."""
    await push(registry, SMALL)
    subject = descriptor(b"nowhere", media.OCI_MANIFEST)
    raw = image(subject=subject)
    answer = await put(registry, raw, digest_of(raw))
    assert answer.status == 201
    assert answer.headers["OCI-Subject"] == subject["digest"]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"not json", media.OCI_MANIFEST),
        (b"{}", "text/plain"),
        (b'{"schemaVersion": 1}', media.DOCKER_SCHEMA1),
        (image(), media.OCI_INDEX),
        (b"[" * 100_000, media.OCI_MANIFEST),
    ],
    ids=["no-json", "unknown-type", "schema1", "type-differs", "deep"],
)
async def test_what_is_no_manifest_is_refused(registry: ClientSession, raw: bytes, kind: str) -> None:
    """[end-7]: MANIFEST_INVALID"""
    await push(registry, SMALL)
    assert await refusal(await put(registry, raw, "1.0", kind)) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_manifest_is_bounded(registry: ClientSession, announced: bool) -> None:
    """ "Pushing Manifests": up to 4 MiB is taken, more is 413, with and without a Content-Length."""
    await push(registry, SMALL)
    raw = image()
    fits = raw + b" " * (MAX_MANIFEST_BYTES - len(raw))
    async with registry.put(f"{REPO}/manifests/fits", data=io.BytesIO(fits)) as answer:
        assert answer.status == 201

    async def unannounced() -> AsyncIterator[bytes]:
        yield fits
        yield b" "

    data = io.BytesIO(fits + b" ") if announced else unannounced()
    async with registry.put(f"{REPO}/manifests/large", data=data) as answer:
        assert await refusal(answer) == (413, "MANIFEST_INVALID")


async def test_a_tag_moves_to_what_was_pushed_last(registry: ClientSession) -> None:
    """[end-7]"""
    await pushed_image(registry)
    raw = image()
    assert (await put(registry, raw, "1.0")).status == 201
    async with registry.get(f"{REPO}/manifests/1.0") as answer:
        assert await answer.read() == raw


async def test_tags_are_listed_in_order_and_in_pages(registry: ClientSession) -> None:
    """[end-8a], [end-8b]: lexical order, `n` at most, after `last`, Link while there is more."""
    await push(registry, SMALL)
    tags = ["1.10", "1.9", "Z", "a", "b_c"]
    for tag in reversed(tags):
        assert (await put(registry, image(), tag)).status == 201
    async with registry.get(f"{REPO}/tags/list") as answer:
        assert await answer.json() == {"name": "team/app", "tags": tags}
        assert "Link" not in answer.headers
    pages, url = [], URL(f"{REPO}/tags/list?n=2")
    while True:
        async with registry.get(url) as answer:
            pages.append((await answer.json())["tags"])
            if "next" not in answer.links:
                break
            url = URL(str(answer.links["next"]["url"]))
    assert pages == [tags[:2], tags[2:4], tags[4:]]
    async with registry.get(f"{REPO}/tags/list", params={"n": "10", "last": "Z"}) as answer:
        assert (await answer.json())["tags"] == ["a", "b_c"]
    async with registry.get(f"{REPO}/tags/list", params={"n": "0"}) as answer:
        assert ((await answer.json())["tags"], "Link" in answer.headers) == ([], False)


async def test_a_full_last_page_has_no_link(registry: ClientSession) -> None:
    """[end-8b]"""
    await push(registry, SMALL)
    for tag in ("a", "b"):
        await put(registry, image(), tag)
    async with registry.get(f"{REPO}/tags/list", params={"n": "2"}) as answer:
        assert ((await answer.json())["tags"], "Link" in answer.headers) == (["a", "b"], False)


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "²"])
async def test_a_page_length_that_is_no_number_is_refused(registry: ClientSession, n: str) -> None:
    """[end-8b]"""
    await push(registry, SMALL)
    async with registry.get(f"{REPO}/tags/list", params={"n": n}) as answer:
        assert (await refusal(answer))[0] == 400


async def test_tags_of_no_repository_are_404(registry: ClientSession) -> None:
    """[end-8a]"""
    async with registry.get("/v2/nobody/tags/list") as answer:
        assert await refusal(answer) == (404, "NAME_UNKNOWN")


async def test_the_catalog_lists_repositories_in_pages(registry: ClientSession) -> None:
    for name in ("b", "a/x", "c"):
        await push(registry, SMALL, f"/v2/{name}")
    async with registry.get("/v2/_catalog", params={"n": "2"}) as answer:
        assert await answer.json() == {"repositories": ["a/x", "b"]}
        url = str(answer.links["next"]["url"])
    async with registry.get(URL(url)) as answer:
        assert await answer.json() == {"repositories": ["c"]}


async def test_deleting_a_tag_leaves_the_manifest(registry: ClientSession) -> None:
    """[end-9]: 202"""
    raw = await pushed_image(registry)
    await put(registry, raw, "other")
    assert await status_of(registry, f"{REPO}/manifests/1.0", "DELETE") == 202
    assert await status_of(registry, f"{REPO}/manifests/1.0") == 404
    assert await status_of(registry, f"{REPO}/manifests/other") == 200
    assert await status_of(registry, f"{REPO}/manifests/{digest_of(raw)}") == 200


async def test_deleting_a_manifest_takes_its_tags_along(registry: ClientSession) -> None:
    """[end-9]: 202; afterwards 404 by digest and by tag, and other repositories keep theirs."""
    raw = await pushed_image(registry)
    await put(registry, raw, "other")
    await pushed_image(registry, repo="/v2/elsewhere")
    path = f"{REPO}/manifests/{digest_of(raw)}"
    assert await status_of(registry, path, "DELETE") == 202
    assert await status_of(registry, path, "DELETE") == 404
    assert await status_of(registry, f"{REPO}/manifests/1.0") == 404
    async with registry.get(f"{REPO}/tags/list") as answer:
        assert (await answer.json())["tags"] == []
    assert await status_of(registry, "/v2/elsewhere/manifests/1.0") == 200


async def test_deleting_a_blob_takes_it_out_of_one_repository(registry: ClientSession) -> None:
    """[end-10]: 202, then 404."""
    await push(registry, BLOB)
    await push(registry, BLOB, "/v2/other")
    assert await status_of(registry, f"{REPO}/blobs/{DIGEST}", "DELETE") == 202
    assert await status_of(registry, f"{REPO}/blobs/{DIGEST}") == 404
    assert await status_of(registry, f"/v2/other/blobs/{DIGEST}") == 200


async def test_a_manifest_pushed_as_a_blob_too_stays_a_manifest(registry: ClientSession) -> None:
    await push(registry, SMALL)
    raw = image()
    await put(registry, raw, "1.0")
    await push(registry, raw)
    assert await status_of(registry, f"{REPO}/manifests/1.0", "GET") == 200
    assert await status_of(registry, f"{REPO}/blobs/{digest_of(raw)}", "GET") == 200
    assert await status_of(registry, f"{REPO}/blobs/{digest_of(raw)}", "DELETE") == 405
    assert await status_of(registry, f"{REPO}/manifests/1.0", "GET") == 200


async def test_a_manifest_of_20000_layers_leaves_the_loop_to_others(
    registry: ClientSession, registry_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is parsed elsewhere, and its layers are looked for in many turns."""
    turns, looks, parsed = 0, Counter[int](), list[int]()
    size_of, loops = registry_store.blobs.size_of, threading.get_ident()

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def looked(digest: Digest) -> int | None:
        if threading.get_ident() == loops:
            looks[turns] += 1
        return size_of(digest)

    def parsing(*arguments: Any, **options: Any) -> Any:
        parsed.append(threading.get_ident())
        return parse_manifest(*arguments, **options)

    monkeypatch.setattr(registry_store.blobs, "size_of", looked)
    monkeypatch.setattr("blobflow.server.manifests.parse_manifest", parsing)
    await push(registry, SMALL)
    turning = asyncio.create_task(turn())
    raw, kind = image(*[descriptor(SMALL)] * 19_999), {"Content-Type": media.OCI_MANIFEST}
    async with registry.put(f"{REPO}/manifests/1.0", data=io.BytesIO(raw), headers=kind) as answer:
        assert answer.status == 201
    turning.cancel()
    assert sum(looks.values()) >= 20_000
    assert max(looks.values()) < 1000
    assert parsed != []
    assert loops not in parsed
