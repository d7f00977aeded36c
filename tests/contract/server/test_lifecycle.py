"""The embedded registry, beyond the spec: stops, restarts, memory, the access log."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from aiohttp import ClientSession
from yarl import URL

from blobflow.events import Event, Warned
from blobflow.oci import digest_of
from blobflow.server import REGISTRY_KEY, AccessRecord, Server, make_app
from blobflow.transports.store import Store
from tests.contract.server.client import (
    ABSENT,
    BLOB,
    DIGEST,
    REPO,
    push,
    pushed_image,
    refusal,
    start,
    status_of,
)


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


async def test_a_store_that_takes_nothing_still_serves(tmp_path: Path) -> None:
    """A push ends in one sentence of the error body; what is there can be pulled."""
    store = Store.open(tmp_path)
    store.blobs.write_small(BLOB, DIGEST)
    store.repositories.add("team/app", DIGEST)
    store.close()
    store = Store.open(tmp_path, read_only=True)
    async with Server(make_app(store)) as server, ClientSession(server.url) as client:
        async with client.get(f"{REPO}/blobs/{DIGEST}") as answer:
            assert await answer.read() == BLOB
        async with client.post(f"{REPO}/blobs/uploads/", params={"digest": DIGEST}, data=BLOB) as answer:
            assert await refusal(answer) == (500, "UNKNOWN")
            assert (await answer.json())["errors"][0]["message"] == "the registry's storage failed"
        params = {"mount": DIGEST, "from": "team/app"}
        async with client.post("/v2/other/blobs/uploads/", params=params) as answer:
            assert await refusal(answer) == (500, "UNKNOWN")
    store.close()


async def test_a_full_disk_ends_the_upload_and_its_session_and_tells_only_the_operator_where(
    registry_store: Store, registry: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    registry_store.observer = told.append

    def full(fd: int, pieces: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    location = await start(registry)
    with monkeypatch.context() as patched:
        for module in ("writer", "blob_commit"):
            patched.setattr(f"blobflow.transports.store.{module}.write_all", full)
        async with registry.put(location, params={"digest": DIGEST}, data=BLOB) as answer:
            assert await refusal(answer) == (507, "UNKNOWN")
            assert (await answer.json())["errors"][0]["message"] == "the registry's storage is full"
            assert str(registry_store.root) not in await answer.text()
        async with registry.put(await start(registry), params={"digest": DIGEST}, data=BLOB) as answer:
            assert answer.status == 507
    [warned] = told  # once: the disk is as full for every other push
    assert isinstance(warned, Warned)
    assert warned.message.startswith(
        f"PUT {URL(location).path} failed: can't write {registry_store.root}/partials/"
    )
    assert warned.message.endswith(": the disk is full; free some space, or put the store elsewhere")
    assert await status_of(registry, location, "GET") == 404
    assert list(registry_store.paths.partials.iterdir()) == []
    assert await push(registry, BLOB) == DIGEST


def test_large_blobs_go_out_whole_where_the_loop_has_no_sendfile(tmp_path: Path) -> None:
    async def read_back() -> bytes:
        store = Store.open(tmp_path)
        async with Server(make_app(store)) as server, ClientSession(server.url) as client:
            await push(client, BLOB * 4)
            async with client.get(f"{REPO}/blobs/{digest_of(BLOB * 4)}") as answer:
                content = await answer.read()
        store.close()
        return content

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(read_back()) == BLOB * 4


async def test_every_request_is_told_once(registry_store: Store) -> None:
    told: list[AccessRecord] = []
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
    while sum(path.stat().st_size for path in registry_store.paths.partials.iterdir()) < 8 * 1024 * 1024:
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
        assert len(app[REGISTRY_KEY].sessions) == 50
        assert not list(registry_store.paths.partials.iterdir())
