"""Listing referrers: distribution-spec 1.1, "Listing Referrers" ([end-12a], [end-12b])."""

from __future__ import annotations

import msgspec
from aiohttp import web

from blobflow.oci import media
from blobflow.server.context import RequestContext
from blobflow.server.paging import next_link

# Descriptors in one page, and their bytes: clients take an index of 4 MiB, and annotations may be long. This
# client takes 300,000 strings, of which the shortest annotations have one every four bytes.
PAGE = 1000
PAGE_BYTES = 1024 * 1024

_FILTER = "artifactType"


async def list_referrers(context: RequestContext) -> web.StreamResponse:
    """[end-12a], [end-12b]: an index of what refers to a digest, whether that is here or not; of what is
    pulled through, also what the upstream has.

    `artifactType` leaves only those of one type. A next page is after `last`, a digest.
    """
    registry, request, route, subject = context.registry, context.request, context.route, context.digest
    if registry.pullthrough is not None and route.upstream is not None:
        await registry.pullthrough.fetch_referrers(route.repository, route.upstream, subject)
    # Media types have no spaces; clients that put their `+` into a query as it is mean a `+`.
    wanted = request.query.get(_FILTER, "").replace(" ", "+")
    page = await registry.referrer_index.page(
        route.repository,
        subject,
        last=request.query.get("last", ""),
        wanted=wanted,
        max_entries=PAGE,
        max_bytes=PAGE_BYTES,
    )
    headers = {"OCI-Filters-Applied": _FILTER} if wanted else {}
    if page.following:
        filtered = {_FILTER: wanted} if wanted else {}
        headers["Link"] = next_link(context, **filtered, last=page.following)
    index = {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": [msgspec.Raw(each.encoded) for each in page.referrers],
    }
    return web.Response(headers=headers, body=msgspec.json.encode(index), content_type=media.OCI_INDEX)
