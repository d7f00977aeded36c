"""What those see who look after the registry: a page for a person, metrics for Prometheus, a sign of life."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from blobflow.server.metrics import CONTENT_TYPE, Figures
from blobflow.server.page import dated, render
from blobflow.server.places import Place
from blobflow.server.state import Registry


async def health(registry: Registry, request: web.BaseRequest, place: Place) -> web.StreamResponse:
    """200 while the store answers. Raises StorageError."""
    registry.store.has_repository("")
    return web.Response(text="ok\n")


async def metrics(registry: Registry, request: web.BaseRequest, place: Place) -> web.StreamResponse:
    """Prometheus's text format; what the store holds was counted some seconds ago."""
    census = await registry.overview.census(_gone(request))
    body = Figures(registry, census.value).text()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


async def page(registry: Registry, request: web.BaseRequest, place: Place) -> web.StreamResponse:
    """HTML that works without scripts; `last` begins after a repository."""
    found, age = await registry.overview.page(render, request.query.get("last", ""), gone=_gone(request))
    return web.Response(
        body=dated(found, age),
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )


def _gone(request: web.BaseRequest) -> Callable[[], bool]:
    """Whether the client is: then nothing has to be found out for it."""

    def gone() -> bool:
        transport = request.transport
        return transport is None or transport.is_closing()

    return gone
