"""Endpoints for operators: a page for people, metrics for Prometheus, health."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from blobflow.errors import StorageError
from blobflow.events import Warned
from blobflow.page_style import content_policy
from blobflow.server.admin.metrics import CONTENT_TYPE, RegistryMetrics
from blobflow.server.admin.page import render, with_age
from blobflow.server.context import RequestContext
from blobflow.server.registry import Registry


async def health(context: RequestContext) -> web.StreamResponse:
    """200 while the store answers and takes what is written, 503 while it does not; the store's observer
    hears what is wrong, once, when that begins."""
    registry = context.registry
    try:
        registry.content.repositories.exists("")
        registry.content.check_there()
        registry.content.state.check_there()
    except StorageError as error:
        return _failed(registry, error)
    registry.is_unhealthy = False
    return web.Response(text="ok\n")


def _failed(registry: Registry, error: StorageError) -> web.Response:
    if not registry.is_unhealthy:
        registry.is_unhealthy = True
        registry.content.observer(Warned(f"the registry is not healthy: {error}"))
    return web.Response(status=503, text="the store failed\n")


async def metrics(context: RequestContext) -> web.StreamResponse:
    """Prometheus's text format; what the store holds was counted some seconds ago. 503 while that can't be
    read."""
    registry = context.registry
    try:
        stats = await registry.overview.stats(_gone(context.request))
    except StorageError as error:
        return _failed(registry, error)
    body = RegistryMetrics(registry, stats.value).text()
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


async def page(context: RequestContext) -> web.StreamResponse:
    """HTML that works without scripts; `last` begins after a repository, `find` leaves those whose names have
    it in them. It shows what may be pulled, and counts that alone. 503 while the store can't be read."""
    registry, request, permissions = context.registry, context.request, context.permissions
    last, find = request.query.get("last", ""), request.query.get("find", "")
    may_pull = None if permissions.unlimited else permissions.may_pull
    try:
        found, age = await registry.overview.page(
            render, last, find=find, viewer=permissions.viewer, may_pull=may_pull, gone=_gone(request)
        )
    except StorageError as error:
        return _failed(registry, error)
    return web.Response(
        body=with_age(found, age),
        content_type="text/html",
        charset="utf-8",
        headers={
            "Content-Security-Policy": f"{content_policy(forms=True)}; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _gone(request: web.BaseRequest) -> Callable[[], bool]:
    """Tells whether the client has gone: then nothing has to be found out for it."""

    def gone() -> bool:
        transport = request.transport
        return transport is None or transport.is_closing()

    return gone
