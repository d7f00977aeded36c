"""A registry that lets nobody in without a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.fakes.registry import ScriptedServer, blob_of, scripted_server

BLOB = blob_of(b"content")


class Guarded:
    """A registry that wants a token of its token server, which is at the same origin unless `realm` says.

    `stumbles` are statuses that the token server answers first; `expire_on`: a method whose next request
    finds all tokens ended; `deaf`: no token is good.
    """

    def __init__(self, *, lifetime: int = 300, realm: str = "") -> None:
        self.lifetime = lifetime
        self.realm = realm
        self.host = ""
        self.valid: set[str] = set()
        self.given = 0
        self.stumbles: list[int] = []
        self.expire_on = ""
        self.deaf = False
        self.asked = asyncio.Event()
        self.held = asyncio.Event()
        self.held.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/token":
            self.asked.set()
            await self.held.wait()
            if self.stumbles:
                return web.Response(status=self.stumbles.pop())
            self.given += 1
            self.valid.add(f"Bearer t{self.given}")
            return web.json_response({"token": f"t{self.given}", "expires_in": self.lifetime})
        if request.method == self.expire_on:
            self.expire_on = ""
            self.valid.clear()
        if request.headers.get("Authorization") in self.valid and not self.deaf:
            if request.method == "POST":
                return web.Response(status=202, headers={"Location": "/up"})
            return web.Response(status=201 if request.method == "PUT" else 200)
        realm = self.realm or f"http://{self.host}/token"
        challenge = f'Bearer realm="{realm}",service="svc",scope="repository:app:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})


@asynccontextmanager
async def guarded(*, lifetime: int = 300, realm: str = "") -> AsyncIterator[tuple[Guarded, ScriptedServer]]:
    handler = Guarded(lifetime=lifetime, realm=realm)
    async with scripted_server(handler) as server:
        handler.host = server.host
        yield handler, server
