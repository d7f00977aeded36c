"""The embedded registry as those see it who look after it: page, metrics, sign of life, access log; and what
clients get that accept no index."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from aiohttp import ClientSession, encode_basic_auth
from prometheus_client.parser import text_string_to_metric_families

from blobflow.errors import StorageError
from blobflow.oci import Digest, digest_of, media
from blobflow.server import AccessRecord, CommonLogFormat, Logins, Server, make_app
from blobflow.server.admin.overview import OverviewRows, RepositoryRow, TagRow, UpstreamRow
from blobflow.server.admin.page import render, with_age
from blobflow.server.content_negotiation import accepts
from blobflow.server.small_blob_cache import SmallBlobCache
from blobflow.transports.store import Store
from blobflow.transports.store.stats import RepositoryStats, StoreStats
from tests.contract.server.client import (
    BLOB,
    DIGEST,
    REPO,
    SMALL,
    descriptor,
    image,
    push,
    pushed_image,
    put,
    refusal,
    start,
    status_of,
)

AMD64 = {"os": "linux", "architecture": "amd64"}
ARM64 = {"os": "linux", "architecture": "arm64", "variant": "v8"}


def index_of(kind: str, *children: tuple[bytes, dict[str, str]]) -> bytes:
    listed = [descriptor(raw, media.OCI_MANIFEST, platform=platform) for raw, platform in children]
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": listed}).encode()


async def pushed_index(client: ClientSession, kind: str, *platforms: dict[str, str]) -> list[bytes]:
    """An index under 1.0, with an image for each platform; the images' manifests."""
    await push(client, SMALL)
    await push(client, BLOB)
    children = []
    for number, platform in enumerate(platforms):
        raw = image(descriptor(BLOB), annotations={"number": str(number)})
        assert (await put(client, raw, digest_of(raw))).status == 201
        children.append((raw, platform))
    assert (await put(client, index_of(kind, *children), "1.0", kind)).status == 201
    return [raw for raw, _ in children]


# A client that accepts no index


@pytest.mark.parametrize("kind", [media.DOCKER_LIST, media.OCI_INDEX])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_accepts_no_index_gets_the_linux_amd64_image(
    registry: ClientSession, kind: str, method: str
) -> None:
    _, raw = await pushed_index(registry, kind, ARM64, AMD64)
    accept = {"Accept": f"{media.DOCKER_MANIFEST}, {media.OCI_MANIFEST}"}
    async with registry.request(method, f"{REPO}/manifests/1.0", headers=accept) as answer:
        assert answer.status == 200
        assert answer.headers["Docker-Content-Digest"] == digest_of(raw)
        assert answer.content_type == media.OCI_MANIFEST
        assert answer.content_length == len(raw)
        assert await answer.read() == (raw if method == "GET" else b"")


@pytest.mark.parametrize("accept", [media.OCI_INDEX, "*/*", f"{media.OCI_MANIFEST}, application/*;q=0.1"])
async def test_who_accepts_an_index_gets_it(registry: ClientSession, accept: str) -> None:
    await pushed_index(registry, media.OCI_INDEX, ARM64, AMD64)
    async with registry.get(f"{REPO}/manifests/1.0", headers={"Accept": accept}) as answer:
        assert answer.content_type == media.OCI_INDEX


async def test_an_index_that_is_asked_for_by_digest_is_that_index(registry: ClientSession) -> None:
    await pushed_index(registry, media.OCI_INDEX, AMD64)
    async with registry.head(f"{REPO}/manifests/1.0") as answer:
        digest = answer.headers["Docker-Content-Digest"]
    accept = {"Accept": media.OCI_MANIFEST}
    async with registry.get(f"{REPO}/manifests/{digest}", headers=accept) as answer:
        assert answer.content_type == media.OCI_INDEX


@pytest.mark.parametrize("platforms", [[ARM64], []])
async def test_an_index_without_that_image_is_404_to_who_accepts_none(
    registry: ClientSession, platforms: list[dict[str, str]]
) -> None:
    await pushed_index(registry, media.OCI_INDEX, *platforms)
    async with registry.get(f"{REPO}/manifests/1.0", headers={"Accept": media.OCI_MANIFEST}) as answer:
        assert await refusal(answer) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ((), True),
        (("*/*",), True),
        ((media.OCI_MANIFEST, media.OCI_INDEX), True),
        ((f"{media.OCI_MANIFEST} , {media.OCI_INDEX.upper()} ;q=0.5",), True),
        ((media.OCI_MANIFEST,), False),
        ((f"{media.OCI_INDEX};q=0",), False),
        ((f"{media.OCI_INDEX}; q=0.000, {media.OCI_MANIFEST}",), False),
        (("application/*",), True),
        ((media.DOCKER_LIST,), False),
        (("text/html, ,",), False),
    ],
)
def test_accept_headers_are_read_as_http_has_them(headers: Iterable[str], accepted: bool) -> None:
    assert accepts(headers, media.OCI_INDEX) is accepted


# Metrics and the sign of life


async def figures(client: ClientSession) -> dict[str, float]:
    """The metrics as Prometheus's own parser reads them, by name and labels."""
    async with client.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        text = await answer.text()
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_tell_what_was_done_and_what_is_here(registry: ClientSession) -> None:
    raw = await pushed_image(registry)
    await start(registry)
    for _ in range(3):
        assert await status_of(registry, f"{REPO}/blobs/{DIGEST}", "GET") == 200
    assert await status_of(registry, f"{REPO}/blobs/{digest_of(b'')}", "HEAD") == 404
    found = await figures(registry)
    assert found["blobflow_requests_total['200', 'GET', 'blob']"] == 3
    assert found["blobflow_requests_total['404', 'HEAD', 'blob']"] == 1
    assert found["blobflow_requests_total['201', 'PUT', 'manifest']"] == 1
    assert found["blobflow_received_bytes_total[]"] == len(SMALL) + len(BLOB) + len(raw)
    assert found["blobflow_sent_bytes_total[]"] == 3 * len(BLOB)
    assert found["blobflow_upload_sessions[]"] == 1
    assert found["blobflow_store_blobs[]"] == 3
    assert found["blobflow_store_bytes[]"] == len(SMALL) + len(BLOB) + len(raw)
    assert found["process_cpu_seconds_total[]"] > 0
    assert (await figures(registry))["blobflow_requests_total['200', 'GET', 'metrics']"] == 1


async def test_methods_that_nobody_knows_are_one_label(registry: ClientSession) -> None:
    for method in ("LINK", "UNLINK"):
        assert await status_of(registry, "/v2/", method) == 405
    assert (await figures(registry))["blobflow_requests_total['405', 'other', 'root']"] == 2


async def test_the_sign_of_life_needs_no_login_and_all_else_does(registry_store: Store) -> None:
    logins = Logins({"ann": bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4))})
    told: list[AccessRecord] = []
    app = make_app(registry_store, logins=logins, observe=told.append)
    async with Server(app) as server, ClientSession(server.url) as client:
        assert await status_of(client, "/healthz", "GET") == 200
        for path in ("/", "/metrics", "/v2/", "/healthz/"):
            assert await status_of(client, path, "GET") == 401
        async with client.get(
            "/metrics", headers={"Authorization": encode_basic_auth("ann", "s3cret")}
        ) as answer:
            assert answer.status == 200
    assert [each.user for each in told] == ["", "", "", "", "", "ann"]


async def test_a_store_that_fails_gives_no_sign_of_life(
    registry: ClientSession, registry_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(sql: str, *values: Any) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(type(registry_store.state), "row", lambda self, sql, *values: fails(sql))
    assert await status_of(registry, "/healthz", "GET") == 503


# The page


class Seen(HTMLParser):
    """The text of a page in cells and paragraphs, and the tags that it is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "br", "wbr", "input"):
            self._open.append(tag)
        if tag in ("td", "p", "h2"):
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.texts and {"td", "p", "h2"} & set(self._open):
            self.texts[-1] += text


async def test_the_page_shows_what_is_here(registry: ClientSession) -> None:
    config = json.dumps({"os": "linux", "architecture": "riscv64"}).encode()
    for repo in ("/v2/one", "/v2/two"):
        for content in (config, BLOB):
            await push(registry, content, repo)
        assert (await put(registry, image(descriptor(BLOB), config=config), "9", repo=repo)).status == 201
    await pushed_index(registry, media.OCI_INDEX, AMD64, ARM64)
    async with registry.get("/") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/html"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        seen = Seen(await answer.text())
    assert "script" not in seen.tags
    assert [text for text in seen.texts if text in ("one", "team/app", "two")] == ["one", "team/app", "two"]
    assert "linux/riscv64: 256 kB" in seen.texts
    assert "linux/amd64: 256 kBlinux/arm64/v8: 256 kB" in seen.texts
    summary = r"7 blobs and manifests, 25\d kB on disk; the repositories hold 77\d kB, .* spares 51\d kB\."
    assert re.fullmatch(summary, seen.texts[0])
    shared = [text for text in seen.texts if "shared with other repositories" in text]
    assert shared[0] == "3 blobs and manifests, 257 kB, 257 kB of it shared with other repositories"


async def test_an_empty_registry_has_a_page(registry: ClientSession) -> None:
    async with registry.get("/") as answer:
        assert "There is nothing here yet." in Seen(await answer.text()).texts


async def test_the_page_has_pages(registry: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobflow.server.admin.overview.REPOSITORIES", 2)
    for repo in ("a", "b", "c"):
        await push(registry, SMALL, f"/v2/{repo}")
    async with registry.get("/") as answer:
        text = await answer.text()
    assert 'href="?last=b"' in text
    async with registry.get("/?last=b") as answer:
        text = await answer.text()
    assert "<h2>c</h2>" in text
    assert 'rel="next"' not in text
    assert '<a href="?" rel="prev">' in text


def test_what_others_chose_is_escaped_on_the_page() -> None:
    evil = '<script>alert("1")</script>&'
    tag = TagRow(evil, Digest("sha256:" + "a" * 64), (), 1)
    shown = OverviewRows(
        stats=StoreStats(blobs=1, size=1_500_000, served=3_000_000),
        repositories=(RepositoryRow(evil, RepositoryStats(evil, 1, 5, 0), (tag,), False),),
        following='"><script>',
        upstreams=(UpstreamRow(evil, 4, 3, 1000),),
    )
    seen = Seen(with_age(render(shown), 2.9).decode())
    assert "script" not in seen.tags
    assert seen.texts.count(evil) == 3
    assert "75 %" in seen.texts
    assert seen.texts[0].endswith("hold 3.0 MB, of which sharing spares 1.5 MB.")
    assert seen.texts[1] == "As of 2 s ago."


# The access log


def test_the_access_log_is_as_httpds() -> None:
    access = AccessRecord(
        remote="10.0.0.1",
        method="GET",
        path="/v2/a/tags/list",
        query="n=1",
        status=200,
        received=0,
        sent=2326,
        seconds=0.1,
        user_agent='curl "7"\n\\',
        user="frank",
        at=971211336.4,
    )
    common = '10.0.0.1 - frank [10/Oct/2000:20:55:36 +0000] "GET /v2/a/tags/list?n=1 HTTP/1.1" 200 2326'
    assert CommonLogFormat().line(access) == common
    assert CommonLogFormat(combined=True).line(access) == rf'{common} "-" "curl \"7\"\n\\"'


# Small content in memory


def test_the_least_recently_used_goes_first_from_memory() -> None:
    recent = SmallBlobCache(max_bytes=10)
    a, b, c = (digest_of(name) for name in (b"a", b"b", b"c"))
    recent.put(a, b"12345")
    recent.put(b, b"12345")
    assert recent.get(a) == b"12345"
    recent.put(c, b"123")
    assert (recent.get(a), recent.get(b), recent.get(c)) == (b"12345", None, b"123")
    recent.put(b, b"x" * 11)
    assert (recent.get(a), recent.get(b), recent.get(c)) == (b"12345", None, b"123")
    recent.put(a, b"1234567890")
    assert recent.get(a) == b"1234567890"


async def test_what_was_deleted_is_not_served_from_memory(registry: ClientSession, tmp_path: Path) -> None:
    raw = await pushed_image(registry)
    small = f"{REPO}/blobs/{digest_of(SMALL)}"
    manifest = f"{REPO}/manifests/{digest_of(raw)}"
    for path in (small, manifest):
        for _ in range(2):
            assert await status_of(registry, path, "GET") == 200
        assert await status_of(registry, path, "DELETE") == 202
        assert await status_of(registry, path, "GET") == 404


async def test_a_range_of_what_is_in_memory_is_that_range(registry: ClientSession) -> None:
    await push(registry, SMALL)
    path = f"{REPO}/blobs/{digest_of(SMALL)}"
    for _ in range(2):
        async with registry.get(path) as answer:
            assert await answer.read() == SMALL
        async with registry.get(path, headers={"Range": "bytes=2-4"}) as answer:
            assert (answer.status, await answer.read()) == (206, SMALL[2:5])
