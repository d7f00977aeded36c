"""The embedded registry, beyond the spec: stops, restarts, memory, the access log."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import ClientSession

from blobflow.server import REGISTRY, Access, Server, make_app
from blobflow.transports.store import Store
from tests.contract.server_fixtures import ABSENT, BLOB, DIGEST, REPO, push, pushed_image, start, status_of

pytest_plugins = ("tests.contract.server_fixtures",)


async def test_nothing_unfinished_is_visible_after_a_stop(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    async with Server(make_app(store)) as server, ClientSession(server.url) as client:
        location = await start(client)
        async with client.patch(location, data=BLOB) as answer:
            assert answer.status == 202
        assert await status_of(client, f"{REPO}/blobs/{DIGEST}") == 404
    assert not list((tmp_path / "partials").iterdir())
    store.close()


async def test_what_was_pushed_is_there_after_a_restart(tmp_path: Path) -> None:
    raw = b""
    for turn in range(2):
        store = Store.open(tmp_path)
        async with Server(make_app(store)) as server, ClientSession(server.url) as client:
            if not turn:
                raw = await pushed_image(client)
            async with client.get(f"{REPO}/manifests/1.0") as answer:
                assert await answer.read() == raw
            async with client.get(f"{REPO}/blobs/{DIGEST}") as answer:
                assert await answer.read() == BLOB
        store.close()


async def test_every_request_is_told_once(registry_store: Store) -> None:
    told: list[Access] = []
    app = make_app(registry_store, observe=told.append)
    async with Server(app) as server, ClientSession(server.url) as client:
        await push(client, BLOB)
        assert await status_of(client, f"{REPO}/blobs/{DIGEST}", "GET") == 200
        assert await status_of(client, f"{REPO}/blobs/{ABSENT}") == 404
    assert [(one.method, one.status, one.received, one.sent) for one in told] == [
        ("POST", 201, len(BLOB), 0),
        ("GET", 200, 0, len(BLOB)),
        ("HEAD", 404, 0, 0),
    ]


async def test_a_large_upload_is_never_held_in_memory(registry: ClientSession, registry_store: Store) -> None:
    """The session's partial grows while the body comes in."""
    location = await start(registry)
    sent, seen = 0, asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(16):
            sent += 1024 * 1024
            yield bytes(1024 * 1024)
        await seen.wait()

    patch = asyncio.create_task(registry.patch(location, data=stream()).__aenter__())
    while sum(path.stat().st_size for path in registry_store.layout.partials.iterdir()) < 8 * 1024 * 1024:
        assert await status_of(registry, location, "GET") == 204
    seen.set()
    async with await patch as answer:
        assert answer.headers["Range"] == f"0-{sent - 1}"
    digest = f"sha256:{hashlib.sha256(bytes(sent)).hexdigest()}"
    async with registry.put(location, params={"digest": digest}) as answer:
        assert answer.status == 201


async def test_sessions_without_a_byte_cost_no_file(registry_store: Store) -> None:
    app = make_app(registry_store)
    async with Server(app) as server, ClientSession(server.url) as client:
        for _ in range(50):
            await start(client)
        assert len(app[REGISTRY].sessions) == 50
        assert not list(registry_store.layout.partials.iterdir())
