"""The embedded registry, what the distribution-spec's main branch has beyond 1.1: tags with a manifest's
digest ([end-7b]), `digest-algorithm` ([end-4c]), mounts without an origin, images before their layers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import bcrypt
import pytest
from aiohttp import ClientSession, encode_basic_auth

from blobflow.oci import digest_of, media
from blobflow.server import AccessRules, Logins, Server, make_app, parse_access
from blobflow.server.registry import SparsePolicy
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
    put,
    refusal,
    start,
    status_of,
)

Serving = Callable[..., AbstractAsyncContextManager[ClientSession]]


@pytest.fixture
def serving(registry_store: Store) -> Serving:
    @asynccontextmanager
    async def serve(**options: Any) -> AsyncIterator[ClientSession]:
        app = make_app(registry_store, **options)
        async with Server(app) as server, ClientSession(server.url) as client:
            yield client

    return serve


async def tags_of(client: ClientSession) -> list[str]:
    async with client.get(f"{REPO}/tags/list") as answer:
        return list((await answer.json()).get("tags", ()))


# Tags with a manifest


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_manifest_pushed_by_digest_gets_the_tags_that_come_with_it(
    registry: ClientSession, algorithm: str
) -> None:
    """[end-7b]: an OCI-Tag for each; the tag of a sha512 manifest answers with that digest."""
    await push(registry, SMALL)
    raw = image()
    digest = digest_of(raw, algorithm)
    wanted = [f"1.{number}" for number in range(40)]
    query = "&".join(f"tag={tag}" for tag in (*wanted, wanted[0]))
    answer = await put(registry, raw, f"{digest}?{query}")
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
    assert answer.headers["Location"] == f"{REPO}/manifests/{digest}"
    assert [tag.strip() for tag in ",".join(answer.headers.getall("OCI-Tag")).split(",")] == wanted
    assert await tags_of(registry) == sorted(wanted)
    for method in ("GET", "HEAD"):
        async with registry.request(method, f"{REPO}/manifests/1.7") as got:
            assert (got.status, got.headers["Docker-Content-Digest"]) == (200, digest)
            assert int(got.headers["Content-Length"]) == len(raw)


async def test_a_tag_that_is_none_keeps_the_whole_manifest_out(registry: ClientSession) -> None:
    await push(registry, SMALL)
    raw = image()
    for bad in ("a%20b", "-a", "a" * 129, "", "sha256:abc", "a,b"):
        answer = await put(registry, raw, f"{digest_of(raw)}?tag=good&tag={bad}")
        assert await refusal(answer) == (400, "MANIFEST_INVALID")
    assert await tags_of(registry) == []
    assert await status_of(registry, f"{REPO}/manifests/{digest_of(raw)}") == 404


async def test_tags_beside_a_tag_mean_nothing_and_are_not_confirmed(registry: ClientSession) -> None:
    """The spec has them for pushes by digest; who sends them with a tag learns that from the answer."""
    await push(registry, SMALL)
    answer = await put(registry, image(), "1.0?tag=2.0")
    assert answer.status == 201
    assert "OCI-Tag" not in answer.headers
    assert await tags_of(registry) == ["1.0"]


async def test_a_push_by_digest_alone_confirms_no_tag(registry: ClientSession) -> None:
    await push(registry, SMALL)
    answer = await put(registry, image(), digest_of(image()))
    assert answer.status == 201
    assert "OCI-Tag" not in answer.headers


async def test_no_tag_is_set_on_what_lacks_a_blob(registry: ClientSession) -> None:
    raw = image()
    answer = await put(registry, raw, f"{digest_of(raw)}?tag=1.0")
    assert await refusal(answer) == (400, "MANIFEST_BLOB_UNKNOWN")
    assert await status_of(registry, f"{REPO}/manifests/1.0") == 404


# Digest algorithms


@pytest.mark.parametrize("named", ["sha256", "sha512"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_an_upload_may_say_what_its_digest_will_be_of(
    registry: ClientSession, named: str, algorithm: str
) -> None:
    """[end-4c]: a hint, so that one pass is enough; what the PUT names is what counts."""
    digest = digest_of(BLOB, algorithm)
    async with registry.post(f"{REPO}/blobs/uploads/", params={"digest-algorithm": named}) as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    async with registry.patch(location, data=BLOB[:70_000]) as answer:
        location = answer.headers["Location"]
    async with registry.put(f"{location}&digest={digest}", data=BLOB[70_000:]) as answer:
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
    async with registry.get(f"{REPO}/blobs/{digest}") as answer:
        assert (await answer.read(), answer.headers["Docker-Content-Digest"]) == (BLOB, digest)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "SHA256", "blake3", "../sha256"])
async def test_an_algorithm_that_nobody_can_verify_is_refused_at_once(
    registry: ClientSession, algorithm: str
) -> None:
    """ "Pushing blobs": 400; before a byte has been sent."""
    async with registry.post(f"{REPO}/blobs/uploads/", params={"digest-algorithm": algorithm}) as answer:
        assert await refusal(answer) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize(
    "headers", [{}, {"Range": "bytes=5-9"}, {"If-None-Match": "*"}], ids=["whole", "range", "known"]
)
async def test_every_answer_with_a_blob_names_its_digest(
    registry: ClientSession, algorithm: str, headers: dict[str, str]
) -> None:
    """ "Pulling blobs", "Checking if content exists": MUST, on main."""
    for content in (BLOB, SMALL, b""):
        digest = await push(registry, content, algorithm=algorithm)
        for method in ("GET", "HEAD"):
            async with registry.request(method, f"{REPO}/blobs/{digest}", headers=headers) as answer:
                if answer.status != 416:
                    assert answer.headers["Docker-Content-Digest"] == digest


# Mounts


@pytest.mark.parametrize("said", [{}, {"from": ""}])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_mount_without_an_origin_finds_one(
    registry: ClientSession, said: dict[str, str], algorithm: str
) -> None:
    """[end-11]: "the registry MAY treat the `from` parameter as optional"."""
    digest = await push(registry, BLOB, "/v2/somewhere/else", algorithm)
    async with registry.post(f"{REPO}/blobs/uploads/", params={"mount": digest, **said}) as answer:
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, digest)
        assert answer.headers["Location"] == f"{REPO}/blobs/{digest}"
    assert await status_of(registry, f"{REPO}/blobs/{digest}") == 200


async def test_a_mount_of_what_was_deleted_everywhere_opens_a_session(registry: ClientSession) -> None:
    await push(registry, BLOB)
    assert await status_of(registry, f"{REPO}/blobs/{DIGEST}", "DELETE") == 202
    async with registry.post("/v2/other/blobs/uploads/", params={"mount": DIGEST}) as answer:
        assert answer.status == 202


@pytest.mark.parametrize(("where", "mounted"), [("secret", 202), ("team/app", 201)])
async def test_a_mount_without_an_origin_gives_nobody_what_they_may_not_pull(
    serving: Serving, where: str, mounted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.held_elsewhere._BATCH", 2)
    rules = parse_access(
        '[[allow]]\nwho = "joe"\nrepositories = ["joes/**", "team/**"]\ndo = ["pull", "push"]\n'
        '[[allow]]\nwho = "ann"\nrepositories = "**"\ndo = ["pull", "push"]\n',
        "access",
    )
    logins = Logins({name: bcrypt.hashpw(b"pw", bcrypt.gensalt(4)) for name in ("joe", "ann")})
    async with serving(logins=logins, access=AccessRules(rules)) as client:
        ann = {"Authorization": encode_basic_auth("ann", "pw")}
        for repo in ("a", "b", "c", "d", where):
            async with client.post(
                f"/v2/{repo}/blobs/uploads/?digest={DIGEST}", data=BLOB, headers=ann
            ) as answer:
                assert answer.status == 201
        joe = {"Authorization": encode_basic_auth("joe", "pw")}
        async with client.post(f"/v2/joes/app/blobs/uploads/?mount={DIGEST}", headers=joe) as answer:
            assert answer.status == mounted


# Sparse


@pytest.mark.parametrize(
    ("sparse", "images", "indexes"), [("accept", 201, 201), ("indexes", 400, 201), ("refuse", 400, 400)]
)
async def test_what_may_come_before_what_it_names_is_the_operators_choice(
    serving: Serving, sparse: SparsePolicy, images: int, indexes: int
) -> None:
    raw = image(descriptor(BLOB))
    async with serving(sparse=sparse) as client:
        answer = await put(client, index(raw, image()), "index", media.OCI_INDEX)
        assert answer.status == indexes
        answer = await put(client, raw, "image")
        assert answer.status == images
        if images == 400:
            assert [error["detail"] for error in (await answer.json())["errors"]] == [
                digest_of(SMALL),
                DIGEST,
            ]
            return
        async with client.get(f"{REPO}/manifests/image") as got:
            assert await got.read() == raw
        assert await status_of(client, f"{REPO}/blobs/{DIGEST}") == 404
        await push(client, BLOB)
        assert await status_of(client, f"{REPO}/blobs/{DIGEST}") == 200


async def test_a_sparse_image_is_still_held_to_what_is_here(serving: Serving) -> None:
    async with serving(sparse="accept") as client:
        await push(client, BLOB)
        answer = await put(client, image({**descriptor(BLOB), "size": 7}), "1.0")
        assert await refusal(answer) == (400, "SIZE_INVALID")


async def test_a_blob_of_another_repository_is_not_shown_by_a_sparse_image(serving: Serving) -> None:
    async with serving(sparse="accept") as client:
        await push(client, BLOB, "/v2/other")
        assert (await put(client, image(descriptor(BLOB)), "1.0")).status == 201
        assert await status_of(client, f"{REPO}/blobs/{DIGEST}") == 404


# And what 1.1 has, where its next release is stricter


async def test_a_page_of_no_tags_is_empty_and_the_last(registry: ClientSession) -> None:
    """[end-8b]: "When `n` is zero, this endpoint MUST return an empty list, and MUST NOT include a Link"."""
    await push(registry, SMALL)
    for tag in ("b", "a", "B", "_", "10", "9"):
        await put(registry, image(), tag)
    for query, tags in (
        ("n=0", []),
        ("n=0&last=a", []),
        ("last=9", ["B", "_", "a", "b"]),
        ("last=9&n=1", ["B"]),
        ("last=nothing", []),
        ("n=99", ["10", "9", "B", "_", "a", "b"]),
    ):
        async with registry.get(f"{REPO}/tags/list?{query}") as answer:
            assert (answer.status, (await answer.json())["tags"]) == (200, tags)
            assert ("Link" in answer.headers) == (query == "last=9&n=1")


@pytest.mark.parametrize("begun", [False, True])
async def test_an_upload_is_cancelled_with_and_without_bytes(registry: ClientSession, begun: bool) -> None:
    """[end-14]: 204, and then the session is nobody's."""
    location = await start(registry)
    if begun:
        async with registry.patch(location, data=BLOB) as answer:
            location = answer.headers["Location"]
    async with registry.delete(location, headers={"Content-Length": "0"}) as answer:
        assert answer.status == 204
        assert await answer.read() == b""
    assert await status_of(registry, location, "DELETE") == 404


async def test_deleting_what_was_never_here_is_404(registry: ClientSession) -> None:
    """[end-9], [end-10]"""
    for path in (f"manifests/{ABSENT}", "manifests/1.0", f"blobs/{ABSENT}"):
        assert await status_of(registry, f"{REPO}/{path}", "DELETE") == 404
