"""The embedded registry, pushing blobs: distribution-spec 1.1, [end-4a] to [end-6], [end-11] and more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession

from blobflow.oci import digest_of
from blobflow.transports.store import Store
from tests.contract.server.client import ABSENT, BLOB, DIGEST, REPO, push, refusal, start, status_of


async def test_post_with_a_digest_takes_the_whole_blob(registry: ClientSession) -> None:
    """[end-4b]: 201 with a Location that the blob can be pulled from."""
    async with registry.post(f"{REPO}/blobs/uploads/", params={"digest": DIGEST}, data=BLOB) as answer:
        assert answer.status == 201
        assert answer.headers["Docker-Content-Digest"] == DIGEST
        location = answer.headers["Location"]
    assert await status_of(registry, location) == 200


async def test_post_then_put_takes_the_whole_blob(registry: ClientSession) -> None:
    """[end-4a], [end-6]: 202 with a Location, then 201 with the blob's."""
    location = await start(registry)
    async with registry.put(location, params={"digest": DIGEST}, data=BLOB) as answer:
        assert answer.status == 201
        assert await status_of(registry, answer.headers["Location"]) == 200
    assert await status_of(registry, location, "GET") == 404, "a completed session is gone"


@pytest.mark.parametrize("tail", [b"", b"the end"])
async def test_post_patch_put_takes_a_stream_of_unknown_length(registry: ClientSession, tail: bytes) -> None:
    """[end-5], [end-6]: PATCH without a Content-Range."""
    whole = BLOB + tail

    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(BLOB), 70_000):
            yield BLOB[at : at + 70_000]

    async with registry.patch(await start(registry), data=stream()) as answer:
        assert answer.status == 202
        assert answer.headers["Range"] == f"0-{len(BLOB) - 1}"
        location = answer.headers["Location"]
    digest = digest_of(whole)
    async with registry.put(location, params={"digest": digest}, data=tail) as answer:
        assert answer.status == 201
    async with registry.get(f"{REPO}/blobs/{digest}") as answer:
        assert await answer.read() == whole


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_chunks_in_order_make_the_blob(registry: ClientSession, algorithm: str) -> None:
    """[end-5], [end-6]: each 202 tells the Range so far; the last chunk may come with the PUT."""
    location = await start(registry)
    cuts = [0, 1, 100_000, 200_000, len(BLOB)]
    for begin, end in itertools.pairwise(cuts[:-1]):
        headers = {"Content-Range": f"{begin}-{end - 1}"}
        async with registry.patch(location, data=BLOB[begin:end], headers=headers) as answer:
            assert (answer.status, answer.headers["Range"]) == (202, f"0-{end - 1}")
            location = answer.headers["Location"]
    headers = {"Content-Range": f"{cuts[-2]}-{cuts[-1] - 1}"}
    digest = digest_of(BLOB, algorithm)
    async with registry.put(
        location, params={"digest": digest}, data=BLOB[cuts[-2] :], headers=headers
    ) as answer:
        assert answer.status == 201
    async with registry.get(f"{REPO}/blobs/{digest}") as answer:
        assert await answer.read() == BLOB


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("wrong", ["20-29", "0-9", "9-18", "10", "bytes 10-19/20", "19-10"])
async def test_a_chunk_out_of_order_is_416_with_what_has_arrived(
    registry: ClientSession, method: str, wrong: str
) -> None:
    """[end-5], [end-6]: "the registry MUST return a 416"; nothing of it is taken."""
    location = await start(registry)
    async with registry.patch(location, data=BLOB[:10], headers={"Content-Range": "0-9"}) as answer:
        assert answer.status == 202
    async with registry.request(
        method, location, params={"digest": DIGEST}, data=BLOB[:10], headers={"Content-Range": wrong}
    ) as answer:
        assert (await refusal(answer))[0] == 416
        assert answer.headers["Range"] == "0-9"
        assert answer.headers["Location"] == location
    async with registry.patch(
        location, data=BLOB[10:], headers={"Content-Range": f"10-{len(BLOB) - 1}"}
    ) as answer:
        assert answer.status == 202
    async with registry.put(location, params={"digest": DIGEST}) as answer:
        assert answer.status == 201


async def test_a_chunk_of_another_length_than_it_says_is_refused(registry: ClientSession) -> None:
    """[end-5]: "Content-Length MUST match" the Content-Range."""
    location = await start(registry)
    async with registry.patch(location, data=b"12345", headers={"Content-Range": "0-9"}) as answer:
        assert await refusal(answer) == (400, "SIZE_INVALID")


async def test_an_upload_tells_how_far_it_is(registry: ClientSession) -> None:
    """[end-13]: 204 with Location and Range."""
    location = await start(registry)
    for sent, shown in ((b"", "0-0"), (BLOB[:100], "0-99")):
        async with registry.patch(location, data=sent) as answer:
            assert answer.status == 202
        async with registry.get(location) as answer:
            assert (answer.status, answer.headers["Range"]) == (204, shown)
            assert answer.headers["Location"] == location


async def test_a_cancelled_upload_is_gone(registry: ClientSession, registry_store: Store) -> None:
    """[end-14]"""
    location = await start(registry)
    async with registry.patch(location, data=BLOB) as answer:
        assert answer.status == 202
    assert await status_of(registry, location, "DELETE") == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        async with registry.request(method, location, params={"digest": DIGEST}) as answer:
            assert await refusal(answer) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert not list(registry_store.paths.partials.iterdir())


async def test_a_session_belongs_to_one_repository(registry: ClientSession) -> None:
    """[end-5]"""
    location = (await start(registry)).replace("/team/app/", "/team/other/")
    async with registry.patch(location, data=BLOB) as answer:
        assert await refusal(answer) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("form", ["post", "put", "patch"])
async def test_bytes_that_are_not_the_digest_are_refused_and_not_kept(
    registry: ClientSession, registry_store: Store, form: str, algorithm: str
) -> None:
    """[end-4b], [end-6]: DIGEST_INVALID in every form of upload."""
    digest = digest_of(BLOB, algorithm)
    wrong, params = BLOB[:-1], {"digest": digest}
    if form == "post":
        answer = await registry.post(f"{REPO}/blobs/uploads/", params=params, data=wrong)
    elif form == "put":
        answer = await registry.put(await start(registry), params=params, data=wrong)
    else:
        location = await start(registry)
        async with registry.patch(location, data=wrong):
            pass
        answer = await registry.put(location, params=params)
    async with answer:
        assert await refusal(answer) == (400, "DIGEST_INVALID")
    assert await status_of(registry, f"{REPO}/blobs/{digest}") == 404
    assert registry_store.blobs.size_of(digest) is None
    assert not list(registry_store.paths.partials.iterdir())


@pytest.mark.parametrize("digest", [None, "sha256:abc", "md5:" + "0" * 32, "sha256:" + "Z" * 64])
async def test_an_upload_needs_a_digest_that_can_be_checked(
    registry: ClientSession, digest: str | None
) -> None:
    """[end-6]: and the session lives on, for the registry to mend it."""
    location = await start(registry)
    params = {} if digest is None else {"digest": digest}
    async with registry.put(location, params=params, data=BLOB) as answer:
        assert await refusal(answer) == (400, "DIGEST_INVALID")
    assert await status_of(registry, location, "GET") == 204


async def test_what_arrived_before_a_break_is_gone_on_from(registry: ClientSession) -> None:
    """[end-5], [end-13]: after a broken PATCH, GET tells the offset, and a chunk goes on from there."""
    location = await start(registry)
    broken = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield BLOB[:100_000]
        broken.set()
        await asyncio.Event().wait()

    patch = asyncio.create_task(registry.patch(location, data=half()).__aenter__())
    await broken.wait()
    offset = 0
    while offset < 100_000:  # bounded by the test's timeout: the bytes are on their way
        async with registry.get(location) as answer:
            offset = int(answer.headers["Range"].removeprefix("0-")) + 1
    patch.cancel()
    await asyncio.gather(patch, return_exceptions=True)
    headers = {"Content-Range": f"{offset}-{len(BLOB) - 1}"}
    async with registry.patch(location, data=BLOB[offset:], headers=headers) as answer:
        assert answer.status == 202
    async with registry.put(location, params={"digest": DIGEST}) as answer:
        assert answer.status == 201


async def test_a_newer_request_takes_the_session_over(registry: ClientSession) -> None:
    """A request that hangs can't write behind the one that went on instead of it."""
    location = await start(registry)
    going_on = asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield BLOB[:10]
        await going_on.wait()
        yield b"too late"

    stale = asyncio.create_task(registry.patch(location, data=hanging()).__aenter__())
    shown = ""
    while shown != "0-9":
        async with registry.get(location) as answer:
            shown = answer.headers["Range"]
    async with registry.patch(
        location, data=BLOB[10:], headers={"Content-Range": f"10-{len(BLOB) - 1}"}
    ) as answer:
        assert answer.status == 202
    going_on.set()
    async with await stale as answer:
        assert await refusal(answer) == (409, "BLOB_UPLOAD_INVALID")
    async with registry.put(location, params={"digest": DIGEST}) as answer:
        assert answer.status == 201


async def test_two_pushes_of_one_blob_at_once_both_succeed(registry: ClientSession) -> None:
    """[end-6]"""
    first, second = await start(registry), await start(registry)
    answers = await asyncio.gather(
        *(registry.put(location, params={"digest": DIGEST}, data=BLOB) for location in (first, second))
    )
    assert [answer.status for answer in answers] == [201, 201]
    for answer in answers:
        answer.release()


async def test_a_content_encoding_does_not_change_the_bytes(registry: ClientSession) -> None:
    """A blob is bytes: one that says that it is gzip is not unpacked on the way in."""
    packed = b"\x1f\x8b not really gzip"
    digest = digest_of(packed)
    async with registry.post(
        f"{REPO}/blobs/uploads/", params={"digest": digest}, data=packed, headers={"Content-Encoding": "gzip"}
    ) as answer:
        assert answer.status == 201


async def test_a_mount_makes_the_blob_visible_without_an_upload(registry: ClientSession) -> None:
    """[end-11]: 201 with the blob's Location in the target repository."""
    await push(registry, BLOB)
    params = {"mount": DIGEST, "from": "team/app"}
    async with registry.post("/v2/other/blobs/uploads/", params=params) as answer:
        assert answer.status == 201
        assert answer.headers["Location"] == f"/v2/other/blobs/{DIGEST}"
        assert answer.headers["Docker-Content-Digest"] == DIGEST
    async with registry.get(f"/v2/other/blobs/{DIGEST}") as answer:
        assert await answer.read() == BLOB


@pytest.mark.parametrize(
    "params",
    [
        {"mount": DIGEST, "from": "team/empty"},
        {"mount": ABSENT, "from": "team/app"},
        {"mount": "sha256:abc", "from": "team/app"},
        {"mount": DIGEST, "from": "../team/app"},
        {"mount": ABSENT},
    ],
)
async def test_a_mount_that_can_not_be_opens_a_session(
    registry: ClientSession, params: dict[str, str]
) -> None:
    """[end-11]: "MUST return a 202", and the session can be used."""
    await push(registry, BLOB)
    async with registry.post("/v2/other/blobs/uploads/", params=params) as answer:
        assert answer.status == 202
        location = answer.headers["Location"]
    assert await status_of(registry, f"/v2/other/blobs/{DIGEST}") == 404
    async with registry.put(location, params={"digest": DIGEST}, data=BLOB) as answer:
        assert answer.status == 201
