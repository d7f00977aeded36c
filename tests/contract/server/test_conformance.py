"""What the official conformance suite asks of a registry, asked by us: each kind of content is pushed,
listed, looked for, pulled, found by its subject, and deleted, with every header that the spec wants.

The suite itself is run by `tests/e2e/test_conformance.py`, where it was built. Nothing of it is copied: the
kinds of content are its, and so is the order in which it asks.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import ClientResponse, ClientSession
from yarl import URL

from blobflow.oci import digest_of, media
from blobflow.server import Server, make_app
from blobflow.transports.store import Store
from tests.contract.server.client import REPO, push, refusal, status_of
from tests.contract.server.content_kinds import ACCEPT, CASES, Content, Descriptor


@pytest.fixture
async def open_registry(registry_store: Store) -> AsyncIterator[ClientSession]:
    """One that takes what is not all there."""
    app = make_app(registry_store, sparse="accept")
    async with Server(app) as server, ClientSession(server.url) as client:
        yield client


async def upload(client: ClientSession, form: str, digest: str, raw: bytes) -> ClientResponse:
    """Push a blob in one of the four forms, without a word on its algorithm; the last answer."""
    if form == "post":
        return await client.post(f"{REPO}/blobs/uploads/", params={"digest": digest}, data=io.BytesIO(raw))
    async with client.post(f"{REPO}/blobs/uploads/") as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    cuts: dict[str, list[tuple[int, int]]] = {"put": [], "stream": [(0, len(raw))]}
    step = max(len(raw) // 3 + 1, 1)
    chunks = [(at, min(at + step, len(raw))) for at in range(0, len(raw), step)]
    for start, end in cuts.get(form, chunks):
        headers = {"Content-Type": "application/octet-stream"}
        if form == "chunks":
            headers["Content-Range"] = f"{start}-{end - 1}"
        async with client.patch(location, data=io.BytesIO(raw[start:end]), headers=headers) as answer:
            assert answer.status == 202
            location = answer.headers["Location"]
    url = client._build_url("/").join(URL(location, encoded=True)).update_query(digest=digest)
    return await client.put(url, data=io.BytesIO(raw if form == "put" else b""))


def forms() -> Iterator[str]:
    return itertools.cycle(("post", "put", "stream", "chunks"))


async def push_all(client: ClientSession, content: Content) -> None:
    form = forms()
    for digest, raw in content.blobs.items():
        async with await upload(client, next(form), digest, raw) as answer:
            assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
            location = answer.headers["Location"]
        async with client.get(location) as answer:
            assert (answer.status, await answer.read()) == (200, raw)
    waiting = dict(content.tags)
    for digest, (raw, kind) in content.manifests.items():
        tags = [tag for tag, named in content.tags.items() if named == digest]
        query = [("tag", tag) for tag in tags] if content.tags_with_digest else []
        answer = await put_one(client, digest, raw, kind, query)
        if query:
            confirmed = {tag.strip() for tag in ",".join(answer.headers.getall("OCI-Tag")).split(",")}
            assert confirmed == set(tags)
            for tag in tags:
                del waiting[tag]
        assert answer.headers["Docker-Content-Digest"] == digest
        if subject := json.loads(raw).get("subject"):
            assert answer.headers["OCI-Subject"] == subject["digest"]
    for tag, digest in waiting.items():
        answer = await put_one(client, tag, *content.manifests[digest], [])
        assert answer.headers["Docker-Content-Digest"] == digest


async def put_one(
    client: ClientSession, reference: str, raw: bytes, kind: str, query: list[tuple[str, str]]
) -> ClientResponse:
    async with client.put(
        f"{REPO}/manifests/{reference}", params=query, data=io.BytesIO(raw), headers={"Content-Type": kind}
    ) as answer:
        assert answer.status == 201, await answer.text()
    async with client.get(answer.headers["Location"], headers=ACCEPT) as got:
        assert (got.status, got.headers["Content-Type"], await got.read()) == (200, kind, raw)
    return answer


async def list_all(client: ClientSession, content: Content) -> None:
    async with client.get(f"{REPO}/tags/list") as answer:
        listed = (await answer.json())["tags"]
    assert listed == sorted(content.tags)
    for at, last in enumerate(listed):
        async with client.get(f"{REPO}/tags/list", params={"last": last}) as answer:
            assert (await answer.json())["tags"] == listed[at + 1 :]


async def pull_all(client: ClientSession, content: Content) -> None:
    named = {**{digest: digest for digest in content.manifests}, **content.tags}
    for name, digest in named.items():
        raw, kind = content.manifests[digest]
        await pull_one(client, f"{REPO}/manifests/{name}", digest, raw, kind)
    for digest, raw in content.blobs.items():
        await pull_one(client, f"{REPO}/blobs/{digest}", digest, raw, "")


async def pull_one(client: ClientSession, path: str, digest: str, raw: bytes, kind: str) -> None:
    for method in ("HEAD", "GET"):
        async with client.request(method, path, headers=ACCEPT) as answer:
            assert answer.status == 200
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.headers["Content-Length"] == str(len(raw))
            assert await answer.read() == (raw if method == "GET" else b"")
            if kind:
                assert answer.headers["Content-Type"] == kind


async def find_referrers(client: ClientSession, content: Content) -> None:
    for subject, mentions in content.referrers.items():
        found = await referrers_of(client, subject)
        assert sorted(found, key=str) == sorted(map(without_empty, mentions), key=str)
        for kind in {mention["artifactType"] for mention in mentions if "artifactType" in mention}:
            found = await referrers_of(client, subject, kind)
            wanted = [without_empty(each) for each in mentions if each.get("artifactType") == kind]
            assert sorted(found, key=str) == sorted(wanted, key=str)


def without_empty(mention: Descriptor) -> Descriptor:
    return {key: value for key, value in mention.items() if value != {}}


async def referrers_of(client: ClientSession, subject: str, kind: str = "") -> list[Descriptor]:
    params = {"artifactType": kind} if kind else {}
    async with client.get(f"{REPO}/referrers/{subject}", params=params) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, media.OCI_INDEX)
        assert answer.headers.get("OCI-Filters-Applied") == ("artifactType" if kind else None)
        document = await answer.json()
        assert (document["schemaVersion"], document["mediaType"]) == (2, media.OCI_INDEX)
        return [without_empty(each) for each in document["manifests"]]


async def delete_all(client: ClientSession, content: Content) -> None:
    """Tags, then manifests from the top down, then blobs; each is gone at once."""
    places = [
        *(f"manifests/{tag}" for tag in content.tags),
        *(f"manifests/{digest}" for digest in reversed(content.manifests)),
        *(f"blobs/{digest}" for digest in content.blobs),
    ]
    for place in places:
        assert await status_of(client, f"{REPO}/{place}", "DELETE") == 202
        assert await status_of(client, f"{REPO}/{place}") == 404


@pytest.mark.parametrize("name", CASES)
async def test_every_kind_of_content_makes_the_whole_round(open_registry: ClientSession, name: str) -> None:
    make, empty = CASES[name]
    content = empty()
    make(content)
    for step in (push_all, list_all, pull_all, find_referrers, delete_all):
        await step(open_registry, content)
    for subject in content.referrers:
        assert await referrers_of(open_registry, subject) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("form", ["post", "put", "stream", "chunks"])
@pytest.mark.parametrize("raw", [b"", b"{}", bytes(range(200)) * 11], ids=["none", "json", "bytes"])
async def test_every_form_of_upload_takes_every_size_and_nothing_that_is_another(
    open_registry: ClientSession, form: str, algorithm: str, raw: bytes
) -> None:
    digest = digest_of(raw, algorithm)
    assert await status_of(open_registry, f"{REPO}/blobs/{digest}", "GET") == 404
    async with await upload(open_registry, form, digest, raw + b"oh no") as answer:
        assert await refusal(answer) == (400, "DIGEST_INVALID")
    async with await upload(open_registry, form, digest, raw) as answer:
        assert answer.status == 201
    await pull_one(open_registry, f"{REPO}/blobs/{digest}", digest, raw, "")


@pytest.mark.parametrize("closing", [False, True], ids=["then PUT", "last chunk by PUT"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_chunks_out_of_order_are_refused_and_the_upload_goes_on(
    open_registry: ClientSession, algorithm: str, closing: bool
) -> None:
    """[end-5], [end-6], [end-13]: 416 at each step, from the first on; the status then tells where it is."""
    client, raw, size = open_registry, bytes(range(250)) * 12, 1001
    digest, root = digest_of(raw, algorithm), open_registry._build_url("/")
    async with client.post(f"{REPO}/blobs/uploads/") as answer:
        location = answer.headers["Location"]
    for start in range(0, len(raw), size):
        end, wrong = min(start + size, len(raw)), start + size if start + size < len(raw) else 0
        for at, status in ((wrong, 416), (start, 202)):
            piece = raw[at : at + size] if status == 416 else raw[start:end]
            last = closing and at + len(piece) == len(raw)
            url = root.join(URL(location, encoded=True))
            headers = {"Content-Range": f"{at}-{at + len(piece) - 1}"}
            async with client.request(
                "PUT" if last else "PATCH",
                url.update_query(digest=digest) if last else url,
                data=io.BytesIO(piece),
                headers=headers,
            ) as answer:
                assert answer.status == (201 if last and status == 202 else status)
                location = answer.headers["Location"]
            if status == 416:
                async with client.get(url) as answer:
                    assert (answer.status, answer.headers["Range"]) == (204, f"0-{max(start - 1, 0)}")
                    location = answer.headers["Location"]
    if not closing:
        url = root.join(URL(location, encoded=True)).update_query(digest=digest)
        async with client.put(url) as answer:
            assert answer.status == 201
    await pull_one(client, f"{REPO}/blobs/{digest}", digest, raw, "")


async def test_a_manifest_that_is_not_its_digest_is_refused_and_so_is_what_is_no_digest(
    open_registry: ClientSession,
) -> None:
    content = Content()
    content.image()
    for digest, raw in content.blobs.items():
        assert await push(open_registry, raw) == digest
    ((digest, (raw, kind)),) = content.manifests.items()
    for reference, body in ((digest, raw + b"  "), ("sha256:baddigeststring", raw)):
        async with open_registry.put(
            f"{REPO}/manifests/{reference}", data=body, headers={"Content-Type": kind}
        ) as answer:
            assert (await refusal(answer))[0] == 400
        assert await status_of(open_registry, f"{REPO}/manifests/{reference}", "GET") in (400, 404)


async def test_a_repository_that_nobody_has_pushed_to_has_no_tags_and_no_referrers(
    open_registry: ClientSession,
) -> None:
    assert await status_of(open_registry, f"{REPO}/tags/list", "GET") == 404
    assert await referrers_of(open_registry, digest_of(b"nothing")) == []
