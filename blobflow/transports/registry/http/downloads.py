"""A body as it comes from a registry: counted, braked, held to the least rate, its breaks told as errors of
ours. It is a resource: who leaves its context has ended it, however far it was read, and whoever still holds
its chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import aiohttp

from blobflow.content import BlobStream
from blobflow.errors import ConnectionLost
from blobflow.oci import Descriptor
from blobflow.transports.registry.http.content_encoding import decode_stream, magic_of
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.minimum_rate import MinimumRate, TooSlow
from blobflow.transports.registry.http.socket_body import SocketBodyReader, take_over


@contextmanager
def flowing(
    client: HostClient,
    response: aiohttp.ClientResponse,
    description: str,
    expected: int,
    over: Callable[[], None],
    *,
    packed: tuple[tuple[str, ...], Descriptor] | None = None,
) -> Iterator[BlobStream]:
    """The body of an answer to `description`: at least `expected` bytes, or ConnectionLost or TimedOut. When
    all of it has come, `over` is called. `packed`: the codings that are to be undone, and the blob below
    them.

    On leaving, a connection that was taken over is closed; the others are `response`'s. Chunks that are asked
    for after that raise ConnectionLost.
    """
    flow = _Flow(client, response, description, expected, packed)
    try:
        yield flow.chunks(over)
    finally:
        flow.close()


class _Flow:
    def __init__(
        self,
        client: HostClient,
        response: aiohttp.ClientResponse,
        description: str,
        expected: int,
        packed: tuple[tuple[str, ...], Descriptor] | None,
    ) -> None:
        self._packed = packed
        self._client = client
        self._response = response
        self._asked = description
        self._expected = expected
        self._inlet: SocketBodyReader | None = None
        self._rate: MinimumRate | None = None
        self._closed = False

    async def chunks(self, over: Callable[[], None]) -> BlobStream:
        client, description, expected = self._client, self._asked, self._expected
        meter, throttle = client.meter, client.reading
        received = 0
        try:
            async for chunk in await self._begin():
                size = len(chunk)
                received += size
                meter.bytes_read += size
                if throttle is not None:
                    await throttle.wait(size)
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise client.lost(error, description, received, expected) from None
        finally:
            self._stop()
        if received < expected or self._closed:
            raise ConnectionLost(
                f"connection to {client.host} lost after {received} of {expected} bytes ({description})",
                received=received,
                expected=expected,
            )
        over()

    async def _begin(self) -> AsyncIterator[bytes | memoryview]:
        self._rate = MinimumRate(self._fail)
        if self._packed is not None:
            codings, blob = self._packed
            what = f"{self._client.host}'s answer to {self._asked}"
            pieces = _pieces(self._response, self._rate)
            unsized = self._response.content_length is None
            return decode_stream(pieces, codings, what, magic_of(blob) if unsized else b"")
        if not self._closed and self._client.reading is None:
            self._inlet = await take_over(self._response, self._expected)
        if self._inlet is not None:
            return self._inlet.chunks(self._rate)
        return _pieces(self._response, self._rate)

    def _fail(self, error: TooSlow) -> None:
        if self._inlet is not None:
            self._inlet.fail(error)
        else:
            self._response.content.set_exception(error)

    def _stop(self) -> None:
        if self._rate is not None:
            self._rate.stop()

    def close(self) -> None:
        self._closed = True
        self._stop()
        if self._inlet is not None:
            self._inlet.close()


async def _pieces(response: aiohttp.ClientResponse, rate: MinimumRate) -> AsyncIterator[bytes]:
    """What comes, in the pieces that aiohttp received it in, as joining them copies every byte once more;
    the pieces that a chunked answer came in may be too small for that."""
    content = response.content
    while True:
        rate.waiting()
        if response.content_length is None:
            piece = await content.readany()
        else:
            piece, _ = await content.readchunk()
        rate.came(len(piece))
        if not piece:
            return
        yield piece
