"""A registry that pulls through, in front of an upstream that journals what it is asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, TCPConnector

from blobflow.content import BlobStream, Site
from blobflow.errors import ConnectFailed
from blobflow.oci import Descriptor
from blobflow.server import AccessRules, PullThroughCache, Server, Upstream, Upstreams, make_app
from blobflow.signatures.contract import SignatureJudge
from blobflow.transports.registry import HostAccess, Registries
from blobflow.transports.store import Store
from tests.contract.server.client import SMALL, descriptor, image, push, put
from tests.fakes.registry import Clock
from tools.registry.faulty import Fault, JournallingRegistry, journalling

REPO = "team/app"


class Edge:
    """A registry that pulls through, its upstream, and a raw client of each."""

    def __init__(
        self,
        upstream: JournallingRegistry,
        store: Store,
        pullthrough: PullThroughCache,
        client: ClientSession,
        client_of_upstream: ClientSession,
    ) -> None:
        self.upstream = upstream
        self.client_of_upstream = client_of_upstream
        self.store = store
        self.pullthrough = pullthrough
        self.client = client
        self.now = 0.0
        self.told: list[str] = []

    def outcomes(self) -> dict[tuple[str, str], int]:
        """What was counted, by kind and outcome."""
        return {(kind, outcome): n for (_, kind, outcome), n in self.pullthrough.outcomes.items()}

    async def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        async with self.client.get(path, headers=headers) as answer:
            return answer.status, await answer.read()

    def upstream_asked(self, method: str = "") -> int:
        return self.upstream.journal.count(method)


@asynccontextmanager
async def edge_of(
    folder: Path,
    *faults: Fault,
    prefix: str = "",
    broken: Callable[[], bool] = lambda: False,
    judge: SignatureJudge | None = None,
    upstream: JournallingRegistry | None = None,
    access: AccessRules | None = None,
) -> AsyncIterator[Edge]:
    """An edge in front of an upstream, one of its own unless there is one. While `broken` says so, that can't
    be reached."""
    async with contextlib.AsyncExitStack() as stack:
        if upstream is None:
            upstream = await stack.enter_async_context(journalling(folder / "upstream", faults))
        clock = Clock()
        registries = Registries(
            lambda host: HostAccess(scheme="http"),
            longest_wait=2.0,
            sleep=clock.sleep,
            clock=clock,
            jitter=lambda: 0.5,
        )
        stack.push_async_callback(registries.close)
        told: list[str] = []
        store = stack.enter_context(
            contextlib.closing(Store.open(folder / "edge", observer=lambda event: told.append(str(event))))
        )

        def source_at(site: Site) -> Any:
            return Unreachable() if broken() else registries.source(site)

        pullthrough = PullThroughCache(
            store,
            Upstreams([Upstream(upstream.host, prefix)]),
            source_at,
            judge=judge,
            clock=lambda: edge.now,
            sleep=clock.sleep,
        )
        app = make_app(store, pullthrough=pullthrough, access=access)
        server = await stack.enter_async_context(Server(app, grace=0.5))
        client = await stack.enter_async_context(
            ClientSession(server.url, connector=TCPConnector(limit=0), read_bufsize=4096)
        )
        there = await stack.enter_async_context(ClientSession(upstream.url))
        edge = Edge(upstream, store, pullthrough, client, there)
        edge.told = told
        yield edge


class Unreachable:
    """A Source that can't be reached."""

    async def resolve(self, name: str) -> Descriptor:
        raise ConnectFailed("nobody is there")

    async def read(self, manifest: Descriptor) -> bytes:
        raise ConnectFailed("nobody is there")

    async def tags(self) -> list[str]:
        raise ConnectFailed("nobody is there")

    @asynccontextmanager
    async def open(
        self, blob: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobStream]:
        raise ConnectFailed("nobody is there")
        yield


async def settled() -> None:
    """Wait until what was read is in the store: who read it had the last byte a moment before."""
    shares = [task for task in asyncio.all_tasks() if task.get_name().startswith("share ")]
    if shares:
        await asyncio.wait(shares)


async def give(upstream: JournallingRegistry, *layers: bytes, tag: str = "1.0", repo: str = REPO) -> bytes:
    """An image of SMALL and `layers` at the upstream; its manifest. What that took is not in the journal."""
    async with ClientSession(upstream.url) as client:
        for content in (SMALL, *layers):
            await push(client, content, f"/v2/{repo}")
        raw = image(*map(descriptor, layers))
        assert (await put(client, raw, tag, repo=f"/v2/{repo}")).status == 201
    upstream.journal.clear()
    return raw
