"""One range of a blob: asked for where the blob was found, of the version that was found there, and taken
only if the answer is that very range [end-2; RFC 9110, 13.1.5, 14.2, 15.3.7]."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing

import aiohttp
import msgspec
from yarl import URL

from blobflow.errors import BlobflowError, NetworkError, RegistryError
from blobflow.oci import Descriptor
from blobflow.permits import Permit
from blobflow.transports.registry.http.content_encoding import codings_of
from blobflow.transports.registry.http.digest_headers import contradicting_digest
from blobflow.transports.registry.http.downloads import Download
from blobflow.transports.registry.http.headers import parse_content_range
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request

# With these an address that the registry gave is no longer valid: signatures end (403 at S3 and GCS), and
# what was moved is gone. Or the host there fails, or is no more (as is known without any status), and the
# registry has another one by now.
_LAPSED = frozenset({400, 401, 403, 404, 410, 500, 502, 503, 504})


class RangesRefused(BlobflowError):
    """A range was answered by something else. `reason`: in a few words, of which there are few."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"a range was answered by {reason}")
        self.reason = reason


class RangeRequests:
    """Asks for ranges of one blob. `request`: makes the request for bytes of it, as Range has them, at the
    registry. `found`: the answer by which the blob is read already."""

    def __init__(
        self,
        client: HostClient,
        blob: Descriptor,
        request: Callable[[str], Request],
        found: aiohttp.ClientResponse,
    ) -> None:
        self._client = client
        self._blob = blob
        self._request = request
        etag = found.headers.get("ETag", "")
        self._etag = etag if etag.startswith('"') else ""  # If-Range takes no weak one
        self._address: URL | None = None
        self._note_address(found)

    @asynccontextmanager
    async def open(self, start: int, stop: int, permit: Permit) -> AsyncIterator[Download]:
        """The bytes from `start` to `stop`, under a permit.

        Raises RangesRefused where the answer is no such range: nothing of it is read.
        """
        request = msgspec.structs.replace(self._request(f"bytes={start}-{stop - 1}"), permit=permit)
        if self._etag:
            request.headers["If-Range"] = self._etag
        async with AsyncExitStack() as stack:
            response = await self._opened(stack, request)
            if (reason := self._contradiction(response, start, stop)) is not None:
                raise RangesRefused(reason)
            self._note_address(response)
            length, what = stop - start, request.description
            with closing(Download(self._client, response, what, length, _nothing, kept=True)) as download:
                yield download

    async def _opened(self, stack: AsyncExitStack, request: Request) -> aiohttp.ClientResponse:
        """The answer to a request: from where a redirect led, while that is valid; else from the registry."""
        if (address := self._address) is not None:
            there = msgspec.structs.replace(request, url=address)
            try:
                return (await stack.enter_async_context(self._client.stream(there)))[0]
            except (NetworkError, RegistryError) as error:
                if isinstance(error, RegistryError) and error.status not in _LAPSED:
                    raise
                if self._address is address:  # and nobody has found another meanwhile
                    self._address = None
        return (await stack.enter_async_context(self._client.stream(request)))[0]

    def _note_address(self, response: aiohttp.ClientResponse) -> None:
        asked = f"{self._client.home}{self._request('').url}"
        self._address = None if str(response.url) == asked else response.url

    def _contradiction(self, response: aiohttp.ClientResponse, start: int, stop: int) -> str | None:
        """What an answer is, if not the bytes from `start` to `stop` of the same version of the same blob."""
        headers = response.headers
        if self._etag and headers.get("ETag", self._etag) != self._etag:
            return "another ETag"
        if contradicting_digest(self._blob.digest, headers) is not None:
            return "another digest"
        if response.status == 416:
            return "416"
        if response.status != 206:
            return "the whole blob"
        if codings_of(headers):
            return "a coded body"
        told = parse_content_range(headers.get("Content-Range"))
        if told is not None and told.total not in (None, self._blob.size):
            return "another size"
        if told is None or told.first != start or told.last != stop - 1:
            return "another range"
        if response.content_length not in (None, stop - start):
            return "another length"
        return None


def _nothing() -> None:
    """A range's permit is released by who has it."""
