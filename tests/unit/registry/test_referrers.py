"""How a registry is asked what refers to a manifest, in how many requests, and what its answers can do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest
from aiohttp import web

from blobflow.content import Referrer
from blobflow.errors import Denied, NotFound, ProtocolViolation, Rejected, Unavailable, UnsupportedContent
from blobflow.oci import Descriptor, Digest, digest_of, media
from blobflow.oci.referrers import cosign_tags, fallback_tag, merge_referrers_index
from blobflow.transports.registry.api import referrers
from blobflow.transports.registry.api.referrers import MAX_MERGES
from blobflow.transports.registry.capabilities.referrers_support import ReferrersSupport
from tests.contract.implementations import image_of
from tests.deadlines import HANGS_AFTER
from tests.fakes.registry import ScriptedServer, blob_of, scripted_server, world

SUBJECT = digest_of(b"subject")
IMAGE, RAW = image_of(blob_of(b"{}"), blob_of(b"layer"))
OTHER = Descriptor(media.OCI_MANIFEST, digest_of(b"other"), 5)
STRANGER = Descriptor(media.OCI_MANIFEST, digest_of(b"stranger"), 8)
SIG = cosign_tags(SUBJECT)[0]
FALLBACK = fallback_tag(SUBJECT)

Answering = Callable[[web.BaseRequest], web.StreamResponse]


def index(*entries: Descriptor) -> bytes:
    raw = merge_referrers_index(None, entries)
    assert raw is not None
    return raw


def manifest(raw: bytes, kind: str = media.OCI_INDEX) -> web.Response:
    headers = {"Content-Type": kind, "Docker-Content-Digest": digest_of(raw)}
    return web.Response(body=raw, headers=headers)


def absent(code: str = "MANIFEST_UNKNOWN") -> web.Response:
    return web.json_response({"errors": [{"code": code}]}, status=404)


class Repository:
    """A registry's answers: its referrers API (None: it has none), its tags, and what they name."""

    def __init__(
        self,
        api: Answering | None = None,
        tags: Mapping[str, web.Response | Callable[[], web.Response]] | None = None,
        listing: Answering | None = None,
    ) -> None:
        self.api = api
        self.tags = dict(tags or {})
        self.listing = listing
        self.put: dict[str, bytes] = {}
        self.answer_put: Callable[[str], web.Response] = lambda name: web.Response(status=201)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0)
        path = request.path
        name = path.rpartition("/")[2]
        if "/referrers/" in path:
            return self.api(request) if self.api else web.Response(status=404, text="404 page not found")
        if path.endswith("/tags/list"):
            listed = web.json_response({"name": "app", "tags": [*self.tags, *self.put]})
            return self.listing(request) if self.listing else listed
        if request.method == "PUT":
            raw = await request.read()
            answer = self.answer_put(name)
            if answer.status == 201:
                self.put[name] = self.put[digest_of(raw)] = raw
            return answer
        if name in self.put:
            return manifest(self.put[name])
        found = self.tags.get(name)
        return (found() if callable(found) else found) or absent() if name in self.tags else absent()


def listed(*entries: Descriptor, link: str = "") -> web.Response:
    headers = {"Link": f'<{link}>; rel="next"'} if link else {}
    return web.Response(body=index(*entries), content_type=media.OCI_INDEX, headers=headers)


async def find(server: ScriptedServer, subject: Digest = SUBJECT) -> list[Referrer]:
    async with world() as there:
        return await there.source(server.host).referrers(subject)


async def test_an_api_is_asked_once_a_manifest_and_the_tags_once_a_repository() -> None:
    async with scripted_server(Repository(api=lambda _: listed(OTHER))) as server, world() as there:
        source = there.source(server.host)
        subjects = [digest_of(bytes([each])) for each in range(5)]
        found = await asyncio.gather(*map(source.referrers, subjects))
    assert [[(r.manifest, r.how) for r in each] for each in found] == [[(OTHER, "api")]] * 5
    asked = server.asked()
    assert len(asked) == 6 and sum("/tags/list" in each for each in asked) == 1


async def test_an_entry_that_spoils_a_list_does_not_hide_the_others() -> None:
    odd = msgspec.structs.replace(IMAGE, artifact_type="x" * 5000)
    answers = [listed(OTHER, odd), listed(OTHER)]
    async with scripted_server(Repository(api=lambda _: answers.pop(0))) as server, world() as there:
        source = there.source(server.host)
        with pytest.raises(UnsupportedContent, match="something of 5000 characters"):
            await source.referrers(SUBJECT)
        assert [each.manifest for each in await source.referrers(digest_of(b"2"))] == [OTHER]


async def test_what_is_signed_later_is_seen_also_by_a_process_that_runs_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = Repository()
    async with scripted_server(repository) as server, world() as there:
        source = there.source(server.host)
        assert await source.referrers(SUBJECT) == []
        repository.tags[SIG] = lambda: manifest(RAW, IMAGE.media_type)
        assert await source.referrers(SUBJECT) == [], "as it was a moment ago"
        monkeypatch.setattr(referrers, "TAGS_SECONDS", 0)
        assert [each.tag for each in await source.referrers(SUBJECT)] == [SIG]


async def test_that_there_is_no_api_is_found_out_once_a_host() -> None:
    async with scripted_server(Repository()) as server, world() as there:
        for repository in ("one", "two"):
            source = there.source(server.host, repository)
            assert await asyncio.gather(*(source.referrers(digest_of(bytes([n]))) for n in range(5)))
    asked = server.asked("GET")
    assert sum("/referrers/" in each for each in asked) == 1
    assert len(asked) == 3, "and then the tags of each"


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: web.Response(status=404, text="404 page not found"),
        lambda _: web.Response(status=405),
        lambda _: web.Response(status=400),
        lambda _: web.Response(status=200, text="<html>welcome</html>", content_type="text/html"),
        lambda _: web.json_response({"hello": "there"}),
        lambda _: absent("NAME_UNKNOWN"),
        lambda _: web.json_response({"errors": [{"code": "DENIED"}]}, status=403),
    ],
    ids=["404", "405", "400", "a page", "something else", "NAME_UNKNOWN", "403"],
)
async def test_whatever_is_no_list_sends_us_to_the_fallback_tag(answer: Answering) -> None:
    raw = index(OTHER)
    tags = {FALLBACK: lambda: manifest(raw)}
    repository = Repository(answer, tags)

    async def with_digests(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.endswith(digest_of(raw)):
            return manifest(raw)
        return await repository(request)

    async with scripted_server(with_digests) as server:
        assert [(r.manifest.digest, r.how) for r in await find(server)] == [(OTHER.digest, "tag")]


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"])
async def test_a_name_that_is_unknown_says_nothing_of_the_host(code: str) -> None:
    """Some answer so for subjects that they do not have, against the specification."""
    api = lambda request: listed(OTHER) if "/two/" in request.path else absent(code)  # noqa: E731
    async with scripted_server(Repository(api=api)) as server, world() as there:
        assert await there.source(server.host, "one").referrers(SUBJECT) == []
        assert len(await there.source(server.host, "two").referrers(SUBJECT)) == 1


async def test_cosigns_tags_are_found_where_there_is_an_api_too() -> None:
    async with scripted_server(
        Repository(lambda _: listed(), {SIG: lambda: manifest(RAW, IMAGE.media_type)})
    ) as server:
        [found] = await find(server)
    assert found == Referrer(IMAGE, SUBJECT, "cosign", SIG)


@pytest.mark.parametrize(
    "listing",
    [
        lambda _: web.json_response({"errors": [{"code": "DENIED"}]}, status=403),
        lambda request: web.json_response(
            {"tags": [f"t{request.query.get('last', '')}x"]},
            headers={"Link": f"</v2/app/tags/list?last={request.query.get('last', '')}x>; rel=next"},
        ),
    ],
    ids=["not told", "too many"],
)
async def test_where_tags_are_not_told_or_too_many_each_is_asked_for(listing: Answering) -> None:
    tags = {SIG: lambda: manifest(RAW, IMAGE.media_type)}
    async with scripted_server(Repository(None, tags, listing)) as server:
        assert [each.tag for each in await find(server)] == [SIG]
        assert sum("/manifests/" in each for each in server.asked()) == 4
        assert sum("/tags/list" in each for each in server.asked()) <= referrers.TAG_PAGES


@pytest.mark.parametrize(
    ("listing", "asked"),
    [
        (lambda _: web.json_response({"name": "app", "tags": ["1"]}), 0),
        (lambda _: web.json_response({"name": "app", "tags": ["2"]}), 4),  # what a cache holds
        (lambda _: web.json_response({"name": "app", "tags": None}), 4),
        (lambda _: web.Response(status=404, text="404 page not found"), 4),
        (lambda _: absent("NAME_UNKNOWN"), 4),
    ],
    ids=["whole", "another", "none", "no endpoint", "unknown"],
)
async def test_a_list_without_a_tag_that_is_there_says_nothing_of_others(
    listing: Answering, asked: int
) -> None:
    tags = dict.fromkeys((SIG, "1"), lambda: manifest(RAW, IMAGE.media_type))
    async with scripted_server(Repository(None, tags, listing)) as server, world() as there:
        source = there.source(server.host)
        await source.resolve("1")
        assert [each.tag for each in await source.referrers(SUBJECT)] == [SIG] * bool(asked)
        await source.referrers(IMAGE.digest)
    assert sum("/tags/list" in each for each in server.asked()) == 1
    assert sum("/manifests/sha256-" in each for each in server.asked()) == 2 * asked


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "NOT_FOUND"])
async def test_a_repository_that_is_not_there_has_no_tags_and_without_a_list_it_maybe_has(code: str) -> None:
    """Harbor says NOT_FOUND of whatever it does not have."""
    tags = {SIG: lambda: manifest(RAW, IMAGE.media_type)}
    async with scripted_server(Repository(None, tags, lambda _: absent(code))) as server:
        assert await find(server) == []
        assert not any("/manifests/" in each for each in server.asked())
    async with scripted_server(Repository(None, tags, lambda _: web.Response(status=404))) as server:
        assert [each.tag for each in await find(server)] == [SIG]


async def test_tags_are_asked_for_again_once_there_is_one_that_they_lack() -> None:
    repository = Repository(None, {"1": lambda: manifest(RAW, IMAGE.media_type)})
    async with scripted_server(repository) as server, world() as there:
        source = there.source(server.host)
        await source.resolve("1")
        assert await source.referrers(SUBJECT) == []
        repository.tags |= dict.fromkeys(("2", SIG), repository.tags["1"])
        await source.resolve("2")
        assert [each.tag for each in await source.referrers(SUBJECT)] == [SIG]
        await source.resolve("2")
        await source.referrers(SUBJECT)
    assert sum("/tags/list" in each for each in server.asked()) == 2


@pytest.mark.parametrize("tag", [SIG, FALLBACK])
async def test_a_tag_that_is_told_and_denied_is_an_error_and_one_that_went_is_not(tag: str) -> None:
    def denied() -> web.Response:
        return web.json_response({"errors": [{"code": "DENIED"}]}, status=403)

    async with scripted_server(Repository(None, {tag: denied})) as server:
        with pytest.raises(Denied):
            await find(server)
    async with scripted_server(Repository(None, {tag: absent})) as server:
        assert await find(server) == []
    not_told = Repository(None, {tag: denied}, lambda _: denied())
    async with scripted_server(not_told) as server:  # Artifactory answers so for what is not there
        assert await find(server) == []


async def test_pages_are_followed() -> None:
    def api(request: web.BaseRequest) -> web.Response:
        if "page" in request.query:
            return listed(IMAGE)
        return listed(OTHER, link=f"{request.path}?page=2")

    async with scripted_server(Repository(api)) as server:
        assert {each.manifest.digest for each in await find(server)} == {OTHER.digest, IMAGE.digest}


async def test_pages_in_a_circle_or_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_server(Repository(lambda request: listed(OTHER, link=request.path))) as server:
        with pytest.raises(ProtocolViolation, match="without end"):
            await find(server)
    numbers = iter(range(1000))
    monkeypatch.setattr(referrers, "MAX_PAGES", 5)
    async with scripted_server(
        Repository(lambda request: listed(OTHER, link=f"{request.path}?{next(numbers)}"))
    ) as server:
        with pytest.raises(ProtocolViolation, match="without end"):
            await find(server)
        assert sum("/referrers/" in each for each in server.asked()) == 5
    monkeypatch.setattr(referrers, "MAX_PAGES", 100)
    monkeypatch.setattr(referrers, "MAX_BYTES", 1000)
    async with scripted_server(
        Repository(lambda request: listed(OTHER, link=f"{request.path}?{next(numbers)}"))
    ) as server:
        with pytest.raises(ProtocolViolation, match="without end"):
            await find(server)
        assert sum("/referrers/" in each for each in server.asked()) < 10


async def test_what_is_remembered_of_repositories_is_bounded_and_locks_go_with_who_holds_them() -> None:
    known = ReferrersSupport()
    for n in range(12_000):
        known.tags.put(f"team/r{n}", (0.0, frozenset({"a" * 5000, "b" * 5000})))
        async with known.lock(f"team/r{n}", "tags"):
            assert known.lock(f"team/r{n}", "tags").locked(), "it is one lock for all"
    assert known.tags.weight <= 32 * 1024 * 1024
    assert len(known._locks) <= 1


async def test_a_later_page_that_fails_is_no_end_of_the_list() -> None:
    def api(request: web.BaseRequest) -> web.Response:
        if "page" in request.query:
            return web.Response(status=404)
        return listed(OTHER, link=f"{request.path}?page=2")

    async with scripted_server(Repository(api)) as server:
        with pytest.raises(NotFound):
            await find(server)


async def test_a_registry_that_is_down_is_not_one_without_referrers() -> None:
    async with scripted_server(Repository(lambda _: web.Response(status=503))) as server:
        with pytest.raises(Unavailable):
            await find(server)


async def test_a_list_under_the_fallback_tag_costs_one_request() -> None:
    repository = Repository(None, {FALLBACK: lambda: manifest(index(OTHER))})
    async with scripted_server(repository) as server, world() as there:
        [found] = await there.source(server.host).referrers(SUBJECT)
        assert (found.manifest, found.how) == (OTHER, "tag")
        assert [each for each in server.asked() if FALLBACK in each] == [f"GET /v2/app/manifests/{FALLBACK}"]
        await there.sink(server.host).attach(SUBJECT, [IMAGE])
    assert [each.partition(" ")[0] for each in server.asked() if FALLBACK in each] == [
        *("GET", "GET"),  # who reads, and who adds to it
        *("HEAD", "PUT", "HEAD", "HEAD"),  # others may do that too, meanwhile
    ]


async def test_an_image_under_the_fallback_tag_is_no_list_and_is_not_overwritten() -> None:
    repository = Repository(None, {FALLBACK: lambda: manifest(RAW, IMAGE.media_type)})
    async with scripted_server(repository) as server, world() as there:
        sink = there.sink(server.host)
        assert await sink.referrers(SUBJECT) == []
        with pytest.raises(UnsupportedContent, match="should name a list of referrers"):
            await sink.attach(SUBJECT, [OTHER])
    assert not repository.put


async def test_where_the_answer_to_the_put_says_so_attaching_costs_nothing() -> None:
    repository = Repository()
    subject = {"mediaType": media.OCI_MANIFEST, "digest": SUBJECT, "size": 7}
    raw = json.dumps(json.loads(RAW) | {"subject": subject}).encode()
    signature = Descriptor(media.OCI_MANIFEST, digest_of(raw), len(raw))
    repository.answer_put = lambda name: web.Response(
        status=201, headers={"OCI-Subject": SUBJECT, "Docker-Content-Digest": signature.digest}
    )
    async with scripted_server(repository) as server, world() as there:
        sink = there.sink(server.host)
        await sink.put(signature, raw)
        await sink.attach(SUBJECT, [signature])
    assert [each.method for each in server.seen] == ["PUT"]


async def test_two_at_once_both_end_in_the_list() -> None:
    repository = Repository()
    async with scripted_server(repository) as server, world() as there:
        await asyncio.gather(
            *(there.sink(server.host).attach(SUBJECT, [each]) for each in (IMAGE, OTHER, IMAGE))
        )
    entries = json.loads(repository.put[FALLBACK])["manifests"]
    assert {each["digest"] for each in entries} == {IMAGE.digest, OTHER.digest}


class Turns:
    """Lets the requests of several clients through one at a time, in an order that is chosen."""

    def __init__(self, repository: Repository, order: str) -> None:
        self._repository = repository
        self._order = [*order]
        self._moved = asyncio.Condition()
        self.log: list[str] = []

    def of(self, client: str) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """The registry as a client sees it: it waits for its turns, and has all that are left in the end."""

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            async with self._moved:
                await self._moved.wait_for(lambda: client in self._order[:1] or not self._order)
                response = await self._repository(request)
                if "/manifests/" in request.path:
                    self.log.append(f"{client} {request.method}")
                    del self._order[:1]
                    self._moved.notify_all()
                return response

        return answer

    def over(self, client: str) -> None:
        """A client is done: its turns are the others'."""
        self._order = [each for each in self._order if each != client]


# Without a list a program reads, puts, looks, and looks again a moment later; with one it looks before its
# put, too. When all turns are over who is left goes on.
@pytest.mark.parametrize(
    ("there", "order"),
    [
        (False, "ABABAB"),  # the second put takes away what the first one put
        (False, "ABBABA"),
        (False, "AABBAB"),
        (False, "AAABBB"),
        (False, "ABAABBAB"),  # the one has put and looked before the other puts what it read nothing of
        (False, "ABBBAAAB"),
        (True, "ABABABABAB"),
        (True, "ABBBBBAAAA"),  # the one is done between a read and a look of the other
        (True, "AAABBBBBAA"),
        (True, "AABBABBAAB"),  # both look before either puts
        (True, "AABBABABAB"),
        (True, "AABBAABBAB"),  # one is done with its first look before the other puts
        (True, "BBAABBAABA"),
    ],
)
async def test_two_programs_at_once_both_end_in_the_list(there: bool, order: str) -> None:
    repository = Repository()
    if there:
        raw = index(STRANGER)
        repository.put = {FALLBACK: raw, digest_of(raw): raw}
    turns = Turns(repository, order)

    async def attach(client: str, referrer: Descriptor) -> None:
        async with scripted_server(turns.of(client)) as server, world() as place:
            await place.sink(server.host).attach(SUBJECT, [referrer])
        async with turns._moved:
            turns.over(client)
            turns._moved.notify_all()

    async with asyncio.timeout(HANGS_AFTER):
        await asyncio.gather(attach("A", IMAGE), attach("B", OTHER))
    entries = {each["digest"] for each in json.loads(repository.put[FALLBACK])["manifests"]}
    assert entries == {IMAGE.digest, OTHER.digest, *([STRANGER.digest] if there else [])}, turns.log


async def test_who_put_the_subject_just_now_makes_its_list_without_a_second_look() -> None:
    repository, tags = Repository(), [FALLBACK, fallback_tag(IMAGE.digest)]
    async with scripted_server(repository) as server, world() as there:
        await there.sink(server.host).put(Descriptor(media.OCI_MANIFEST, SUBJECT, len(RAW)), RAW)
        await there.sink(server.host).attach(SUBJECT, [OTHER])
        await there.sink(server.host).attach(IMAGE.digest, [OTHER])  # somebody else put this one
    of = {tag: [each.partition(" ")[0] for each in server.asked() if each.endswith(tag)] for tag in tags}
    assert of == {tags[0]: ["GET", "PUT", "HEAD"], tags[1]: ["GET", "PUT", "HEAD", "HEAD"]}


async def test_a_list_that_others_change_all_the_time_is_given_up_and_said_so() -> None:
    repository, others = Repository(), list[Descriptor]()

    def overwritten(name: str) -> web.Response:
        others.append(Descriptor(media.OCI_MANIFEST, digest_of(bytes(len(others))), 5))
        return web.Response(status=201)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await repository(request)
        if request.method == "PUT":
            raw = index(others[-1])
            repository.put |= {FALLBACK: raw, digest_of(raw): raw}
        return response

    repository.answer_put = overwritten
    async with scripted_server(answer) as server, world() as there:
        with pytest.raises(Unavailable, match="others change the tag"):
            await there.sink(server.host).attach(SUBJECT, [OTHER])
    assert len(others) == MAX_MERGES


async def test_a_cache_that_still_has_the_old_list_costs_no_further_put() -> None:
    repository = Repository()
    old = index(STRANGER)
    puts: list[bytes] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await repository(request)
        if request.method == "PUT":
            puts.append(repository.put[FALLBACK])
            repository.put[FALLBACK] = old
        return response

    repository.put = {FALLBACK: old, digest_of(old): old}
    async with scripted_server(answer) as server, world() as there:
        await there.sink(server.host).attach(SUBJECT, [OTHER])
    assert [len(json.loads(each)["manifests"]) for each in puts] == [2]


async def test_a_list_is_rid_of_what_is_gone_only_where_the_registry_minds() -> None:
    """distribution 2.8.2 refuses an index whose manifests are not all there."""
    gone = Descriptor(media.OCI_MANIFEST, digest_of(b"gone"), 4)
    for minds in (True, False):
        repository = Repository()
        raw = index(gone)
        repository.put = {FALLBACK: raw, digest_of(raw): raw}
        refusals = [minds]

        def answer(name: str, refusals: list[bool] = refusals) -> web.Response:
            if not refusals.pop() if refusals else True:
                return web.Response(status=201)
            errors = [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": {"digest": gone.digest}}]
            return web.json_response({"errors": errors}, status=400)

        repository.answer_put = answer
        async with scripted_server(repository) as server, world() as there:
            await there.sink(server.host).attach(SUBJECT, [OTHER])
        entries = {each["digest"] for each in json.loads(repository.put[FALLBACK])["manifests"]}
        assert entries == ({OTHER.digest} if minds else {OTHER.digest, gone.digest})


async def test_a_list_that_is_refused_for_what_we_put_is_refused() -> None:
    repository = Repository()
    errors = [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": {"digest": OTHER.digest}}]
    repository.answer_put = lambda name: web.json_response({"errors": errors}, status=400)
    async with scripted_server(repository) as server, world() as there:
        with pytest.raises(Rejected):
            await there.sink(server.host).attach(SUBJECT, [OTHER])


# The words


def test_tags_are_made_of_digests_as_the_specifications_say() -> None:
    long = Digest("sha512:" + "ab" * 64)
    assert SUBJECT.replace(":", "-") == FALLBACK
    assert fallback_tag(long) == "sha512-" + "ab" * 32
    assert cosign_tags(SUBJECT) == tuple(f"{FALLBACK}.{each}" for each in ("sig", "att", "sbom"))
    assert cosign_tags(long) == (), "a tag has 128 characters at most"


def test_merging_keeps_what_it_does_not_know_and_all_that_is_listed() -> None:
    theirs: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "annotations": {"kept": "by hand"},
        "manifests": [{"digest": "sha256:ff", "size": 1, "mediaType": "x/y", "odd": [1]}],
    }
    raw = merge_referrers_index(json.dumps(theirs).encode(), [OTHER])
    assert raw is not None
    made = json.loads(raw)
    assert made["annotations"] == theirs["annotations"]
    assert theirs["manifests"][0] in made["manifests"] and len(made["manifests"]) == 2
    assert merge_referrers_index(raw, [OTHER]) is None


def test_merging_in_any_order_makes_the_same_bytes() -> None:
    both = merge_referrers_index(None, [OTHER, IMAGE])
    assert (
        both
        == merge_referrers_index(None, [IMAGE, OTHER])
        == merge_referrers_index(merge_referrers_index(None, [IMAGE]), [OTHER])
    )
    assert both == merge_referrers_index(merge_referrers_index(None, [OTHER]), [IMAGE, OTHER])


async def test_tags_that_can_t_be_told_are_asked_for_once_by_all_who_want_them_at_the_time() -> None:
    """And not by each in turn: with time-outs of minutes, that would be hours."""
    repository = Repository(api=lambda _: listed(), listing=lambda _: web.Response(status=503))
    async with scripted_server(repository) as server, world() as there:
        source = there.source(server.host)
        subjects = [digest_of(bytes([each])) for each in range(10)]
        found = await asyncio.gather(*map(source.referrers, subjects), return_exceptions=True)
        assert all(isinstance(each, Unavailable) for each in found)
        assert len({id(each) for each in found}) == 10, "each has an error of its own"
        assert sum("/tags/list" in each for each in server.asked()) == 5  # the table's attempts, once
        repository.listing = None
        assert await source.referrers(SUBJECT) == [], "the failure is not remembered"


async def test_where_the_first_did_not_find_out_whether_there_is_a_list_nobody_waits_in_turn() -> None:
    under_way = most = 0
    all_here = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal under_way, most
        if "/referrers/" not in request.path:
            return web.json_response({"name": "app", "tags": []})
        if not failed:
            failed.append(request.path)
            return web.Response(status=403)
        under_way += 1
        most = max(most, under_way)
        if under_way == 4:
            all_here.set()
        await asyncio.wait_for(all_here.wait(), HANGS_AFTER)
        under_way -= 1
        return listed()

    failed: list[str] = []
    async with scripted_server(handler) as server, world() as there:
        source = there.source(server.host)
        await asyncio.gather(*(source.referrers(digest_of(bytes([each]))) for each in range(5)))
    assert most == 4
