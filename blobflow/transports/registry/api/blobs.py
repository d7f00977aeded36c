"""Reading a blob [end-2], whole or from an offset: by ranges where they are served, past codings, and held
against what the answer announces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import aiohttp
import msgspec

from blobflow.content import BlobStream, PartStream, Site, is_small, no_bytes
from blobflow.errors import ProtocolViolation, SizeMismatch
from blobflow.oci import Descriptor
from blobflow.permits import Permit
from blobflow.transports.registry.api.lookups import Lookups
from blobflow.transports.registry.http.content_encoding import codings_over
from blobflow.transports.registry.http.digest_headers import check_digest_header
from blobflow.transports.registry.http.downloads import Download
from blobflow.transports.registry.http.headers import parse_content_range
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request


class RegistryBlob:
    """One blob of a repository: a `BlobReader`, not verified. `ranges`: whether they are worth asking for."""

    def __init__(
        self,
        client: HostClient,
        lookups: Lookups,
        site: Site,
        blob: Descriptor,
        *,
        ranges: bool,
        permit: Permit | None = None,
    ) -> None:
        self._client = client
        self._lookups = lookups
        self._site = site
        self._blob = blob
        self._permit = permit
        self._ranges = ranges

    @asynccontextmanager
    async def open(self, offset: int = 0, end: int | None = None) -> AsyncIterator[BlobStream]:
        """See `Source.open`."""
        blob, client = self._blob, self._client
        stop = blob.size if end is None else min(end, blob.size)
        if offset >= stop:
            yield no_bytes()
            return
        for ranged in (offset > 0 or stop < blob.size) and self._ranges, False:
            request = self._request(offset, stop, ranged=ranged)
            opening = self._lookups.stream(request, blob.digest, small=is_small(blob))
            async with opening as (response, permit):
                codings = codings_over(response, blob, client.host, request.description)
                begins = self._begins_at(response, offset, stop, coded=bool(codings))
                if begins is None:
                    continue  # no ranges here: all of it, and what comes before is passed over
                if not codings:
                    client.etags.note(request.url.path, response.headers.get("ETag", ""))
                skip = offset - begins
                length, whole = stop - offset, stop - begins == blob.size and not skip
                packed = (codings, blob) if codings else None
                expected = skip + length
                with closing(
                    Download(client, response, request.description, expected, permit.release, packed=packed)
                ) as download:
                    yield download if whole else PartStream(download, skip, length)
                return

    def _request(self, offset: int, stop: int, *, ranged: bool) -> Request:
        """GET of the blob, or of its bytes from `offset` to `stop`, of the version that was read before."""
        part = f"bytes={offset}-{stop - 1}" if ranged else ""
        request, etags = self._lookups.blob("GET", self._blob.digest, part=part), self._client.etags
        request = msgspec.structs.replace(request, permit=self._permit)
        path = request.url.path
        if ranged and offset and path in etags:
            request.headers["If-Range"] = etags[path]
        return request

    def _begins_at(
        self, response: aiohttp.ClientResponse, offset: int, stop: int, *, coded: bool
    ) -> int | None:
        """Where in the blob the response's body begins; None if nowhere of use (416, or a part of a `coded`
        body). Raises SizeMismatch or DigestMismatch where it tells of another blob."""
        blob = self._blob
        what = f"blob {blob.digest} at {self._site}"
        length = response.content_length
        check_digest_header(response.headers, blob.digest, what)
        if response.status == 200:
            if length is not None and length != blob.size and not coded:
                raise SizeMismatch(what, expected=blob.size, actual=length)
            return 0
        if coded:
            return None
        told = parse_content_range(response.headers.get("Content-Range"))
        if told is not None and told.total is not None and told.total != blob.size:
            raise SizeMismatch(what, expected=blob.size, actual=told.total)
        if response.status == 416:
            return None
        first, last = (told.first, told.last) if told is not None else (None, None)
        if first is None or last is None or first > offset or last + 1 < stop:
            raise ProtocolViolation(f"{self._client.host} served other bytes of {what} than asked for")
        return first
