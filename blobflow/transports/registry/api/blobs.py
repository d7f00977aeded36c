"""Reading a blob [end-2], whole or from an offset: by ranges where they are served, past codings, and held
against what the answer announces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import aiohttp
import msgspec

from blobflow.content import BlobStream, PartStream, Site, is_small, no_bytes
from blobflow.errors import IntegrityError, SizeMismatch, StalePartial
from blobflow.oci import Descriptor
from blobflow.permits import Permit
from blobflow.transports.registry.api.lookups import Lookups
from blobflow.transports.registry.http.aiohttp_client import close_response
from blobflow.transports.registry.http.content_encoding import codings_over
from blobflow.transports.registry.http.digest_headers import check_digest_header
from blobflow.transports.registry.http.downloads import Download
from blobflow.transports.registry.http.headers import parse_content_range
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request
from blobflow.transports.registry.ranges.requests import RangeRequests
from blobflow.transports.registry.ranges.stream import RangedStream, can_be_divided


class _Reading:
    """A blob, or a part of it, as one answer brings it. `divisible`: ranges of the same bytes may be had."""

    def __init__(
        self,
        stream: BlobStream,
        response: aiohttp.ClientResponse,
        permit: Permit,
        download: Download,
        *,
        divisible: bool,
    ) -> None:
        self.stream = stream
        self.response = response
        self.permit = permit
        self.divisible = divisible and response.headers.get("Accept-Ranges", "").lower() != "none"
        self._download = download

    def leave(self) -> None:
        """End it wherever it is, with its connection."""
        self._download.close()
        close_response(self.response)


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
        """See `Source.open`. A large blob goes over to several ranges, where its line is worth it."""
        stop = self._blob.size if end is None else min(end, self._blob.size)
        if offset >= stop:
            yield no_bytes()
            return
        async with self._by_one_stream(offset, stop) as reading:
            if not (reading.divisible and self._may_be_divided(stop - offset)):
                yield reading.stream
                return
            stream = self._ranged(reading, offset, stop)
            try:
                yield stream
            except (IntegrityError, StalePartial):  # found by who checks the digest
                if self._client.capabilities.ranges.came_wrong(self._blob.digest):
                    self._client.meter.ranges.fallbacks["wrong bytes"] += 1
                raise
            finally:
                await stream.aclose()

    def _may_be_divided(self, length: int) -> bool:
        return self._ranges and self._client.parallel_ranges and can_be_divided(length)

    def _ranged(self, reading: _Reading, offset: int, stop: int) -> RangedStream:
        client, blob = self._client, self._blob
        requests = RangeRequests(
            client, blob, lambda part: self._lookups.blob("GET", blob.digest, part=part), reading.response
        )
        return RangedStream(
            client,
            blob,
            reading.stream,
            offset,
            stop,
            requests,
            permit=reading.permit,
            leave=reading.leave,
            reopen=lambda at: self._rest(at, stop, reading.permit),
        )

    @asynccontextmanager
    async def _rest(self, offset: int, stop: int, permit: Permit) -> AsyncIterator[BlobStream]:
        """The bytes from an offset on by one stream, under the permit of a reading that is under way."""
        lookups, site = self._lookups, self._site
        rest = RegistryBlob(self._client, lookups, site, self._blob, ranges=self._ranges, permit=permit)
        async with rest._by_one_stream(offset, stop) as reading:
            yield reading.stream

    @asynccontextmanager
    async def _by_one_stream(self, offset: int, stop: int) -> AsyncIterator[_Reading]:
        """The bytes from `offset` to `stop`, of which there are some, by one request: by a range where they
        are not all; if that is not to be had, of all of it."""
        blob, client = self._blob, self._client
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
                    stream = download if whole else PartStream(download, skip, length)
                    yield _Reading(stream, response, permit, download, divisible=not (packed or skip))
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
        """Where in the blob the response's body begins; None if nowhere of use (416, a part of a `coded`
        body, another range than the one that was asked for).

        Raises SizeMismatch or DigestMismatch where it tells of another blob.
        """
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
        if response.status == 416:
            if told is not None and told.total not in (None, blob.size):
                raise SizeMismatch(what, expected=blob.size, actual=told.total)
            return None
        if told is None or told.first is None or told.last is None or told.total not in (None, blob.size):
            return None
        return told.first if told.first <= offset and told.last + 1 >= stop else None
