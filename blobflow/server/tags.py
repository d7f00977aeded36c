"""Tags: distribution-spec, "Content Discovery" ([end-8a], [end-8b])."""

from __future__ import annotations

from aiohttp import web

from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError
from blobflow.server.paging import page_response, requested_page
from blobflow.server.pullthrough.stored_names import public_name


async def list_tags(context: RequestContext) -> web.StreamResponse:
    """[end-8a], [end-8b]: the repository's tags in byte order, after `last`, `n` at most."""
    registry, route = context.registry, context.route
    n, last = requested_page(context.request)
    names: list[str] | None = None
    if registry.pullthrough is not None and route.upstream is not None:
        names = await registry.pullthrough.list_tags(route.repository, route.upstream, last, n + 1)
    if names is None:
        if not registry.content.repositories.exists(route.repository):
            name = public_name(route.repository)
            raise ApiError("NAME_UNKNOWN", f"this registry has no repository {name}")
        names = registry.content.repositories.tags(route.repository, n + 1, last)
    return page_response(context, n, names, "tags", {"name": public_name(route.repository)})
