"""Pulling through from upstreams that fail: what is left alone, for how long, and what clients are told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from blobflow.errors import StorageError
from blobflow.oci import digest_of
from blobflow.server.pullthrough import upstream_requests
from tests.contract.server.client import ABSENT, SMALL, descriptor, image, put, refusal, status_of
from tests.contract.server.pull_through import REPO, Edge, edge_of, give, settled
from tools.registry.faulty import Busy, Fault, Hangup, Mute, RedirectTo, SetHeader, Stall, Status

OTHER = "team/other"
LAYER = bytes(range(256)) * 800


async def answer_of(edge: Edge, path: str, method: str = "GET") -> tuple[int, str, str | None]:
    """Status, code, and Retry-After of a refusal."""
    async with edge.client.request(method, path) as answer:
        status, code = await refusal(answer)
        return status, code, answer.headers.get("Retry-After")


@pytest.mark.parametrize("act", [Status(500), Status(503), Hangup(), Mute()])
async def test_a_repository_that_fails_takes_no_other_away(
    tmp_path: Path, act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.pullthrough.cache.FETCH_SECONDS", 1.0)
    async with edge_of(tmp_path, Fault("*", f"/{REPO}/", times=0, act=act)) as edge:
        raw = await give(edge.upstream, repo=OTHER)
        async with edge.client.get(f"/v2/{REPO}/manifests/1.0") as answer:
            assert answer.status in (502, 504)
        asked = edge.upstream_asked()
        for tag in ("1.0", "2.0"):
            assert await answer_of(edge, f"/v2/{REPO}/manifests/{tag}") == (503, "UNKNOWN", "5")
        assert edge.upstream_asked() == asked, "it is left alone"
        assert await edge.get(f"/v2/{OTHER}/manifests/1.0") == (200, raw)
        edge.now += 6
        async with edge.client.get(f"/v2/{REPO}/manifests/1.0") as answer:
            assert answer.status in (502, 504), "it is asked again"


async def test_a_repository_that_is_slow_with_a_tag_is_left_alone_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.pullthrough.cache.REVALIDATE_SECONDS", 0.6)
    async with edge_of(tmp_path, Fault("HEAD", f"/{REPO}/", nth=2, times=0, act=Mute())) as edge:
        slow = await give(edge.upstream)
        fast = await give(edge.upstream, repo=OTHER)
        for _ in range(3):
            assert await edge.get(f"/v2/{REPO}/manifests/1.0") == (200, slow)
            edge.now += 61
            assert await edge.get(f"/v2/{OTHER}/manifests/1.0") == (200, fast)
        journal = edge.upstream.journal
        assert journal.count("HEAD", f"/{OTHER}/") == 3
        assert edge.outcomes()["manifest", "stale"] == 2


async def test_many_clients_of_a_repository_that_never_answers_keep_few_requests_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.pullthrough.cache.FETCH_SECONDS", 1.0)
    async with edge_of(tmp_path, Fault("HEAD", f"/{REPO}/", times=0, act=Mute())) as edge:
        raw = await give(edge.upstream, repo=OTHER)
        waiting = [asyncio.create_task(edge.get(f"/v2/{REPO}/manifests/v{n}")) for n in range(30)]
        await edge.upstream.journal.until(
            lambda journal: journal.count("HEAD") == upstream_requests.MAX_CONCURRENT
        )
        assert await edge.get(f"/v2/{OTHER}/manifests/1.0") == (200, raw)
        assert {status for status, _ in await asyncio.gather(*waiting)} <= {503, 504}
        assert edge.upstream.journal.count("HEAD", f"/{REPO}/") == upstream_requests.MAX_CONCURRENT


async def test_an_upstream_that_cannot_be_reached_is_left_alone_whole(tmp_path: Path) -> None:
    asked = 0

    def broken() -> bool:
        nonlocal asked
        asked += 1
        return True

    async with edge_of(tmp_path, broken=broken) as edge:
        assert (await answer_of(edge, f"/v2/{REPO}/manifests/1.0"))[0] == 502
        assert asked == 1
        for repo in (REPO, OTHER):
            assert await answer_of(edge, f"/v2/{repo}/manifests/1.0") == (503, "UNKNOWN", "5")
        assert asked == 1
        edge.now += 6
        assert (await answer_of(edge, f"/v2/{OTHER}/manifests/1.0"))[0] == 502
        assert asked == 2


async def test_a_blob_that_is_said_to_be_at_a_host_that_is_down_takes_no_other_repository_away(
    tmp_path: Path,
) -> None:
    away = Fault("GET", f"/{REPO}/blobs/", times=0, act=RedirectTo("http://127.0.0.1:1{path}"))
    async with edge_of(tmp_path, away) as edge:
        await give(edge.upstream)
        raw = await give(edge.upstream, repo=OTHER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        assert (await answer_of(edge, f"/v2/{REPO}/blobs/{digest_of(SMALL)}"))[0] == 502
        assert await edge.get(f"/v2/{OTHER}/manifests/1.0") == (200, raw)
        assert (await answer_of(edge, f"/v2/{REPO}/manifests/2.0"))[0] == 503


@pytest.mark.parametrize(("wish", "rest"), [(30, 30), (100_000, 300)])
async def test_an_upstream_that_wants_fewer_requests_is_left_alone_as_long_as_it_says_within_reason(
    tmp_path: Path, wish: int, rest: int
) -> None:
    busy = Fault("*", f"/{REPO}/manifests/", act=Status(429, {"Retry-After": str(wish)}))
    async with edge_of(tmp_path, busy) as edge:
        raw = await give(edge.upstream, repo=OTHER)
        assert await answer_of(edge, f"/v2/{REPO}/manifests/1.0") == (429, "TOOMANYREQUESTS", str(rest))
        edge.now += rest - 1
        assert await answer_of(edge, f"/v2/{OTHER}/manifests/1.0") == (429, "TOOMANYREQUESTS", "1")
        assert edge.upstream_asked() == 1, "the wish is passed on at once, and respected"
        edge.now += 2
        assert await edge.get(f"/v2/{OTHER}/manifests/1.0") == (200, raw)


async def test_what_is_here_is_served_while_its_upstream_wants_fewer_requests(tmp_path: Path) -> None:
    busy = Fault("HEAD", "/manifests/", nth=2, times=0, act=Status(429, {"Retry-After": "60"}))
    async with edge_of(tmp_path, busy) as edge:
        raw = await give(edge.upstream)
        for _ in range(4):
            assert await edge.get(f"/v2/{REPO}/manifests/1.0") == (200, raw)
            edge.now += 20 if edge.now else 61
        assert edge.upstream_asked("HEAD") == 2


async def test_a_registry_that_says_when_it_will_be_back_is_believed_of_that_repository(
    tmp_path: Path,
) -> None:
    async with edge_of(tmp_path, Fault("*", f"/{REPO}/", times=0, act=Busy(40, 503))) as edge:
        assert (await answer_of(edge, f"/v2/{REPO}/manifests/1.0"))[0] == 502
        assert await answer_of(edge, f"/v2/{REPO}/manifests/1.0") == (503, "UNKNOWN", "40")


async def test_a_manifest_that_never_ends_fails_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.pullthrough.cache.FETCH_SECONDS", 1.0)
    async with edge_of(tmp_path, Fault("GET", "/manifests/", times=0, act=Stall(after=10))) as edge:
        await give(edge.upstream)
        assert (await answer_of(edge, f"/v2/{REPO}/manifests/1.0"))[:2] == (504, "UNKNOWN")


# What the upstream lacks


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_blob_that_the_upstream_lacks_is_an_unknown_blob(tmp_path: Path, method: str) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        edge.upstream.store.repositories.remove(REPO, digest_of(LAYER))
        path = f"/v2/{REPO}/blobs/{digest_of(LAYER)}"
        async with edge.client.request(method, path) as answer:
            assert answer.status == 404
            if method == "GET":
                assert await refusal(answer) == (404, "BLOB_UNKNOWN")
        assert await edge.get(f"/v2/{REPO}/manifests/1.0") == (200, raw), "nothing rests for that"
        assert (await edge.get(f"/v2/{REPO}/blobs/{digest_of(SMALL)}"))[0] == 200
        assert await status_of(edge.client, f"/v2/{REPO}/blobs/{ABSENT}", method) == 404


async def test_whether_a_blob_is_there_is_asked_once(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        path = f"/v2/{REPO}/blobs/{digest_of(LAYER)}"
        for _ in range(3):
            assert await status_of(edge.client, path) == 200
        assert edge.upstream.journal.count("HEAD", "/blobs/") == 1
        await edge.get(path)
        await settled()
        edge.now += 1000
        assert await status_of(edge.client, path) == 200
        assert edge.upstream.journal.count("HEAD", "/blobs/") == 1


# All or nothing


async def test_a_manifest_is_held_with_its_tag_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream)

        def fails(repository: str, tag: str, digest: str) -> None:
            raise StorageError("the disk is gone")

        with monkeypatch.context() as patched:
            patched.setattr(edge.store.repositories, "set_tag", fails)
            assert (await answer_of(edge, f"/v2/{REPO}/manifests/1.0"))[0] == 500
        assert edge.store.repositories.media_type_of(REPO, digest_of(raw)) is None
        assert await edge.get(f"/v2/{REPO}/manifests/1.0") == (200, raw)


async def test_asking_for_what_the_upstream_does_not_have_writes_nothing(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        before = edge.store.state.row("SELECT total_changes()")
        for n in range(20):
            assert (await edge.get(f"/v2/{REPO}{n}/manifests/1.0"))[0] == 404
            assert (await edge.get(f"/v2/{REPO}/manifests/{digest_of(str(n).encode())}"))[0] == 404
        assert edge.store.state.row("SELECT total_changes()") == before
        assert len(edge.pullthrough._requests) == len(edge.pullthrough._answers) == 0


async def test_a_referrer_that_is_damaged_at_the_upstream_takes_no_other_away(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        subject = descriptor(await give(edge.upstream))
        made = [image(subject=subject, annotations={"n": str(n)}) for n in range(3)]
        for raw in made:
            await put(edge.client_of_upstream, raw, digest_of(raw), repo=f"/v2/{REPO}")
        bad = Fault("GET", f"/manifests/{digest_of(made[1])}", times=0, act=SetHeader("Content-Type", "a/b"))
        edge.upstream.faults.add(bad)
        edge.upstream.faults.add(Fault("GET", f"/manifests/{digest_of(made[2])}", times=0, act=Status(404)))
        async with edge.client.get(f"/v2/{REPO}/referrers/{subject['digest']}") as answer:
            listed = [each["digest"] for each in (await answer.json())["manifests"]]
        assert digest_of(made[0]) in listed
        assert digest_of(made[2]) not in listed


async def test_what_is_here_is_served_also_when_too_much_is_asked_of_its_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream)
        path = f"/v2/{REPO}/manifests/1.0"
        await edge.get(path)
        edge.now += 61
        monkeypatch.setattr(upstream_requests, "MAX_TASKS_OF_REPOSITORY", 0)
        assert await edge.get(path) == (200, raw)
        assert (await answer_of(edge, f"/v2/{REPO}/manifests/2.0"))[:2] == (503, "UNKNOWN")
        assert edge.outcomes()["manifest", "stale"] == 1


async def test_a_tag_never_names_a_manifest_that_was_evicted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        await put(edge.client_of_upstream, raw, "2.0", repo=f"/v2/{REPO}")
        commit, evictions = edge.store.commit, 0

        async def evicting(work: Any) -> Any:
            nonlocal evictions
            if not evictions:
                evictions += 1
                edge.store.repositories.remove(REPO, digest_of(raw))
                edge.store.blobs.drop(digest_of(raw))
            return await commit(work)

        monkeypatch.setattr(edge.store, "commit", evicting)
        assert await edge.get(f"/v2/{REPO}/manifests/2.0") == (200, raw)
        assert evictions == 1
