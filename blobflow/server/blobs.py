"""Blobs: distribution-spec, "Pulling blobs" ([end-2]) and "Deleting blobs" ([end-10]).

Whoever asks for a blob asks one question, `find_blob`: it is held, incoming (an upstream has it), or absent.
"""

from __future__ import annotations

import os

import msgspec
from aiohttp import web

from blobflow.errors import IntegrityError, NotFound, StorageError
from blobflow.events import Warned
from blobflow.oci import Digest
from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError
from blobflow.server.held_elsewhere import may_have
from blobflow.server.http.conditional import matches_etag
from blobflow.server.http.ranges import ByteRange, RangeNotSatisfiable, parse_range
from blobflow.server.pullthrough.eviction import retry_if_evicted
from blobflow.server.pullthrough.serving import Incoming, send_incoming
from blobflow.server.registry import Registry
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.served_content import BlobFile

# A body up to this many bytes goes out in one write with its headers; a larger one takes the body transport.
SMALL_BYTES = 64 * 1024


class Held(msgspec.Struct, frozen=True):
    """The blob is here, and it is visible in the repository. `content`: a small one's bytes, if they
    are in memory."""

    size: int
    content: bytes | None = None


class Absent(msgspec.Struct, frozen=True):
    """Neither this repository has the blob nor its upstream, as far as anybody knows."""


BlobState = Held | Incoming | Absent


async def find_blob(context: RequestContext, digest: Digest) -> BlobState:
    """Where the blob is that a request names.

    For a HEAD the upstream is asked whether it has the blob; who gets it finds out. A GET of what is pulled
    through and held counts as a hit. Raises ApiError where the upstream can't be asked.
    """
    registry, route = context.registry, context.route
    if registry.pullthrough is None or route.upstream is None:
        return find_held_blob(registry, route.repository, digest)
    found = find_held_blob(registry, route.repository, digest)
    is_get = context.request.method == "GET"
    if isinstance(found, Absent) or registry.content.blobs.size_of(digest) is None:
        blob = await registry.pullthrough.find_blob(
            route.repository,
            route.upstream,
            digest,
            confirm=not is_get,
            may_have=lambda: may_have(context, digest),
            links=context.permissions.unlimited,
        )
        size = registry.content.blobs.size_of(digest)
        if blob is not None and size is None:
            anywhere = context.permissions.everywhere("pull")
            return Incoming(registry.pullthrough, route.repository, route.upstream, blob, anywhere)
        if blob is not None and size == blob.size:
            found = Held(blob.size)
        else:
            found = find_held_blob(registry, route.repository, digest)
    if is_get and isinstance(found, Held):
        registry.pullthrough.count_hit(route.upstream)
    return found


def find_held_blob(registry: Registry, repository: str, digest: Digest) -> Held | Absent:
    """As `find_blob`, without a look at any upstream."""
    if registry.content.repositories.media_type_of(repository, digest) is None:
        return Absent()
    content = registry.small_blobs.get(digest)
    if content is not None:
        return Held(len(content), content)
    size = registry.content.blobs.size_of(digest)
    return Absent() if size is None else Held(size)


async def read_blob(context: RequestContext) -> web.StreamResponse:
    """[end-2], GET and HEAD: the blob, or one range of it ("Pulling blobs", RFC 9110 section 14)."""
    if context.route.upstream is None:
        return await _read_blob(context)
    return await retry_if_evicted(lambda: _read_blob(context))


async def delete_blob(context: RequestContext) -> web.StreamResponse:
    """[end-10], DELETE: the blob is no longer visible here; its bytes are the store's affair."""
    store, repository, digest = context.registry.store, context.repository, context.digest
    media_type = store.repositories.media_type_of(repository, digest)
    if media_type is None or store.blobs.size_of(digest) is None:
        raise _blob_unknown(digest)
    if media_type:
        raise ApiError("UNSUPPORTED", f"{digest} is a manifest here; delete it as one")
    await store.commit(lambda: store.repositories.remove(repository, digest))
    return web.Response(status=202)


async def _read_blob(context: RequestContext) -> web.StreamResponse:
    registry, request, digest = context.registry, context.request, context.digest
    found = await find_blob(context, digest)
    if isinstance(found, Absent):
        raise _blob_unknown(digest)
    etag = f'"{digest}"'
    headers = {
        "Docker-Content-Digest": digest,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if matches_etag(request.headers.get("If-None-Match"), etag):
        return web.Response(status=304, headers=headers)
    if request.method == "HEAD":
        if isinstance(found, Held) and not await registry.promise_existing(digest):
            registry.small_blobs.forget(digest)  # or GET would go on answering
            raise _blob_unknown(digest)
        return web.Response(headers={**headers, "Content-Length": str(found.size)})
    asked = _requested_range(request, etag, found.size)
    if isinstance(found, Incoming) and asked is not None and not asked.start:
        asked = None  # RFC 9110, 14.2: a range may be ignored; so a 206 from 0 means that the blob is held
    span = asked or ByteRange(0, found.size)
    if asked is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{found.size}"
    response = web.StreamResponse(status=206 if asked else 200, headers=headers)
    response.content_length = span.length
    if isinstance(found, Incoming):
        return await send_incoming(found, span, request, response)
    if found.content is None:
        return await _send_file(registry, request, digest, span, response)
    registry.content.blobs.mark_used(digest)
    body = found.content if asked is None else found.content[span.start : span.end]
    return web.Response(status=response.status, headers=headers, body=body)


def _requested_range(request: web.BaseRequest, etag: str, size: int) -> ByteRange | None:
    """The range that a request asks for; None for the whole. Raises ApiError (416)."""
    if "Range" not in request.headers or request.headers.get("If-Range", etag) != etag:
        return None
    try:
        return parse_range(request.headers["Range"], size)
    except RangeNotSatisfiable:
        raise ApiError(
            "SIZE_INVALID",
            f"the range begins past the blob's {size} bytes",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        ) from None


async def _send_file(
    registry: Registry,
    request: web.BaseRequest,
    digest: Digest,
    span: ByteRange,
    response: web.StreamResponse,
) -> web.StreamResponse:
    """Answer with the bytes of `span` from the blob's file; small blobs stay in memory for who asks next."""
    try:
        blob = await registry.content.blobs.open_file(digest)
        with blob.file:
            if span.length > SMALL_BYTES:
                await _send_large(registry, request, digest, blob, span, response)
                return response
            if blob.verified is not None:
                await blob.verified()
            with translate_os_errors("read", blob.name):
                body = os.pread(blob.file.fileno(), span.length, blob.start + span.start)
    except NotFound:
        raise _blob_unknown(digest) from None
    except IntegrityError as error:
        registry.report_damaged(digest, error)
        raise _blob_unknown(digest) from None
    if response.status == 200:
        registry.small_blobs.put(digest, body)
    return web.Response(status=response.status, headers=response.headers, body=body)


async def _send_large(
    registry: Registry,
    request: web.BaseRequest,
    digest: Digest,
    blob: BlobFile,
    span: ByteRange,
    response: web.StreamResponse,
) -> None:
    """Send the bytes of `span`; of what has yet to be verified the last ones wait until it is, so that nobody
    gets the whole of a damaged blob, by whatever ranges."""
    start, end = blob.start + span.start, blob.start + span.end
    send = registry.body_transport.send
    try:
        if blob.verified is not None:
            await send(request, response, blob.file, ByteRange(start, end - SMALL_BYTES))
            try:
                await blob.verified()
            except IntegrityError as error:
                registry.report_damaged(digest, error)
                raise ConnectionAbortedError(error.message) from error
            except StorageError as error:
                raise OSError(error.message) from error
            start = end - SMALL_BYTES
        await send(request, response, blob.file, ByteRange(start, end))
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:  # the client's connection, or the disk: the client can't hear which
        registry.content.observer(Warned(f"sending {blob.name} broke off: {error.strerror or error}"))
        raise ConnectionAbortedError(str(error)) from error
    await response.write_eof()


def _blob_unknown(digest: Digest) -> ApiError:
    return ApiError("BLOB_UNKNOWN", f"this repository has no blob {digest}", detail={"digest": digest})
