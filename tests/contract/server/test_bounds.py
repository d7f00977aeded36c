"""What the registry remembers of clients' questions and upstreams' answers has bounds; so has one answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from blobflow.content import Site
from blobflow.errors import NotFound
from blobflow.events import ignore
from blobflow.oci import Descriptor, Digest, digest_of, media, parse_manifest
from blobflow.server import PullThroughCache, Upstreams, manifest_index, referrer_index
from blobflow.server.errors import ApiError
from blobflow.server.manifest_index import ManifestReader
from blobflow.server.pullthrough import listed_manifests, referenced_blobs, tag_lists, upstream_requests
from blobflow.server.pullthrough.circuit_breaker import CircuitBreaker
from blobflow.server.pullthrough.listed_manifests import ListedManifests
from blobflow.server.pullthrough.referenced_blobs import ReferencedBlobs
from blobflow.server.pullthrough.tag_lists import TagList
from blobflow.server.pullthrough.upstream_requests import UpstreamRequests
from blobflow.server.referrer_index import ReferrerIndex
from blobflow.transports.store import Store
from tests.contract.server.client import REPO as PATH
from tests.contract.server.client import SMALL, descriptor, image, index, push, put
from tests.contract.server.pull_through import REPO, edge_of, give
from tests.deadlines import HANGS_AFTER

SUBJECT = image()
DIGEST = digest_of(SUBJECT)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.open(tmp_path / "store")) as opened:
        yield opened


def hold(store: Store, *manifests: bytes, repo: str = REPO, kind: str = media.OCI_MANIFEST) -> None:
    with store.state.transaction():
        for raw in manifests:
            store.blobs.write_small(raw, digest_of(raw))
            store.repositories.add(repo, digest_of(raw), kind)


def referrers(n: int, subject: bytes = SUBJECT, padding: int = 0) -> list[bytes]:
    what = descriptor(subject, media.OCI_MANIFEST)
    return [image(subject=what, annotations={"n": f"{k}", "x": "y" * padding}) for k in range(n)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Digest]:
    """Which manifests are read, each time."""
    found: list[Digest] = []
    read = ManifestReader.read

    def counting(self: ManifestReader, digest: Digest) -> bytes | None:
        found.append(digest)
        return read(self, digest)

    monkeypatch.setattr(ManifestReader, "read", counting)
    return found


# Lists of referrers


@contextlib.asynccontextmanager
async def subjects_of(store: Store) -> Any:
    lists = ReferrerIndex(store)
    try:
        yield lists
    finally:
        await lists.close()


async def whole_list(lists: ReferrerIndex, **how: Any) -> list[list[str]]:
    """The digests of each page."""
    pages: list[list[str]] = []
    last = ""
    while True:
        page = await lists.page(REPO, DIGEST, last=last, **{"max_entries": 1000, "max_bytes": 2**21, **how})
        pages.append([json.loads(each.encoded)["digest"] for each in page.referrers])
        last = page.following
        if not last:
            return pages


async def test_long_annotations_are_listed_and_not_kept_in_memory(store: Store, reads: list[Digest]) -> None:
    made = referrers(80, padding=60_000)
    hold(store, *made)
    async with subjects_of(store) as lists:
        pages = await whole_list(lists)
        assert sorted(chain(*pages)) == sorted(map(digest_of, made))
        assert max(map(len, pages)) == 34, "2 MiB a page"
        assert lists._entries.weight == 0
        assert lists._indexes.weight < 300 * len(made)
        assert len(reads) <= 80 + 80 + len(pages), (
            "once for the index, once for its page, and who did not fit"
        )


async def test_a_manifest_is_read_once_for_the_index_however_many_ask_for_lists(
    store: Store, reads: list[Digest]
) -> None:
    others = [image(annotations={"other": str(n)}) for n in range(100)]
    hold(store, *others, *referrers(3))
    async with subjects_of(store) as lists:
        asked = (lists.page(REPO, DIGEST, max_entries=10, max_bytes=2**20) for _ in range(50))
        pages = await asyncio.gather(*asked)
        assert {len(page.referrers) for page in pages} == {3}
        assert all(reads.count(digest_of(raw)) == 1 for raw in others)
        reads.clear()
        hold(store, image(annotations={"new": "1"}))
        assert len((await lists.page(REPO, DIGEST, max_entries=10, max_bytes=2**20)).referrers) == 3
        assert len(reads) == 1, "only what is new"


async def test_one_answer_looks_at_a_bounded_number_of_manifests(
    store: Store, reads: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referrer_index, "MAX_MANIFESTS_PER_PAGE", 10)
    monkeypatch.setattr(referrer_index, "_BATCH", 5)
    made = referrers(45)
    wanted = image(subject=descriptor(SUBJECT, media.OCI_MANIFEST), artifactType="a/wanted")
    hold(store, *made, wanted)
    async with subjects_of(store) as lists:
        await lists.page(REPO, digest_of(b"nobody"), max_entries=10, max_bytes=2**20)
        reads.clear()
        await lists.page(REPO, DIGEST, wanted="a/wanted", max_entries=10, max_bytes=2**20)
        assert len(reads) <= 10
        pages = await whole_list(lists, wanted="a/wanted")
        assert list(chain(*pages)) == [digest_of(wanted)]
        assert len(pages) == 5


async def test_an_index_that_was_dropped_is_made_again(store: Store) -> None:
    made = referrers(5)
    hold(store, *made)
    async with subjects_of(store) as lists:
        before = await whole_list(lists)
        lists._indexes._indexes.clear()
        lists._entries.clear()
        assert await whole_list(lists) == before


async def test_indexes_of_many_repositories_take_no_more_than_their_room(store: Store) -> None:
    for n in range(40):
        hold(store, *referrers(5), repo=f"team/r{n}")
    readers = ManifestReader(store)
    kept: manifest_index.ManifestIndexes[int | None, referrer_index.RepositoryReferrers] = (
        manifest_index.ManifestIndexes(
            store,
            readers,
            make=referrer_index.RepositoryReferrers,
            look=referrer_index._subject_in,
            max_bytes=10_000,
        )
    )
    for n in range(40):
        index = await kept.current(f"team/r{n}")
        assert len(index.after(DIGEST, "", 10)) == 5
        assert kept.weight <= 10_000
    await kept.close()
    readers.close()


async def test_referrers_that_come_and_go_leave_nothing_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referrer_index, "MAX_STALE", 5)
    async with subjects_of(store) as lists:
        weights = set()
        for turn in range(6):
            made = [
                image(subject=descriptor(SUBJECT), annotations={"turn": f"{turn} {n}"}) for n in range(20)
            ]
            hold(store, *made)
            assert sorted(chain(*await whole_list(lists))) == sorted(map(digest_of, made))
            weights.add(lists._indexes.weight)
            for raw in made:
                store.repositories.remove(REPO, digest_of(raw))
            assert await whole_list(lists) == [[]]
            hold(store, made[0])
            assert await whole_list(lists) == [[digest_of(made[0])]], "it is back, once"
            store.repositories.remove(REPO, digest_of(made[0]))
            await whole_list(lists)
        assert max(weights) < 1.2 * min(weights)


async def test_lists_are_made_while_all_threads_of_the_loop_are_taken(registry: ClientSession) -> None:
    await push(registry, SMALL)
    [raw] = referrers(1)
    assert (await put(registry, raw, digest_of(raw))).status == 201
    release = threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    taken = loop.run_in_executor(None, release.wait)
    try:
        async with registry.get(f"{PATH}/referrers/{DIGEST}") as answer:
            assert len((await answer.json())["manifests"]) == 1
    finally:
        release.set()
        await taken


async def test_a_client_that_goes_away_takes_the_list_from_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(store, *referrers(3))
    go = threading.Event()
    read = ManifestReader.read

    def slow(self: ManifestReader, digest: Digest) -> bytes | None:
        go.wait(HANGS_AFTER)
        return read(self, digest)

    monkeypatch.setattr(ManifestReader, "read", slow)
    async with subjects_of(store) as lists:
        first = asyncio.create_task(lists.page(REPO, DIGEST, max_entries=10, max_bytes=2**20))
        second = asyncio.create_task(lists.page(REPO, DIGEST, max_entries=10, max_bytes=2**20))
        await asyncio.sleep(0.05)
        first.cancel()
        go.set()
        assert len((await second).referrers) == 3


# What manifests mention


@contextlib.asynccontextmanager
async def mentions_of(store: Store) -> Any:
    readers = ManifestReader(store)
    found = ReferencedBlobs(store, readers)
    try:
        yield found
    finally:
        await found.close()
        readers.close()


def layered(*names: str) -> bytes:
    return image(*(descriptor(name.encode()) for name in names))


async def test_what_was_noted_is_found_without_reading_a_manifest(store: Store, reads: list[Digest]) -> None:
    async with mentions_of(store) as found:
        for n in range(300):
            raw = layered(f"{n}", f"{n + 1}")
            hold(store, raw)
            found.note(REPO, parse_manifest(raw, media.OCI_MANIFEST))
        for n in range(301):
            blob = await found.find(REPO, digest_of(f"{n}".encode()))
            assert blob is not None and blob.size == len(f"{n}")
        assert reads == []
        assert await found.find(REPO, digest_of(b"nobody")) is None
        assert reads == []


async def test_what_a_manifest_mentions_costs_the_same_whatever_was_there_before(store: Store) -> None:
    """Counted: an index is told of the new manifest's blobs alone, and is the same object afterwards."""
    async with mentions_of(store) as found:
        told: list[int] = []

        class Counting(referenced_blobs.RepositoryBlobs):
            def add(self, digest: Digest, found: referenced_blobs.Sizes) -> None:
                told.append(len(found))
                super().add(digest, found)

        found._indexes._make = Counting
        for n in range(500):
            found.note(REPO, parse_manifest(layered(f"{n}"), media.OCI_MANIFEST))
        assert told == [2] * 500
        assert isinstance(found._indexes.at_hand(REPO), Counting)


async def test_a_repository_with_more_blobs_than_are_remembered_is_searched(
    store: Store, reads: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referenced_blobs, "MAX_BLOBS", 40)
    hold(store, *(layered(*(f"{n} {k}" for k in range(9))) for n in range(20)))
    async with mentions_of(store) as found:
        for n in range(20):
            assert await found.find(REPO, digest_of(f"{n} 3".encode())) is not None
        assert await found.find(REPO, digest_of(b"nobody")) is None
        assert found._indexes.weight < 40 * 200 + 20 * 80 + 1000


async def test_what_only_manifests_that_are_gone_spoke_of_is_forgotten_in_the_end(store: Store) -> None:
    async with mentions_of(store) as found:
        for n in range(30):
            raw = layered(f"{n}")
            hold(store, raw)
            assert await found.find(REPO, digest_of(f"{n}".encode())) is not None
            store.repositories.remove(REPO, digest_of(raw))
        assert await found.find(REPO, digest_of(b"nobody")) is None
        assert found._indexes.weight < 1500


async def test_what_indexes_list_is_known_until_they_are_gone_however_much_it_is(
    store: Store, reads: list[Digest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed_manifests, "MAX_MANIFESTS", 40)
    readers = ManifestReader(store)
    listed = ListedManifests(store, readers)
    indexes = [index(*(f"{n} {k}".encode() for k in range(9))) for n in range(20)]
    hold(store, *indexes, kind=media.OCI_INDEX)
    try:
        for n in range(20):
            assert await listed.has(REPO, digest_of(f"{n} 3".encode()))
        assert not await listed.has(REPO, digest_of(b"nobody"))
        assert not await listed.has("another", digest_of(b"1 3"))
        assert listed._indexes.weight < 40 * 200 + 20 * 80 + 1500
        store.repositories.remove(REPO, digest_of(indexes[7]))
        assert not await listed.has(REPO, digest_of(b"7 3"))
    finally:
        await listed.close()
        readers.close()


# Lists of tags


def test_a_packed_list_gives_the_same_pages_as_the_list() -> None:
    names = [f"v{n}" for n in range(3500)]
    packed = TagList([*names, "not\na tag", "\x1b[31m", "../..", "", "v1", "x" * 129])
    ordered = sorted(names)
    for last in ("", "a", "v0", "v1", "v1999", "v2", "v3499", "v999", "z"):
        for n in (0, 1, 999, 1000, 1001, 5000):
            assert packed.after(last, n) == [name for name in ordered if name > last][:n]
    assert TagList([]).after("", 10) == []
    assert packed.weight < 3500 * 10


class Tags:
    """A Source with tags only."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.asked = 0

    async def tags(self) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        return self.names

    async def resolve(self, name: str) -> Descriptor:
        raise NotFound("no manifests here")


async def test_lists_of_tags_leave_memory_when_their_time_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_lists, "_MAX_LISTS_BYTES", 100_000)
    now = 0.0
    source: Any = Tags([f"v{n:06d}" for n in range(2000)])
    pulling = PullThroughCache(store, Upstreams([]), lambda site: source, ttl=60, clock=lambda: now)
    try:
        for n in range(50):
            site = Site("upstream.example", f"team/r{n}")
            assert await pulling.list_tags(f"team/r{n}", site, "", 2) == ["v000000", "v000001"]
            assert pulling._tag_lists._lists.weight <= 100_000
        assert source.asked == 50
        now = 61.0
        await pulling.list_tags("team/r0", Site("upstream.example", "team/r0"), "", 2)
        assert len(pulling._tag_lists._lists) == 1
    finally:
        await pulling.close()


async def test_many_who_ask_for_one_list_of_tags_ask_the_upstream_once(store: Store) -> None:
    source: Any = Tags(["a", "b"])
    pulling = PullThroughCache(store, Upstreams([]), lambda site: source)
    site = Site("upstream.example", REPO)
    try:
        answers = await asyncio.gather(*(pulling.list_tags(REPO, site, "a", 5) for _ in range(20)))
        assert answers == [["b"]] * 20
        assert source.asked == 1
    finally:
        await pulling.close()


async def test_tags_that_cannot_be_asked_for_are_no_reason_to_say_that_there_is_no_such_repository(
    tmp_path: Path,
) -> None:
    async with edge_of(tmp_path, broken=lambda: True) as edge:
        async with edge.client.get(f"/v2/{REPO}/tags/list") as answer:
            assert answer.status == 502
        async with edge.client.get(f"/v2/{REPO}/tags/list") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


# Links


async def test_next_pages_are_of_the_registry_that_was_asked_for(tmp_path: Path) -> None:
    async with edge_of(tmp_path, prefix="far") as edge:
        for tag in ("a", "b", "c"):
            subject = descriptor(await give(edge.upstream, tag=tag), media.OCI_MANIFEST)
        for raw in referrers(3):
            document = json.loads(raw) | {"subject": subject, "artifactType": "a/b+c"}
            signature = json.dumps(document).encode()
            await put(edge.client_of_upstream, signature, digest_of(signature), repo=f"/v2/{REPO}")
        ns = edge.upstream.host
        assert await pages(edge.client, f"/v2/{REPO}/tags/list?ns={ns}&n=1", "tags") == [1, 1, 1]
        asked = f"/v2/{REPO}/referrers/{subject['digest']}?artifactType=a/b%2Bc&ns={ns}"
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("blobflow.server.referrers.PAGE", 1)
            assert await pages(edge.client, asked, "manifests") == [1, 1, 1]


async def pages(client: ClientSession, path: str, key: str) -> list[int]:
    """How many each page has."""
    found: list[int] = []
    following: str | None = path
    while following is not None:
        async with client.get(following) as answer:
            assert answer.status == 200
            found.append(len((await answer.json(content_type=None))[key]))
            following = str(answer.links["next"]["url"]) if "next" in answer.links else None
    return found


# What is under way


async def test_no_repository_has_more_tasks_than_its_share_and_none_is_left_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_requests, "MAX_TASKS_OF_REPOSITORY", 5)
    monkeypatch.setattr(upstream_requests, "MAX_TASKS", 8)
    breaker = CircuitBreaker(time.monotonic, ignore, lambda site, kind: None)
    requests, go = UpstreamRequests(breaker), asyncio.Event()

    async def work() -> bool:
        return await go.wait()

    def ask(repo: str, name: str) -> asyncio.Task[bool]:
        return asyncio.create_task(requests.once(Site("h", repo), name, work))

    asked = [ask("a", f"{n}") for n in range(7)] + [ask("b", f"{n}") for n in range(5)]
    joined = [ask("a", "0") for _ in range(100)]
    await asyncio.sleep(0)
    for task in asked[5:]:
        task.cancel() if not task.done() else None
    go.set()
    ends = await asyncio.gather(*asked, *joined, return_exceptions=True)
    assert sum(isinstance(end, ApiError) and end.status == 503 for end in ends) >= 2
    assert ends[:5] == [True] * 5 and ends[12:] == [True] * 100
    await asyncio.sleep(0)
    assert len(requests) == 0
    assert not requests._of_site and not requests._slots
