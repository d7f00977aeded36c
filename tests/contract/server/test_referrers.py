"""The embedded registry's lists of referrers: distribution-spec 1.1, "Listing Referrers"."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientSession

from blobflow.oci import digest_of, media, parse_manifest
from blobflow.oci.manifest import MAX_WORD
from blobflow.server import referrers
from blobflow.transports.store import Store
from blobflow.transports.store.gc import collect_garbage
from tests.contract.server.client import REPO, SMALL, descriptor, image, push, put, refusal

SBOM, SIGNATURE = "application/spdx+json", "application/vnd.dev.cosign.artifact.sig.v1+json"
SUBJECT = image()
DIGEST = digest_of(SUBJECT)


def referrer(kind: str = SBOM, subject: bytes = SUBJECT, **more: Any) -> bytes:
    return image(artifactType=kind, subject=descriptor(subject, media.OCI_MANIFEST), **more)


async def put_all(client: ClientSession, *manifests: bytes) -> None:
    await push(client, SMALL)
    for raw in manifests:
        assert (await put(client, raw, digest_of(raw))).status == 201


async def listed(client: ClientSession, digest: str = DIGEST, query: str = "") -> list[dict[str, Any]]:
    async with client.get(f"{REPO}/referrers/{digest}{query}") as answer:
        assert answer.status == 200
        assert answer.content_type == media.OCI_INDEX
        index = json.loads(await answer.read())
    assert (index["schemaVersion"], index["mediaType"]) == (2, media.OCI_INDEX)
    found: list[dict[str, Any]] = index["manifests"]
    return found


async def test_what_refers_to_a_manifest_is_listed_with_its_type_and_annotations(
    registry: ClientSession,
) -> None:
    one = referrer(annotations={"made": "today"})
    await put_all(registry, SUBJECT, one, image(annotations={"no": "subject"}))
    [found] = await listed(registry)
    assert found == {
        "mediaType": media.OCI_MANIFEST,
        "digest": digest_of(one),
        "size": len(one),
        "annotations": {"made": "today"},
        "artifactType": SBOM,
    }


async def test_without_an_artifact_type_the_configs_media_type_is_told(registry: ClientSession) -> None:
    raw = image(subject=descriptor(SUBJECT, media.OCI_MANIFEST))
    await put_all(registry, raw)
    [found] = await listed(registry)
    assert found["artifactType"] == json.loads(raw)["config"]["mediaType"]


async def test_nothing_refers_to_what_is_unknown_and_that_is_no_error(registry: ClientSession) -> None:
    """ "If the registry supports the referrers API, it MUST NOT return a 404"; the digest has to be one."""
    assert await listed(registry) == []
    async with registry.get(f"{REPO}/referrers/1.0") as answer:
        assert await refusal(answer) == (400, "DIGEST_INVALID")


async def test_a_filter_is_applied_and_said_so(registry: ClientSession) -> None:
    sbom, signature = referrer(), referrer(SIGNATURE)
    await put_all(registry, sbom, signature)
    assert {each["digest"] for each in await listed(registry)} == {digest_of(sbom), digest_of(signature)}
    async with registry.get(f"{REPO}/referrers/{DIGEST}", params={"artifactType": SIGNATURE}) as answer:
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        assert [each["digest"] for each in json.loads(await answer.read())["manifests"]] == [
            digest_of(signature)
        ]


async def test_lists_come_in_pages(registry: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referrers, "PAGE", 2)
    made = [referrer(annotations={"n": str(number)}) for number in range(5)]
    await put_all(registry, *made, referrer(SIGNATURE))
    path: str | None = f"{REPO}/referrers/{DIGEST}?artifactType={SBOM}"
    pages: list[int] = []
    found: list[str] = []
    while path is not None:
        async with registry.get(path) as answer:
            page = [each["digest"] for each in json.loads(await answer.read())["manifests"]]
            pages.append(len(page))
            found += page
            path = str(answer.links["next"]["url"]) if "next" in answer.links else None
    assert pages == [2, 2, 1]
    assert sorted(found) == sorted(map(digest_of, made))


async def test_pages_have_no_more_bytes_than_clients_take(
    registry: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referrers, "PAGE_BYTES", 1000)
    made = [referrer(annotations={"long": str(number) * 600}) for number in range(2)]
    await put_all(registry, *made)
    assert len(await listed(registry)) == 1


async def all_pages(client: ClientSession) -> tuple[list[dict[str, Any]], int]:
    """All that is listed, as this project's own client reads it, and how many pages that takes."""
    path: str | None = f"{REPO}/referrers/{DIGEST}"
    found: list[dict[str, Any]] = []
    pages = 0
    while path is not None:
        async with client.get(path) as answer:
            raw = await answer.read()
            parse_manifest(raw, media.OCI_INDEX)
            found += json.loads(raw)["manifests"]
            path = str(answer.links["next"]["url"]) if "next" in answer.links else None
        pages += 1
    return found, pages


async def test_an_artifact_type_that_no_list_could_have_is_refused(registry: ClientSession) -> None:
    await put_all(registry, SUBJECT, referrer("a" * MAX_WORD))
    raw = referrer("a" * (MAX_WORD + 1))
    answer = await put(registry, raw, digest_of(raw))
    assert await refusal(answer) == (400, "MANIFEST_INVALID")
    assert [len(each["artifactType"]) for each in (await all_pages(registry))[0]] == [MAX_WORD]


@pytest.mark.parametrize("notes", [{"long": "x" * 900_000}, {str(each): "" for each in range(40_000)}])
async def test_annotations_that_no_list_could_have_are_left_out_of_it(
    registry: ClientSession, notes: dict[str, str]
) -> None:
    huge, plain = referrer(annotations=notes), referrer(annotations={"made": "today"})
    await put_all(registry, SUBJECT, huge, plain)
    found, _ = await all_pages(registry)
    told = {each["digest"]: each.get("annotations") for each in found}
    assert told == {digest_of(huge): None, digest_of(plain): {"made": "today"}}


async def test_many_short_annotations_make_pages_that_clients_take(registry: ClientSession) -> None:
    made = [referrer(annotations={f"{n}{each:x}": "" for each in range(9000)}) for n in range(24)]
    await put_all(registry, SUBJECT, *made)
    found, pages = await all_pages(registry)
    assert {each["digest"] for each in found} == set(map(digest_of, made))
    assert all(len(each["annotations"]) == 9000 for each in found)
    assert pages > 1


async def test_what_is_deleted_is_listed_no_longer_and_what_comes_back_is(registry: ClientSession) -> None:
    raw = referrer()
    await put_all(registry, SUBJECT, raw)
    async with registry.delete(f"{REPO}/manifests/{digest_of(raw)}") as answer:
        assert answer.status == 202
    assert await listed(registry) == []
    await put_all(registry, raw)
    assert len(await listed(registry)) == 1


async def test_lists_are_a_repositorys_own(registry: ClientSession) -> None:
    await put_all(registry, referrer())
    async with registry.get(f"/v2/other/app/referrers/{DIGEST}") as answer:
        assert json.loads(await answer.read())["manifests"] == []


async def test_an_index_can_refer_too(registry: ClientSession) -> None:
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_INDEX,
            "artifactType": SBOM,
            "manifests": [],
            "subject": descriptor(SUBJECT, media.OCI_MANIFEST),
        }
    ).encode()
    answer = await put(registry, raw, digest_of(raw), media.OCI_INDEX)
    assert answer.status == 201 and answer.headers["OCI-Subject"] == DIGEST
    [found] = await listed(registry)
    assert (found["mediaType"], found["artifactType"]) == (media.OCI_INDEX, SBOM)


async def test_what_refers_to_a_tagged_image_stays_in_the_store(
    registry: ClientSession, registry_store: Store
) -> None:
    kept, lost = referrer(), referrer(subject=image(annotations={"not": "here"}))
    await put_all(registry, kept, lost)
    assert (await put(registry, SUBJECT, "1.0")).status == 201
    registry_store.state.write("UPDATE blobs SET added = added - 7200, used = used - 7200")
    await collect_garbage(registry_store, 0)
    assert [each["digest"] for each in await listed(registry)] == [digest_of(kept)]
    async with registry.get(f"{REPO}/manifests/{digest_of(lost)}") as answer:
        assert answer.status == 404
