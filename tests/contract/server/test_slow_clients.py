"""The embedded registry, large blobs on their way out: slow clients, clients that go, files that change."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from blobflow.oci import digest_of
from blobflow.server import AccessRecord, Server, make_app
from blobflow.transports.store import Store
from tests.contract.server.client import REPO

LARGE = random.Random(5).randbytes(24 * 1024 * 1024)  # more than both sockets' buffers
PATH = f"{REPO}/blobs/{digest_of(LARGE)}"

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Told:
    """What the registry told of its requests; `ended` from the first on."""

    def __init__(self) -> None:
        self.all: list[AccessRecord] = []
        self.ended = asyncio.Event()

    def __call__(self, access: AccessRecord) -> None:
        self.all.append(access)
        self.ended.set()


def on_each_loop(work: Callable[[Path], Awaitable[None]], folder: Path) -> None:
    for name, factory in LOOPS.items():
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work(folder / name))  # type: ignore[arg-type]


@asynccontextmanager
async def serving(folder: Path, most: int | None = None) -> AsyncIterator[tuple[Server, Store, Told]]:
    store = Store.open(folder)
    store.blobs.write_small(LARGE, digest_of(LARGE))
    store.repositories.add("team/app", digest_of(LARGE))
    told = Told()
    async with Server(make_app(store, observe=told), grace=0.2, most=most) as server:
        yield server, store, told
    store.close()


async def asked(server: Server, *more: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a GET of LARGE, and its answer's headers read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=16 * 1024)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n{''.join(more)}\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 20")
    return reader, writer


def open_files() -> list[str]:
    """What this process has open of blobs and connections."""
    found = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208  numbers, not paths
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
        except OSError:
            continue
    return [name for name in found if "/blobs/" in name or name.startswith("socket:")]


def test_many_slow_clients_get_the_whole_and_hold_up_nobody(tmp_path: Path) -> None:
    """More than there are threads; each reads in small pieces, one after the other."""

    async def work(folder: Path) -> None:
        async with serving(folder) as (server, _, told):
            slow = [await asked(server) for _ in range(8)]
            reader, writer = await asked(server)
            assert await reader.readexactly(len(LARGE)) == LARGE
            writer.close()
            for reader, writer in slow:
                assert await reader.readexactly(len(LARGE)) == LARGE
                writer.close()
        assert [(one.status, one.sent) for one in told.all] == [(200, len(LARGE))] * 9

    on_each_loop(work, tmp_path)


def test_requests_in_a_row_on_one_connection_are_answered_in_order(tmp_path: Path) -> None:
    """What is sent past the transport stands between what goes through it."""

    async def work(folder: Path) -> None:
        async with serving(folder) as (server, _, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            ranges = ("0-9", "100000-9999999", "5-5", "20000000-")
            for asked in ranges:
                writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nRange: bytes={asked}\r\n\r\n".encode())
            for asked in ranges:
                first, _, last = asked.partition("-")
                expected = LARGE[int(first) : int(last) + 1 if last else None]
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 206 ")
                assert await reader.readexactly(len(expected)) == expected
            writer.close()

    on_each_loop(work, tmp_path)


@pytest.mark.parametrize("how", ["client", "server"])
def test_who_goes_in_the_middle_leaves_nothing_open(tmp_path: Path, how: str) -> None:
    async def work(folder: Path) -> None:
        before = len(open_files())
        async with serving(folder) as (server, _, told):
            reader, writer = await asked(server)
            await reader.readexactly(1000)
            if how == "client":
                writer.transport.abort()
                await told.ended.wait()
        if how == "server":
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(len(LARGE))
            writer.transport.abort()
        await asyncio.sleep(0)
        assert len(open_files()) == before

    on_each_loop(work, tmp_path)


def test_who_takes_no_more_of_a_blob_makes_room_for_others_at_once(tmp_path: Path) -> None:
    """A connection that is closed for others, as there are too many, keeps no file and no socket open."""

    async def work(folder: Path) -> None:
        before = len(open_files())
        async with serving(folder, most=8) as (server, _, told):
            slow = [(await asked(server))[1] for _ in range(16)]
            while len(told.all) < 15:
                told.ended.clear()
                await told.ended.wait()
            reader, writer = await asked(server)
            assert await reader.readexactly(len(LARGE)) == LARGE
            for each in (*slow, writer):
                each.transport.abort()
        await asyncio.sleep(0)
        assert len(open_files()) == before

    on_each_loop(work, tmp_path)


def test_uploads_that_are_cut_off_for_others_are_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(folder: Path) -> None:
        async with serving(folder, most=8) as (server, _, told):
            writers = []
            for number in range(16):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(
                    f"POST {REPO}/blobs/uploads/?digest={digest_of(b'%d' % number)} HTTP/1.1\r\nHost: x\r\n"
                    "Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n".encode()
                )
                if number < 15:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
                writers.append(writer)
            while len(told.all) < 15:
                told.ended.clear()
                await told.ended.wait()
            assert not any(one.status >= 500 for one in told.all)
            for writer in writers:
                writer.transport.abort()

    on_each_loop(work, tmp_path)
    assert not caplog.records


def test_a_file_that_became_shorter_is_never_an_answer(tmp_path: Path) -> None:
    async def work(folder: Path) -> None:
        async with serving(folder) as (server, store, _):
            reader, writer = await asked(server)
            os.truncate(store.blobs.path_of(digest_of(LARGE)), len(LARGE) // 2)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(len(LARGE))
            writer.close()

    on_each_loop(work, tmp_path)
