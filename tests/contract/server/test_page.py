"""The page and the metrics of the embedded registry cost what they may cost, whatever was pushed, and are
right again after some seconds. Counted in files and gatherings, not in seconds."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from html import unescape
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import ClientSession, web

from blobflow.errors import StorageError
from blobflow.oci import Digest, digest_of, media
from blobflow.server import REGISTRY_KEY, Server, make_app
from blobflow.server.admin import overview, repository_pages
from blobflow.server.admin.overview import Overview, OverviewRows, RenderedPage
from blobflow.server.admin.page import render, with_age
from blobflow.server.errors import ApiError
from blobflow.transports.store import Store
from blobflow.transports.store.blobs import Blobs
from blobflow.transports.store.stats import collect_stats, open_reader, repositories_after
from tests.contract.server.client import (
    BLOB,
    REPO,
    SMALL,
    descriptor,
    image,
    push,
    pushed_image,
    put,
    status_of,
)
from tests.deadlines import HANGS_AFTER


@pytest.fixture
def app(registry_store: Store) -> web.Application:
    return make_app(registry_store)


@pytest.fixture
async def client(app: web.Application) -> AsyncIterator[ClientSession]:
    async with Server(app) as server, ClientSession(server.url) as client:
        yield client


@pytest.fixture
def opened(registry_store: Store, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a page asked for the file of each blob."""
    counts: Counter[str] = Counter()
    original = Blobs.path_of

    def path_of(blobs: Blobs, digest: Digest) -> Path:
        if threading.current_thread().name.startswith("blobflow-gathering"):
            counts[digest] += 1
        return original(blobs, digest)

    monkeypatch.setattr(Blobs, "path_of", path_of)
    return counts


def nobody() -> bool:
    """Is gone."""
    return False


async def text_of(client: ClientSession, path: str = "/") -> str:
    async with client.get(path) as answer:
        assert answer.status == 200
        return await answer.text()


def index(children: list[dict[str, Any]], **more: Any) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": children, **more}
    ).encode()


async def test_an_index_that_names_a_manifest_19000_times_costs_four_reads(
    client: ClientSession, registry_store: Store, opened: Counter[str]
) -> None:
    raw = await pushed_image(client)
    many = index([descriptor(raw, media.OCI_MANIFEST)] * 19_000)
    kind, path = {"Content-Type": media.OCI_INDEX}, f"{REPO}/manifests/t"
    async with client.put(path, data=io.BytesIO(many), headers=kind) as answer:
        assert answer.status == 201

    def tag_it() -> None:
        for number in range(49):
            registry_store.repositories.set_tag("team/app", f"t{number:02}", digest_of(many))

    await registry_store.commit(tag_it)
    html = await text_of(client)
    assert opened == {digest_of(many): 1, digest_of(raw): 2, digest_of(SMALL): 1}, "as a root, and as a child"
    assert html.count(f"and {19_000 - overview.IMAGES} more") == 49, "49 of them, after the image itself"
    assert html.count("at least 256 kB") == 49
    assert len(html) < 512 * 1024


async def test_eight_who_ask_at_once_are_told_the_same_page(
    client: ClientSession, app: web.Application, opened: Counter[str]
) -> None:
    raw = await pushed_image(client)
    pages = await asyncio.gather(*(text_of(client) for _ in range(8)))
    assert len(set(pages)) == 1
    assert opened == {digest_of(raw): 1, digest_of(SMALL): 1}
    await status_of(client, "/metrics", "GET")
    await status_of(client, "/", "HEAD")
    assert app[REGISTRY_KEY].overview.gathered == 2, "the figures once, the page once"


async def test_what_was_pushed_or_deleted_is_on_the_page_once_the_last_one_is_old(
    client: ClientSession, app: web.Application
) -> None:
    await pushed_image(client, repo="/v2/a")
    assert "<h2>a</h2>" in await text_of(client)
    raw = await pushed_image(client, repo="/v2/b")
    early = await text_of(client)
    assert "<h2>b</h2>" not in early
    assert '<p class="s" id="age">As of 0 s ago.</p>' in early
    app[REGISTRY_KEY].overview.forget()
    html = await text_of(client)
    assert "<h2>b</h2>" in html
    assert "3 blobs and manifests, 256 kB on disk; the repositories hold 513 kB" in html
    assert await status_of(client, f"/v2/b/manifests/{digest_of(raw)}", "DELETE") == 202
    app[REGISTRY_KEY].overview.forget()
    html = await text_of(client)
    assert "the repositories hold 512 kB" in html
    assert html.count("<td>1.0</td>") == 1


@pytest.mark.parametrize("bound", ["FILES", "BYTES", "IMAGES_IN_ALL"])
async def test_what_is_beyond_the_bounds_is_counted_and_not_looked_into(
    client: ClientSession, opened: Counter[str], monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    await push(client, SMALL)
    await push(client, BLOB)
    children = []
    for number in range(6):
        raw = image(descriptor(BLOB), annotations={"number": str(number)})
        assert (await put(client, raw, digest_of(raw))).status == 201
        children.append(descriptor(raw, media.OCI_MANIFEST))
    for tag in "ab":
        many = index(children, annotations={"tag": tag})
        assert (await put(client, many, tag, media.OCI_INDEX)).status == 201
    monkeypatch.setattr(overview, bound, {"FILES": 4, "BYTES": len(many) + 1, "IMAGES_IN_ALL": 8}[bound])
    html = await text_of(client)
    reads = {"FILES": 4, "BYTES": 2, "IMAGES_IN_ALL": 8}[bound]
    assert opened.total() == reads
    assert ("and 3 more" in html, "and 5 more" in html, "6 images" in html) == (
        bound == "FILES",
        bound == "BYTES",
        bound == "IMAGES_IN_ALL",
    )
    assert ("not looked into" in html) == (bound != "IMAGES_IN_ALL")


async def test_an_image_of_very_many_layers_has_at_least_what_was_counted(
    client: ClientSession,
) -> None:
    await push(client, SMALL)
    await push(client, BLOB)
    raw = image(*[descriptor(BLOB)] * 300)
    assert (await put(client, raw, "1")).status == 201
    assert "one image: at least 256 kB" in await text_of(client)


async def test_a_platform_cannot_disguise_the_page(client: ClientSession) -> None:
    evil = {"os": "\u202elinux\x1b[2J\u2069", "architecture": "<b>\u200b" + "x" * 500}
    raw = await pushed_image(client)
    one = index([descriptor(raw, media.OCI_MANIFEST, platform=evil)])
    assert (await put(client, one, "evil", media.OCI_INDEX)).status == 201
    html = await text_of(client)
    assert r"\u202elinux\x1b[2J\u2069/&lt;b&gt;\u200bx" in html
    assert all(line.isprintable() for line in html.splitlines())
    assert "x" * 100 not in html


async def test_figures_come_from_elsewhere_than_the_loops_connection(
    client: ClientSession, registry_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pushed_image(client)
    threads: set[str] = set()

    def noted(original: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*arguments: Any) -> Any:
            threads.add(threading.current_thread().name)
            return original(*arguments)

        return asked

    kind = type(registry_store.state)
    monkeypatch.setattr(kind, "row", noted(kind.row))
    monkeypatch.setattr(kind, "rows", noted(kind.rows))
    await text_of(client)
    await text_of(client, "/?last=a")
    await text_of(client, "/metrics")
    assert threads == {"blobflow-gathering_0"}


@pytest.mark.parametrize("last", ["%ff", "%00", "%ed%a0%80", "%f0%9f%90%b3", "x" * 3000, "'\"%20;--"])
async def test_a_page_may_begin_anywhere(client: ClientSession, last: str) -> None:
    await pushed_image(client)
    assert "</html>" in await text_of(client, f"/?last={last}")


async def test_who_has_gone_is_not_worked_for(
    client: ClientSession, app: web.Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, gave_up = threading.Event(), threading.Event()

    def counts(state: Any) -> Any:
        under_way.set()
        try:
            endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
            return state.row(endless)
        finally:
            gave_up.set()

    monkeypatch.setattr(overview, "collect_stats", counts)
    asked = asyncio.create_task(status_of(client, "/", "GET"))
    assert await asyncio.to_thread(under_way.wait, 20)
    asked.cancel()
    assert await asyncio.to_thread(gave_up.wait, 20)
    monkeypatch.setattr(overview, "collect_stats", collect_stats)
    assert "</html>" in await text_of(client)
    assert app[REGISTRY_KEY].overview.gathered == 2


async def test_a_registry_that_ends_waits_for_no_page(
    registry_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = threading.Event()

    def counts(state: Any) -> Any:
        under_way.set()
        return state.row(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        )

    monkeypatch.setattr(overview, "collect_stats", counts)
    async with (
        asyncio.timeout(HANGS_AFTER),
        Server(make_app(registry_store), grace=60) as server,
        ClientSession(server.url) as client,
    ):
        asked = asyncio.create_task(status_of(client, "/metrics", "GET"))
        assert await asyncio.to_thread(under_way.wait, 20)
        await server.stop()
        assert await asked == 503


async def test_metrics_do_not_stand_in_line_behind_pages(client: ClientSession, app: web.Application) -> None:
    let_go, seen = threading.Event(), app[REGISTRY_KEY].overview

    def stays(shown: OverviewRows) -> RenderedPage:
        let_go.wait(HANGS_AFTER)
        return RenderedPage(b"", b"")

    pages = [asyncio.create_task(seen.page(stays, f"{number}", gone=nobody)) for number in range(20)]
    try:
        while len(seen._pages._under_way) < 16:
            await status_of(client, "/healthz", "GET")
        seen._figures.forget()
        assert await status_of(client, "/metrics", "GET") == 200
        assert await status_of(client, "/", "GET") == 503
    finally:
        let_go.set()
        ends = await asyncio.gather(*pages, return_exceptions=True)
    assert sum(isinstance(end, ApiError) for end in ends) == 4


async def test_a_store_that_cannot_be_read_gives_no_page(
    client: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(state: Any) -> Any:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(overview, "collect_stats", fails)
    assert await status_of(client, "/", "GET") == 503
    assert await status_of(client, "/metrics", "GET") == 503


# What a viewer may not pull


async def pages_of(store: Store, *viewers: tuple[str, Callable[[str], bool] | None]) -> list[str]:
    seen = Overview(store, None)
    try:
        pages = [await seen.page(render, viewer=name, may_pull=rule, gone=nobody) for name, rule in viewers]
    finally:
        await seen.close()
    return [with_age(page, age).decode() for page, age in pages]


async def test_a_viewer_sees_what_he_may_pull_and_nothing_of_the_rest(
    client: ClientSession, registry_store: Store
) -> None:
    for repo in ("/v2/open/a", "/v2/secret/a"):
        await pushed_image(client, repo=repo)
    every, ann, bob, again = await pages_of(
        registry_store,
        ("", None),
        ("ann", lambda name: name.startswith("open/")),
        ("bob", lambda name: False),
        ("", None),
    )
    assert "secret/a" in every
    assert every == again
    assert "open/a" in ann
    assert "3 blobs and manifests, 256 kB</p>" in ann
    assert not any(word in ann for word in ("secret", "shared", "on disk"))
    assert "There is nothing here yet." in bob
    assert not any(word in bob for word in ("secret", "open", "on disk"))


async def test_pages_go_on_past_what_a_viewer_may_not_pull(registry_store: Store) -> None:

    def fill() -> None:
        for number in range(1500):
            registry_store.repositories.add(f"{number:04}", digest_of(b""))

    await registry_store.commit(fill)
    wanted = [f"{number:04}" for number in range(1040, 1500, 2)]
    seen, last, found = Overview(registry_store, None), "", []

    def kept(shown: OverviewRows) -> RenderedPage:
        found.append([each.name for each in shown.repositories])
        return RenderedPage(shown.following.encode(), b"")

    for _ in range(3):
        page, _age = await seen.page(kept, last, viewer="ann", may_pull=wanted.__contains__, gone=nobody)
        last = page.head.decode()
    await seen.close()
    assert last == ""
    assert [len(each) for each in found] == [100, 100, 30]
    assert list(chain.from_iterable(found)) == wanted


async def test_repositories_are_named_in_order_from_anywhere(registry_store: Store) -> None:

    def fill() -> None:
        for name in ("b", "a", "c/d", "a/b"):
            for content in (b"1", b"2"):
                registry_store.repositories.add(name, digest_of(content))

    await registry_store.commit(fill)
    with open_reader(registry_store, nobody) as state:
        assert repositories_after(state, 10) == ["a", "a/b", "b", "c/d"]
        assert repositories_after(state, 2, "a") == ["a/b", "b"]
        assert repositories_after(state, 2, "zz") == repositories_after(state, 0) == []
        assert {name: share.items for name, share in collect_stats(state).shares.items()} == dict.fromkeys(
            ("a", "a/b", "b", "c/d"), 2
        )


# Hundreds of repositories


class Rendered:
    """Pages of a store with many repositories, as one viewer sees them."""

    def __init__(self, store: Store, may_pull: Callable[[str], bool] | None = None) -> None:
        self._overview = Overview(store, None)
        self._may_pull = may_pull

    async def __aenter__(self) -> Rendered:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._overview.close()

    async def at(self, query: str = "") -> str:
        words = parse_qs(query)
        last, find = (words.get(name, [""])[0] for name in ("last", "find"))
        page, age = await self._overview.page(
            render, last, find=find, may_pull=self._may_pull, viewer=str(self._may_pull), gone=nobody
        )
        return with_age(page, age).decode()


def link(html: str, kind: str) -> str | None:
    found = re.search(rf'<a href="\?([^"]*)" rel="{kind}"', html)
    return unescape(found[1]) if found else None


def names(html: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", html)


async def many(store: Store, count: int, prefix: str = "team/app") -> list[str]:
    wanted = [f"{prefix}-{number:05}" for number in range(count)]

    def fill() -> None:
        for name in wanted:
            store.repositories.add(name, digest_of(b""))

    await store.commit(fill)
    return wanted


async def test_pages_go_forth_and_back_and_say_where_one_is(registry_store: Store) -> None:
    wanted = await many(registry_store, 250)
    async with Rendered(registry_store) as pages:
        first = await pages.at()
        assert names(first) == wanted[:100]
        assert '<p class="s" id="where">1 to 100 of 250 repositories</p>' in first
        assert link(first, "prev") is None
        second = await pages.at(link(first, "next") or "")
        assert "101 to 200 of 250" in second and names(second) == wanted[100:200]
        third = await pages.at(link(second, "next") or "")
        assert "201 to 250 of 250" in third and names(third) == wanted[200:]
        assert link(third, "next") is None
        assert await pages.at(link(third, "prev") or "") == second
        assert await pages.at(link(second, "prev") or "") == first
        assert '<a href="?">First</a>' in third


async def test_a_filter_chooses_on_the_server_and_goes_along_from_page_to_page(registry_store: Store) -> None:
    await many(registry_store, 50)
    wanted = await many(registry_store, 130, "other/<Nginx>&")
    async with Rendered(registry_store) as pages:
        html = await pages.at("find=nginX%3E%26")
        assert [unescape(name.replace("<wbr>", "")) for name in names(html)] == wanted[:100]
        assert 'value="nginX&gt;&amp;"' in html and "<Nginx>" not in html
        html = await pages.at(link(html, "next") or "")
        assert [unescape(name) for name in names(html)] == wanted[100:]
        assert "101 to 130 of 130" in html
        html = await pages.at("find=%3Cscript%3E")
        assert "No repository with &lt;script&gt; in its name." in html and names(html) == []
        assert 'value="&lt;script&gt;"' in html, "to be mended"
    async with Rendered(registry_store, lambda name: name.endswith("7")) as pages:
        html = await pages.at("find=team")
        assert names(html) == [f"team/app-{number:05}" for number in range(7, 50, 10)]
        assert "nginx" not in html.lower()


async def test_more_names_than_are_looked_at_are_gone_on_with(
    registry_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_pages, "MAX_NAMES", 40)
    monkeypatch.setattr(repository_pages, "_AT_ONCE", 20)
    wanted = await many(registry_store, 130)
    async with Rendered(registry_store) as pages:
        found, query = [], ""
        while True:
            html = await pages.at(query)
            found += names(html)
            assert ("of more than" in html or "further on" in html) == (len(found) <= 40 or query != "")
            query = link(html, "next") or ""
            if not query:
                break
        assert found == wanted
        html = await pages.at(f"find={wanted[-1][-5:]}")
        assert "in its name up to here." in html, "so it is not said that there is none"
        assert link(html, "next") == "last=team%2Fapp-00039&find=00129"


async def test_with_many_repositories_tags_are_folded_away(
    client: ClientSession, app: web.Application
) -> None:
    await pushed_image(client, repo="/v2/a")
    assert "<details open><summary>1 tag</summary>" in await text_of(client)
    for number in range(13):
        await push(client, SMALL, f"/v2/b{number:02}")
    app[REGISTRY_KEY].overview.forget()
    html = await text_of(client)
    assert "<details><summary>1 tag</summary>" in html and "<td>1.0</td>" in html


async def test_the_page_acts_on_nothing_but_itself(client: ClientSession) -> None:
    await pushed_image(client)
    async with client.get("/?find=app") as answer:
        policy = answer.headers["Content-Security-Policy"]
        html = await answer.text()
    for rule in ("default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert rule in policy
    assert "script-src" not in policy and "<script" not in html
    assert re.findall(r"https?:|//", html) == []
