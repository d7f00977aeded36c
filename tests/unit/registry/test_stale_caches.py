"""Caches before a registry: what they keep is told, contradicted, and asked past."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from blobflow.errors import NotFound
from blobflow.events import Warned
from blobflow.oci import Descriptor
from blobflow.transports.registry.capabilities.stale_caches import PushedNames
from blobflow.transports.registry.http.cache_headers import describe_cache
from tests.contract.implementations import blob_of, image_of, index_of
from tests.fakes.notes import Notes
from tests.fakes.registry import Bytes, ScriptedServer, World, collect, scripted_server, world
from tools.registry.faulty import JournallingRegistry, journalling

LAYER = b"a layer"
BLOB, CONFIG = blob_of(LAYER), blob_of(b"{}")
IMAGE, RAW = image_of(CONFIG, BLOB)
OTHER, RAW_OTHER = index_of(IMAGE)


@asynccontextmanager
async def cached(
    tmp_path: Path, hit: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[ScriptedServer, JournallingRegistry]]:
    """A registry behind a cache that makes a GET of every HEAD and keeps what came for ever, by its address
    alone; `hit` are the headers that it gives with what it had kept."""
    kept: dict[str, tuple[int, dict[str, str], bytes]] = {}
    async with journalling(tmp_path) as registry, ClientSession(auto_decompress=False) as client:

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            reads, told = request.method in ("GET", "HEAD"), dict(hit or {})
            if not reads or request.raw_path not in kept:
                told = {}
                method = "GET" if reads else request.method
                named = {
                    key: value
                    for key, value in request.headers.items()
                    if key in ("Accept", "Content-Type", "Content-Range")
                }
                url = f"http://{registry.host}{request.raw_path}"
                body = await request.read()
                async with client.request(method, url, data=body or None, headers=named) as answer:
                    headers = {
                        key: answer.headers[key]
                        for key in ("Content-Type", "Docker-Content-Digest", "Location", "Range")
                        if key in answer.headers
                    }
                    came = answer.status, headers, await answer.read()
                if reads:
                    kept[request.raw_path] = came
            else:
                came = kept[request.raw_path]
            status, headers, body = came
            return web.Response(status=status, headers=headers | told, body=body)

        async with scripted_server(handler) as cache:
            yield cache, registry


async def survey_and_put(w: World, cache: ScriptedServer) -> None:
    """What a run does: ask for what is there, which is nothing, and put it."""
    sink = w.sink(cache.host)
    for content in (BLOB, CONFIG, IMAGE):
        assert not await sink.has(content)
    with pytest.raises(NotFound):
        await sink.resolve("1")
    await sink.push(BLOB, Bytes(LAYER))
    await sink.push(CONFIG, Bytes(b"{}"))
    await sink.put(IMAGE, RAW, ["1"])


HITS = [{}, {"Age": "12", "Via": "1.1 varnish (Varnish/7.1)", "X-Varnish": "32770 3"}, {"X-Cache": "HIT"}]


@pytest.mark.parametrize("hit", HITS)
async def test_what_was_taken_is_not_missing_because_a_cache_kept_a_404(
    tmp_path: Path, hit: dict[str, str]
) -> None:
    async with cached(tmp_path, hit) as (cache, _), world() as w:
        await survey_and_put(w, cache)
        sink, source = w.sink(cache.host), w.source(cache.host)
        assert (await sink.resolve("1")).digest == IMAGE.digest
        for content in (BLOB, CONFIG, IMAGE):
            assert await sink.has(content)
        assert await source.read(IMAGE) == RAW
        async with source.open(BLOB) as chunks:
            assert await collect(chunks) == LAYER
    (told,) = [event for event in w.events if isinstance(event, Warned)]
    assert f"{cache.host} is behind a cache" in told.message
    assert ("12 s old" in told.message) is ("Age" in hit)


async def test_the_next_run_asks_past_it_from_the_start_and_only_as_a_target(tmp_path: Path) -> None:
    notes = Notes()
    async with cached(tmp_path) as (cache, _):
        async with world(journal=notes) as w:
            await survey_and_put(w, cache)
            await w.sink(cache.host).resolve("1")
        cache.seen.clear()
        async with world(journal=notes) as w:
            assert (await w.sink(cache.host).resolve("1")).digest == IMAGE.digest
            assert await w.sink(cache.host).has(BLOB)
        assert all("?nocache=" in each.target for each in cache.seen)
        assert all(each.headers["Cache-Control"] == "no-cache" for each in cache.seen)
        assert len({each.target for each in cache.seen}) == len(cache.seen) == 2
        cache.seen.clear()
        async with world(journal=notes) as w:
            with pytest.raises(NotFound):
                await w.source(cache.host).resolve("1")
        assert not any("nocache" in each.target for each in cache.seen)


async def test_a_tag_that_was_moved_past_the_cache_is_what_was_put(tmp_path: Path) -> None:
    async with cached(tmp_path) as (cache, _), world() as w:
        sink = w.sink(cache.host)
        await survey_and_put(w, cache)
        assert (await sink.resolve("1")).digest == IMAGE.digest
        await sink.put(OTHER, RAW_OTHER, ["1"])
        assert (await sink.resolve("1")).digest == OTHER.digest


async def test_what_is_gone_behind_a_put_is_missing_all_the_same(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        sink = w.sink(registry.host)
        await sink.push(BLOB, Bytes(LAYER))
        await sink.push(CONFIG, Bytes(b"{}"))
        await sink.put(IMAGE, RAW, ["1"])
        async with world() as other:
            await other.sink(registry.host).delete(IMAGE.digest)
        assert not await sink.has(IMAGE)
        assert not any(isinstance(event, Warned) for event in w.events)


async def test_what_was_deleted_is_not_looked_for(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, world() as w:
        sink = w.sink(registry.host)
        await sink.push(BLOB, Bytes(LAYER))
        await sink.push(CONFIG, Bytes(b"{}"))
        await sink.put(IMAGE, RAW, ["1"])
        await sink.delete(IMAGE.digest)
        registry.journal.clear()
        with pytest.raises(NotFound):
            await sink.resolve("1")
        assert [each.method for each in registry.journal] == ["HEAD"]


async def test_a_target_behind_a_cache_that_says_so_is_asked_past_it_at_once(
    tmp_path: Path,
) -> None:
    """As `verify` does, in a process of its own that remembers nothing."""
    async with cached(tmp_path, {"Age": "7"}) as (cache, _):
        async with world() as w:
            await survey_and_put(w, cache)
        async with world() as w:
            assert (await w.sink(cache.host).resolve("1")).digest == IMAGE.digest
            assert await w.sink(cache.host).has(BLOB)
            assert any(isinstance(event, Warned) for event in w.events)


async def test_what_a_cache_says_of_a_source_is_told_with_its_age() -> None:
    told = {"Age": "812", "Via": "1.1 edge"}

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404, headers=told)

    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(NotFound, match=r"from a cache, 812 s old \(Via: 1\.1 edge\)"):
            await w.source(server.host).read(Descriptor(IMAGE.media_type, IMAGE.digest, IMAGE.size))
    assert len(server.seen) == 2, "once past the cache"


@pytest.mark.parametrize(
    ("through", "more"), [({"Server": "nginx/1.22.1"}, 3), ({"Via": "1.1 x"}, 3), ({}, 0)]
)
async def test_a_proxy_that_can_keep_answers_costs_a_few_requests_a_run(
    through: dict[str, str], more: int
) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404, headers={"Server": "registry", **through})

    async with scripted_server(handler) as server, world() as w:
        for number in range(10):
            with pytest.raises(NotFound):
                await w.sink(server.host).resolve(str(number))
        assert len(server.seen) == 10 + more
        with pytest.raises(NotFound):
            await w.source(server.host).resolve("1")
    assert len(server.seen) == 10 + more + 2, "a source is asked by HEAD and GET, as any other"


async def test_a_manifest_that_is_gone_since_a_cache_kept_its_tag_is_told_so() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if not request.path.endswith("/1"):
            return web.Response(status=404)
        told = {"Age": "300", "Content-Type": IMAGE.media_type, "Docker-Content-Digest": IMAGE.digest}
        return web.Response(body=RAW, headers=told)

    async with scripted_server(handler) as server, world() as w:
        found = await w.source(server.host).resolve("1")
        with pytest.raises(NotFound, match="the tag that names it came from a cache, 300 s old"):
            await w.source(server.host).read(found)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, ""),
        ({"Age": "0"}, ""),
        ({"Age": "nonsense"}, ""),
        ({"Age": "-3"}, ""),
        ({"Via": "1.1 proxy"}, ""),
        ({"X-Varnish": "5"}, ""),
        ({"X-Cache": "MISS from squid"}, ""),
        ({"X-Cache": "Miss from cloudfront", "Via": "1.1 x"}, ""),
        ({"CF-Cache-Status": "DYNAMIC"}, ""),
        ({"Cache-Status": "nginx; fwd=miss"}, ""),
        ({"Age": "81"}, "from a cache, 81 s old"),
        ({"X-Varnish": "5 3"}, "from a cache"),
        ({"X-Cache-Status": "HIT"}, "from a cache"),
        ({"X-Cache-Status": "STALE"}, "from a cache"),
        ({"Cache-Status": "nginx; hit"}, "from a cache"),
        ({"X-Cache": "TCP_HIT from a1.example"}, "from a cache"),
        ({"Cache-Status": "nginx; fwd=stale"}, ""),
        ({"X-Cache": "Hit from cloudfront", "Via": "1.1 cf\x1b[31m"}, "from a cache (Via: 1.1 cf [31m)"),
    ],
)
def test_an_answer_is_a_cache_s_where_it_says_so(headers: dict[str, str], words: str) -> None:
    assert describe_cache(headers) == words


def test_what_was_put_longest_ago_is_forgotten_first() -> None:
    placed = PushedNames(most=3)
    for name in ("1", "2", "3", "1", "4"):
        placed.put("app", name, IMAGE.digest)
    assert [placed.at("app", name) for name in ("1", "2", "3", "4")] == [
        IMAGE.digest,
        None,
        IMAGE.digest,
        IMAGE.digest,
    ]
    placed.removed("other", "1")
    placed.removed("app", "3")
    assert placed.at("app", "3") is None
    placed.removed("app", IMAGE.digest)
    assert placed.at("app", "1") is None
