"""Pages of lists: the parameters `n` and `last`, and the Link to the next page."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError

# Names in one page at most, whatever `n` says, so that no answer grows without bound; clients follow Link.
MAX_PAGE = 1000


def next_link(context: RequestContext, **where: str) -> str:
    """A Link to the next page, which begins `where` these parameters say. All others that the client sent
    are kept, as they say what the list is of (`ns`, a registry that this one stands for, say)."""
    request = context.request
    kept = [(name, value) for name, value in request.query.items() if name not in where]
    query = urlencode([*kept, *where.items()], quote_via=quote, safe="")
    path = context.registry.addressing.path(request.path)
    return f'<{context.url(f"{path}?{query}")}>; rel="next"'


def requested_page(request: web.BaseRequest) -> tuple[int, str]:
    """How many names the client wants, MAX_PAGE at most, and after which one they begin. Raises ApiError."""
    text = request.query.get("n", "")
    if text and not (text.isascii() and text.isdigit()):
        raise ApiError("UNSUPPORTED", "n is not a number of entries", status=400)
    n = int(text[:18]) if text else MAX_PAGE
    return min(n, MAX_PAGE), request.query.get("last", "")


def page_response(
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
