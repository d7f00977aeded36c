"""Serves a blob that is still coming in from its upstream."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec
from aiohttp import web

from blobflow.content import BlobStream, Chunk, Site
from blobflow.errors import BlobflowError, IntegrityError, StalePartial
from blobflow.oci import Descriptor
from blobflow.server.errors import ApiError
from blobflow.server.http.ranges import ByteRange
from blobflow.server.pullthrough.cache import PullThroughCache

# Seconds between two looks whether a client that waits is still there.
CLIENT_CHECK_SECONDS = 1.0


class Incoming(msgspec.Struct, frozen=True):
    """A blob that the upstream has and the store does not hold yet, as `cache` pulls it through. `anywhere`:
    see `IncomingBlobs.follow`."""

    cache: PullThroughCache
    repository: str
    upstream: Site
    blob: Descriptor
    anywhere: bool = True

    @property
    def size(self) -> int:
        return self.blob.size


async def send_incoming(
    incoming: Incoming, span: ByteRange, request: web.BaseRequest, response: web.StreamResponse
) -> web.StreamResponse:
    """Answer with `response`, whose headers are complete, and the blob's bytes of `span` as they arrive.

    What goes wrong before the first byte raises ApiError or StorageError. What goes wrong later cuts the
    connection (ConnectionError), so that no client takes a part for the whole.
    """
    try:
        await _follow(incoming, span, request, response)
    except (ApiError, BlobflowError) as error:
        if response.prepared:
            raise ConnectionAbortedError(str(error)) from error
        if isinstance(error, IntegrityError):
            raise ApiError(
                "UNKNOWN", "the upstream gave something else than this blob", status=502
            ) from error
        raise
    if span.end == incoming.size:
        await incoming.cache.link_blob(incoming.repository, incoming.blob.digest)
    await response.write_eof()
    return response


async def _follow(
    incoming: Incoming, span: ByteRange, request: web.BaseRequest, response: web.StreamResponse
) -> None:
    """Send the span. If what an earlier process left of the blob turns out to be damaged, the store drops it
    and the blob is read anew; a client that has had bytes of it is cut off."""
    async with AsyncExitStack() as stack:
        following = incoming.cache.follow(incoming.upstream, incoming.blob, anywhere=incoming.anywhere)
        reader = await stack.enter_async_context(following)
        stream = await stack.enter_async_context(reader.open(span.start))
        try:
            await _send(request, stream, span, response)
            return
        except StalePartial:
            if response.prepared:
                raise
    await _follow(incoming, span, request, response)


async def _next(stream: BlobStream, request: web.BaseRequest) -> Chunk:
    """The next bytes, none at the end. While they don't come, it checks that the client is still there, and
    raises ConnectionError if not: nothing is read from an upstream for nobody."""
    following = asyncio.ensure_future(_first(stream))
    try:
        while not following.done():
            await asyncio.wait((following,), timeout=CLIENT_CHECK_SECONDS)
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client is gone")
        return following.result()
    finally:
        if not following.done():
            following.cancel()
            await asyncio.wait((following,))


async def _first(stream: BlobStream) -> Chunk:
    return await anext(stream, b"")


async def _send(
    request: web.BaseRequest, stream: BlobStream, span: ByteRange, response: web.StreamResponse
) -> None:
    left = span.length
    while chunk := await _next(stream, request):
        if not response.prepared:
            await response.prepare(request)
        piece = chunk if len(chunk) <= left else memoryview(chunk)[:left]
        await response.write(piece)
        left -= len(piece)
        if not left and span.end != span.start:
            return
    if not response.prepared:
        await response.prepare(request)
