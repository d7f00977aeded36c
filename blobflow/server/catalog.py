"""The registry's repositories: `GET /v2/_catalog`, as distribution has it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from blobflow.server.auth.access_rules import Permissions
from blobflow.server.context import RequestContext
from blobflow.server.paging import page_response, requested_page
from blobflow.server.pullthrough.stored_names import after_all_of, public_name
from blobflow.server.registry import Registry

# Names that are tried in one go.
_BATCH = 500


async def list_repositories(context: RequestContext) -> web.StreamResponse:
    """The repositories that the client may pull, in byte order, after `last`, `n` at most."""
    registry, permissions = context.registry, context.permissions
    n, last = requested_page(context.request)
    if permissions.unlimited:
        names = await pullable_repositories(permissions, registry, n + 1, last)
    else:
        async with permissions.listing:
            names = await pullable_repositories(permissions, registry, n + 1, last)
    return page_response(context, n, names, "repositories", {})


async def pullable_repositories(permissions: Permissions, registry: Registry, n: int, last: str) -> list[str]:
    """The first `n` repositories after `last` that may be pulled, in byte order.

    Looks only at names that begin as those do, in batches with pauses for others between them.
    """
    found: list[str] = []
    for prefix in permissions.prefixes("pull"):
        after = max(after_all_of(last), _before(prefix))
        while len(found) < n:
            names = registry.content.repositories.names(_BATCH, after)
            ours = [name for name in names if name.startswith(prefix)]
            found += filter(permissions.may_pull, map(public_name, filter(registry.shows, ours)))
            if len(ours) < _BATCH:
                break
            after = ours[-1]
            await asyncio.sleep(0)
    return found[:n]


def _before(prefix: str) -> str:
    """A text that sorts before all that begins with `prefix`, and after all else that sorts before that."""
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}\uffff" if prefix else ""
