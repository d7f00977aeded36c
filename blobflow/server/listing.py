"""Lists in pages: distribution-spec, "Content Discovery" ([end-8a], [end-8b]), and `_catalog`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from blobflow.server.auth.access_rules import Permissions, permissions_of
from blobflow.server.errors import ApiError
from blobflow.server.registry import Registry
from blobflow.server.routes import Route
from blobflow.transports.store import Store

# Names in one page at most, whatever `n` says, so that no answer grows without bound; clients follow Link.
MAX_PAGE = 1000
# Names that are looked at in one go.
_BATCH = 500


async def list_tags(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-8a], [end-8b]: the repository's tags in byte order, after `last`, `n` at most."""
    asked, last = _page(request)
    pullthrough = registry.pullthrough if route.upstream else None
    theirs = await pullthrough.tags(route, last, asked + 1) if pullthrough else None
    if theirs is not None:
        names = theirs
    elif registry.store.repositories.exists(route.repository):
        names = registry.store.repositories.tags(route.repository, asked + 1, last)
    else:
        raise ApiError("NAME_UNKNOWN", f"this registry has no repository {route.repository}")
    return _answer(registry, request, asked, names, "tags", {"name": route.repository})


async def list_repositories(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """`GET /v2/_catalog`: not in the OCI spec, kept as distribution has it."""
    asked, last = _page(request)
    permissions = permissions_of(request)
    if permissions.unlimited:
        names = registry.store.repositories.names(asked + 1, last)
    else:
        async with permissions.listing:
            names = await pulled_by(permissions, registry.store, asked + 1, last)
    return _answer(registry, request, asked, names, "repositories", {})


async def pulled_by(permissions: Permissions, store: Store, n: int, last: str) -> list[str]:
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


def next_link(registry: Registry, request: web.BaseRequest, **where: str) -> str:
    """A Link to the next page, which begins `where` these parameters say. All others that the client sent
    are kept, as they say what the list is of (`ns`, a registry that we stand for, say)."""
    kept = [(name, value) for name, value in request.query.items() if name not in where]
    query = urlencode([*kept, *where.items()], quote_via=quote, safe="")
    path = registry.addressing.path(request.path)
    return f'<{registry.addressing.url(request, f"{path}?{query}")}>; rel="next"'


def _page(request: web.BaseRequest) -> tuple[int, str]:
    text = request.query.get("n", "")
    if text and not (text.isascii() and text.isdigit()):
        raise ApiError("UNSUPPORTED", "n is not a number of entries", status=400)
    asked = int(text[:18]) if text else MAX_PAGE
    return min(asked, MAX_PAGE), request.query.get("last", "")


def _answer(
    registry: Registry,
    request: web.BaseRequest,
    asked: int,
    names: Sequence[str],
    key: str,
    head: dict[str, str],
) -> web.StreamResponse:
    """One page; `names` holds one more than asked for if there is a next one."""
    page = list(names[:asked])
    headers = {}
    if page and len(names) > asked:
        headers["Link"] = next_link(registry, request, n=str(asked), last=page[-1])
    return web.Response(
        headers=headers, body=msgspec.json.encode({**head, key: page}), content_type="application/json"
    )
