"""A repository's tags, page by page: [end-8a], [end-8b]; and the Link header that leads through them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from aiohttp import web

from blobflow.content import Lists
from blobflow.errors import NotFound, ProtocolViolation, RegistryError, Rejected
from blobflow.oci import digest_of, media
from blobflow.transports.registry.api import tags
from blobflow.transports.registry.http.link_header import next_link
from tests.fakes.registry import Handler, scripted_server, world
from tools.registry.faulty import journalling

FIRST = "GET /v2/app/tags/list?n=1000"


def page(names: list[str] | None, *links: str) -> web.Response:
    answer = web.Response(body=json.dumps({"name": "app", "tags": names}).encode())
    for link in links:
        answer.headers.add("Link", link)
    return answer


def pages(answer: Callable[[int], web.Response]) -> Handler:
    """A registry that answers its nth request with `answer(n)`, from 0."""
    asked = iter(range(10**9))

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return answer(next(asked))

    return handler


async def listed(handler: Handler) -> tuple[list[str], list[str]]:
    """The tags, and what was asked to get them."""
    async with scripted_server(handler) as server, world() as w:
        return await w.sink(server.host).tags(), server.asked()


@pytest.mark.parametrize(
    "origin",
    [
        "http://registry.internal:5000",
        "http://127.0.0.1",
        "https://127.0.0.1:1",
        "//registry.internal/mirror",
    ],
)
async def test_a_list_goes_on_at_the_registry_that_it_began_at(origin: str) -> None:
    """What a registry behind a proxy calls itself in a Link is not always its name."""
    link = f'<{origin}/v2/app/tags/list?n=1000&last=a>; rel="next"'
    names, asked = await listed(pages(lambda n: page(["a"], link) if not n else page(["b"])))
    assert names == ["a", "b"]
    assert asked == [FIRST, f"{FIRST}&last=a"]


# The header


@pytest.mark.parametrize(
    "values",
    [
        ['</v2/app/tags/list?n=2&last=b>; rel="next"'],
        ["</v2/app/tags/list?n=2&last=b>; rel=next"],
        ['</v2/app/tags/list?n=2&last=b>;rel="NEXT"'],
        ['</v2/app/tags/list?n=2&last=b>; title="a, <b>; rel=prev" ; rel="prev next"'],
        ['</prev>; rel="prev", </v2/app/tags/list?n=2&last=b>; rel="next"'],
        ['</prev>; rel="prev"', '</v2/app/tags/list?n=2&last=b>; rel="next"'],
        ['</prev>; rel="prev"; rel="next",, </v2/app/tags/list?n=2&last=b>; crossorigin; rel="next"'],
        ['/v2/app/tags/list?n=2&last=b; rel="next"'],
        ["/v2/app/tags/list?n=2&last=b;rel=next"],
        ["</prev>; rel=prev, /v2/app/tags/list?n=2&last=b ; rel=next"],
    ],
)
def test_the_next_page_is_found(values: list[str]) -> None:
    assert next_link(values) == "/v2/app/tags/list?n=2&last=b"


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ['</a>; rel="prev"'],
        ["</a>; rel"],
        ["</a>"],
        ['<>; rel="next"'],
        ['</a; rel="next"'],
        ['/a; rel="prev"'],
        ["/a"],
        ["/a, rel=next"],
        ['</a>; rel="nextish"'],
        [", " * 5000 + '</a>; rel="next"'],
        ['</x>; rel="prev", ' * 20 + '</a>; rel="next"'],
    ],
)
def test_what_is_no_next_page_is_none(values: list[str]) -> None:
    assert next_link(values) is None


# The list


async def test_tags_come_in_the_order_in_which_they_are_told() -> None:
    names, asked = await listed(pages(lambda number: page(["2", "10", "1", "latest"])))
    assert (names, asked) == (["2", "10", "1", "latest"], [FIRST])


@pytest.mark.parametrize("names", [None, []])
async def test_a_repository_may_have_no_tag(names: list[str] | None) -> None:
    assert (await listed(pages(lambda number: page(names))))[0] == []


async def test_links_are_followed_as_they_are_written() -> None:
    links = ["</v2/app/tags/list?last=b%2Fc&x=%7e>; rel=next", '<list?page=3>; rel="next"', ""]
    names, asked = await listed(
        pages(lambda number: page([f"{number}", f"{number}x"], *filter(None, [links[number]])))
    )
    assert names == ["0", "0x", "1", "1x", "2", "2x"]
    assert asked == [FIRST, "GET /v2/app/tags/list?last=b%2Fc&x=%7e", "GET /v2/app/tags/list?page=3"]


async def test_a_tag_that_several_pages_tell_is_one() -> None:
    links = ["</v2/app/tags/list?last=b>; rel=next", ""]
    names, _ = await listed(pages(lambda number: page(["a", "b"], *filter(None, [links[number]]))))
    assert names == ["a", "b"]


async def test_a_full_page_without_a_link_is_asked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "PAGES", (2,))
    told = [["a", "b+"], ["c", "d"], ["d"]]
    names, asked = await listed(pages(lambda number: page(told[number])))
    assert names == ["a", "c", "d"], "a name that breaks the grammar is left out"
    assert [target.partition("?")[2] for target in asked] == ["n=2", "n=2&last=b%2B", "n=2&last=d"]


async def test_a_registry_that_knows_no_pages_is_asked_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "PAGES", (2,))
    names, asked = await listed(pages(lambda number: page(["a", "b", "c"])))
    assert (names, len(asked)) == (["a", "b", "c"], 2)


async def test_pages_that_lead_back_are_a_circle() -> None:
    links = ["</v2/app/tags/list?last=a>; rel=next", "</v2/app/tags/list?n=1000>; rel=next"]
    async with scripted_server(pages(lambda number: page(["a"], links[number]))) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="circle"):
            await w.sink(server.host).tags()
    assert len(server.seen) == 2


async def test_pages_without_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_PAGES", 7)
    async with (
        scripted_server(
            pages(lambda number: page(["a"], f"</v2/app/tags/list?last={number}>; rel=next"))
        ) as server,
        world() as w,
    ):
        with pytest.raises(ProtocolViolation, match="more than 7 pages"):
            await w.sink(server.host).tags()
    assert len(server.seen) == 7


async def test_names_without_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_NAMES", 5)
    more = "</v2/app/tags/list?last={0}>; rel=next"
    async with (
        scripted_server(
            pages(lambda number: page([f"{number}", f"{number}x"], more.format(number)))
        ) as server,
        world() as w,
    ):
        with pytest.raises(ProtocolViolation, match="more than 5 tags"):
            await w.sink(server.host).tags()
    assert len(server.seen) == 3


async def test_a_page_without_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_PAGE_BYTES", 100)
    async with scripted_server(pages(lambda number: page(["a" * 50] * 50))) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="more than 100 bytes"):
            await w.sink(server.host).tags()


async def test_names_that_are_no_tags_are_never_held_however_many_pages_have_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tags, "MAX_BYTES", 5000)
    more = "</v2/app/tags/list?last={0}>; rel=next"
    evil = ["\x1b[31m", "a\nb", "\u202e", "x" * 900, "", "../.."]
    names, _ = await listed(pages(lambda number: page([*evil, "good"])))
    assert names == ["good"]
    async with (
        scripted_server(
            pages(lambda number: page([f"{number}{each}" for each in evil], more.format(number)))
        ) as server,
        world() as w,
    ):
        with pytest.raises(ProtocolViolation, match="more than"):
            await w.sink(server.host).tags()
    assert len(server.seen) == 6, "5000 bytes of pages are enough"


async def test_a_page_of_millions_of_tiny_names_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "MAX_NAMES", 1000)

    class Decoder:
        def decode(self, body: bytes) -> None:
            raise AssertionError("each name would take fifty bytes")

    monkeypatch.setattr(tags, "_decoder", Decoder())
    async with scripted_server(pages(lambda number: page(["a"] * 5000))) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="more than 1000 tags"):
            await w.sink(server.host).tags()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags": "a"}', b'{"tags": [1]}', b"[" * 100_000])
async def test_what_is_no_list_of_tags_is_said(body: bytes) -> None:
    async with scripted_server(pages(lambda number: web.Response(body=body))) as server, world() as w:
        with pytest.raises(ProtocolViolation, match="no list of names"):
            await w.sink(server.host).tags()


async def test_a_link_is_judged_by_the_rule_of_origins() -> None:
    async with (
        scripted_server(pages(lambda number: page(["a"], "<ftp://x/>; rel=next"))) as server,
        world() as w,
    ):
        with pytest.raises(ProtocolViolation, match="unusable address"):
            await w.sink(server.host).tags()


async def test_a_repository_that_is_not_there_is_not_found() -> None:
    async with scripted_server(pages(lambda number: web.Response(status=404))) as server, world() as w:
        with pytest.raises(NotFound):
            await w.sink(server.host).tags()


async def test_the_embedded_registry_lists_in_pages(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(tags, "PAGES", (3,))
    async with journalling(tmp_path_factory.mktemp("store")) as registry, world() as w:
        store = registry.store
        raw = b"{}"
        store.blobs.write_small(raw, digest_of(raw))
        store.repositories.add("app", digest_of(raw), media.OCI_INDEX)
        for number in range(10):
            store.repositories.set_tag("app", f"1.{number}", digest_of(raw))
        place: Lists = w.sink(registry.host)
        assert await place.tags() == [f"1.{number}" for number in range(10)]
        assert registry.journal.count("GET", "/tags/list") == 4


# The catalog: a registry's repositories


async def test_a_catalog_is_read_page_by_page_and_what_is_no_repository_is_left_out() -> None:
    links = ["</v2/_catalog?last=b&n=1000>; rel=next", ""]

    def answer(number: int) -> web.Response:
        names = [["a", "b/c"], ["b/c", "D", "d"]][number]
        headers = {"Link": links[number]} if links[number] else {}
        return web.Response(body=json.dumps({"repositories": names}).encode(), headers=headers)

    async with scripted_server(pages(answer)) as server, world() as w:
        assert await w.registries.repositories(server.host) == ["a", "b/c", "d"]
    assert server.asked() == ["GET /v2/_catalog?n=1000", "GET /v2/_catalog?last=b&n=1000"]


async def test_a_registry_without_a_catalog_says_so() -> None:
    async with (
        scripted_server(pages(lambda number: web.Response(status=404, text="404"))) as server,
        world() as w,
    ):
        with pytest.raises(NotFound, match="has no catalog of repositories"):
            await w.registries.repositories(server.host)


# pages that have to be smaller


def limited(
    most: int, names: list[str], *, code: str = "PAGINATION_NUMBER_INVALID", status: int = 400
) -> Handler:
    """A registry that refuses pages of more than `most` names, and gives so many where none are asked for; 0:
    where any are."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        wanted = int(request.query.get("n", most or 10))
        if wanted > most and "n" in request.query:
            refusal = {"errors": [{"code": code, "detail": {"n": wanted}}]}
            return web.json_response(refusal, status=status)
        after = [name for name in names if name > request.query.get("last", "")]
        here, path = after[:wanted], request.path
        more = {"Link": f'<{path}?last={here[-1]}&n={wanted}>; rel="next"'} if len(after) > wanted else {}
        if more and not most:
            more["Link"] = f'<{path}?last={here[-1]}>; rel="next"'
        kind = "repositories" if path.endswith("_catalog") else "tags"
        return web.json_response({kind: here}, headers=more)

    return handler


@pytest.mark.parametrize(("most", "tried"), [(1000, 1), (999, 2), (100, 2), (99, 3), (20, 3), (0, 3)])
@pytest.mark.parametrize("code", ["PAGINATION_NUMBER_INVALID", "UNKNOWN"])
async def test_a_page_that_is_too_large_is_asked_for_smaller_and_then_as_the_registry_likes(
    most: int, tried: int, code: str
) -> None:
    names = [f"v{number:03}" for number in range(150)]
    async with scripted_server(limited(most, names, code=code)) as server, world() as w:
        assert await w.source(server.host).tags() == names
        firsts = [each.target for each in server.seen if "last=" not in each.target]
        assert firsts == [f"/v2/app/tags/list{query}" for query in ("?n=1000", "?n=100", "")[:tried]]
        server.seen.clear()
        assert await w.source(server.host, "other").tags() == names
        assert [each.target for each in server.seen if "last=" not in each.target] == [
            f"/v2/other/tags/list{('?n=1000', '?n=100', '')[tried - 1]}"
        ], "what it takes is known by now"


async def test_a_catalog_has_pages_of_its_own_size() -> None:
    names = [f"v{number:03}" for number in range(150)]
    async with scripted_server(limited(100, names)) as server, world() as w:
        assert await w.registries.repositories(server.host) == names
    assert [each.target.partition("?")[2] for each in server.seen] == ["n=1000", "n=100", "last=v099&n=100"]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_list_that_is_refused_for_another_reason_is_asked_for_once(status: int) -> None:
    async with scripted_server(limited(-1, [], code="DENIED", status=status)) as server, world() as w:
        with pytest.raises(RegistryError):
            await w.source(server.host).tags()
    assert len(server.seen) == 1


async def test_a_list_that_is_refused_in_every_size_ends_in_its_words() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(
            {"errors": [{"code": "UNSUPPORTED", "message": "no lists here"}]}, status=400
        )

    async with scripted_server(handler) as server, world() as w:
        with pytest.raises(Rejected, match="no lists here"):
            await w.source(server.host).tags()
    assert len(server.seen) == 3
