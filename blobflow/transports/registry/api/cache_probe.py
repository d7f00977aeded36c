"""A cache probe: has a pull-through cache stored a blob, or does this request make it fetch it?

A HEAD can't tell: to distribution's proxy it is as good as a GET, and is answered 200 either way. A GET of
the first byte can (docker-registry 2.8.2, checked; distribution 3 and Harbor do the same by their code): what
is stored is served as a file, with ranges (206); what is not is passed on whole, whatever was asked (200).
So one request finds out, and is already the pull where one is needed. Other caches pass on a part of what
they don't have; those that say so (`Cache-Status`, RFC 9211, or the X-Cache of nginx and Varnish) are asked
twice.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing

import aiohttp
from yarl import URL

from blobflow.content import BlobStream, Site
from blobflow.errors import SizeMismatch
from blobflow.oci import Descriptor
from blobflow.transports.registry.http.content_encoding import codings_over
from blobflow.transports.registry.http.digest_headers import check_digest_header
from blobflow.transports.registry.http.downloads import Download
from blobflow.transports.registry.http.headers import parse_content_range
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request

_FORWARDED = re.compile(r";\s*fwd\s*=", re.ASCII)


@asynccontextmanager
async def probe_cache(
    client: HostClient, site: Site, blob: Descriptor, *, again: bool = False
) -> AsyncIterator[BlobStream | None]:
    """Ask for the blob's first byte ([end-2], GET). None: it is stored. Else the whole blob, as it comes.

    With `again` all of it is asked for, and comes, stored or not. The bytes are not verified. Leaving early
    closes the connection. Raises NotFound on entry, SizeMismatch or DigestMismatch where another blob is
    announced, and ConnectionLost or TimedOut while iterating.
    """
    for part in (True, False)[again:]:
        request = _request(site, blob, part=part)
        async with client.stream(request) as (response, permit):
            check_digest_header(response.headers, blob.digest, f"blob {blob.digest} at {site}")
            codings = codings_over(response, blob, client.host, request.description)
            size = _announced(response) if not codings else None
            if size is not None and size != blob.size:
                raise SizeMismatch(f"blob {blob.digest} at {site}", expected=blob.size, actual=size)
            if response.status == 200:
                packed = (codings, blob) if codings else None
                with closing(
                    Download(client, response, request.description, blob.size, permit.release, packed=packed)
                ) as download:
                    yield download
                return
            if not reports_miss(response.headers):  # 416 is how a stored blob without bytes answers
                yield None
                return


def _request(site: Site, blob: Descriptor, *, part: bool) -> Request:
    return Request(
        "GET",
        URL(f"/v2/{site.repository}/blobs/{blob.digest}", encoded=True),
        f"blob {blob.digest} of {site.repository}",
        scopes=(f"repository:{site.repository}:pull",),
        headers={"Range": "bytes=0-0"} if part else {},
        ok=(200, 206, 416) if part else (200,),
    )


def reports_miss(headers: Mapping[str, str]) -> bool:
    """Whether an answer says that it had to be fetched from elsewhere."""
    status = headers.get("Cache-Status", "").rpartition(",")[2]  # the last one is the cache that we asked
    told = headers.get("X-Cache-Status") or headers.get("X-Cache") or ""
    return bool(_FORWARDED.search(status)) or told.upper().startswith("MISS")


def _announced(response: aiohttp.ClientResponse) -> int | None:
    """The blob's size, as far as the answer tells it."""
    if response.status == 200:
        return response.content_length
    told = parse_content_range(response.headers.get("Content-Range"))
    return told.total if told is not None else None
