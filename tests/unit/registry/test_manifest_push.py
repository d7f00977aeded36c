"""Manifests with several tags: put once, where a registry sets tags that come with a digest ([end-7b])."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from blobflow.content import Journal, NullJournal
from blobflow.errors import Denied, Rejected
from blobflow.oci import Descriptor, digest_of, media
from blobflow.transports.registry.capabilities.profiles import profile_of
from blobflow.transports.store import Store
from blobflow.transports.store.journal import StoreJournal
from tests.fakes.registry import Handler, ScriptedServer, scripted_server, world

RAW = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": []}).encode()
TAGS = ("1.2.3", "1.2", "1", "latest")


def manifest(algorithm: str = "sha256") -> Descriptor:
    return Descriptor(media.OCI_INDEX, digest_of(RAW, algorithm), len(RAW))


def registry(confirms: str = "all", *, split: bool = False) -> Handler:
    """Takes every PUT. `confirms`: all of the tags in a query, none, or the first alone; `split` over several
    headers."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.Response(status=201)
        tags = request.query.getall("tag", ())
        tags = {"all": tags, "none": (), "first": tags[:1]}[confirms]
        for value in tags if split else ([", ".join(tags)] if tags else []):
            answer.headers.add("OCI-Tag", value)
        return answer

    return handler


def by_digest(tags: tuple[str, ...], algorithm: str = "sha256") -> str:
    query = "&".join(f"tag={tag}" for tag in tags)
    return f"/v2/app/manifests/{digest_of(RAW, algorithm)}{'?' if tags else ''}{query}"


def by_tags(*tags: str) -> list[str]:
    return [f"/v2/app/manifests/{tag}" for tag in tags]


async def put(
    server: ScriptedServer,
    *rounds: tuple[str, ...],
    algorithm: str = "sha256",
    journal: Journal | None = None,
) -> int:
    """Put the manifest with each of these tuples of tags, in one process; the bytes that were written."""
    async with world(journal=journal or NullJournal()) as w:
        for tags in rounds:
            await w.sink(server.host).put(manifest(algorithm), RAW, tags)
        return w.meter.bytes_written


@pytest.mark.parametrize("split", [True, False])
async def test_several_tags_are_put_in_one_request_where_they_are_confirmed(split: bool) -> None:
    async with scripted_server(registry(split=split)) as server:
        assert await put(server, TAGS, TAGS[:2]) == 2 * len(RAW)
        assert server.asked("PUT") == [by_digest(TAGS), by_digest(TAGS[:2])]
        assert all(seen.body == RAW for seen in server.seen)


async def test_of_many_manifests_at_once_one_asks_for_all() -> None:
    async with scripted_server(registry("none")) as server, world() as w:
        sink = w.sink(server.host)
        await asyncio.gather(*(sink.put(manifest(), RAW, TAGS) for _ in range(6)))
        asked = server.asked("PUT")
    assert asked.count(by_digest(TAGS)) == 1
    assert len(asked) == 1 + 6 * len(TAGS)


async def test_where_they_are_not_confirmed_each_is_put_and_nobody_asks_again() -> None:
    async with scripted_server(registry("none")) as server:
        await put(server, TAGS, TAGS)
        assert server.asked("PUT") == [by_digest(TAGS), *by_tags(*TAGS), *by_tags(*TAGS)]


async def test_what_was_left_out_is_put_by_itself() -> None:
    async with scripted_server(registry("first")) as server:
        await put(server, TAGS[:2])
        assert server.asked("PUT") == [by_digest(TAGS[:2]), *by_tags(TAGS[1])]


@pytest.mark.parametrize("tags", [(), ("latest",), ("latest", "latest")])
async def test_one_tag_or_none_is_put_as_ever(tags: tuple[str, ...]) -> None:
    async with scripted_server(registry()) as server:
        await put(server, tags)
        assert server.asked("PUT") == (by_tags("latest") if tags else [by_digest(())])


async def test_a_sha512_manifests_tag_goes_with_its_digest() -> None:
    """By the tag alone the registry would take it for a sha256 one."""
    async with scripted_server(registry()) as server:
        await put(server, ("latest",), algorithm="sha512")
        assert server.asked("PUT") == [by_digest(("latest",), "sha512")]
    async with scripted_server(registry("none")) as server:
        await put(server, ("latest",), algorithm="sha512")
        assert server.asked("PUT") == [by_digest(("latest",), "sha512"), *by_tags("latest")]


async def test_so_many_tags_go_in_several_requests_that_no_registry_minds_their_length() -> None:
    tags = tuple(f"{'x' * 120}{number}" for number in range(25))
    async with scripted_server(registry()) as server:
        assert await put(server, tags) == 3 * len(RAW)
        sent = [parse_qs(urlsplit(target).query)["tag"] for target in server.asked("PUT")]
        assert [len(each) for each in sent] == [10, 10, 5]
        assert [tag for each in sent for tag in each] == list(tags)


@pytest.mark.parametrize("confirms", ["all", "none"])
async def test_the_next_run_knows_it(tmp_path: Path, confirms: str) -> None:
    store = Store.open(tmp_path / "store")
    async with scripted_server(registry(confirms)) as server:
        for _ in range(2):
            await put(server, TAGS, journal=StoreJournal(store))
        once = [by_digest(TAGS)] if confirms == "all" else by_tags(*TAGS)
        assert server.asked("PUT") == [by_digest(TAGS), *(once if confirms == "none" else ()), *once]
    store.close()


@pytest.mark.parametrize("status", [400, 404, 405, 409, 414])
async def test_a_registry_that_minds_the_query_gets_the_tags_one_by_one(status: int) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status if request.query else 201)

    async with scripted_server(handler) as server:
        await put(server, TAGS)
        assert server.asked("PUT") == [by_digest(TAGS), *by_tags(*TAGS)]


async def test_what_is_wrong_with_the_manifest_is_told_at_once() -> None:
    body = {"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "message": "?", "detail": digest_of(b"x")}]}

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(body, status=400)

    async with scripted_server(handler) as server:
        with pytest.raises(Rejected, match="MANIFEST_BLOB_UNKNOWN"):
            await put(server, TAGS)
        assert server.asked("PUT") == [by_digest(TAGS)]


async def test_who_may_not_push_is_told_so_once() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=403)

    async with scripted_server(handler) as server:
        with pytest.raises(Denied):
            await put(server, TAGS)
        assert len(server.seen) == 1


@pytest.mark.parametrize("host", ["quay.io", "ghcr.io", "docker.io", "x.azurecr.io", "eu.pkg.dev"])
def test_registries_that_are_known_not_to_take_them_are_not_asked(host: str) -> None:
    assert not profile_of(host).tags_with_digest
