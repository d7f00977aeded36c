"""Content-Encoding that nobody asked for: undone and bounded, or named."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
import zstandard
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import DigestMismatch, NotFound, ProtocolViolation, RegistryError
from blobflow.oci import UNKNOWN_SIZE, Descriptor, media
from blobflow.transports.registry.http import content_encoding
from tests.contract.implementations import blob_of, image_of
from tests.fakes.registry import Handler, collect, scripted_server, world

LAYER = b"".join(b"line %d of a layer\n" % number for number in range(40_000))
BLOB = Descriptor("application/octet-stream", blob_of(LAYER).digest, len(LAYER))
IMAGE, RAW = image_of(blob_of(b"{}"), BLOB)
PACKED = gzip.compress(LAYER, mtime=0)
GZIPPED = Descriptor(media.OCI_LAYER_GZIP, blob_of(PACKED).digest, len(PACKED))


def bare_deflate(content: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(content) + made.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": lambda content: gzip.compress(content[:1000]) + gzip.compress(content[1000:]),
    "deflate": zlib.compress,
    "Deflate": bare_deflate,
    "zstd": zstandard.compress,
    "gzip, zstd": lambda content: zstandard.compress(gzip.compress(content)),
    "identity": lambda content: content,
    "utf-8": lambda content: content,
    "aws-chunked": lambda content: content,
}


def coded(
    content: bytes,
    coding: str,
    *,
    kind: str = "application/octet-stream",
    chunked: bool = False,
    status: int = 200,
    told: str = "",
) -> Handler:
    """A server that answers everything with this body under this label; HEAD with its length."""
    named = {"Content-Type": kind, "Content-Encoding": coding, "ETag": 'W/"1"'}
    if told:
        named["Docker-Content-Digest"] = told

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if not chunked:
            return web.Response(body=content, status=status, headers=named)
        response = web.StreamResponse(status=status, headers=named)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(content)
        await response.write_eof()
        return response

    return handler


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_manifest_is_read_as_what_it_is(coding: str) -> None:
    handler = coded(CODINGS[coding](RAW), coding, kind=IMAGE.media_type)
    async with scripted_server(handler) as server, world() as w:
        source = w.source(server.host)
        assert await source.read(IMAGE) == RAW
        found = await source.resolve("1")
        assert (found.digest, (await source.fetch("1")).raw) == (IMAGE.digest, RAW)
    assert all(each.headers["Accept-Encoding"] == "identity" for each in server.seen)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_blob_is_read_as_what_it_is_and_from_any_offset(coding: str, chunked: bool) -> None:
    async with (
        scripted_server(coded(CODINGS[coding](LAYER), coding, chunked=chunked)) as server,
        world() as w,
    ):
        source = w.source(server.host)
        for offset, end in [(0, None), (0, 10), (70_000, None), (5, 50)]:
            async with source.open(BLOB, offset, end) as chunks:
                assert await collect(chunks) == LAYER[offset:end]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_layer_that_is_gzip_itself_keeps_it_under_a_true_label_and_a_false_one(chunked: bool) -> None:
    for body in (PACKED, gzip.compress(PACKED)):
        handler = coded(body, "gzip", chunked=chunked)
        async with (
            scripted_server(handler) as server,
            world() as w,
            w.source(server.host).open(GZIPPED) as chunks,
        ):
            assert await collect(chunks) == PACKED


async def test_a_part_of_what_it_came_as_is_no_part_of_the_blob() -> None:
    packed = gzip.compress(LAYER)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip"}
        if "Range" not in request.headers:
            return web.Response(body=packed, headers=headers)
        headers["Content-Range"] = f"bytes 100-{len(packed) - 1}/{len(packed)}"
        return web.Response(status=206, body=packed[100:], headers=headers)

    async with (
        scripted_server(handler) as server,
        world() as w,
        w.source(server.host).open(BLOB, 100) as chunks,
    ):
        assert await collect(chunks) == LAYER[100:]
    assert [("Range" in each.headers) for each in server.seen] == [True, False]


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, br", "gzip, gzip, gzip"])
async def test_what_is_not_undone_is_named_with_who_sent_it(coding: str) -> None:
    async with scripted_server(coded(b"\x1b\x03" * 50, coding)) as server, world() as w:
        source = w.source(server.host)
        for asking in (source.read(IMAGE), source.tags(), source.resolve("1")):
            with pytest.raises(
                ProtocolViolation, match=f"{server.host} answered .* with Content-Encoding {coding}"
            ):
                await asking
        with pytest.raises(ProtocolViolation, match=f"Content-Encoding {coding}"):
            async with source.open(BLOB):
                pass


async def test_a_label_on_an_answer_of_the_right_size_is_only_a_label() -> None:
    handler = coded(LAYER, "br")
    async with scripted_server(handler) as server, world() as w, w.source(server.host).open(BLOB) as chunks:
        assert await collect(chunks) == LAYER


async def test_the_length_of_what_it_comes_as_says_nothing_of_its_size() -> None:
    handler = coded(gzip.compress(RAW), "gzip", kind=IMAGE.media_type, told=IMAGE.digest)
    async with scripted_server(handler) as server, world() as w:
        assert (await w.source(server.host).resolve("1")).size == UNKNOWN_SIZE
        assert await w.sink(server.host).has(IMAGE)
    assert {each.method for each in server.seen} == {"HEAD"}


async def test_lists_words_and_tokens_are_read_too() -> None:
    def packed(said: object, status: int = 200, **headers: str) -> web.Response:
        body = gzip.compress(json.dumps(said).encode())
        return web.Response(body=body, status=status, headers={"Content-Encoding": "gzip", **headers})

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return packed({"token": "good"})
        if request.headers.get("Authorization") != "Bearer good":
            realm = f'Bearer realm="http://{request.host}/token"'
            return packed({}, 401, **{"WWW-Authenticate": realm})
        if request.path.endswith("/tags/list"):
            return packed({"tags": ["1", "2"]})
        return packed({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "gone for good"}]}, 404)

    async with scripted_server(handler) as server, world() as w:
        source = w.source(server.host)
        assert await source.tags() == ["1", "2"]
        with pytest.raises(NotFound, match="gone for good"):
            await source.resolve("1")


async def test_words_that_can_not_be_unpacked_are_left_out() -> None:
    async with scripted_server(coded(b"\x1f\x8bnonsense", "gzip", status=400)) as server, world() as w:
        with pytest.raises(RegistryError, match=f"{server.host} refused tags of app with 400$"):
            await w.source(server.host).tags()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
async def test_what_is_spoilt_is_a_sentence(coding: str) -> None:
    packed = bytearray(CODINGS[coding](RAW))
    packed[len(packed) // 2] ^= 0xFF
    async with scripted_server(coded(bytes(packed), coding)) as server, world() as w:
        with pytest.raises((ProtocolViolation, DigestMismatch), match=server.host):
            await w.source(server.host).read(IMAGE)


async def test_a_list_that_grows_in_the_unpacking_is_left_at_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("blobflow.transports.registry.api.tags.MAX_PAGE_BYTES", 10_000)
    async with scripted_server(coded(gzip.compress(bytes(50_000_000)), "gzip")) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="a page of more than 10000 bytes"):
            await w.source(server.host).tags()


async def test_a_blob_that_grows_in_the_unpacking_is_given_in_pieces_that_nobody_has_to_take() -> None:
    handler = coded(gzip.compress(bytes(200_000_000)), "gzip")
    async with scripted_server(handler) as server, world() as w, w.source(server.host).open(BLOB) as chunks:
        async for chunk in chunks:
            assert 0 < len(chunk) <= 1024 * 1024
            break


@pytest.mark.parametrize("more", range(12))
async def test_bare_deflate_that_ends_with_a_piece_has_all_its_bytes(more: int) -> None:
    """zlib can have taken in all of it, and have some left to give."""
    content = bytes(2**20 + more)
    blob = Descriptor("application/octet-stream", blob_of(content).digest, len(content))
    made = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = made.compress(content) + made.flush()
    assert content_encoding.decode_body(packed, ("deflate",), "a blob", 2**21) == content
    async with (
        scripted_server(coded(packed, "deflate")) as server,
        world() as w,
        w.source(server.host).open(blob) as chunks,
    ):
        assert await collect(chunks) == content


@pytest.mark.parametrize(("byte", "read"), [(13 << 3, True), (13 << 3 | 1, False), (18 << 3, False)])
async def test_a_coding_gets_no_more_memory_than_http_grants_it(byte: int, read: bool) -> None:
    """zstd of one bare block whose header asks for a window of 8 MiB, of 9, of 256."""
    packed = b"\x28\xb5\x2f\xfd\0" + bytes([byte]) + (len(RAW) << 3 | 1).to_bytes(3, "little") + RAW
    async with scripted_server(coded(packed, "zstd", kind=IMAGE.media_type)) as server, world() as w:
        if read:
            assert await w.source(server.host).read(IMAGE) == RAW
            return
        window = (8 + (byte & 7)) << (7 + (byte >> 3) - 20)
        with pytest.raises(ProtocolViolation, match=f"zstd with a window of {window} MiB; .* 8 MiB"):
            await w.source(server.host).read(IMAGE)


async def test_a_glance_at_a_cache_that_compresses_gives_the_blob() -> None:
    async with scripted_server(coded(gzip.compress(LAYER), "gzip")) as server, world() as w:
        probe_cache = w.registries.probe_cache(Site(server.host, "app"), BLOB)
        async with probe_cache as chunks:
            assert chunks is not None
            assert await collect(chunks) == LAYER


async def test_what_is_said_of_a_put_may_come_as_it_likes() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Encoding": "br", "Docker-Content-Digest": IMAGE.digest}
        return web.Response(status=201, body=b"\x06", headers=headers)

    async with scripted_server(handler) as server, world() as w:
        await w.sink(server.host).put(IMAGE, RAW, ["1"])
    assert server.asked() == ["PUT /v2/app/manifests/1"]
