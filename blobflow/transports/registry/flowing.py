"""A body as it comes from a registry: counted, braked, held to the least rate, its breaks told as errors of
ours. It is a resource: who leaves its context has ended it, however far it was read, and whoever still holds
its chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import aiohttp

from blobflow.content import Chunks
from blobflow.errors import ConnectionLost
from blobflow.oci import Descriptor
from blobflow.transports.registry.encodings import begins_with, unpacked
from blobflow.transports.registry.inlet import Inlet, take_over
from blobflow.transports.registry.leastrate import LeastRate, TooSlow
from blobflow.transports.registry.session import Session


@contextmanager
def flowing(
    session: Session,
    response: aiohttp.ClientResponse,
    asked: str,
    expected: int,
    over: Callable[[], None],
    *,
    packed: tuple[tuple[str, ...], Descriptor] | None = None,
) -> Iterator[Chunks]:
    """The body of an answer to `asked`: at least `expected` bytes, or ConnectionLost or TimedOut. When all of
    it has come, `over` is called. `packed`: the codings that are to be undone, and the blob below them.

    On leaving, a connection that was taken over is closed; the others are `response`'s. Chunks that are asked
    for after that raise ConnectionLost.
    """
    flow = _Flow(session, response, asked, expected, packed)
    try:
        yield flow.chunks(over)
    finally:
        flow.close()


class _Flow:
    def __init__(
        self,
        session: Session,
        response: aiohttp.ClientResponse,
        asked: str,
        expected: int,
        packed: tuple[tuple[str, ...], Descriptor] | None,
    ) -> None:
        self._packed = packed
        self._session = session
        self._response = response
        self._asked = asked
        self._expected = expected
        self._inlet: Inlet | None = None
        self._rate: LeastRate | None = None
        self._closed = False

    async def chunks(self, over: Callable[[], None]) -> Chunks:
        session, asked, expected = self._session, self._asked, self._expected
        meter, brake = session.meter, session.reading
        received = 0
        try:
            async for chunk in await self._begin():
                size = len(chunk)
                received += size
                meter.bytes_read += size
                if brake is not None:
                    await brake.wait(size)
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise session.lost(error, asked, received, expected) from None
        finally:
            self._stop()
        if received < expected or self._closed:
            raise ConnectionLost(
                f"connection to {session.host} lost after {received} of {expected} bytes ({asked})",
                received=received,
                expected=expected,
            )
        over()

    async def _begin(self) -> AsyncIterator[bytes | memoryview]:
        self._rate = LeastRate(self._fail)
        if self._packed is not None:
            codings, blob = self._packed
            what = f"{self._session.host}'s answer to {self._asked}"
            pieces = _pieces(self._response, self._rate)
            unsized = self._response.content_length is None
            return unpacked(pieces, codings, what, begins_with(blob) if unsized else b"")
        if not self._closed and self._session.reading is None:
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


async def _pieces(response: aiohttp.ClientResponse, rate: LeastRate) -> AsyncIterator[bytes]:
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
