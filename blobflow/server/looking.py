"""What those see who look after the registry: a page for a person, metrics for Prometheus, a sign of life."""

from __future__ import annotations

import asyncio

from aiohttp import web

from blobflow.errors import StorageError
from blobflow.events import Warned
from blobflow.server.metrics import CONTENT_TYPE, Figures
from blobflow.server.page import render
from blobflow.server.places import Place
from blobflow.server.state import Registry


async def health(registry: Registry, request: web.BaseRequest, place: Place) -> web.StreamResponse:
    """200 while the store answers and takes what is written, 503 while it does not; what it is, is told to
    the store's observer when it begins."""
    try:
        registry.store.has_repository("")
        registry.store.check_there()
        registry.store.state.check_there()
    except StorageError as error:
        if not registry.ill:
            registry.ill = True
            registry.store.observer(Warned(f"the registry is not healthy: {error}"))
        return web.Response(status=503, text="the store failed\n")
    registry.ill = False
    return web.Response(text="ok\n")


async def metrics(registry: Registry, request: web.BaseRequest, place: Place) -> web.StreamResponse:
    """Prometheus's text format."""
    return web.Response(body=Figures(registry).text(), headers={"Content-Type": CONTENT_TYPE})


async def page(registry: Registry, request: web.BaseRequest, place: Place) -> web.StreamResponse:
    """HTML that works without scripts; `last` begins after a repository."""
    view = registry.overview.gather(request.query.get("last", ""))
    shown = await asyncio.to_thread(view)
    return web.Response(
        text=render(shown),
        content_type="text/html",
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )
