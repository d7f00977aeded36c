"""Leaving a read early: its connection or file is given back at once, on every road, whoever holds its
chunks.

Connections are counted at the other side, files as open descriptors. Nothing here waits for the collector:
every test keeps hold of the chunks that it left.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path

import pytest
import uvloop

from blobflow.content import BlobStream, Sink, Site, Source
from blobflow.errors import BlobflowError
from blobflow.oci import Descriptor, digest_of
from blobflow.transports.registry import HostAccess, Profile, Registries
from blobflow.transports.registry.mirrors import MirroredSource
from blobflow.transports.store import Store
from tests.contract.implementations import CONTENT, blob_of, image_of, open_places
from tests.deadlines import HANGS_AFTER
from tests.fakes.registry import Bytes
from tools.certificates import Pair, self_signed

MIB = 1024 * 1024
LARGE = Descriptor("application/octet-stream", digest_of(b"large"), 64 * MIB)
SMALL = Descriptor("application/octet-stream", digest_of(b"small"), 100_000)
EMPTY_HEAD = b"HTTP/1.1 202 Accepted\r\nLocation: /up\r\nContent-Length: 0\r\n\r\n"


class Holder:
    """A server that begins every blob and never ends it: a first part, and then nothing, or no end of it.

    `open` counts the connections that the other side has not ended.
    """

    def __init__(self, redirect: str = "", *, pouring: bool = False, chunked: bool = False) -> None:
        self.host = ""
        self.opened = 0
        self.open = 0
        self.taking = asyncio.Event()
        self._redirect = redirect
        self._pouring = pouring
        self._chunked = chunked
        self._change = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if head.startswith("post"):
                    writer.write(EMPTY_HEAD)
                elif head.startswith("get") and self._redirect:
                    writer.write(f"HTTP/1.1 307 X\r\nLocation: {self._redirect}\r\n".encode())
                    writer.write(b"Content-Length: 0\r\n\r\n")
                elif head.startswith("get"):
                    await self._begin(head, writer)
                else:
                    while await reader.read(MIB):
                        self.taking.set()
                    return
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            self._change.set()
            writer.transport.abort()

    async def _begin(self, head: str, writer: asyncio.StreamWriter) -> None:
        size, status, told = LARGE.size, "200 OK", ""
        if SMALL.digest in head:
            size = SMALL.size
        if "range: bytes=" in head:
            first, last = map(int, head.partition("range: bytes=")[2].partition("\r")[0].split("-"))
            status, told = "206 X", f"Content-Range: bytes {first}-{last}/{size}\r\n"
            size = last + 1 - first
        length = "Transfer-Encoding: chunked" if self._chunked else f"Content-Length: {size}"
        writer.write(f"HTTP/1.1 {status}\r\n{told}{length}\r\n\r\n".encode())
        part = bytes(min(size // 2, 20_000))
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(part), part) if self._chunked else part)
            await writer.drain()
            if not self._pouring:
                return
            await asyncio.sleep(0)

    async def is_left(self) -> None:
        """Return when nobody is connected any more."""
        async with asyncio.timeout(HANGS_AFTER):
            while self.open:
                self._change.clear()
                await self._change.wait()


@asynccontextmanager
async def holding(holder: Holder, tls: Pair | None = None) -> AsyncIterator[Holder]:
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)
    tasks: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        await holder.serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    holder.host = "{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield holder
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(each for each in tasks if each is not None), return_exceptions=True)


@asynccontextmanager
async def reading(holder: Holder, scheme: str = "http", **more: object) -> AsyncIterator[Registries]:
    registries = Registries(
        lambda host: HostAccess(
            scheme="https" if scheme == "https" else "http",
            tls=False,
            profile=Profile("test", ("single",)),
            mirrors=(holder.host,) if host == "r.example" else (),
        ),
        bytes_per_second=10_000_000 if more.get("braked") else 0,
    )
    try:
        yield registries
    finally:
        await registries.close()


# The roads: a source, what is opened of it, and who holds the other end.
Opening = Callable[[], AbstractAsyncContextManager[BlobStream | None]]


@asynccontextmanager
async def road(name: str, folder: Path) -> AsyncIterator[tuple[Opening, Holder, Registries]]:
    """One way of a blob's bytes."""
    kinds = set(name.split())
    blob = SMALL if "small" in kinds else LARGE
    tls = self_signed(folder / "tls") if "tls" in kinds else None
    holder = Holder(pouring="pouring" in kinds, chunked="chunked" in kinds)
    async with holding(holder, tls):
        scheme = "https" if tls else "http"
        async with (
            holding(Holder(f"{scheme}://{holder.host}/elsewhere/{blob.digest}"), tls) as sender,
            reading(holder, scheme, braked="braked" in kinds) as registries,
        ):
            host = holder.host
            if "redirect" in kinds:
                host = sender.host
            if "mirror" in kinds:
                host = "r.example"
            site = Site(host, "app")
            source: Source = registries.source(site)
            assert isinstance(source, MirroredSource) == ("mirror" in kinds)
            offset, end = (1000, blob.size - 1000) if "range" in kinds else (0, None)
            if "glance" in kinds:
                yield lambda: registries.probe_cache(site, blob, again=True), holder, registries
            else:
                yield lambda: source.open(blob, offset, end), holder, registries


ROADS = [
    *("large", "small", "large range", "small range", "large redirect", "small redirect"),
    *("large tls", "small tls", "large tls pouring", "large redirect tls", "large mirror", "small mirror"),
    *("large chunked", "large pouring", "large range pouring", "large braked", "large braked pouring"),
    *("large glance", "large glance pouring"),
]


# The ways to leave; each returns the chunks, so that nobody else lets go of them.


async def at_once(opening: Opening) -> object:
    async with opening() as chunks:
        return chunks


async def after_a_chunk(opening: Opening) -> object:
    async with opening() as chunks:
        assert chunks is not None
        async for chunk in chunks:
            assert len(chunk)
            break
        return chunks


async def by_an_exception(opening: Opening) -> object:
    with pytest.raises(LookupError) as raised:
        async with opening() as chunks:
            assert chunks is not None
            async for _ in chunks:
                raise LookupError
    return raised


async def cancelled_while_waiting(opening: Opening) -> object:
    begun = asyncio.Event()
    held: list[object] = []

    async def read() -> None:
        async with opening() as chunks:
            assert chunks is not None
            held.append(chunks)
            async for _ in chunks:
                begun.set()

    reading = asyncio.create_task(read())
    await begun.wait()
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    return held


async def by_closing_a_generator(opening: Opening) -> object:
    held: list[object] = []

    async def generator() -> AsyncIterator[bytes | memoryview]:
        async with opening() as chunks:
            assert chunks is not None
            held.append(chunks)
            async for chunk in chunks:
                yield chunk

    made = generator()
    await anext(made)
    await made.aclose()  # type: ignore[attr-defined]
    return held, made


async def while_another_waits(opening: Opening) -> object:
    """The context is left by one task while another is inside its chunks: that one is told."""
    begun = asyncio.Event()

    async def read(chunks: BlobStream) -> None:
        async for _ in chunks:
            begun.set()

    async with opening() as chunks:
        assert chunks is not None
        reading = asyncio.create_task(read(chunks))
        await begun.wait()
        await asyncio.sleep(0)
    with pytest.raises(BlobflowError):
        await reading
    return chunks


LEAVINGS: list[Callable[[Opening], Awaitable[object]]] = [
    *(at_once, after_a_chunk, by_an_exception, cancelled_while_waiting, by_closing_a_generator),
    while_another_waits,
]


@pytest.mark.parametrize("leave", LEAVINGS)
@pytest.mark.parametrize("name", ROADS)
async def test_leaving_a_read_closes_its_connection(
    name: str, leave: Callable[[Opening], Awaitable[object]], tmp_path: Path
) -> None:
    async with road(name, tmp_path) as (opening, holder, _):
        held = await leave(opening)
        assert holder.opened
        await holder.is_left()
        assert held is not None


@pytest.mark.parametrize("name", ["large", "small", "large tls", "large redirect"])
def test_so_it_is_on_uvloop(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        for leave in LEAVINGS:
            async with road(name, tmp_path / leave.__name__) as (opening, holder, _):
                held = await leave(opening)
                await holder.is_left()
                assert held is not None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("name", ["large", "small", "large tls", "large chunked"])
async def test_what_was_left_gives_nothing_more(name: str, tmp_path: Path) -> None:
    """Not even a silent end, by which a reader could take a part for the whole."""
    async with road(name, tmp_path) as (opening, holder, _):
        for leave in (at_once, after_a_chunk):
            chunks = await leave(opening)
            with pytest.raises((BlobflowError, StopAsyncIteration)) as raised:
                await anext(chunks)  # type: ignore[call-overload]
            assert leave is after_a_chunk or isinstance(raised.value, BlobflowError)
            await holder.is_left()


async def test_a_push_that_is_left_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target takes all, and answers nothing, not even that its upload is given up."""
    monkeypatch.setattr("blobflow.transports.registry.uploads.sessions.CANCEL_SECONDS", 0.1)
    content = bytes(8 * MIB)
    blob = blob_of(content)
    async with holding(Holder()) as holder, reading(holder) as registries:
        pushing = asyncio.create_task(
            registries.sink(Site(holder.host, "app")).push(blob, Bytes(content, blob=blob))
        )
        async with asyncio.timeout(HANGS_AFTER):
            await holder.taking.wait()
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        await registries.close()
        await holder.is_left()


# Files


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.parametrize("leave", [at_once, after_a_chunk, by_an_exception, by_closing_a_generator])
@pytest.mark.parametrize("kind", ["oci", "oci-archive", "oci-archive.gz", "oci-archive.zst"])
async def test_leaving_a_read_closes_its_file(
    kind: str, leave: Callable[[Opening], Awaitable[object]], tmp_path: Path
) -> None:
    blob = blob_of(CONTENT)
    async with open_places(kind, tmp_path, lambda: "") as places:
        await _fill(places.sink(), blob)
        await places.settle()
        source = places.source()
        async with source.open(blob) as chunks:  # an archive is opened once, and stays so
            await anext(chunks)
        before = descriptors()
        held = [await leave(lambda: source.open(blob, 5)) for _ in range(3)]
        assert descriptors() == before
        assert len(held) == 3


async def test_leaving_a_store_s_read_closes_its_file(tmp_path: Path) -> None:
    blob = blob_of(CONTENT)
    with closing(Store.open(tmp_path)) as store:
        store.blobs.write_small(CONTENT, blob.digest)
        before = descriptors()
        held = [await leave(lambda: store.blobs.open(blob.digest)) for leave in LEAVINGS[:3]]
        assert descriptors() == before
        assert len(held) == 3


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
async def test_a_file_that_was_left_is_not_read_by_its_number(kind: str, tmp_path: Path) -> None:
    """The next file to be opened has it: other content, in the middle of a blob."""
    blob = blob_of(CONTENT)
    async with open_places(kind, tmp_path, lambda: "") as places:
        await _fill(places.sink(), blob)
        await places.settle()
        async with places.source().open(blob) as chunks:
            await anext(chunks)
        (tmp_path / "other").write_bytes(b"x" * len(CONTENT))
        with (tmp_path / "other").open("rb"), pytest.raises((BlobflowError, StopAsyncIteration)):
            await anext(chunks)


async def _fill(sink: Sink, blob: Descriptor) -> None:
    config = blob_of(b"{}")
    image, raw = image_of(config, blob)
    await sink.push(blob, Bytes(CONTENT))
    await sink.push(config, Bytes(b"{}"))
    await sink.put(image, raw, ["1"])
