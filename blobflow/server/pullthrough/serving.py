"""Sending a blob that is still coming in from its upstream."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from aiohttp import web

from blobflow.content import BlobStream, Chunk
from blobflow.errors import BlobflowError, IntegrityError, StalePartial
from blobflow.oci import Descriptor
from blobflow.server.errors import ApiError
from blobflow.server.http.ranges import ByteRange
from blobflow.server.registry import Registry
from blobflow.server.routes import Route

# Seconds between two looks whether a client that waits is still there.
CLIENT_CHECK_SECONDS = 1.0


async def send_incoming(
    registry: Registry,
    request: web.BaseRequest,
    route: Route,
    blob: Descriptor,
    span: ByteRange,
    response: web.StreamResponse,
) -> web.StreamResponse:
    """Answer with `response`, whose headers are complete, and the blob's bytes of `span` as they arrive.

    What goes wrong before the first byte raises Refusal. Later nothing can be said any more: the connection
    is cut (ConnectionError), so that nobody takes a part for the whole.
    """
    try:
        await _follow(registry, request, route, blob, span, response)
    except BlobflowError as error:
        if response.prepared:
            raise ConnectionAbortedError(str(error)) from error
        if isinstance(error, IntegrityError):
            raise ApiError(
                "UNKNOWN", "the upstream gave something else than this blob", status=502
            ) from error
        raise
    if span.end == blob.size:
        assert registry.pullthrough is not None
        await registry.pullthrough.keep(route, blob.digest)
    await response.write_eof()
    return response


async def _follow(
    registry: Registry,
    request: web.BaseRequest,
    route: Route,
    blob: Descriptor,
    span: ByteRange,
    response: web.StreamResponse,
) -> None:
    """Send the span. Where what an earlier process left of the blob turns out to be damaged, that is dropped
    and the blob read anew; who has had bytes of it can't be helped."""
    assert registry.pullthrough is not None
    async with AsyncExitStack() as stack:
        reader = await stack.enter_async_context(registry.pullthrough.follow(route, blob))
        stream = await stack.enter_async_context(reader.open(span.start))
        try:
            await _send(request, stream, span, response)
            return
        except StalePartial:
            if response.prepared:
                raise
    await _follow(registry, request, route, blob, span, response)


async def _next(stream: BlobStream, request: web.BaseRequest) -> Chunk:
    """The next bytes, none at the end. While they don't come, it is looked whether the client is still there:
    nothing is read from an upstream for nobody. Raises ConnectionError."""
    coming = asyncio.ensure_future(_first(stream))
    try:
        while not coming.done():
            await asyncio.wait((coming,), timeout=CLIENT_CHECK_SECONDS)
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client is gone")
        return coming.result()
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))


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
