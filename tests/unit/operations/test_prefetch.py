"""Warming against edges whose answers are written by hand: what is asked of them, and what is made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from blobflow.client import Client
from blobflow.engine.pairs import Pair
from blobflow.errors import StorageError
from blobflow.oci import digest_of, parse_reference
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.operations.prefetch import WarmResult, warm_caches, warm_store
from blobflow.settings import Settings
from blobflow.transports.registry.api.cache_probe import reports_miss
from tests.fakes.registry import Clock, ScriptedServer, scripted_server
from tests.library import mirror
from tests.scenarios.registries import blobs_of, fill, registries
from tools.registry.faults import Fault, Reset
from tools.registry.faulty import JournallingRegistry

SAMPLE = sample_set(11, images=2, layer_size=512)
NAMES = list(SAMPLE.images)

# What an edge answers when a blob is asked for, being told how often it was before (per repository).
Answers = Callable[[bytes, int, Mapping[str, str]], web.Response]


def whole(content: bytes, **headers: str) -> web.Response:
    return web.Response(body=content, headers=headers)


def part(content: bytes, **headers: str) -> web.Response:
    told = {"Content-Range": f"bytes 0-0/{len(content)}", **headers}
    return web.Response(status=206, body=content[:1], headers=told)


def edge_over(sample: SampleSet, answer: Answers) -> Callable[[web.BaseRequest], Awaitable[web.Response]]:
    """An edge with the sample's manifests, that answers for blobs as it is told."""
    asked: Counter[str] = Counter()

    async def respond(request: web.BaseRequest) -> web.Response:
        before, kind, name = request.path.rsplit("/", 2)
        if kind == "manifests":
            tagged = f"{before.removeprefix('/v2/')}:{name}"
            stored = sample.images[tagged] if tagged in sample.images else sample.manifests[name]
            told = {"Content-Type": stored.media_type, "Docker-Content-Digest": digest_of(stored.raw)}
            return web.Response(body=stored.raw, headers=told)
        asked[request.path] += 1
        return answer(sample.blobs[name], asked[request.path] - 1, request.headers)

    return respond


def pairs_at(host: str, names: list[str] = NAMES) -> list[Pair]:
    return [Pair(parse_reference(f"source.example/{n}"), parse_reference(f"{host}/{n}")) for n in names]


async def warmed(
    server: ScriptedServer, *, again: bool = False, clock: Clock | None = None
) -> list[WarmResult]:
    clock = clock or Clock()
    async with Client(Settings(cache="off")) as client:
        return await warm_caches(client, pairs_at(server.host), again=again, sleep=clock.sleep)


def blob_asks(server: ScriptedServer) -> Counter[str]:
    return Counter(target for target in server.asked("GET") if "/blobs/" in target)


async def test_a_stored_blob_costs_one_request_and_one_byte() -> None:
    async with scripted_server(edge_over(SAMPLE, lambda content, _, __: part(content))) as server:
        told = await warmed(server)
    assert [(each.status, each.pulled) for each in told] == [("warm", 0), ("warm", 0)]
    assert [each.blobs for each in told] == [len(blobs_of(SAMPLE, name)) for name in NAMES]
    assert set(blob_asks(server).values()) == {1}
    assert {seen.headers.get("Range") for seen in server.seen if "/blobs/" in seen.target} == {"bytes=0-0"}
    assert server.asked("HEAD") == []


async def test_a_cold_blob_comes_with_the_first_request_and_is_looked_at_once_more() -> None:
    def answer(content: bytes, before: int, _: Mapping[str, str]) -> web.Response:
        return part(content) if before else whole(content)

    async with scripted_server(edge_over(SAMPLE, answer)) as server:
        told = await warmed(server)
    assert [(each.status, each.pulled) for each in told] == [("warm", each.blobs) for each in told]
    assert set(blob_asks(server).values()) == {2}


async def test_an_edge_that_stores_late_is_asked_until_it_has_and_ever_more_rarely() -> None:
    def answer(content: bytes, before: int, _: Mapping[str, str]) -> web.Response:
        return part(content) if before >= 4 else whole(content)

    clock = Clock()
    async with scripted_server(edge_over(SAMPLE, answer)) as server:
        told = await warmed(server, clock=clock)
    assert {each.status for each in told} == {"warm"}
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]


async def test_an_edge_that_never_stores_is_cold_in_the_end() -> None:
    clock = Clock()
    async with scripted_server(edge_over(SAMPLE, lambda content, _, __: whole(content))) as server:
        told = await warmed(server, clock=clock)
    assert [(each.status, each.cold) for each in told] == [("cold", each.blobs) for each in told]
    assert sum(clock.slept) == pytest.approx(30.0)


async def test_a_part_that_was_fetched_from_elsewhere_is_no_sign_of_being_stored() -> None:
    def answer(content: bytes, before: int, headers: Mapping[str, str]) -> web.Response:
        if before >= 2:
            return part(content, **{"X-Cache-Status": "HIT"})
        return part(content, **{"X-Cache-Status": "MISS"}) if "Range" in headers else whole(content)

    async with scripted_server(edge_over(SAMPLE, answer)) as server:
        told = await warmed(server)
    assert [(each.status, each.pulled) for each in told] == [("warm", each.blobs) for each in told]
    assert set(blob_asks(server).values()) == {3}


async def test_again_pulls_also_what_looks_stored() -> None:
    def answer(content: bytes, _: int, headers: Mapping[str, str]) -> web.Response:
        return part(content) if "Range" in headers else whole(content)

    async with scripted_server(edge_over(SAMPLE, answer)) as server:
        told = await warmed(server, again=True)
    assert [(each.status, each.pulled) for each in told] == [("warm", each.blobs) for each in told]


async def test_wrong_bytes_fail_the_images_that_need_them_and_no_other() -> None:
    bad = min(blobs_of(SAMPLE, NAMES[0]) - blobs_of(SAMPLE, NAMES[1]))

    def answer(content: bytes, before: int, _: Mapping[str, str]) -> web.Response:
        if digest_of(content) == bad:
            return whole(bytes(len(content)))
        return part(content) if before else whole(content)

    async with scripted_server(edge_over(SAMPLE, answer)) as server:
        told = await warmed(server)
    assert [each.status for each in told] == ["failed", "warm"]
    assert bad in told[0].error


async def test_a_pull_that_brought_something_else_is_tried_again() -> None:
    def answer(content: bytes, before: int, _: Mapping[str, str]) -> web.Response:
        return whole(bytes(len(content))) if before == 0 else part(content) if before > 1 else whole(content)

    async with scripted_server(edge_over(SAMPLE, answer)) as server:
        told = await warmed(server)
    assert {each.status for each in told} == {"warm"}


@pytest.mark.parametrize(
    ("headers", "missed"),
    [
        ({}, False),
        ({"X-Cache": "HIT from edge"}, False),
        ({"X-Cache": "Miss from cloudfront"}, True),
        ({"X-Cache-Status": "MISS"}, True),
        ({"Cache-Status": "origin; fwd=miss, edge; hit"}, False),
        ({"Cache-Status": "edge; fwd=uri-miss; stored"}, True),
    ],
)
def test_what_a_cache_says_of_its_answer(headers: dict[str, str], missed: bool) -> None:
    assert reports_miss(headers) is missed


def cache_pairs(host: str) -> list[Pair]:
    return [Pair(parse_reference(f"{host}/{n}"), parse_reference(f"store.invalid/{n}")) for n in NAMES]


def reads_of_blobs(registry: JournallingRegistry) -> Counter[str]:
    return Counter(each.path for each in registry.journal.select("GET", "/blobs/"))


async def stored(host: str, settings: Settings, **how: Any) -> list[WarmResult]:
    async with Client(settings) as client:
        return await warm_store(client, cache_pairs(host), **how)


async def test_into_cache_reads_each_blob_once_and_a_later_run_reads_none(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path / "cache", cache="all")
    async with registries(tmp_path, ["source", "target"]) as [source, target]:
        fill(source.store, SAMPLE)
        first = await stored(source.host, settings)
        read = reads_of_blobs(source)
        second = await stored(source.host, settings)
        aims = [
            msgspec.structs.replace(p, target=parse_reference(f"{target.host}/{n}"))
            for p, n in zip(cache_pairs(source.host), NAMES, strict=True)
        ]
        report = await mirror(aims, settings)
        assert reads_of_blobs(source) == read
    assert [(each.status, each.pulled) for each in first] == [("warm", each.blobs) for each in first]
    assert [(each.status, each.pulled) for each in second] == [("warm", 0), ("warm", 0)]
    assert set(read.values()) == {1}
    assert report.ok


async def test_into_cache_goes_on_where_a_read_broke_off(tmp_path: Path) -> None:
    cut = Fault("GET", "/blobs/", act=Reset(after=100))
    clock = Clock()
    async with registries(tmp_path, ["source"], [cut]) as [source]:
        fill(source.store, SAMPLE)
        told = await stored(source.host, Settings(cache_dir=tmp_path / "cache"), sleep=clock.sleep)
    assert {each.status for each in told} == {"warm"}
    assert len(clock.slept) == 1


async def test_what_the_store_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    async with registries(tmp_path, ["source"]) as [source]:
        fill(source.store, SAMPLE)
        with pytest.raises(StorageError, match="would need room"):
            await stored(source.host, Settings(cache_dir=tmp_path / "cache", cache_size=1000))
        assert reads_of_blobs(source) == {}
