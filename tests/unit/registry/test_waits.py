"""What is said to be waited for while requests are under way, as who looks at that moment sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.content import Site
from blobflow.errors import BlobflowError, TimedOut, Unavailable
from blobflow.events import HostMeter, Meter
from blobflow.permits import PermitKind
from blobflow.retrying import Failure
from blobflow.transports.registry import Credentials, HostAccess, Registries
from blobflow.transports.registry.http.backoff import Backoff
from blobflow.transports.registry.http.limiter import HostLimiter, RateLimit, Throttle
from blobflow.transports.store.lock import hold_lock
from blobflow.transports.store.paths import StorePaths
from blobflow.transports.store.store import Store
from blobflow.waits import Wait, Waits
from tests.fakes.registry import Bytes, Clock, World, answers, blob_of, body_that, scripted_server, world

CONTENT = b"content" * 100_000
BLOB = blob_of(CONTENT)
HERE = {"Content-Length": str(BLOB.size)}
Seen = list[tuple[str, str, str]]


def kinds(waits: Sequence[Wait]) -> Seen:
    return [(wait.kind, wait.host, wait.what) for wait in waits]


class Looking:
    """A server's answers, before each of which it looks what the client says that it waits for."""

    def __init__(self, w: World, *responses: web.Response) -> None:
        self.seen: list[Seen] = []
        self._w = w
        self._responses = list(responses)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(kinds(self._w.meter.waits.now()))
        return self._responses.pop(0)


async def test_a_request_waits_for_its_answer_and_then_no_more() -> None:
    async with world() as w:
        looking = Looking(w, web.Response(headers=HERE))
        async with scripted_server(looking) as server:
            assert await w.sink(server.host).has(BLOB)
            assert looking.seen == [[("answer", server.host, f"blob {BLOB.digest} of app")]]
            assert w.meter.waits.now() == []


async def test_a_connection_that_does_not_come_is_waited_for_and_so_is_its_handshake() -> None:
    """A peer that takes the connection and says nothing of TLS."""
    connected, let_go = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await let_go.wait()
        writer.transport.abort()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    host = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    meter = Meter()
    registries = Registries(
        lambda host: HostAccess(scheme="https", tls=True), meter=meter, jitter=lambda: 0.0
    )
    asking = asyncio.create_task(registries.sink(Site(host, "app")).has(BLOB))
    await asyncio.sleep(0)
    while not connected.is_set():
        assert {wait.kind for wait in meter.waits.now()} <= {"connect", "tls"}
        await asyncio.sleep(0.001)
    assert kinds(meter.waits.now()) == [("tls", host, f"blob {BLOB.digest} of app")]
    asking.cancel()
    let_go.set()
    await asyncio.gather(asking, return_exceptions=True)
    assert meter.waits.now() == []
    await registries.close()
    listening.close()


async def test_a_name_that_is_not_found_at_once_is_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    meter, seen = Meter(), Seen()

    async def resolve(*_: object) -> list[object]:
        seen.extend(kinds(meter.waits.now()))
        raise OSError("no such name")

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    registries = Registries(
        lambda host: HostAccess(scheme="https", tls=True),
        meter=meter,
        sleep=Clock().sleep,
        jitter=lambda: 0.0,
    )
    with pytest.raises(BlobflowError):
        await registries.sink(Site("registry.example", "app")).has(BLOB)
    await registries.close()
    assert {each[:2] for each in seen} == {("connect", "registry.example")}
    assert meter.waits.now() == []


async def test_an_upload_waits_for_its_answer_once_all_bytes_have_gone() -> None:
    seen: Seen = []

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/app/blobs/uploads/1"})
        await request.read()
        while not (seen and seen[-1][0] == "commit"):  # our last byte is there, and is taken as gone soon
            seen[:] = kinds(w.meter.waits.now())
            await asyncio.sleep(0)
        return web.Response(status=201, headers={"Location": "/"})

    async with world() as w, scripted_server(registry, reads=False) as server:
        await w.sink(server.host).push(BLOB, Bytes(CONTENT))
        assert seen == [("commit", server.host, f"upload of blob {BLOB.digest} to app")]
        assert w.meter.waits.now() == []


async def test_an_upload_whose_bytes_do_not_come_is_none_that_waits_for_its_target() -> None:
    let = asyncio.Event()
    begun = asyncio.Event()

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/app/blobs/uploads/1"})
        begun.set()
        await request.read()
        return web.Response(status=201, headers={"Location": "/"})

    async with world() as w, scripted_server(registry, reads=False) as server:
        body = body_that(CONTENT[:400_000], let, CONTENT[400_000:])
        pushing = asyncio.create_task(w.sink(server.host).push(BLOB, body))
        await begun.wait()
        while (waits := w.meter.waits.now())[0].kind != "pull":  # until what was at hand has gone
            assert [wait.kind for wait in waits] == ["send"]
            await asyncio.sleep(0)
        let.set()
        await pushing
        assert w.meter.waits.now() == []


async def test_a_token_is_waited_for_at_who_gives_it() -> None:
    async with world(Credentials("user", "secret")) as w:
        challenge = 'Bearer realm="http://{}/token",service="s"'
        looking = Looking(
            w,
            web.Response(status=401),
            web.Response(text=json.dumps({"token": "t"}), content_type="application/json"),
            web.Response(headers=HERE),
        )
        async with scripted_server(looking) as server:
            looking._responses[0].headers["WWW-Authenticate"] = challenge.format(server.host)
            assert await w.sink(server.host).has(BLOB)
    assert looking.seen[1] == [("answer", server.host, f"a token for {server.host}")]


async def test_a_login_that_has_to_be_looked_for_is_waited_for() -> None:
    seen: Seen = []

    async def helper(repository: str) -> Credentials | None:
        seen.extend(kinds(w.meter.waits.now()))
        return Credentials("user", "secret")

    handler = answers(
        lambda: web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'}),
        lambda: web.Response(headers=HERE),
    )
    async with world(helper) as w, scripted_server(handler) as server:
        assert await w.sink(server.host).has(BLOB)
    assert ("login", server.host, "the login") in seen


async def slept_in(w: World, *statuses: tuple[int, dict[str, str]]) -> list[list[Wait]]:
    """The waits during each pause of a request that is answered by these first."""
    seen: list[list[Wait]] = []
    sleep = w.clock.sleep

    async def looking(seconds: float) -> None:
        seen.append(w.meter.waits.now())
        await sleep(seconds)

    w.clock.sleep = looking  # type: ignore[method-assign]
    w.registries = Registries(
        lambda host: HostAccess(scheme="http"),
        meter=w.meter,
        sleep=looking,
        clock=w.clock,
        jitter=lambda: 0.5,
    )
    failing = [lambda s=s, h=h: web.Response(status=s, headers=h) for s, h in statuses]
    async with scripted_server(answers(*failing, lambda: web.Response(headers=HERE))) as server:
        assert await w.sink(server.host).has(BLOB)
    await w.registries.close()
    return seen


async def test_a_503_with_retry_after_is_a_rest_of_its_host_until_then_with_its_attempt() -> None:
    async with world() as w:
        (waits,) = await slept_in(w, (503, {"Retry-After": "20"}))
    (wait,) = waits
    assert (wait.kind, wait.attempt, wait.attempts) == ("rest", 2, 5)
    assert wait.until is not None and wait.until - wait.since == pytest.approx(20.0)
    assert isinstance(wait.error, Unavailable) and wait.error.status == 503


async def test_a_failure_that_says_no_time_is_a_retry_of_the_one_request() -> None:
    async with world() as w:
        seen = await slept_in(w, (502, {}), (502, {}), (429, {}))
    assert [[(wait.kind, wait.attempt, wait.attempts) for wait in waits] for waits in seen] == [
        [("retry", 2, 5)],
        [("retry", 3, 5)],
        [("rest", 4, 10)],
    ]
    assert all(waits[0].what.startswith("blob ") for waits in seen[:2])


async def test_all_that_wait_for_a_host_that_rests_say_so() -> None:
    meter, clock = HostMeter(), Clock()
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await waiting.wait()
        await clock.sleep(seconds)

    board = Waits()
    backoff = Backoff(clock, sleep, board.at("r:1"))
    backoff.hold(Failure(TimedOut("x"), 1, 7.0, 3))
    tasks = [asyncio.create_task(backoff.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert [(wait.kind, wait.host, wait.attempt) for wait in board.now()] == [("rest", "r:1", 2)] * 3
    waiting.set()
    await asyncio.gather(*tasks)
    assert board.now() == [] and meter.bytes_read == 0


async def test_a_permit_is_waited_for_only_where_there_is_none() -> None:
    waits = Waits()
    limiter = HostLimiter(1, Clock(), waits.at("r:1"))
    first = await limiter.acquire(PermitKind.WRITE)
    assert waits.now() == []
    second = asyncio.create_task(limiter.acquire(PermitKind.WRITE))
    await asyncio.sleep(0)
    assert [wait.kind for wait in waits.now()] == ["permit"]
    first.release()
    (await second).release()
    assert waits.now() == []


async def test_a_limit_of_ours_is_told_where_it_makes_somebody_wait_for_long() -> None:
    waits, clock = Waits(), Clock()
    seen: list[list[str]] = []

    async def sleep(seconds: float) -> None:
        seen.append([wait.kind for wait in waits.now()])
        await clock.sleep(seconds)

    throttle = Throttle([RateLimit(10.0, clock)], sleep, waits.at("r:1"))
    for amount in (10, 3, 1):
        await throttle.wait(amount)
    assert seen == [["rate"], []]


async def test_a_store_that_another_run_has_locked_is_waited_for(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    paths, waits = StorePaths(tmp_path), Waits()
    with hold_lock(paths.lock_file, paths.permissions):
        waiting = asyncio.create_task(Store.free(tmp_path, waits))
        await asyncio.sleep(0)
        assert kinds(waits.now()) == [("lock", str(tmp_path), "")]
        assert not waiting.done()
    await waiting
    assert waits.now() == []


async def test_a_store_that_is_not_there_yet_is_free(tmp_path: Path) -> None:
    await Store.free(tmp_path / "none", Waits())
    assert not (tmp_path / "none").exists()
