"""A repository as a Source and a Sink: what each endpoint's answers mean."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import (
    ConnectionLost,
    DigestMismatch,
    NotFound,
    Rejected,
    SizeMismatch,
    Throttled,
    Unavailable,
    UnsupportedContent,
)
from blobflow.oci import MAX_MANIFEST_BYTES, UNKNOWN_SIZE, Descriptor, digest_of, media
from blobflow.transports.registry import Profile
from blobflow.transports.registry.http.etags import Etags
from tests.fakes.registry import Bytes, answers, blob_of, collect, scripted_server, world
from tools.registry.faulty import DropHeader, Fault, RefuseMount, SetHeader, Status, Truncate, journalling

CONTENT = bytes(range(256)) * 2000
BLOB = blob_of(CONTENT)
RAW = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
INDEX = Descriptor(media.OCI_INDEX, digest_of(RAW), len(RAW))


def manifest(raw: bytes = RAW, kind: str = media.OCI_INDEX, told: str | None = None) -> web.Response:
    """An answer with a manifest; `told` is its Docker-Content-Digest."""
    headers = {"Content-Type": kind} | ({} if told is None else {"Docker-Content-Digest": told})
    return web.Response(body=raw, headers=headers)


# resolve and read


async def test_resolving_costs_one_head_that_accepts_every_form(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await w.sink(registry.host).put(INDEX, RAW, ["1", "2"])
        registry.journal.clear()
        for name in ("1", "2", INDEX.digest):
            assert await w.source(registry.host).resolve(name) == INDEX
        assert [each.method for each in registry.journal] == ["HEAD"] * 3
        for kind in media.MANIFESTS:
            assert all(kind in each.asked["Accept"] for each in registry.journal)


async def test_a_page_in_place_of_a_manifest_is_told_with_its_host() -> None:
    page = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
    async with scripted_server(answers(lambda: manifest(page, "text/html"))) as server, world() as w:
        with pytest.raises(UnsupportedContent) as caught:
            await w.source(server.host).resolve("1")
    assert str(caught.value).startswith(f"manifest app:1 at {server.host} is a page of HTML: ")


@pytest.mark.parametrize("told", [None, "nonsense", "md5:12"])
async def test_a_digest_that_is_not_told_is_computed(told: str | None) -> None:
    async with scripted_server(answers(lambda: manifest(told=told))) as server, world() as w:
        assert await w.source(server.host).resolve("1") == INDEX
    assert server.asked() == ["HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1"]


async def test_a_head_that_is_not_allowed_becomes_a_get() -> None:
    async with scripted_server(answers(lambda: web.Response(status=405), manifest)) as server, world() as w:
        assert await w.source(server.host).resolve("1") == INDEX


async def test_a_media_type_that_says_nothing_is_looked_up_in_the_document() -> None:
    handler = answers(lambda: manifest(kind="application/json", told=INDEX.digest))
    async with scripted_server(handler) as server, world() as w:
        assert await w.source(server.host).resolve("1") == INDEX


async def test_a_manifest_of_an_unknown_kind_is_refused_by_name() -> None:
    handler = answers(
        lambda: manifest(b'{"schemaVersion":2,"mediaType":"application/x"}', kind="application/x")
    )
    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(UnsupportedContent, match="unknown manifest media type 'application/x'"):
            await w.source(server.host).resolve("1")


async def test_a_pinned_digest_that_answers_with_another_is_a_mismatch() -> None:
    other = digest_of(b"other")
    async with scripted_server(answers(lambda: manifest(told=other))) as server, world() as w:
        with pytest.raises(DigestMismatch, match=server.host):
            await w.source(server.host).resolve(INDEX.digest)


async def test_a_sha512_name_may_be_answered_by_a_sha256_digest() -> None:
    pinned = digest_of(RAW, "sha512")
    async with scripted_server(answers(lambda: manifest(told=INDEX.digest))) as server, world() as w:
        assert (await w.source(server.host).resolve(pinned)).digest == pinned
        assert await w.source(server.host).read(Descriptor(media.OCI_INDEX, pinned, len(RAW))) == RAW


async def test_an_unknown_tag_is_not_found_and_names_host_and_tag(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        with pytest.raises(NotFound, match=f"{registry.host} has no manifest app:nine"):
            await w.source(registry.host).resolve("nine")


async def test_wrong_bytes_are_a_mismatch_that_names_where_they_came_from() -> None:
    async with scripted_server(answers(lambda: manifest(RAW[:-1] + b" "))) as server, world() as w:
        with pytest.raises(DigestMismatch, match=f"manifest at {server.host}/app"):
            await w.source(server.host).read(INDEX)


async def test_another_size_than_the_descriptor_s_is_a_mismatch_unless_it_says_none() -> None:
    async with scripted_server(answers(manifest)) as server, world() as w:
        for size in (0, 7, len(RAW) + 1):
            with pytest.raises(SizeMismatch, match=f"has {len(RAW)} bytes, expected {size}"):
                await w.source(server.host).read(Descriptor(media.OCI_INDEX, INDEX.digest, size))
        unsized = Descriptor(media.OCI_INDEX, INDEX.digest, UNKNOWN_SIZE)
        assert await w.source(server.host).read(unsized) == RAW


@pytest.mark.parametrize("length", ["0", None])
async def test_what_a_head_does_not_tell_of_a_size_is_not_known(length: str | None) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return manifest()
        headers = {"Content-Type": media.OCI_INDEX, "Docker-Content-Digest": INDEX.digest}
        response = web.StreamResponse(headers=headers | ({"Content-Length": length} if length else {}))
        await response.prepare(request)
        return response

    async with scripted_server(answer) as server, world() as w:
        found = await w.source(server.host).resolve("1")
        assert (found.size, found.sized) == (UNKNOWN_SIZE, False)
        assert await w.source(server.host).read(found) == RAW


@pytest.mark.parametrize("size", [len(RAW), UNKNOWN_SIZE])
async def test_a_manifest_without_end_is_left_at_the_bound(size: int) -> None:
    sent = 0
    expected = UnsupportedContent if size == UNKNOWN_SIZE else SizeMismatch

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": media.OCI_INDEX})
        await response.prepare(request)
        with pytest.raises(ConnectionError):
            while True:
                await response.write(bytes(256 * 1024))
                sent += 256 * 1024
        return response

    async with scripted_server(endless) as server, world() as w:
        with pytest.raises(expected, match=f"more than {MAX_MANIFEST_BYTES} bytes|expected {len(RAW)}"):
            await w.source(server.host).read(Descriptor(media.OCI_INDEX, INDEX.digest, size))
    assert sent < 64 * 1024 * 1024


async def test_a_manifest_that_breaks_off_is_asked_for_again(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await w.sink(registry.host).put(INDEX, RAW, ["1"])
        registry.faults.add(Fault("GET", "/manifests/", act=Truncate(after=10)))
        assert await w.source(registry.host).read(INDEX) == RAW
        assert registry.journal.count("GET", "/manifests/") == 2


# open


async def test_bytes_from_an_offset_and_up_to_an_end(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        registry.journal.clear()
        source = w.source(registry.host)
        for offset, end in [(0, None), (1, None), (0, 1), (1000, 2000), (len(CONTENT) - 1, None)]:
            async with source.open(BLOB, offset, end) as chunks:
                assert await collect(chunks) == CONTENT[offset:end]
        assert [each.asked.get("Range") for each in registry.journal] == [
            None,
            f"bytes=1-{len(CONTENT) - 1}",
            "bytes=0-0",
            "bytes=1000-1999",
            f"bytes={len(CONTENT) - 1}-{len(CONTENT) - 1}",
        ]


async def test_nothing_is_asked_for_at_the_end() -> None:
    async with scripted_server(answers(web.Response)) as server, world() as w:
        for blob, offset in [(BLOB, BLOB.size), (blob_of(b""), 0)]:
            async with w.source(server.host).open(blob, offset) as chunks:
                assert await collect(chunks) == b""
    assert server.seen == []


async def test_a_place_that_can_t_seek_is_read_past_what_is_before() -> None:
    async with scripted_server(answers(lambda: web.Response(body=CONTENT))) as server, world() as w:
        for offset, end in [(1000, None), (300_000, 300_010)]:
            async with w.source(server.host).open(BLOB, offset, end) as chunks:
                assert await collect(chunks) == CONTENT[offset:end]


OTHER_RANGES = (
    f"bytes 5-{BLOB.size - 1}/{BLOB.size + 1}",
    f"bytes 11-{BLOB.size - 1}/{BLOB.size}",
    f"bytes 10-{BLOB.size - 2}/{BLOB.size}",
    "",
    "bytes */*",
    "bytes 9999999999999999999999-1/2",
)


def other_range(content_range: str, status: int = 206) -> web.Response:
    headers = {"Content-Range": content_range} if content_range else {}
    return web.Response(status=status, body=CONTENT[10:], headers=headers)


@pytest.mark.parametrize("content_range", OTHER_RANGES)
async def test_where_a_range_is_another_the_bytes_are_taken_from_the_whole(content_range: str) -> None:
    handler = answers(lambda: other_range(content_range), lambda: web.Response(body=CONTENT))
    async with (
        scripted_server(handler) as server,
        world() as w,
        w.source(server.host).open(BLOB, 10) as chunks,
    ):
        assert await collect(chunks) == CONTENT[10:]
    assert [each.headers.get("Range") for each in server.seen] == [f"bytes=10-{BLOB.size - 1}", None]


@pytest.mark.parametrize(
    ("status", "content_range", "error"),
    [
        *((206, content_range, Rejected) for content_range in OTHER_RANGES),  # also without a Range
        (416, f"bytes */{BLOB.size - 1}", SizeMismatch),
        (416, "", Rejected),
    ],
)
async def test_a_range_of_something_else_is_told(
    status: int, content_range: str, error: type[Exception]
) -> None:
    async with scripted_server(answers(lambda: other_range(content_range, status))) as server, world() as w:
        with pytest.raises(error, match=server.host):
            async with w.source(server.host).open(BLOB, 10):
                pass


async def test_another_announced_size_is_told_before_the_first_byte() -> None:
    async with scripted_server(answers(lambda: web.Response(body=CONTENT[:-1]))) as server, world() as w:
        with pytest.raises(SizeMismatch, match=f"{server.host}/app has {BLOB.size - 1} bytes"):
            async with w.source(server.host).open(BLOB):
                pass


async def test_a_body_that_breaks_off_says_how_far_it_came(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        registry.faults.add(Fault("GET", "/blobs/", act=Truncate(after=100_000)))
        with pytest.raises(ConnectionLost) as raised:
            async with w.source(registry.host).open(BLOB) as chunks:
                await collect(chunks)
        assert (raised.value.received, raised.value.expected) == (100_000, BLOB.size)


async def test_a_body_without_a_length_that_ends_early_is_a_lost_connection() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(CONTENT[:5])
        await response.write_eof()
        return response

    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(ConnectionLost) as raised:
            async with w.source(server.host).open(BLOB) as chunks:
                await collect(chunks)
    assert raised.value.received == 5


async def test_an_encoded_blob_is_bytes_all_the_same(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        registry.faults.add(Fault("GET", "/blobs/", act=SetHeader("Content-Encoding", "gzip")))
        async with w.source(registry.host).open(BLOB) as chunks:
            assert await collect(chunks) == CONTENT


async def test_leaving_early_frees_the_place_for_the_next(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world(connections=1) as w:
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        for _ in range(3):
            async with w.source(registry.host).open(BLOB) as chunks:
                assert await anext(chunks)


async def test_the_wire_is_counted_by_host(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await w.sink(registry.host).push(BLOB, Bytes(CONTENT))
        await w.sink(registry.host).put(INDEX, RAW)
        async with w.source(registry.host).open(BLOB) as chunks:
            await collect(chunks)
        await w.source(registry.host).read(INDEX)
        counted = w.meter.hosts[registry.host]
        assert (counted.bytes_read, counted.bytes_written) == (BLOB.size + len(RAW),) * 2
        assert counted.requests == len(registry.journal)


# has, is_empty, mount, put


async def test_has_tells_blobs_from_manifests_by_media_type(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        sink = w.sink(registry.host)
        assert not await sink.has(BLOB) and not await sink.has(INDEX)
        await sink.push(BLOB, Bytes(CONTENT))
        await sink.put(INDEX, RAW)
        assert await sink.has(BLOB) and await sink.has(INDEX)


async def test_a_blob_of_another_size_is_not_there() -> None:
    broken = answers(lambda: web.Response(headers={"Content-Length": "5"}))
    async with scripted_server(broken) as server, world() as w:
        assert not await w.sink(server.host).has(BLOB)


async def test_a_failure_is_no_absence() -> None:
    async with scripted_server(answers(lambda: web.Response(status=500))) as server, world() as w:
        with pytest.raises(Unavailable):
            await w.sink(server.host).has(BLOB)
    assert len(server.seen) == 5


@pytest.mark.parametrize(
    ("status", "body", "is_empty"),
    [
        (404, '{"errors":[{"code":"NAME_UNKNOWN"}]}', True),
        (404, '{"errors":[{"code":"NAME_INVALID"}]}', False),
        (404, "404 page not found", False),
        (200, '{"name":"app","tags":null}', False),
        (403, '{"errors":[{"code":"NAME_UNKNOWN"}]}', False),
        (405, "", False),
    ],
)
async def test_only_an_unknown_name_is_certain_to_be_vacant(status: int, body: str, is_empty: bool) -> None:
    async with (
        scripted_server(answers(lambda: web.Response(status=status, text=body))) as server,
        world() as w,
    ):
        assert await w.sink(server.host).is_empty() is is_empty
    assert server.asked() == ["GET /v2/app/tags/list?n=1"]


async def test_a_mount_takes_a_blob_over_without_its_bytes(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await w.sink(registry.host, "origin/app").push(BLOB, Bytes(CONTENT))
        assert await w.sink(registry.host).mount(BLOB, Site(registry.host, "origin/app"))
        assert await w.sink(registry.host).has(BLOB)
        assert registry.journal.mounts("app", BLOB.digest) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
async def test_a_mount_that_is_refused_is_false_and_asked_once(tmp_path: Path, status: int) -> None:
    refuse = Fault("POST", "mount=", act=RefuseMount(status))
    async with journalling(tmp_path, [refuse]) as registry, world() as w:
        assert await w.sink(registry.host).mount(BLOB, Site(registry.host, "origin")) is False
        assert len(registry.journal) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_mount_is_tried_again_where_that_may_help(tmp_path: Path, status: int) -> None:
    async with journalling(tmp_path, [Fault("POST", "mount=", act=Status(status))]) as registry, world() as w:
        await w.sink(registry.host, "origin").push(BLOB, Bytes(CONTENT))
        assert await w.sink(registry.host).mount(BLOB, Site(registry.host, "origin"))
        registry.faults.add(Fault("POST", "mount=", times=0, act=Status(status)))
        with pytest.raises((Throttled, Unavailable)):
            await w.sink(registry.host).mount(BLOB, Site(registry.host, "origin"))


async def test_another_registry_s_blob_can_t_be_mounted() -> None:
    async with scripted_server(answers(web.Response)) as server, world() as w:
        assert not await w.sink(server.host).mount(BLOB, Site("other.example", "app"))
    assert server.seen == []


async def test_a_manifest_is_put_byte_for_byte_under_each_tag_in_turn(tmp_path: Path) -> None:
    """Where the registry does not take them with the digest, for which see `test_registry_putting`."""
    async with journalling(tmp_path) as registry, world(profile=Profile("1.1")) as w:
        await w.sink(registry.host).put(INDEX, RAW, ["1", "latest"])
        await w.sink(registry.host).put(INDEX, RAW)
        puts = registry.journal.select("PUT")
        assert [each.path.rpartition("/")[2] for each in puts] == ["1", "latest", INDEX.digest]
        assert {each.asked["Content-Type"] for each in puts} == {media.OCI_INDEX}
        assert await w.source(registry.host).read(INDEX) == RAW


async def test_a_manifest_without_its_children_names_them(tmp_path: Path) -> None:
    raw = (
        b'{"schemaVersion":2,"config":{"mediaType":"x","size":1,"digest":"%s"},"layers":[]}'
        % BLOB.digest.encode()
    )
    image = Descriptor(media.OCI_MANIFEST, digest_of(raw), len(raw))
    async with journalling(tmp_path) as registry, world() as w:
        with pytest.raises(Rejected) as raised:
            await w.sink(registry.host).put(image, raw, ["1"])
    assert raised.value.missing == (BLOB.digest,)


async def test_a_put_that_reads_a_link_while_another_client_writes_it_is_put_again(tmp_path: Path) -> None:
    """distribution 2.8.2: an empty link is an invalid digest."""
    torn = Status(400, body='{"errors":[{"code":"DIGEST_INVALID"}]}')
    fault = Fault("PUT", "/manifests/", nth=1, times=2, act=torn)
    async with journalling(tmp_path, [fault]) as registry, world() as w:
        await w.sink(registry.host).put(INDEX, RAW, ["1"])
        assert [each.status for each in registry.journal] == [400, 400, 201]
        assert len(w.clock.slept) == 2


async def test_a_put_that_is_confirmed_as_something_else_is_a_mismatch(tmp_path: Path) -> None:
    lie = Fault("PUT", "/manifests/", times=2, act=SetHeader("Docker-Content-Digest", digest_of(b"x")))
    async with journalling(tmp_path, [lie]) as registry, world() as w:
        with pytest.raises(DigestMismatch):
            await w.sink(registry.host).put(INDEX, RAW, ["1"])
        assert registry.journal.count("PUT") == 2  # a bit that flips on its way does so once


async def test_a_put_that_is_confirmed_by_nothing_is_done(tmp_path: Path) -> None:
    mute = Fault("PUT", "/manifests/", act=DropHeader("Docker-Content-Digest"))
    async with journalling(tmp_path, [mute]) as registry, world() as w:
        await w.sink(registry.host).put(INDEX, RAW, ["1"])


async def test_hundreds_of_small_requests_share_few_connections(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        await asyncio.gather(*(w.sink(registry.host).has(BLOB) for _ in range(200)))
        assert registry.journal.peak("HEAD") <= 16


@pytest.mark.parametrize(
    ("etag", "sent"), [('"one"', '"one"'), ('W/"one"', None), ("", None), ('"' + "x" * 300, None)]
)
async def test_a_read_that_goes_on_asks_for_the_same_version(etag: str, sent: str | None) -> None:
    """A strong ETag goes into If-Range; whoever has another version by then sends the whole."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        whole = request.headers.get("Range") is None or request.headers.get("If-Range") == '"one"'
        headers = {"ETag": etag} if etag else {}
        if whole:
            return web.Response(body=CONTENT, headers=headers)
        told = f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}"
        return web.Response(status=206, body=CONTENT[10:], headers={**headers, "Content-Range": told})

    async with scripted_server(handler) as server, world() as w:
        source = w.source(server.host)
        for offset in (0, 10):
            async with source.open(blob_of(CONTENT), offset) as chunks:
                assert await collect(chunks) == CONTENT[offset:]
    assert [each.headers.get("If-Range") for each in server.seen] == [None, sent]


def test_of_many_validators_the_oldest_are_forgotten() -> None:
    etags = Etags()
    for number in range(1000):
        etags.note(str(number), f'"{number}"')
    assert len(etags) == 256 and "999" in etags and "0" not in etags
