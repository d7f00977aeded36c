"""The acts that play what registries are known for: each does what it says. (Bodies and headers:
`test_server_faults`.)"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession

from blobflow.oci import digest_of
from tools.registry.faults import AnyAct, Faults
from tools.registry.faulty import (
    Bearer,
    Busy,
    Fault,
    ForgetBroken,
    Ignore,
    JournallingRegistry,
    MountAnywhere,
    MountReferenced,
    MovingLocation,
    Mute,
    PlainErrors,
    Refuse,
    RefuseMount,
    Reset,
    Sometimes,
    journalling,
    parse_fault,
)

BLOB = b"a blob of some length"
DIGEST = digest_of(BLOB)


class Seconds:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def faulty(
    folder: Path, faults: Sequence[Fault], clock: Seconds | None = None
) -> AsyncIterator[tuple[JournallingRegistry, ClientSession]]:
    """A registry with a blob in `app`, and a client of it."""
    async with journalling(folder, faults, clock=clock) as registry, ClientSession(registry.url) as http:
        registry.store.blobs.write_small(BLOB, DIGEST)
        registry.store.repositories.add("app", DIGEST)
        yield registry, http


def always(method: str, pattern: str, act: AnyAct) -> Fault:
    return Fault(method, pattern, times=0, act=act)


async def status(
    http: ClientSession,
    method: str,
    path: str,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> int:
    async with http.request(method, path, data=data, headers=headers) as answer:
        await answer.read()
        return answer.status


async def opened(http: ClientSession, repository: str = "app") -> str:
    async with http.post(f"/v2/{repository}/blobs/uploads/") as answer:
        return answer.headers["Location"]


@pytest.mark.parametrize(
    ("act", "size", "headers", "refused"),
    [
        (Refuse(413, over=10), 11, {}, True),
        (Refuse(413, over=10), 10, {}, False),
        (Refuse(413, over=0), 0, {}, False),
        (Refuse(413), 0, {}, True),
        (Refuse(413, ranged=True), 5, {"Content-Range": "0-4"}, True),
        (Refuse(413, ranged=True), 5, {}, False),
        (Refuse(413, ranged=False), 5, {"Content-Range": "0-4"}, False),
        (Refuse(413, ranged=False), 5, {}, True),
    ],
)
async def test_bodies_are_refused_by_their_size_and_range(
    tmp_path: Path, act: Refuse, size: int, headers: dict[str, str], refused: bool
) -> None:
    async with faulty(tmp_path, [always("PATCH", "", act)]) as (_, http):
        answered = await status(http, "PATCH", await opened(http), data=bytes(size), headers=headers)
        assert answered == (413 if refused else 202)


async def test_a_busy_registry_says_when_in_seconds_or_by_date(tmp_path: Path) -> None:
    faults = [Fault("GET", "", act=Busy(30)), Fault("GET", "", nth=2, act=Busy(30, code=503, dated=True))]
    async with faulty(tmp_path, faults) as (_, http):
        async with http.get("/v2/") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "30")
        async with http.get("/v2/") as answer:
            at = parsedate_to_datetime(answer.headers["Retry-After"]).timestamp()
            assert answer.status == 503
            assert at == pytest.approx(time.time() + 30, abs=10)


def test_what_happens_sometimes_happens_so_often_and_again_by_the_same_seed() -> None:
    def drawn(seed: int, method: str = "GET") -> list[list[str]]:
        faults = Faults([always("*", "", Sometimes(20, seed))])
        return [[type(act).__name__ for act in faults.draw(method, "/")] for _ in range(2000)]

    first = drawn(1)
    assert first == drawn(1) != drawn(2)
    assert sum(map(len, first)) == pytest.approx(400, rel=0.2)
    kinds = {"Hangup", "LoseAnswer", "Reset", "Truncate", "Status", "Busy"}
    assert {kind for acts in first for kind in acts} == kinds
    assert {kind for acts in drawn(1, "HEAD") for kind in acts} == kinds - {"Reset", "Truncate"}


async def test_a_token_is_good_for_so_long_by_the_registry_s_clock(tmp_path: Path) -> None:
    clock = Seconds()
    async with faulty(tmp_path, [always("*", "", Bearer(seconds=60, told=300))], clock) as (registry, http):
        async with http.get("/v2/") as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == f'Bearer realm="{registry.url}/token",service="fake"'
        async with http.get("/token") as answer:
            told = await answer.json()
        login = {"Authorization": f"Bearer {told['token']}"}
        assert told["expires_in"] == 300
        clock.now = 59
        assert await status(http, "GET", "/v2/", headers=login) == 200
        clock.now = 60
        assert await status(http, "GET", "/v2/", headers=login) == 401
        assert await status(http, "GET", "/v2/", headers={"Authorization": "Bearer mine"}) == 401


async def test_a_header_that_is_ignored_counts_as_not_there(tmp_path: Path) -> None:
    async with (
        faulty(tmp_path, [always("GET", "", Ignore("Range"))]) as (_, http),
        http.get(f"/v2/app/blobs/{DIGEST}", headers={"Range": "bytes=1-2"}) as answer,
    ):
        assert (answer.status, await answer.read()) == (200, BLOB)


async def test_what_is_not_found_is_said_in_plain_text(tmp_path: Path) -> None:
    async with faulty(tmp_path, [always("*", "", PlainErrors(403))]) as (_, http):
        async with http.get("/v2/app/manifests/none") as answer:
            assert (answer.status, await answer.text()) == (403, "404 page not found\n")
        assert await status(http, "GET", f"/v2/app/blobs/{DIGEST}") == 200


async def test_a_session_in_which_a_request_broke_is_gone_and_others_are_not(tmp_path: Path) -> None:
    faults = [always("*", "uploads/", ForgetBroken()), Fault("PATCH", "", act=Reset(after=5))]
    async with faulty(tmp_path, faults) as (_, http):
        broken, other = await opened(http), await opened(http)
        with pytest.raises(aiohttp.ClientError):
            await status(http, "PATCH", broken, data=BLOB)
        assert await status(http, "GET", broken) == 404
        assert await status(http, "PATCH", other, data=BLOB) == 202


async def test_only_the_newest_location_is_known(tmp_path: Path) -> None:
    async with faulty(tmp_path, [always("*", "uploads/", MovingLocation())]) as (_, http):
        first = await opened(http)
        async with http.patch(first, data=BLOB) as answer:
            second = answer.headers["Location"]
        assert await status(http, "GET", first) == 404
        assert await status(http, "PUT", f"{second}&digest={DIGEST}") == 201


@pytest.mark.parametrize(
    ("act", "origin", "answered"),
    [
        (RefuseMount(401, absent=True), "&from=app", 201),
        (RefuseMount(401, absent=True), "&from=none", 401),
        (RefuseMount(401), "&from=app", 401),
        (MountReferenced(), "&from=app", 202),
        (MountAnywhere(), "", 201),
        (MountAnywhere(), "&from=none", 202),
    ],
)
async def test_mounts_are_refused_and_made_as_some_registries_do(
    tmp_path: Path, act: AnyAct, origin: str, answered: int
) -> None:
    async with faulty(tmp_path, [always("POST", "mount=", act)]) as (_, http):
        assert await status(http, "POST", f"/v2/other/blobs/uploads/?mount={DIGEST}{origin}") == answered


async def test_what_a_manifest_refers_to_is_mounted(tmp_path: Path) -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    config = (
        f'{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":{len(BLOB)}}}'
    )
    raw = f'{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[]}}'
    async with faulty(tmp_path, [always("POST", "mount=", MountReferenced())]) as (_, http):
        headers = {"Content-Type": kind}
        assert await status(http, "PUT", "/v2/app/manifests/1", data=raw.encode(), headers=headers) == 201
        assert await status(http, "POST", f"/v2/other/blobs/uploads/?mount={DIGEST}&from=app") == 201


async def test_a_mute_registry_answers_nothing(tmp_path: Path) -> None:
    async with faulty(tmp_path, [Fault("GET", "", act=Mute())]) as (registry, http):
        asking = asyncio.create_task(status(http, "GET", "/v2/"))
        await registry.journal.until(lambda journal: bool(len(journal)))
        assert await status(http, "GET", "/v2/") == 200
        assert not asking.done()
        asking.cancel()


def test_the_new_acts_are_read_from_words() -> None:
    assert parse_fault("PATCH uploads times=0 refuse code=416 over=4096 ranged=true") == always(
        "PATCH", "uploads", Refuse(416, over=4096, ranged=True)
    )
    assert parse_fault("* /v2/ times=0 sometimes percent=5 seed=3") == always("*", "/v2/", Sometimes(5, 3))
