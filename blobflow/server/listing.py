"""What the registry speaks and what it has: distribution-spec, "Determining Support" ([end-1]) and "Content
Discovery" ([end-8a], [end-8b]), and `_catalog`. Lists come in pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from blobflow.server.auth.access_rules import Permissions
from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError
from blobflow.transports.store import Store

# Names in one page at most, whatever `n` says, so that no answer grows without bound; clients follow Link.
MAX_PAGE = 1000
# Names that are looked at in one go.
_BATCH = 500


async def api_version(context: RequestContext) -> web.StreamResponse:
    """[end-1]: this is a registry."""
    return web.Response(body=b"{}", content_type="application/json")


async def list_tags(context: RequestContext) -> web.StreamResponse:
    """[end-8a], [end-8b]: the repository's tags in byte order, after `last`, `n` at most."""
    registry, route = context.registry, context.route
    n, last = _requested_page(context.request)
    names: list[str] | None = None
    if registry.pullthrough is not None and route.upstream is not None:
        names = await registry.pullthrough.list_tags(route.repository, route.upstream, last, n + 1)
    if names is None:
        if not registry.store.repositories.exists(route.repository):
            raise ApiError("NAME_UNKNOWN", f"this registry has no repository {route.repository}")
        names = registry.store.repositories.tags(route.repository, n + 1, last)
    return _page_response(context, n, names, "tags", {"name": route.repository})


async def list_repositories(context: RequestContext) -> web.StreamResponse:
    """`GET /v2/_catalog`: not in the OCI spec, kept as distribution has it."""
    store, permissions = context.registry.store, context.permissions
    n, last = _requested_page(context.request)
    if permissions.unlimited:
        names = store.repositories.names(n + 1, last)
    else:
        async with permissions.listing:
            names = await pullable_repositories(permissions, store, n + 1, last)
    return _page_response(context, n, names, "repositories", {})


async def pullable_repositories(permissions: Permissions, store: Store, n: int, last: str) -> list[str]:
    """The first `n` repositories after `last` that may be pulled, in byte order.

    Looks only at names that begin as those do, in batches with pauses for others between them.
    """
    found: list[str] = []
    for prefix in permissions.prefixes("pull"):
        after = max(last, _before(prefix))
        while len(found) < n:
            names = store.repositories.names(_BATCH, after)
            ours = [name for name in names if name.startswith(prefix)]
            found += filter(permissions.may_pull, ours)
            if len(ours) < _BATCH:
                break
            after = ours[-1]
            await asyncio.sleep(0)
    return found[:n]


def _before(prefix: str) -> str:
    """A text that sorts before all that begins with `prefix`, and after all else that sorts before that."""
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}\uffff" if prefix else ""


def next_link(context: RequestContext, **where: str) -> str:
    """A Link to the next page, which begins `where` these parameters say. All others that the client sent
    are kept, as they say what the list is of (`ns`, a registry that this one stands for, say)."""
    request = context.request
    kept = [(name, value) for name, value in request.query.items() if name not in where]
    query = urlencode([*kept, *where.items()], quote_via=quote, safe="")
    path = context.registry.addressing.path(request.path)
    return f'<{context.url(f"{path}?{query}")}>; rel="next"'


def _requested_page(request: web.BaseRequest) -> tuple[int, str]:
    """How many names the client wants, MAX_PAGE at most, and after which one they begin. Raises ApiError."""
    text = request.query.get("n", "")
    if text and not (text.isascii() and text.isdigit()):
        raise ApiError("UNSUPPORTED", "n is not a number of entries", status=400)
    n = int(text[:18]) if text else MAX_PAGE
    return min(n, MAX_PAGE), request.query.get("last", "")


def _page_response(
    context: RequestContext, n: int, names: Sequence[str], key: str, head: dict[str, str]
) -> web.StreamResponse:
    """One page of `n` names; `names` holds one more if there is a next page."""
    page = list(names[:n])
    headers = {}
    if page and len(names) > n:
        headers["Link"] = next_link(context, n=str(n), last=page[-1])
    return web.Response(
        headers=headers, body=msgspec.json.encode({**head, key: page}), content_type="application/json"
    )
