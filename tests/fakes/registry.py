"""What the tests of the registry transport share: small HTTP servers, a clock that only sleeping moves."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

import msgspec
from aiohttp import web

from blobflow.content import BlobReader, BlobStream, Chunk, Journal, Site, verified
from blobflow.events import Event, Meter
from blobflow.oci import Descriptor, digest_of
from blobflow.transports.registry import Credentials, HostAccess, Profile, Registries, Repository
from blobflow.transports.registry.auth.authenticator import CredentialsGiver

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class SeenRequest(msgspec.Struct, frozen=True):
    """A request as it arrived. `target` is the raw path with its query."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class ScriptedServer:
    """A server whose answers a test writes by hand. `seen` are its requests, in order of arrival."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.seen: list[SeenRequest] = []

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def asked(self, method: str = "") -> list[str]:
        """`METHOD target` of the requests, or the targets of one method."""
        if method:
            return [each.target for each in self.seen if each.method == method]
        return [f"{each.method} {each.target}" for each in self.seen]


@asynccontextmanager
async def scripted_server(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    reads: bool = True,
    tls: ssl.SSLContext | None = None,
    receive_bytes: int | None = None,
) -> AsyncIterator[ScriptedServer]:
    """A server that gives every request to `handler`; `reads`: after its body has been read.

    `receive_bytes`: the size of the system's receive buffers, which bounds what has left a client and was not
    read here; None: as the system likes, which may be several MB.
    """

    async def record(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read() if reads else b""
        server.seen.append(SeenRequest(request.method, request.raw_path, dict(request.headers), body))
        return await handler(request)

    runner = web.ServerRunner(web.Server(record, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    if receive_bytes is not None:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await web.SockSite(runner, listening, ssl_context=tls).start()
    name, port = runner.addresses[0][:2]
    server = ScriptedServer(f"[{name}]:{port}" if ":" in name else f"{name}:{port}")
    try:
        yield server
    finally:
        await runner.cleanup()


def answers(*responses: Callable[[], web.StreamResponse]) -> Handler:
    """A handler that gives these responses in turn, and the last one for ever."""
    left = list(responses)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return (left.pop(0) if len(left) > 1 else left[0])()

    return handler


class Clock:
    """A clock that sleeping moves, and nothing else. `slept` are the sleeps, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class World:
    """Registries over plain HTTP on a fake clock, with everything they report."""

    def __init__(
        self,
        credentials: Credentials | CredentialsGiver | None = None,
        profile: Profile | None = None,
        journal: Journal | None = None,
        connections: int = 4,
    ) -> None:
        self.clock = Clock()
        self.meter = Meter()
        self.events: list[Event] = []
        self.registries = Registries(
            lambda host: HostAccess(
                scheme="http", credentials=credentials, profile=profile, connections=connections
            ),
            observer=self.events.append,
            meter=self.meter,
            journal=journal,
            trace=True,
            sleep=self.clock.sleep,
            clock=self.clock,
            jitter=lambda: 0.5,
        )

    def source(self, host: str, repository: str = "app") -> Repository:
        source = self.registries.source(Site(host, repository))
        assert isinstance(source, Repository)  # no mirrors
        return source

    def sink(self, host: str, repository: str = "app") -> Repository:
        return self.registries.sink(Site(host, repository))


@asynccontextmanager
async def world(
    credentials: Credentials | CredentialsGiver | None = None,
    profile: Profile | None = None,
    journal: Journal | None = None,
    connections: int = 4,
) -> AsyncIterator[World]:
    made = World(credentials, profile, journal, connections)
    try:
        yield made
    finally:
        await made.registries.close()


def blob_of(content: bytes, algorithm: str = "sha256") -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(content, algorithm), len(content))


class Bytes:
    """A reader of bytes in memory, verified from offset 0. `opened` are the offsets it was opened at."""

    def __init__(self, content: bytes, chunk: int = 64 * 1024, *, blob: Descriptor | None = None) -> None:
        self.content = content
        self.opened: list[int] = []
        self.closed = 0
        self._chunk = chunk
        self._blob = blob or blob_of(content)

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        self.opened.append(offset)
        try:
            stream = self._chunks(offset)
            yield verified(stream, self._blob) if not offset else stream
        finally:
            self.closed += 1

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        for at in range(offset, len(self.content), self._chunk):
            yield memoryview(self.content)[at : at + self._chunk]


class Opened:
    """A reader that is one function."""

    def __init__(self, function: Callable[[int], AbstractAsyncContextManager[BlobStream]]) -> None:
        self._function = function

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[BlobStream]:
        return self._function(offset)


async def collect(chunks: BlobStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in chunks])


def body_that(*steps: bytes | Exception | asyncio.Event) -> BlobReader:
    """A reader whose streams yield bytes, raise errors and wait for events, in this order."""
    return Opened(lambda offset: aclosing(_steps(steps)))


async def _steps(steps: Sequence[bytes | Exception | asyncio.Event]) -> AsyncGenerator[Chunk, None]:
    for step in steps:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, asyncio.Event):
            await step.wait()
        else:
            yield step
