"""The embedded registry, pulling through: one read of the upstream for all who ask, nothing unverified."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession

from blobflow.errors import StorageError
from blobflow.events import Event
from blobflow.oci import digest_of, media
from blobflow.server import Upstream, Upstreams
from blobflow.server.pullthrough.eviction import evict, evict_periodically
from blobflow.transports.store import Store
from blobflow.transports.store.gc import collect_garbage
from tests.contract.server.client import (
    ABSENT,
    BLOB,
    SMALL,
    descriptor,
    image,
    push,
    put,
    refusal,
    status_of,
)
from tests.contract.server.pull_through import REPO, Edge, edge_of, give, settled
from tools.registry.faulty import (
    Corrupt,
    Fault,
    Hangup,
    Mute,
    Reset,
    Stall,
    Status,
)

LAYER = random.Random(8).randbytes(3_000_000)
LAYER_DIGEST = digest_of(LAYER)
BLOB_PATH = f"/v2/{REPO}/blobs/{LAYER_DIGEST}"


async def test_an_image_is_fetched_once_and_then_served_from_here(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream, LAYER)
        for _ in range(2):
            assert await edge.get(f"/v2/{REPO}/manifests/1.0") == (200, raw)
            assert await edge.get(f"/v2/{REPO}/manifests/{digest_of(raw)}") == (200, raw)
            assert await edge.get(BLOB_PATH) == (200, LAYER)
            assert await edge.get(f"/v2/{REPO}/blobs/{digest_of(SMALL)}") == (200, SMALL)
            await settled()
        journal = edge.upstream.journal
        assert journal.count("GET", "/manifests/") == journal.count("HEAD", "/manifests/") == 1
        assert journal.reads(LAYER_DIGEST) == journal.reads(digest_of(SMALL)) == 1
        assert edge.outcomes() == {
            ("manifest", "miss"): 1,
            ("manifest", "hit"): 3,
            ("blob", "miss"): 2,
            ("blob", "hit"): 2,
        }


async def stampede(edge: Edge, path: str, content: bytes, clients: int) -> None:
    """So many ask at once: one never reads on, one hangs up, the others get the whole."""
    digest = hashlib.sha256(content).hexdigest()

    async def read() -> str:
        hasher = hashlib.sha256()
        async with edge.client.get(path) as answer:
            assert answer.status == 200
            async for chunk in answer.content.iter_any():
                hasher.update(chunk)
        return hasher.hexdigest()

    slow = await edge.client.get(path)
    await slow.content.readexactly(10)
    gone = await edge.client.get(path)
    await gone.content.readexactly(10)
    readers = [asyncio.create_task(read()) for _ in range(clients - 2)]
    gone.close()
    assert set(await asyncio.gather(*readers)) == {digest}
    rest = await slow.content.read()
    assert len(rest) == len(content) - 10
    slow.close()


@pytest.mark.parametrize(
    ("clients", "size"),
    [(60, 3_000_000), pytest.param(200, 50_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
async def test_a_stampede_is_one_read_of_the_upstream_even_if_that_is_cut(
    tmp_path: Path, clients: int, size: int
) -> None:
    content = LAYER if size == len(LAYER) else random.Random(9).randbytes(size)
    cut = Fault("GET", digest_of(content), act=Reset(after=size // 2))
    async with edge_of(tmp_path, cut) as edge:
        await give(edge.upstream, content)
        assert (await edge.get(f"/v2/{REPO}/manifests/1.0"))[0] == 200
        await stampede(edge, f"/v2/{REPO}/blobs/{digest_of(content)}", content, clients)
        first, second = edge.upstream.journal.select("GET", "/blobs/")
        assert (first.status, second.status) == (200, 206)
        assert second.sent < size, "it went on; what a reset took from the sockets was sent again"
        await settled()
        assert edge.store.blobs.size_of(digest_of(content)) == size
        assert edge.outcomes()["blob", "miss"] == 1


async def test_many_who_ask_for_a_manifest_ask_once(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream)
        answers = await asyncio.gather(*(edge.get(f"/v2/{REPO}/manifests/1.0") for _ in range(50)))
        assert set(answers) == {(200, raw)}
        assert (edge.upstream_asked("HEAD"), edge.upstream_asked("GET")) == (1, 1)


async def test_nobody_gets_the_end_of_a_wrong_blob(tmp_path: Path) -> None:
    async with edge_of(tmp_path, Fault("GET", "/blobs/", times=0, act=Corrupt(at=5))) as edge:
        await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        got = b""
        with pytest.raises(ClientError):
            async with edge.client.get(BLOB_PATH) as answer:
                async for chunk in answer.content.iter_any():
                    got += chunk
        assert 0 < len(got) < len(LAYER)
        assert edge.store.blobs.size_of(LAYER_DIGEST) is None
        small = await edge.client.get(f"/v2/{REPO}/blobs/{digest_of(SMALL)}", raise_for_status=False)
        assert await refusal(small) == (502, "UNKNOWN")


async def test_what_is_here_is_served_while_the_upstream_is_down(tmp_path: Path) -> None:
    down = False
    async with edge_of(tmp_path, broken=lambda: down) as edge:
        raw = await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        await edge.get(BLOB_PATH)
        await settled()
        down, edge.now = True, 1000.0
        for path, content in ((f"/v2/{REPO}/manifests/1.0", raw), (BLOB_PATH, LAYER)):
            assert await edge.get(path) == (200, content)
        assert edge.outcomes()["manifest", "stale"] == 1
        async with edge.client.get(f"/v2/{REPO}/tags/list") as answer:
            assert (await answer.json())["tags"] == ["1.0"]
        async with edge.client.get(f"/v2/{REPO}/manifests/2.0") as answer:
            assert await refusal(answer) == (503, "UNKNOWN")
            assert answer.headers["Retry-After"] == "5"
        edge.now += 10
        async with edge.client.get(f"/v2/{REPO}/manifests/2.0") as answer:
            assert await refusal(answer) == (502, "UNKNOWN")
        async with edge.client.get(f"/v2/{REPO}/blobs/{digest_of(SMALL)}") as answer:
            assert await refusal(answer) == (503, "UNKNOWN")


async def test_a_tag_is_asked_about_again_after_its_time(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        first = await give(edge.upstream)
        path = f"/v2/{REPO}/manifests/1.0"
        assert await edge.get(path) == (200, first)
        second = await give(edge.upstream, LAYER)
        assert await edge.get(path) == (200, first)
        assert edge.upstream_asked() == 0
        edge.now = 61
        assert await edge.get(path) == (200, second)
        assert (edge.upstream_asked("HEAD"), edge.upstream_asked("GET")) == (1, 1)
        edge.now = 122
        assert await edge.get(path) == (200, second)
        assert (edge.upstream_asked("HEAD"), edge.upstream_asked("GET")) == (2, 1)


async def test_a_tag_that_is_gone_at_the_upstream_is_gone_here(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream)
        path = f"/v2/{REPO}/manifests/1.0"
        await edge.get(path)
        edge.upstream.store.repositories.remove_tag(REPO, "1.0")
        edge.now = 61
        async with edge.client.get(path) as answer:
            assert await refusal(answer) == (404, "MANIFEST_UNKNOWN")
        assert await edge.get(f"/v2/{REPO}/manifests/{digest_of(raw)}") == (200, raw)


@pytest.mark.parametrize("act", [Mute(), Status(500), Status(401), Status(403), Status(429), Hangup()])
async def test_a_tag_is_what_it_was_while_its_upstream_will_not_say(
    tmp_path: Path, act: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.pullthrough.cache.REVALIDATE_SECONDS", 0.2)
    async with edge_of(tmp_path, Fault("HEAD", "/manifests/", nth=2, times=0, act=act)) as edge:
        raw = await give(edge.upstream)
        for _ in range(2):
            assert await edge.get(f"/v2/{REPO}/manifests/1.0") == (200, raw)
            edge.now += 100
        assert edge.outcomes()["manifest", "stale"] == 1


@pytest.mark.parametrize(
    ("code", "answered"),
    [
        (401, (403, "DENIED")),
        (403, (403, "DENIED")),
        (429, (429, "TOOMANYREQUESTS")),
        (500, (502, "UNKNOWN")),
    ],
)
async def test_what_the_upstream_will_not_give_is_refused(
    tmp_path: Path, code: int, answered: tuple[int, str]
) -> None:
    fault = Fault("*", "/manifests/", times=0, act=Status(code))
    async with edge_of(tmp_path, fault) as edge, edge.client.get(f"/v2/{REPO}/manifests/1.0") as answer:
        assert await refusal(answer) == answered


async def test_only_blobs_of_images_that_are_here_are_fetched(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        await give(edge.upstream, LAYER)
        assert await status_of(edge.client, BLOB_PATH, "GET") == 404
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        assert await status_of(edge.client, BLOB_PATH, "GET") == 200
        assert await status_of(edge.client, f"/v2/{REPO}/blobs/{ABSENT}", "GET") == 404


async def test_a_blob_that_another_repository_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        await give(edge.upstream, LAYER)
        await give(edge.upstream, LAYER, repo="other")
        for repo in (REPO, "other"):
            assert await status_of(edge.client, f"/v2/{repo}/blobs/{LAYER_DIGEST}", "GET") == 404
            await edge.get(f"/v2/{repo}/manifests/1.0")
            assert await edge.get(f"/v2/{repo}/blobs/{LAYER_DIGEST}") == (200, LAYER)
            await settled()
        assert edge.upstream.journal.reads(LAYER_DIGEST) == 1


async def test_a_head_of_a_blob_fetches_nothing(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        async with edge.client.head(BLOB_PATH) as answer:
            assert (answer.status, answer.content_length) == (200, len(LAYER))
        assert edge.upstream.journal.reads(LAYER_DIGEST) == 0


async def test_a_range_from_0_tells_what_is_stored_and_a_later_one_goes_on(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        assert await edge.get(BLOB_PATH, Range="bytes=2000000-2000009") == (206, LAYER[2000000:2000010])
        assert edge.store.blobs.size_of(LAYER_DIGEST) is None
        assert await edge.get(BLOB_PATH, Range="bytes=0-0") == (200, LAYER)
        await settled()
        assert await edge.get(BLOB_PATH, Range="bytes=0-0") == (206, LAYER[:1])


async def test_a_client_that_hangs_up_alone_leaves_what_came_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.pullthrough.serving.CLIENT_CHECK_SECONDS", 0.01)
    reached = asyncio.Event()
    stall = Fault("GET", "/blobs/", act=Stall(after=2_000_000, reached=reached))
    async with edge_of(tmp_path, stall) as edge:
        await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        alone = await edge.client.get(BLOB_PATH)
        await alone.content.readexactly(10)
        await reached.wait()
        alone.close()
        await settled()
        assert await edge.get(BLOB_PATH) == (200, LAYER)
        last = edge.upstream.journal.select("GET", "/blobs/")[-1]
        assert last.status == 206
        assert last.sent < len(LAYER)


async def test_the_upstream_is_read_on_after_a_restart(tmp_path: Path) -> None:
    reached = asyncio.Event()
    stall = Fault("GET", "/blobs/", act=Stall(after=2_500_000, reached=reached))
    async with edge_of(tmp_path, stall) as edge:
        await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        begun = await edge.client.get(BLOB_PATH)
        await begun.content.readexactly(1_500_000)
        await reached.wait()
        begun.close()
    async with edge_of(tmp_path) as edge:
        edge.pullthrough.upstreams = Upstreams([Upstream(edge.upstream.host)])
        assert await edge.get(BLOB_PATH) == (200, LAYER)
        [last] = edge.upstream.journal.select("GET", "/blobs/")
        assert (last.status, last.sent < len(LAYER)) == (206, True)


async def test_nothing_is_pushed_to_what_is_pulled_through(tmp_path: Path) -> None:
    async with edge_of(tmp_path, prefix="far") as edge:
        async with edge.client.post("/v2/far/app/blobs/uploads/") as answer:
            assert await refusal(answer) == (405, "UNSUPPORTED")
        raw = image(config=SMALL)
        assert await refusal(await put(edge.client, raw, "1.0", repo="/v2/far/app")) == (405, "UNSUPPORTED")
        assert await push(edge.client, SMALL, "/v2/near/app") == digest_of(SMALL)
        assert edge.upstream_asked() == 0


async def test_a_prefix_and_ns_lead_to_the_same_content(tmp_path: Path) -> None:
    async with edge_of(tmp_path, prefix="far/away") as edge:
        raw = await give(edge.upstream)
        assert await edge.get(f"/v2/far/away/{REPO}/manifests/1.0") == (200, raw)
        assert await edge.get(f"/v2/{REPO}/manifests/1.0?ns={edge.upstream.host}") == (200, raw)
        assert edge.upstream_asked("GET") == 1
        assert await edge.get(f"/v2/{REPO}/blobs/{digest_of(SMALL)}?ns={edge.upstream.host}") == (200, SMALL)
        for ns in ("quay.io", "%20", "a/b"):
            async with edge.client.get(f"/v2/{REPO}/manifests/1.0?ns={ns}") as answer:
                assert await refusal(answer) == (404, "NAME_UNKNOWN")
        assert await status_of(edge.client, f"/v2/{REPO}/manifests/1.0") == 404


async def test_an_answer_in_an_upstreams_place_says_so(tmp_path: Path) -> None:
    """ "Registry Proxying": the value of `ns` in OCI-Namespace, also where the answer is no."""
    async with edge_of(tmp_path, prefix="far/away") as edge:
        await give(edge.upstream)
        host, paths = edge.upstream.host, ["manifests/1.0", f"blobs/{digest_of(SMALL)}", "tags/list"]
        paths += [f"referrers/{digest_of(SMALL)}", "manifests/none", f"blobs/{ABSENT}"]
        for path in paths:
            for method in ("GET", "HEAD"):
                async with edge.client.request(method, f"/v2/{REPO}/{path}?ns={host}") as answer:
                    assert answer.headers["OCI-Namespace"] == host
                async with edge.client.request(method, f"/v2/far/away/{REPO}/{path}") as answer:
                    assert "OCI-Namespace" not in answer.headers
        for stranger in ("quay.io", "%0d%0aX:%20y"):
            async with edge.client.get(f"/v2/{REPO}/manifests/1.0?ns={stranger}") as answer:
                assert "OCI-Namespace" not in answer.headers
        async with edge.client.get(f"/v2/?ns={host}") as answer:
            assert answer.status == 200


async def test_tags_are_the_upstreams_in_pages(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        for tag in ("b", "a", "c"):
            await give(edge.upstream, tag=tag)
        async with edge.client.get(f"/v2/{REPO}/tags/list?n=2") as answer:
            assert (await answer.json())["tags"] == ["a", "b"]
            following = answer.links["next"]["url"]
        async with edge.client.get(following) as answer:
            assert (await answer.json())["tags"] == ["c"]
        assert edge.upstream_asked() == 1
        async with edge.client.get("/v2/nobody/tags/list") as answer:
            assert await refusal(answer) == (404, "NAME_UNKNOWN")


async def test_an_index_is_brought_with_the_image_that_stands_for_it(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream)
        child = descriptor(raw, media.OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"})
        listing = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [child]}
        async with ClientSession(edge.upstream.url) as client:
            await put(client, json.dumps(listing).encode(), "many", media.OCI_INDEX, f"/v2/{REPO}")
        got = await edge.get(f"/v2/{REPO}/manifests/many", Accept=media.OCI_MANIFEST)
        assert got == (200, raw)


async def test_gc_takes_nothing_that_a_tag_needs_and_what_it_took_is_fetched_again(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        await give(edge.upstream, LAYER)
        await edge.get(f"/v2/{REPO}/manifests/1.0")
        await edge.get(BLOB_PATH)
        await settled()
        assert (await collect_garbage(edge.store, 0)).blobs == 0
        edge.store.blobs.drop(LAYER_DIGEST)
        assert await edge.get(BLOB_PATH) == (200, LAYER)
        assert edge.upstream.journal.reads(LAYER_DIGEST) == 2


async def test_who_goes_away_takes_the_manifest_from_nobody(tmp_path: Path) -> None:
    until = asyncio.Event()
    async with edge_of(tmp_path, Fault("GET", "/manifests/", act=Stall(until=until))) as edge:
        raw = await give(edge.upstream)
        path = f"/v2/{REPO}/manifests/1.0"
        tasks = [asyncio.create_task(edge.get(path)) for _ in range(3)]
        await edge.upstream.journal.until(lambda journal: journal.count("GET", "/manifests/") == 1)
        tasks[0].cancel()
        until.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert [await task for task in tasks[1:]] == [(200, raw)] * 2
        assert edge.upstream_asked("GET") == 1


async def test_what_was_not_asked_for_longest_makes_room_and_what_was_pushed_stays(tmp_path: Path) -> None:
    other = random.Random(10).randbytes(100_000)
    async with edge_of(tmp_path, prefix="far") as edge:
        await give(edge.upstream, LAYER)
        await give(edge.upstream, other, tag="2.0")
        images = {tag: (await edge.get(f"/v2/far/{REPO}/manifests/{tag}"))[1] for tag in ("2.0", "1.0")}
        for content in (LAYER, other):
            assert await edge.get(f"/v2/far/{REPO}/blobs/{digest_of(content)}") == (200, content)
        await settled()
        pushed = await push(edge.client, BLOB, "/v2/near")
        raw = image(descriptor(BLOB), config=BLOB)
        assert (await put(edge.client, raw, "1.0", repo="/v2/near")).status == 201
        edge.store.state.write("UPDATE blobs SET added = 0, used = 0")
        edge.store.state.write("UPDATE blobs SET used = 1 WHERE digest = ?", digest_of(images["2.0"]))
        upstreams = edge.pullthrough.upstreams
        assert (await evict(edge.store, upstreams, 10_000_000)).blobs == 0
        swept = await evict(edge.store, upstreams, 1_000_000)
        assert swept.left_bytes < 1_000_000
        assert edge.store.blobs.size_of(LAYER_DIGEST) is None
        assert edge.store.repositories.tags(f"far/{REPO}") == ["2.0"]
        await evict(edge.store, upstreams, 0)
        assert edge.store.repositories.tags(f"far/{REPO}") == []
        assert edge.store.repositories.tags("near") == ["1.0"]
        assert await edge.get(f"/v2/near/blobs/{pushed}") == (200, BLOB)
        for tag, content in (("1.0", LAYER), ("2.0", other)):
            assert await edge.get(f"/v2/far/{REPO}/manifests/{tag}") == (200, images[tag])
            assert await edge.get(f"/v2/far/{REPO}/blobs/{digest_of(content)}") == (200, content)


async def test_a_tag_that_was_deleted_here_is_fetched_again_at_once(tmp_path: Path) -> None:
    async with edge_of(tmp_path) as edge:
        raw = await give(edge.upstream)
        path = f"/v2/{REPO}/manifests/1.0"
        await edge.get(path)
        assert await status_of(edge.client, path, "DELETE") == 202
        assert await edge.get(path) == (200, raw)


async def test_a_store_is_kept_tidy_while_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, also after it failed once."""
    monkeypatch.setattr("blobflow.server.pullthrough.eviction.INTERVAL_SECONDS", 0)
    turns = 0
    done = asyncio.Event()

    async def fails_first(store: Store, upstreams: Upstreams, max_bytes: int) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise StorageError("the disk is slow")
        loop.call_soon_threadsafe(done.set)

    monkeypatch.setattr("blobflow.server.pullthrough.eviction.evict", fails_first)
    loop = asyncio.get_running_loop()
    told: list[Event] = []
    with contextlib.closing(Store.open(tmp_path / "store", observer=told.append)) as store:
        keeping = asyncio.create_task(evict_periodically(store, Upstreams([]), 1))
        await done.wait()
        keeping.cancel()
        await asyncio.wait((keeping,))
    [warned] = told
    assert "the disk is slow" in str(warned)


async def test_what_refers_to_an_image_is_brought_and_stays(tmp_path: Path) -> None:
    down = False
    async with edge_of(tmp_path, broken=lambda: down) as edge:
        subject = descriptor(await give(edge.upstream), media.OCI_MANIFEST)
        signature = image(subject=subject, artifactType="application/x-signature")
        async with ClientSession(edge.upstream.url) as client:
            await put(client, signature, digest_of(signature), repo=f"/v2/{REPO}")
        edge.upstream.journal.clear()
        for turn in range(3):
            async with edge.client.get(f"/v2/{REPO}/referrers/{subject['digest']}") as answer:
                assert answer.status == 200
                [listed] = (await answer.json())["manifests"]
            assert listed["digest"] == digest_of(signature)
            assert listed["artifactType"] == "application/x-signature"
            assert edge.upstream.journal.count("GET", "/referrers/") == 1
            down, edge.now = turn == 1, turn * 1000.0
        assert await edge.get(f"/v2/{REPO}/manifests/{digest_of(signature)}") == (200, signature)
