"""Docker Hub's headers, read from answers that may say anything."""

from __future__ import annotations

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from blobflow.content import Allowance
from blobflow.transports.registry.http.pull_quota import allowance_of
from tests.fakes.registry import answers, blob_of, scripted_server, world

HUB = {
    "ratelimit-limit": "100;w=21600",
    "ratelimit-remaining": "76;w=21600",
    "docker-ratelimit-source": "192.0.2.1",
}


def test_what_docker_hub_says_is_read() -> None:
    assert allowance_of(HUB) == Allowance(100, 76, 21600, "192.0.2.1")
    assert allowance_of(HUB | {"ratelimit-remaining": " 0 ; w = 60"}) == Allowance(100, 0, 21600, "192.0.2.1")
    assert allowance_of({k: v for k, v in HUB.items() if "source" not in k}) == Allowance(100, 76, 21600)


@pytest.mark.parametrize(
    "changed",
    [
        {"ratelimit-limit": ""},
        {"ratelimit-remaining": ""},
        {"ratelimit-limit": "2000", "ratelimit-remaining": "1999"},  # GitLab: all requests, of a minute
        {"ratelimit-limit": "100, 100;w=60"},  # the IETF's draft
        {"ratelimit-remaining": "-1;w=21600"},
        {"ratelimit-remaining": "9999999999;w=21600"},
        {"ratelimit-remaining": "٣;w=21600"},
    ],
)
def test_anything_else_says_nothing(changed: dict[str, str]) -> None:
    assert allowance_of(HUB | changed) is None


def test_whom_it_counts_is_fit_for_a_terminal() -> None:
    told = allowance_of(HUB | {"docker-ratelimit-source": "\x1b[31m" + "x" * 500})
    assert told is not None
    assert len(told.source) <= 80 and told.source.isprintable()


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50))
def test_no_headers_upset_the_reader(limit: str, left: str, source: str) -> None:
    allowance_of({"ratelimit-limit": limit, "ratelimit-remaining": left, "docker-ratelimit-source": source})


@pytest.mark.parametrize(
    ("window", "words"), [(21600, "100 in 6 h"), (60, "100 in 1 min"), (90, "100 in 90 s"), (0, "100 in 0 s")]
)
def test_a_limit_is_told_in_the_unit_that_it_was_meant_in(window: int, words: str) -> None:
    assert Allowance(100, 1, window).rate == words


async def test_the_newest_answer_counts_and_one_that_says_nothing_changes_nothing() -> None:
    blob = blob_of(b"x")
    sized = {"Content-Length": "1"}
    handler = answers(
        lambda: web.Response(headers=sized | HUB),
        lambda: web.Response(headers=sized | HUB | {"ratelimit-remaining": "75;w=21600"}),
        lambda: web.Response(headers=sized),
    )
    async with scripted_server(handler) as server, world() as w:
        assert w.registries.allowance(server.host) is None
        remaining = []
        for _ in range(3):
            await w.sink(server.host).has(blob)
            told = w.registries.allowance(server.host)
            assert told is not None
            remaining.append(told.remaining)
    assert remaining == [76, 75, 75]


async def test_what_another_host_says_on_the_way_is_not_this_ones() -> None:
    async with scripted_server(
        answers(lambda: web.Response(headers={"Content-Length": "1"} | HUB))
    ) as elsewhere:
        away = web.Response(status=307, headers={"Location": f"{elsewhere.url}/there"})
        async with scripted_server(answers(lambda: away)) as server, world() as w:
            assert await w.sink(server.host).has(blob_of(b"x"))
            assert w.registries.allowance(server.host) is None
