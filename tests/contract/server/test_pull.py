"""The embedded registry, pulling: distribution-spec 1.1, [end-1] to [end-3], and names."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import pytest
from aiohttp import ClientSession, web

from blobflow.events import Event, Warned
from blobflow.oci import digest_of, media
from blobflow.server import Server, SocketBodyTransport, make_app
from blobflow.server.http.ranges import ByteRange
from blobflow.transports.store import Store
from tests.contract.server.client import (
    ABSENT,
    BLOB,
    DIGEST,
    REPO,
    SMALL,
    image,
    push,
    pushed_image,
    put,
    raw_refusal,
    refusal,
    status_of,
)


async def test_the_root_says_that_this_is_a_registry(registry: ClientSession) -> None:
    """[end-1]"""
    async with registry.get("/v2/") as answer:
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [b"", SMALL, BLOB], ids=["empty", "small", "large"])
async def test_a_pushed_blob_comes_back_byte_for_byte(
    registry: ClientSession, content: bytes, algorithm: str
) -> None:
    """[end-2]: GET answers 200 with the blob, HEAD with its length; both name the digest."""
    digest = await push(registry, content, algorithm=algorithm)
    async with registry.get(f"{REPO}/blobs/{digest}") as answer:
        assert (answer.status, await answer.read()) == (200, content)
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    async with registry.head(f"{REPO}/blobs/{digest}") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Length"] == str(len(content))
        assert answer.headers["Docker-Content-Digest"] == digest
        assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_blob_that_is_not_here_is_404(registry: ClientSession, method: str) -> None:
    """[end-2], [end-10]: "if the blob is not found, the response code MUST be 404"."""
    async with registry.request(method, f"{REPO}/blobs/{ABSENT}") as answer:
        assert answer.status == 404
        if method != "HEAD":
            assert await refusal(answer) == (404, "BLOB_UNKNOWN")


async def test_a_blob_is_visible_only_in_the_repository_it_was_pushed_to(registry: ClientSession) -> None:
    """[end-2]"""
    await push(registry, BLOB)
    assert await status_of(registry, f"{REPO}/blobs/{DIGEST}") == 200
    assert await status_of(registry, f"/v2/other/app/blobs/{DIGEST}") == 404


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=100-", 100, len(BLOB)),
        ("bytes=-7", len(BLOB) - 7, len(BLOB)),
        (f"bytes=10-{len(BLOB) * 2}", 10, len(BLOB)),
    ],
)
async def test_a_range_is_answered_206_with_its_place(
    registry: ClientSession, asked: str, start: int, end: int
) -> None:
    """[end-2]: "Range" as in RFC 9110."""
    await push(registry, BLOB)
    async with registry.get(f"{REPO}/blobs/{DIGEST}", headers={"Range": asked}) as answer:
        assert (answer.status, await answer.read()) == (206, BLOB[start:end])
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(BLOB)}"
        assert answer.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize("asked", ["bytes=0-1,5-9", "bytes=9-5", "lines=1-2", "bytes=", "bytes=-"])
async def test_a_range_that_is_not_understood_is_ignored(registry: ClientSession, asked: str) -> None:
    """[end-2], RFC 9110 section 14.2"""
    await push(registry, BLOB)
    async with registry.get(f"{REPO}/blobs/{DIGEST}", headers={"Range": asked}) as answer:
        assert (answer.status, await answer.read()) == (200, BLOB)


async def test_a_range_past_the_end_is_416_with_the_size(registry: ClientSession) -> None:
    """[end-2], RFC 9110 section 15.5.17"""
    await push(registry, BLOB)
    async with registry.get(f"{REPO}/blobs/{DIGEST}", headers={"Range": f"bytes={len(BLOB)}-"}) as answer:
        assert (await refusal(answer))[0] == 416
        assert answer.headers["Content-Range"] == f"bytes */{len(BLOB)}"


async def test_a_range_of_what_the_client_does_not_have_is_the_whole(registry: ClientSession) -> None:
    """[end-2], RFC 9110 section 13.1.5 (If-Range)"""
    await push(registry, BLOB)
    async with registry.head(f"{REPO}/blobs/{DIGEST}") as answer:
        etag = answer.headers["ETag"]
    for condition, status in ((etag, 206), ('"another"', 200)):
        headers = {"Range": "bytes=1-2", "If-Range": condition}
        async with registry.get(f"{REPO}/blobs/{DIGEST}", headers=headers) as answer:
            assert answer.status == status
    async with registry.get(f"{REPO}/blobs/{DIGEST}", headers={"If-None-Match": f'"x", {etag}'}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


async def test_a_manifest_comes_back_byte_for_byte_by_tag_and_by_digest(registry: ClientSession) -> None:
    """[end-3]: with its Content-Type, digest and length, on GET and HEAD."""
    raw = await pushed_image(registry)
    digest = digest_of(raw)
    for reference in ("1.0", digest):
        async with registry.get(f"{REPO}/manifests/{reference}") as answer:
            assert (answer.status, await answer.read()) == (200, raw)
            assert answer.headers["Content-Type"] == media.OCI_MANIFEST
            assert answer.headers["Docker-Content-Digest"] == digest
        async with registry.head(f"{REPO}/manifests/{reference}") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == media.OCI_MANIFEST
            assert answer.headers["Content-Length"] == str(len(raw))
            assert answer.headers["Docker-Content-Digest"] == digest


@pytest.mark.parametrize("reference", ["nope", ABSENT, ".no-tag", "x" * 129])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_a_manifest_that_is_not_here_is_404(
    registry: ClientSession, method: str, reference: str
) -> None:
    """[end-3], [end-9]: "MUST be 404 Not Found"."""
    await pushed_image(registry)
    async with registry.request(method, f"{REPO}/manifests/{reference}") as answer:
        assert answer.status == 404
        if method != "HEAD":
            assert await refusal(answer) == (404, "MANIFEST_UNKNOWN")


async def test_a_blob_is_no_manifest(registry: ClientSession) -> None:
    """[end-3]"""
    await push(registry, SMALL)
    assert await status_of(registry, f"{REPO}/manifests/{digest_of(SMALL)}", "GET") == 404


async def test_a_damaged_blob_is_not_served(registry: ClientSession, registry_store: Store) -> None:
    await push(registry, BLOB)
    path = registry_store.blobs.path_of(DIGEST)
    path.chmod(0o644)
    path.write_bytes(b"\0" + BLOB[1:-1] + b"\0")
    async with registry.get(f"{REPO}/blobs/{DIGEST}") as answer:
        assert await refusal(answer) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("room", ["blobs", "manifests"])
async def test_the_operator_is_told_of_what_is_damaged(
    registry: ClientSession, registry_store: Store, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    told: list[Event] = []
    monkeypatch.setattr(registry_store, "observer", told.append)
    manifest = await pushed_image(registry)
    digest = DIGEST if room == "blobs" else digest_of(manifest)
    path = registry_store.blobs.path_of(digest)
    path.chmod(0o644)
    path.write_bytes(b"\0" * path.stat().st_size)
    where = f"{REPO}/{room}/{digest}"
    answers = await asyncio.gather(*(status_of(registry, where, "GET") for _ in range(3)))
    assert answers == [404, 404, 404]
    [event] = told
    assert isinstance(event, Warned)
    assert str(path) in event.message
    assert "until it is pushed again" in event.message


@pytest.mark.parametrize(
    ("call", "code"), [("open", errno.EMFILE), ("open", errno.EACCES), ("pread", errno.EIO)]
)
async def test_a_blob_that_the_disk_does_not_give_is_an_error_and_not_absent(
    registry: ClientSession, registry_store: Store, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    await push(registry, SMALL)
    await registry_store.blobs.check(digest_of(SMALL))
    path, real = registry_store.blobs.path_of(digest_of(SMALL)), getattr(os, call)

    def failing(which: Any, *arguments: Any) -> Any:
        if call == "pread" or which == path:
            raise OSError(code, os.strerror(code))
        return real(which, *arguments)

    monkeypatch.setattr(os, call, failing)
    async with registry.get(f"{REPO}/blobs/{digest_of(SMALL)}") as answer:
        assert await refusal(answer) == (500, "UNKNOWN")
    monkeypatch.undo()
    async with registry.get(f"{REPO}/blobs/{digest_of(SMALL)}") as answer:
        assert await answer.read() == SMALL


async def test_an_answer_that_the_disk_breaks_off_is_cut_and_told(tmp_path: Path) -> None:
    class Broken(SocketBodyTransport):
        async def send(
            self, request: web.BaseRequest, response: web.StreamResponse, file: BinaryIO, span: ByteRange
        ) -> None:
            await super().send(request, response, file, ByteRange(0, 10))
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    told: list[Event] = []
    store = Store.open(tmp_path / "broken", observer=told.append)
    async with (
        Server(make_app(store, body_transport=Broken())) as server,
        ClientSession(server.url) as client,
    ):
        await push(client, BLOB)
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get(f"{REPO}/blobs/{DIGEST}") as answer:
                await answer.read()
    store.close()
    assert [os.strerror(errno.EIO) in str(event) for event in told if isinstance(event, Warned)] == [True]


@pytest.mark.parametrize(
    "name", ["Upper", "a//b", "a/../b", "..", "a/%2e%2e/b", "-a", "a" * 256, "a%00b", "a/b.", "a%0ab"]
)
async def test_a_name_that_breaks_the_grammar_is_refused(registry: ClientSession, name: str) -> None:
    """ "Pulling manifests", <name>: and nothing outside of the store is touched."""
    for method, rest in (("GET", f"blobs/{DIGEST}"), ("POST", "blobs/uploads/"), ("PUT", "manifests/1")):
        assert await raw_refusal(registry, method, f"/v2/{name}/{rest}") == (400, "NAME_INVALID")


@pytest.mark.parametrize("digest", ["sha256:abc", "sha256:../../state", "md5:" + "0" * 32])
async def test_a_digest_that_is_none_is_refused(registry: ClientSession, digest: str) -> None:
    """[end-2], [end-3]"""
    for room in ("blobs", "manifests"):
        status, code = await raw_refusal(registry, "GET", f"{REPO}/{room}/{digest.replace('/', '%2F')}")
        assert (status, code) in ((400, "DIGEST_INVALID"), (404, "UNSUPPORTED"))


@pytest.mark.parametrize("tag", [".hidden", "-x", "x" * 129, "a b"])
async def test_a_tag_that_breaks_the_grammar_is_refused(registry: ClientSession, tag: str) -> None:
    """[end-7]"""
    await push(registry, SMALL)
    assert (await refusal(await put(registry, image(), tag)))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/", 405),
        ("PUT", f"{REPO}/blobs/{DIGEST}", 405),
        ("GET", f"{REPO}/blobs/uploads/", 405),
        ("PATCH", f"{REPO}/manifests/1.0", 405),
        ("GET", "/page", 404),
        ("POST", "/", 405),
        ("GET", "/v2/x", 404),
        ("GET", "/v1/search", 404),
        ("PUT", f"{REPO}/referrers/{DIGEST}", 405),
    ],
)
async def test_what_is_no_endpoint_is_said_so(
    registry: ClientSession, method: str, path: str, status: int
) -> None:
    """The table of the spec's "Endpoints", and nothing else."""
    async with registry.request(method, path) as answer:
        assert await refusal(answer) == (status, "UNSUPPORTED")
        assert ("Allow" in answer.headers) == (status == 405)
