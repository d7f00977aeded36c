"""Listing referrers: distribution-spec 1.1, "Listing Referrers" ([end-12a], [end-12b])."""

from __future__ import annotations

import msgspec
from aiohttp import web

from blobflow.oci import media
from blobflow.server.listing import next_link
from blobflow.server.registry import Registry
from blobflow.server.routes import Route, parse_digest_parameter

# Descriptors in one page, and their bytes: clients take an index of 4 MiB, and annotations may be long.
PAGE = 1000
PAGE_BYTES = 2 * 1024 * 1024

_FILTER = "artifactType"


async def list_referrers(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-12a], [end-12b]: an index of what refers to a digest, whether that is here or not.

    `artifactType` leaves only those of one type. A next page is after `last`, a digest.
    """
    subject = parse_digest_parameter(route.reference)
    # Media types have no spaces; clients that put their `+` into a query as it is mean a `+`.
    wanted = request.query.get(_FILTER, "").replace(" ", "+")
    page = await registry.referrer_index.page(
        route.repository,
        subject,
        last=request.query.get("last", ""),
        wanted=wanted,
        entries=PAGE,
        room=PAGE_BYTES,
    )
    headers = {"OCI-Filters-Applied": _FILTER} if wanted else {}
    if page.following:
        filtered = {_FILTER: wanted} if wanted else {}
        headers["Link"] = next_link(registry, request, **filtered, last=page.following)
    index = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": [msgspec.Raw(each.encoded) for each in page.referrers],
    }
    return web.Response(headers=headers, body=msgspec.json.encode(index), content_type=media.OCI_INDEX)
