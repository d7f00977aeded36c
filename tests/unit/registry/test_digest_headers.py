"""Digests that answers name: who contradicts the bytes, or what was asked for, is not believed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import ConnectionLost, DigestMismatch, UnsupportedContent
from blobflow.oci import Descriptor, digest_of, media
from blobflow.transports.registry import Profile
from tests.contract.implementations import blob_of, image_of, index_of
from tests.fakes.registry import Bytes, answers, collect, scripted_server, world

CONTENT = b"some bytes of a layer"
BLOB = blob_of(CONTENT)
CONFIG = blob_of(b"{}")
IMAGE, RAW_IMAGE = image_of(CONFIG, BLOB)
INDEX, RAW = index_of(IMAGE)
OTHER = digest_of(b"other")
OTHER_LONG = digest_of(b"other", "sha512")
OWN_LONG = digest_of(RAW, "sha512")

Told = str | tuple[str, ...] | None


def answered(
    told: Told, raw: bytes = RAW, kind: str = media.OCI_INDEX, status: int = 200
) -> Callable[[], web.Response]:
    """An answer whose Docker-Content-Digest has these values."""

    def answer() -> web.Response:
        response = web.Response(body=raw, status=status, headers={"Content-Type": kind})
        for value in (told,) if isinstance(told, str) else told or ():
            response.headers.add("Docker-Content-Digest", value)
        return response

    return answer


# What a header may say of a body that it is true of, and so that nothing can be held against.
TRUE: list[Told] = [
    None,
    "",
    INDEX.digest,
    OWN_LONG,
    (INDEX.digest, INDEX.digest),
    f"{INDEX.digest}, {INDEX.digest}",
    (INDEX.digest, OWN_LONG),
    "nonsense",
    INDEX.digest[:-1],
    "blake3:" + "0" * 64,
]
LIES: list[Told] = [
    OTHER,
    OTHER_LONG,
    (INDEX.digest, OTHER),
    (OTHER, INDEX.digest),
    f"{INDEX.digest},{OTHER}",
    (INDEX.digest, OTHER_LONG),
]


@pytest.mark.parametrize("told", LIES)
@pytest.mark.parametrize("name", ["1", INDEX.digest, OWN_LONG])
async def test_a_manifest_that_is_told_to_be_another_is_a_mismatch(told: Told, name: str) -> None:
    async with scripted_server(answers(answered(told))) as server, world() as w:
        with pytest.raises(DigestMismatch, match=server.host):
            await w.source(server.host).fetch(name)
        assert len(server.asked("GET")) == 2  # a bit that flips on its way does so once


@pytest.mark.parametrize("told", TRUE)
@pytest.mark.parametrize("name", ["1", INDEX.digest, OWN_LONG])
async def test_a_manifest_that_is_told_truly_or_not_at_all_is_taken(told: Told, name: str) -> None:
    async with scripted_server(answers(answered(told))) as server, world() as w:
        assert (await w.source(server.host).fetch(name)).raw == RAW
        assert len(server.asked("GET")) == 1


@pytest.mark.parametrize("told", LIES)
async def test_a_read_by_digest_that_is_told_to_be_another_is_a_mismatch(told: Told) -> None:
    async with scripted_server(answers(answered(told))) as server, world() as w:
        with pytest.raises(DigestMismatch, match="Docker-Content-Digest"):
            await w.source(server.host).read(INDEX)


@pytest.mark.parametrize("told", TRUE)
async def test_a_tag_resolves_to_what_its_bytes_are(told: Told) -> None:
    """By HEAD where that names one digest, by the bytes where it names none or several."""
    async with scripted_server(answers(answered(told))) as server, world() as w:
        found = await w.source(server.host).resolve("1")
    assert found.digest in (INDEX.digest, OWN_LONG)
    assert found.size == len(RAW)


@pytest.mark.parametrize("told", [each for each in LIES if not isinstance(each, str) or "," in each])
async def test_a_head_that_names_two_digests_is_settled_by_the_bytes(told: Told) -> None:
    async with scripted_server(answers(answered(told))) as server, world() as w:
        with pytest.raises(DigestMismatch):
            await w.source(server.host).resolve("1")


async def test_a_head_and_a_get_that_disagree_are_a_mismatch() -> None:
    """HEAD names one manifest; what comes under that digest is another."""
    handler = answers(answered(OTHER), answered(INDEX.digest))
    async with scripted_server(handler) as server, world() as w:
        source = w.source(server.host)
        named = await source.resolve("1")
        assert named.digest == OTHER
        with pytest.raises(DigestMismatch, match="manifest at"):
            await source.read(named)


@pytest.mark.parametrize("told", [OTHER, (INDEX.digest, OTHER)])
async def test_a_digest_that_resolves_to_another_is_a_mismatch(told: Told) -> None:
    async with scripted_server(answers(answered(told))) as server, world() as w:
        with pytest.raises(DigestMismatch):
            await w.source(server.host).resolve(INDEX.digest)


async def test_one_flipped_bit_in_a_manifest_by_tag_is_read_again() -> None:
    handler = answers(answered(INDEX.digest, RAW + b" "), answered(INDEX.digest))
    async with scripted_server(handler) as server, world() as w:
        assert (await w.source(server.host).fetch("1")).descriptor == INDEX


async def test_a_schema_1_manifest_is_refused_as_such_and_not_for_its_digest() -> None:
    """Its digest is that of its payload, without the signatures."""
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    raw = json.dumps({"schemaVersion": 1, "name": "app", "tag": "1"}).encode()
    async with scripted_server(answers(answered(OTHER, raw, kind))) as server, world() as w:
        with pytest.raises(UnsupportedContent, match="schema 1"):
            await w.source(server.host).fetch("1")


@pytest.mark.parametrize(
    ("told", "there"), [(OTHER, False), ((BLOB.digest, OTHER), False), (OTHER_LONG, True), ("", True)]
)
async def test_what_is_told_to_be_another_is_not_there(told: Told, there: bool) -> None:
    """A digest of another algorithm can't be compared without the bytes."""
    async with scripted_server(answers(answered(told, CONTENT))) as server, world() as w:
        assert await w.sink(server.host).has(BLOB) is there
        manifest = Descriptor(media.OCI_INDEX, BLOB.digest, BLOB.size)
        assert await w.sink(server.host).has(manifest) is there


@pytest.mark.parametrize("told", [OTHER, (BLOB.digest, OTHER)])
async def test_a_blob_that_is_announced_as_another_is_not_read(told: Told) -> None:
    async with scripted_server(answers(answered(told, CONTENT))) as server, world() as w:
        with pytest.raises(DigestMismatch, match=server.host):
            async with w.source(server.host).open(BLOB):
                pass
        with pytest.raises(DigestMismatch, match=server.host):
            async with w.registries.probe_cache(Site(server.host, "app"), BLOB):
                pass


@pytest.mark.parametrize("told", [None, "", BLOB.digest, digest_of(CONTENT, "sha512"), OTHER_LONG, "x"])
async def test_a_blob_that_is_not_announced_as_another_is_read(told: Told) -> None:
    async with (
        scripted_server(answers(answered(told, CONTENT))) as server,
        world() as w,
        w.source(server.host).open(BLOB) as chunks,
    ):
        assert await collect(chunks) == CONTENT


@pytest.mark.parametrize("told", LIES)
async def test_a_put_that_is_answered_with_another_digest_is_a_mismatch(told: Told) -> None:
    async with scripted_server(answers(answered(told, b"", status=201))) as server, world() as w:
        with pytest.raises(DigestMismatch, match="Docker-Content-Digest"):
            await w.sink(server.host).put(INDEX, RAW, ["1"])


@pytest.mark.parametrize("told", TRUE)
async def test_a_put_may_be_answered_in_the_registry_s_own_algorithm_or_not_at_all(told: Told) -> None:
    async with scripted_server(answers(answered(told, b"", status=201))) as server, world() as w:
        await w.sink(server.host).put(INDEX, RAW, ["1"])


async def test_a_mount_of_something_else_is_no_mount() -> None:
    async with scripted_server(answers(answered(OTHER, b"", status=201))) as server, world() as w:
        assert not await w.sink(server.host).mount(BLOB, Site(server.host, "base"))
    async with scripted_server(answers(answered(BLOB.digest, b"", status=201))) as server, world() as w:
        assert await w.sink(server.host).mount(BLOB, Site(server.host, "base"))


@pytest.mark.parametrize(
    ("noted", "asked"),
    [(INDEX.digest, 0), (OTHER, 1), ("", 1), ("true", 1), (f"{INDEX.digest}, {OTHER}", 0)],
)
async def test_a_note_of_another_subject_is_none(noted: str, asked: int) -> None:
    """OCI-Subject is the word that a referrer is listed; one that names another manifest is no such word."""
    document = json.loads(RAW_IMAGE)
    document["subject"] = {"mediaType": INDEX.media_type, "digest": INDEX.digest, "size": INDEX.size}
    raw = json.dumps(document).encode()
    signature = Descriptor(media.OCI_MANIFEST, digest_of(raw), len(raw))
    empty = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []}).encode()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "PUT":
            return web.Response(status=201, headers={"OCI-Subject": noted})
        return web.Response(body=empty, headers={"Content-Type": media.OCI_INDEX})

    async with scripted_server(handler) as server, world() as w:
        sink = w.sink(server.host)
        await sink.put(signature, raw)
        await sink.attach(INDEX.digest, [signature])
        assert len(server.asked("GET")) == asked


async def test_an_upload_of_which_only_the_answer_was_lost_is_not_taken_for_another() -> None:
    """See `Uploads`: after a break the blob is asked for; what is there under another digest is not it."""
    heads = 0

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal heads
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/up"})
        if request.method == "HEAD":
            heads += 1
            return web.Response(headers={"Docker-Content-Digest": OTHER})
        async for _ in request.content.iter_any():
            pass
        if heads == 0:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=201)

    content = bytes(2 * 1024 * 1024)
    blob = blob_of(content)
    profile = Profile("test", ("single",))
    async with scripted_server(handler, reads=False) as server, world(profile=profile) as w:
        sink = w.sink(server.host)
        with pytest.raises(ConnectionLost):
            await sink.push(blob, Bytes(content, blob=blob))
        await sink.push(blob, Bytes(content, blob=blob))
    methods = [each.method for each in server.seen if each.method != "DELETE"]
    assert methods == ["POST", "PUT", "HEAD", "POST", "PUT"]
