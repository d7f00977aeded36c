"""What a registry can make us hold is bounded: children, nesting of JSON, bodies, headers."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from aiohttp import web

from blobflow.errors import ProtocolViolation, RegistryError, UnsupportedContent
from blobflow.oci import UNKNOWN_SIZE, Descriptor, digest_of, media, parse_manifest
from blobflow.oci.manifest import MAX_CHILDREN, MAX_MANIFEST_BYTES
from tests.fakes.registry import answers, scripted_server, world

CHILD: dict[str, Any] = {"digest": digest_of(b""), "size": 0}
LARGE = 2 * 1024 * 1024  # more than is read of answers that are only looked into
ANY = Descriptor(media.OCI_INDEX, digest_of(b"any"), UNKNOWN_SIZE)


@pytest.mark.parametrize(("kind", "key"), [(media.OCI_INDEX, "manifests"), (media.OCI_MANIFEST, "layers")])
def test_a_manifest_has_so_many_children_and_no_more(kind: str, key: str) -> None:
    def listing(count: int) -> bytes:
        config = {"config": CHILD} if key == "layers" else {}
        return json.dumps({**config, key: [CHILD] * count}, separators=(",", ":")).encode()

    found = parse_manifest(listing(MAX_CHILDREN), kind)
    assert len(found.manifests or found.layers) == MAX_CHILDREN >= 10_000
    with pytest.raises(UnsupportedContent, match=f"lists {MAX_CHILDREN + 1} children, more than the"):
        parse_manifest(listing(MAX_CHILDREN + 1), kind)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"annotations":{"a":', '{"layers":[{"platform":'])
def test_json_that_is_nested_without_end_is_no_manifest(opening: str) -> None:
    with pytest.raises(UnsupportedContent, match="is not a manifest"):
        parse_manifest((opening * (10 * sys.getrecursionlimit())).encode(), media.OCI_INDEX)


async def test_a_manifest_without_end_is_read_to_its_limit_only() -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": media.OCI_INDEX})
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65536)
        except ConnectionError:
            return response

    async with scripted_server(endless) as server, world() as w:
        with pytest.raises(UnsupportedContent, match=f"more than {MAX_MANIFEST_BYTES} bytes"):
            await w.sink(server.host).read(ANY)


async def test_a_token_server_that_talks_without_end_gives_no_token() -> None:
    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            return web.Response(text='{"token":"' + "a" * LARGE + '"}')
        realm = f'Bearer realm="http://{request.host}/token",service="x"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    async with scripted_server(registry) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="something that is no token"):
            await w.sink(server.host).resolve("1")


@pytest.mark.parametrize(
    "headers",
    [
        {"Docker-Content-Digest": "a" * 100_000},
        {"Location": "/" + "a" * 100_000},
        {f"X-{number}": "a" for number in range(5000)},
    ],
    ids=["a long one", "a long Location", "many"],
)
async def test_headers_without_end_are_no_answer(headers: dict[str, str]) -> None:
    async with (
        scripted_server(answers(lambda: web.Response(headers=headers, status=307))) as server,
        world() as w,
    ):
        with pytest.raises(ProtocolViolation) as caught:
            await w.sink(server.host).resolve("1")
    assert len(str(caught.value)) < 1000


async def test_of_an_error_body_without_end_a_part_is_read() -> None:
    async with (
        scripted_server(answers(lambda: web.Response(status=400, text="no " * LARGE))) as server,
        world() as w,
    ):
        with pytest.raises(RegistryError, match="no no no") as caught:
            await w.sink(server.host).read(ANY)
    assert len(str(caught.value)) < 1000
