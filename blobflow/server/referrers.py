"""Listing referrers: distribution-spec 1.1, "Listing Referrers" ([end-12a], [end-12b])."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from aiohttp import web

from blobflow.oci import Descriptor, media
from blobflow.server.places import Place, digest_in
from blobflow.server.state import Registry

# Descriptors in one page, and their bytes: clients take an index of 4 MiB, and annotations may be long.
PAGE = 1000
PAGE_BYTES = 2 * 1024 * 1024

_FILTER = "artifactType"


async def list_referrers(registry: Registry, request: web.BaseRequest, place: Place) -> web.StreamResponse:
    """[end-12a], [end-12b]: an index of what refers to a digest, whether that is here or not.

    `artifactType` leaves only those of one type. A next page is after `last`, a digest.
    """
    subject = digest_in(place.item)
    # Media types have no spaces; clients that put their `+` into a query as it is mean a `+`.
    wanted = request.query.get(_FILTER, "").replace(" ", "+")
    last = request.query.get("last", "")
    found = await registry.subjects.referrers(place.repository, subject)
    listed = [each for each in found if each.digest > last and (not wanted or each.artifact_type == wanted)]
    page = _page(listed)
    headers = {"OCI-Filters-Applied": _FILTER} if wanted else {}
    if len(page) < len(listed):
        asked = f"{_FILTER}={quote(wanted, safe='')}&" if wanted else ""
        headers["Link"] = f'<{request.path}?{asked}last={quote(page[-1].digest, safe="")}>; rel="next"'
    index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": page}
    return web.Response(headers=headers, body=msgspec.json.encode(index), content_type=media.OCI_INDEX)


def _page(listed: Sequence[Descriptor]) -> Sequence[Descriptor]:
    """As many as fit, one at least."""
    room = PAGE_BYTES
    for number, each in enumerate(listed[:PAGE]):
        room -= len(msgspec.json.encode(each))
        if number and room < 0:
            return listed[:number]
    return listed[:PAGE]
