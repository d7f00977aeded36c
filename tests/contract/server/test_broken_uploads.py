"""The embedded registry, broken uploads: [end-5], [end-13], [end-14] while the broken request still hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import ClientSession
from yarl import URL

from blobflow.server import REGISTRY_KEY, Server, make_app
from blobflow.server.errors import ApiError
from blobflow.server.upload_sessions import UPLOAD_TTL, UploadSession, UploadSessions
from blobflow.transports.store import Store
from tests.contract.server.client import BLOB, DIGEST, REPO, refusal, start, status_of

HALF = len(BLOB) // 2


class Upload:
    """One open session, seen from both sides; `hang` sends a PATCH that ends only when it is told to."""

    def __init__(self, client: ClientSession, location: str, session: UploadSession) -> None:
        self.client = client
        self.location = location
        self.session = session

    async def has(self, count: int) -> None:
        """Until `count` bytes have arrived; bounded by the test's timeout."""
        while self.session.offset < count:
            await status_of(self.client, "/v2/", "GET")

    def hang(
        self, first: bytes, then: bytes, go_on: asyncio.Event, method: str = "PATCH", digest: str = ""
    ) -> asyncio.Task[aiohttp.ClientResponse]:
        async def body() -> AsyncIterator[bytes]:
            yield first
            await go_on.wait()
            yield then

        params = {"digest": digest} if digest else {}
        request = self.client.request(method, self.location, data=body(), params=params)
        return asyncio.create_task(request.__aenter__())

    async def status(self) -> int:
        """How many bytes the registry says it has."""
        async with self.client.get(self.location) as answer:
            assert (answer.status, answer.headers["Location"]) == (204, self.location)
            return int(answer.headers["Range"].removeprefix("0-")) + 1

    async def finish(self) -> int:
        async with self.client.put(self.location, params={"digest": DIGEST}) as answer:
            return answer.status


@pytest.fixture
async def upload(registry_store: Store) -> AsyncIterator[Upload]:
    app = make_app(registry_store)
    async with Server(app, grace=0.05) as server, ClientSession(server.url) as client:
        location = await start(client)
        session = app[REGISTRY_KEY].sessions.find("team/app", URL(location).name)
        yield Upload(client, location, session)


@pytest.mark.parametrize("ranged", [True, False])
async def test_an_upload_goes_on_where_its_status_says(upload: Upload, ranged: bool) -> None:
    broken = upload.hang(BLOB[:HALF], b"", asyncio.Event())
    await upload.has(HALF)
    broken.cancel()
    assert await upload.status() == HALF
    headers = {"Content-Range": f"{HALF}-{len(BLOB) - 1}"} if ranged else {}
    async with upload.client.patch(upload.location, data=BLOB[HALF:], headers=headers) as answer:
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(BLOB) - 1}")
    assert await upload.finish() == 201


async def test_the_rest_may_come_with_the_put(upload: Upload) -> None:
    broken = upload.hang(BLOB[:HALF], b"", asyncio.Event())
    await upload.has(HALF)
    broken.cancel()
    assert await upload.status() == HALF
    async with upload.client.put(upload.location, params={"digest": DIGEST}, data=BLOB[HALF:]) as answer:
        assert answer.status == 201


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_what_arrives_after_the_status_is_never_written_twice(upload: Upload, method: str) -> None:
    """A dead connection's buffers may hold more: a stream that would go on from the old offset is 416."""
    late = asyncio.Event()
    broken = upload.hang(BLOB[:HALF], BLOB[HALF : HALF + 10], late)
    await upload.has(HALF)
    assert await upload.status() == HALF
    late.set()
    await upload.has(HALF + 10)
    params = {"digest": DIGEST}
    async with upload.client.request(method, upload.location, params=params, data=BLOB[HALF:]) as answer:
        assert await refusal(answer) == (416, "BLOB_UPLOAD_INVALID")
        assert answer.headers["Range"] == f"0-{HALF + 9}"
    assert await upload.status() == HALF + 10
    async with upload.client.request(
        method, upload.location, params=params, data=BLOB[HALF + 10 :]
    ) as answer:
        assert answer.status == (202 if method == "PATCH" else 201)
    (await broken).release()


async def test_a_poll_of_the_status_disturbs_no_upload_under_way(upload: Upload) -> None:
    go_on = asyncio.Event()
    going = upload.hang(BLOB[:HALF], BLOB[HALF:], go_on)
    await upload.has(HALF)
    assert await upload.status() == HALF
    go_on.set()
    async with await going as answer:
        assert (answer.status, answer.headers["Range"]) == (202, f"0-{len(BLOB) - 1}")
    assert await upload.finish() == 201


@pytest.mark.parametrize("tail", [b"", b"more"])
async def test_a_request_that_was_taken_over_is_told_so_when_it_ends(upload: Upload, tail: bytes) -> None:
    go_on = asyncio.Event()
    hanging = upload.hang(BLOB[:HALF], tail, go_on)
    await upload.has(HALF)
    async with upload.client.patch(upload.location, data=BLOB[HALF:]) as answer:
        assert answer.status == 202
    go_on.set()
    async with await hanging as answer:
        assert await refusal(answer) == (409, "BLOB_UPLOAD_INVALID")
    assert await upload.finish() == 201


@pytest.mark.parametrize("tail", [b"", b"more"])
async def test_a_cancelled_upload_takes_nothing_from_a_request_that_hangs(
    upload: Upload, registry_store: Store, tail: bytes
) -> None:
    go_on = asyncio.Event()
    hanging = upload.hang(BLOB[:HALF], tail, go_on)
    await upload.has(HALF)
    assert await status_of(upload.client, upload.location, "DELETE") == 204
    go_on.set()
    async with await hanging as answer:
        assert await refusal(answer) == (409, "BLOB_UPLOAD_INVALID")
    assert await status_of(upload.client, upload.location, "GET") == 404
    assert not list(registry_store.paths.partials.iterdir())


async def test_a_second_put_completes_what_the_first_hangs_in(upload: Upload) -> None:
    go_on = asyncio.Event()
    hanging = upload.hang(BLOB[:HALF], b"", go_on, "PUT", DIGEST)
    await upload.has(HALF)
    async with upload.client.put(upload.location, params={"digest": DIGEST}, data=BLOB[HALF:]) as answer:
        assert answer.status == 201
    go_on.set()
    async with await hanging as answer:
        assert await refusal(answer) == (409, "BLOB_UPLOAD_INVALID")
    assert await status_of(upload.client, f"{REPO}/blobs/{DIGEST}") == 200


@pytest.fixture
def tick() -> Callable[[float], float]:
    now = 0.0

    def tick(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    return tick


def test_a_session_that_takes_bytes_is_not_forgotten(
    registry_store: Store, tick: Callable[[float], float]
) -> None:
    sessions = UploadSessions(registry_store, clock=lambda: tick(0))
    idle, busy = sessions.start("app"), sessions.start("app")
    for _ in range(3):
        tick(UPLOAD_TTL * 0.6)
        busy.writer().write(b"bytes")
        sessions.touch(busy)
        sessions.start("app")
    assert sessions.find("app", busy.token) is busy
    with pytest.raises(ApiError, match="not known"):
        sessions.find("app", idle.token)
    sessions.close()
