"""A manifest that cosign's tag names is read with the name, and not asked for again when it is wanted."""

from __future__ import annotations

import pytest
from aiohttp import web

from blobflow.errors import DigestMismatch, SizeMismatch
from blobflow.oci import MAX_MANIFEST_BYTES, UNKNOWN_SIZE, Descriptor, digest_of, media
from blobflow.oci.referrers import cosign_tags
from blobflow.transports.registry.capabilities.manifests_ahead import MOST_AHEAD, ManifestsAhead
from tests.contract.implementations import image_of
from tests.fakes.registry import ScriptedServer, blob_of, scripted_server, world

SUBJECT = digest_of(b"subject")
SIG = cosign_tags(SUBJECT)[0]
IMAGE, RAW = image_of(blob_of(b"{}"), blob_of(b"payload"))
# An allowance, as Docker Hub tells it with every answer about a manifest.
COUNTED = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}


class Repository:
    """One signature under its tag, without an API; `served`: bytes that are sent as the manifest."""

    def __init__(self, raw: bytes = RAW, *, served: bytes | None = None, told: bool = True) -> None:
        self.raw = raw
        self.served = raw if served is None else served
        self.told = told
        self.headers: dict[str, str] = {}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith("/tags/list"):
            return web.json_response({"name": "app", "tags": ["1", SIG]})
        if "/manifests/" not in request.path:
            return web.Response(status=404, text="404 page not found")
        headers = {"Content-Type": media.OCI_MANIFEST, **self.headers}
        if self.told:
            headers["Docker-Content-Digest"] = digest_of(self.raw)
        return web.Response(body=self.served, headers=headers)


def manifests_asked(server: ScriptedServer) -> list[str]:
    """The requests about manifests: the method, and whether by tag or digest."""
    asked = [each.partition(" ") for each in server.asked() if "/manifests/" in each]
    return [f"{method} {'tag' if path.endswith(SIG) else 'digest'}" for method, _, path in asked]


async def test_a_signature_s_manifest_costs_one_request() -> None:
    async with scripted_server(Repository()) as server, world() as there:
        source = there.source(server.host)
        [found] = await source.referrers(SUBJECT)
        assert found.manifest == IMAGE
        assert await source.read(found.manifest) == RAW
        assert manifests_asked(server) == ["GET tag"]
        assert await source.read(found.manifest) == RAW, "it is held for one reader"
        assert manifests_asked(server) == ["GET tag", "GET digest"]


async def test_a_manifest_that_is_said_to_have_another_size_is_asked_for() -> None:
    async with scripted_server(Repository()) as server, world() as there:
        source = there.source(server.host)
        await source.referrers(SUBJECT)
        with pytest.raises(SizeMismatch):
            await source.read(Descriptor(IMAGE.media_type, IMAGE.digest, IMAGE.size + 1))
        assert manifests_asked(server) == ["GET tag", "GET digest"]


async def test_where_reads_are_counted_the_name_alone_is_asked() -> None:
    repository = Repository()
    repository.headers = COUNTED
    async with scripted_server(repository) as server, world() as there:
        source = there.source(server.host)
        await source.resolve("1")
        [found] = await source.referrers(SUBJECT)
        assert found.manifest == IMAGE
        assert manifests_asked(server) == ["HEAD digest", "HEAD tag"]


async def test_of_a_target_the_name_alone_is_asked() -> None:
    async with scripted_server(Repository()) as server, world() as there:
        [found] = await there.sink(server.host).referrers(SUBJECT)
        assert found.manifest == IMAGE
        assert manifests_asked(server) == ["HEAD tag"]


async def test_of_a_large_manifest_the_answer_s_head_says_enough() -> None:
    raw = RAW.replace(b"{", b"{" + b" " * MOST_AHEAD, 1)
    async with scripted_server(Repository(raw)) as server, world() as there:
        source = there.source(server.host)
        [found] = await source.referrers(SUBJECT)
        assert found.manifest == Descriptor(media.OCI_MANIFEST, digest_of(raw), len(raw))
        assert manifests_asked(server) == ["GET tag"]
        assert await source.read(found.manifest) == raw
        assert manifests_asked(server) == ["GET tag", "GET digest"]


async def test_what_is_too_large_is_listed_all_the_same() -> None:
    raw = RAW.replace(b"{", b"{" + b" " * MAX_MANIFEST_BYTES, 1)
    async with scripted_server(Repository(raw)) as server, world() as there:
        [found] = await there.source(server.host).referrers(SUBJECT)
    assert found.manifest.digest == digest_of(raw)


async def test_bytes_that_are_not_the_manifest_s_are_not_held() -> None:
    repository = Repository(served=RAW.replace(b"{", b"{ ", 1))
    async with scripted_server(repository) as server, world() as there:
        source = there.source(server.host)
        [found] = await source.referrers(SUBJECT)
        assert found.manifest.digest == IMAGE.digest
        with pytest.raises(DigestMismatch):
            await source.read(Descriptor(IMAGE.media_type, IMAGE.digest, UNKNOWN_SIZE))
        repository.served = RAW
        assert await source.read(IMAGE) == RAW


async def test_where_no_digest_is_told_the_manifest_is_read_and_hashed() -> None:
    async with scripted_server(Repository(told=False)) as server, world() as there:
        [found] = await there.source(server.host).referrers(SUBJECT)
    assert found.manifest == IMAGE


def test_what_is_held_is_bounded_and_the_first_stay() -> None:
    ahead, held = ManifestsAhead(), 0
    while ahead.has_room:
        raw = b"%d" % held + b" " * (MOST_AHEAD - 10)
        ahead.keep("app", digest_of(raw), raw)
        held += 1
    assert held > 60
    first = b"0" + b" " * (MOST_AHEAD - 10)
    assert ahead.take("app", Descriptor(media.OCI_MANIFEST, digest_of(first), len(first))) == first
    assert ahead.has_room
