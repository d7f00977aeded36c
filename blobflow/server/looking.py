"""What those see who look after the registry: a page for a person, metrics for Prometheus, a sign of life."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from blobflow.errors import StorageError
from blobflow.events import Warned
from blobflow.server.access import Rights, rights_of
from blobflow.server.metrics import CONTENT_TYPE, Figures
from blobflow.server.overview import REPOSITORIES, RepositoryShown, Shown
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
    """HTML that works without scripts; `last` begins after a repository. It shows what may be pulled, and
    counts that alone."""
    last, rights = request.query.get("last", ""), rights_of(request)
    if rights.unlimited:
        shown = await asyncio.to_thread(registry.overview.gather(last))
    else:
        shown = await _shown_to(registry, last, rights)
    return web.Response(
        text=render(shown),
        content_type="text/html",
        headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
    )


async def _shown_to(registry: Registry, last: str, rights: Rights) -> Shown:
    """The page of somebody who may not pull everything. Sums are those of what is on it, and nothing is told
    of what is shared with other repositories, nor of upstreams, which others use, too."""
    seen: list[RepositoryShown] = []
    async with rights.listing:
        while len(seen) <= REPOSITORIES:
            part = await asyncio.to_thread(registry.overview.gather(last))
            seen += [each for each in part.repositories if rights.may_pull(each.share.repository)]
            last = part.following
            if not last:
                break
    shown = [
        msgspec.structs.replace(each, share=msgspec.structs.replace(each.share, shared=0))
        for each in seen[:REPOSITORIES]
    ]
    size = sum(each.share.size for each in shown)
    following = shown[-1].share.repository if len(seen) > REPOSITORIES else ""
    return Shown(sum(each.share.items for each in shown), size, size, tuple(shown), following, ())
