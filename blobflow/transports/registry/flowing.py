"""A body as it comes from a registry: counted, braked, its breaks told as errors of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp

from blobflow.content import Chunks
from blobflow.errors import ConnectionLost
from blobflow.transports.registry.client import PROGRESS_SECONDS
from blobflow.transports.registry.inlet import take_over
from blobflow.transports.registry.session import Session


async def chunks_of(
    session: Session,
    response: aiohttp.ClientResponse,
    asked: str,
    expected: int,
    over: Callable[[], None],
) -> Chunks:
    """The body of an answer to `asked`: at least `expected` bytes, or ConnectionLost or TimedOut. When all of
    it has come, `over` is called."""
    meter, brake = session.meter, session.reading
    received = 0
    try:
        inlet = await take_over(response, expected) if brake is None else None
        async for chunk in inlet.chunks(PROGRESS_SECONDS) if inlet else _pieces(response):
            size = len(chunk)
            received += size
            meter.bytes_read += size
            if brake is not None:
                await brake.wait(size)
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise session.lost(error, asked, received, expected) from None
    if received < expected:
        raise ConnectionLost(
            f"connection to {session.host} lost after {received} of {expected} bytes ({asked})",
            received=received,
            expected=expected,
        )
    over()


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """What comes, in the pieces that aiohttp received it in, as joining them copies every byte once more;
    the pieces that a chunked answer came in may be too small for that."""
    content = response.content
    while True:
        if response.content_length is None:
            piece = await content.readany()
        else:
            piece, _ = await content.readchunk()
        if not piece:
            return
        yield piece
