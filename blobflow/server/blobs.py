"""Pulling: distribution-spec, "Pull" ([end-1] to [end-3])."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from aiohttp import web

from blobflow.errors import IntegrityError, NotFound, UnsupportedContent
from blobflow.events import Warned
from blobflow.oci import Descriptor, Digest, media, parse_manifest
from blobflow.server.content_negotiation import accepts, default_image
from blobflow.server.errors import ApiError
from blobflow.server.http.ranges import ByteRange, RangeNotSatisfiable, parse_range
from blobflow.server.pullthrough.serving import send_incoming
from blobflow.server.registry import Registry
from blobflow.server.routes import Route, is_tag, parse_digest_parameter
from blobflow.transports.store import promises
from blobflow.transports.store.os_errors import translate_os_errors
from blobflow.transports.store.verified_reading import open_for_reading

# A body up to this many bytes goes out in one write with its headers; a larger one takes the wire's way.
SMALL = 64 * 1024


async def api_version(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-1]: this is a registry."""
    return web.Response(body=b"{}", content_type="application/json")


async def read_blob(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-2], GET and HEAD: the blob, or one range of it ("Pulling blobs", RFC 9110 section 14)."""
    if route.upstream is None:
        return await _read_blob(registry, request, route)
    return await _unless_evicted(lambda: _read_blob(registry, request, route))


async def _unless_evicted(answer: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """What is pulled through can be evicted between two looks: then it is fetched again. That an upstream
    does not have it is another thing, and has its error as a cause."""
    try:
        return await answer()
    except ApiError as error:
        if error.status != 404 or error.__cause__ is not None:
            raise
    return await answer()


async def _read_blob(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    digest = parse_digest_parameter(route.reference)
    incoming = await _coming(registry, route, digest, counted=request.method == "GET")
    small = None if incoming else registry.small_blobs.get(digest)
    if incoming:
        size = incoming.size
    elif (
        small is not None and registry.store.repositories.media_type_of(route.repository, digest) is not None
    ):
        size = len(small)
    else:
        size = held_blob(registry, route.repository, digest)
    etag = f'"{digest}"'
    asked = request.headers
    headers = {
        "Docker-Content-Digest": digest,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if _names(asked.get("If-None-Match"), etag):
        return web.Response(status=304, headers=headers)
    if request.method == "HEAD":
        if not incoming and not await promises.promise_existing(registry.store, digest):
            registry.small_blobs.forget(digest)  # or GET would go on answering
            raise _blob_unknown(digest)
        return web.Response(headers={**headers, "Content-Length": str(size)})
    span = None
    if "Range" in asked and asked.get("If-Range", etag) == etag:
        try:
            span = parse_range(asked["Range"], size)
        except RangeNotSatisfiable:
            raise ApiError(
                "SIZE_INVALID",
                f"the range begins past the blob's {size} bytes",
                status=416,
                headers={"Content-Range": f"bytes */{size}"},
            ) from None
    if incoming and span is not None and not span.start:
        span = None  # RFC 9110, 14.2: a range may be ignored; so a 206 from 0 tells that the blob is held
    status = 200
    if span is not None:
        status = 206
        headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{size}"
    response = web.StreamResponse(status=status, headers=headers)
    span = span or ByteRange(0, size)
    response.content_length = span.length
    if incoming:
        return await send_incoming(registry, request, route, incoming, span, response)
    if small is not None:
        registry.store.blobs.mark_used(digest)
        body = small if span.length == len(small) else small[span.start : span.end]
        return web.Response(status=status, headers=headers, body=body)
    return await _send(registry, request, digest, span, response)


async def _coming(registry: Registry, route: Route, digest: Digest, *, counted: bool) -> Descriptor | None:
    """A blob that is not here and will be pulled through; None: it is here, which is `counted` as a hit, or
    nowhere."""
    if registry.pullthrough is None or route.upstream is None:
        return None
    store = registry.store
    if (
        store.repositories.media_type_of(route.repository, digest) is None
        or store.blobs.size_of(digest) is None
    ):
        blob = await registry.pullthrough.blob(route, digest, sure=not counted)
        if blob is None or store.blobs.size_of(digest) is None:
            return blob
    if counted:
        registry.pullthrough.hit(route)
    return None


async def _send(
    registry: Registry,
    request: web.BaseRequest,
    digest: Digest,
    span: ByteRange,
    response: web.StreamResponse,
) -> web.StreamResponse:
    path = registry.store.blobs.path_of(digest)
    try:
        await registry.store.blobs.check(digest)
        registry.store.blobs.mark_used(digest)
        file = os.fdopen(open_for_reading(path), "rb", buffering=0)
    except (FileNotFoundError, NotFound):
        raise _blob_unknown(digest) from None
    except IntegrityError as error:
        registry.report_damaged(digest, error)
        raise _blob_unknown(digest) from None
    with file:
        if span.length <= SMALL:
            with translate_os_errors("read", path):
                body = os.pread(file.fileno(), span.length, span.start)
            if response.status == 200:
                registry.small_blobs.put(digest, body)
            return web.Response(status=response.status, headers=response.headers, body=body)
        try:
            await registry.body_transport.send(request, response, file, span)
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:  # the client's way, or the disk: nothing more can be said to the client
            registry.store.observer(Warned(f"sending {path} broke off: {error.strerror or error}"))
            raise ConnectionAbortedError(str(error)) from error
        await response.write_eof()
    return response


async def read_manifest(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-3], GET and HEAD: the manifest by tag or digest, byte for byte as it was pushed.

    Who asks for a tag and accepts no index gets the linux/amd64 image of one.
    """
    if route.upstream is None:
        return await _read_manifest(registry, request, route)
    return await _unless_evicted(lambda: _read_manifest(registry, request, route))


async def _read_manifest(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    digest, media_type = await _brought(registry, route)
    if media_type in media.INDEXES and ":" not in route.reference:
        asked = request.headers.getall("Accept", ())
        if not accepts(asked, media_type):
            image = await _image_for_all(registry, digest, media_type)
            digest, media_type = await _brought(registry, route._replace(reference=image))
    etag = f'"{digest}"'
    headers = {"Docker-Content-Digest": digest, "ETag": etag, "Content-Type": media_type}
    if _names(request.headers.get("If-None-Match"), etag):
        return web.Response(status=304, headers=headers)
    if request.method == "HEAD":
        size = registry.store.blobs.size_of(digest)
        if size is None or not await promises.promise_existing(registry.store, digest):
            registry.small_blobs.forget(digest)
            raise _manifest_unknown(route.reference)
        return web.Response(headers={**headers, "Content-Length": str(size)})
    return web.Response(headers=headers, body=await _raw(registry, digest))


async def _brought(registry: Registry, route: Route) -> tuple[Digest, str]:
    """As `held_manifest`, after it was fetched if it is pulled through."""
    if registry.pullthrough is not None and route.upstream is not None:
        await registry.pullthrough.fetch_manifest(route)
    return held_manifest(registry, route)


async def _raw(registry: Registry, digest: Digest) -> bytes:
    """A held manifest's bytes. Raises Refusal (MANIFEST_UNKNOWN)."""
    raw = registry.small_blobs.get(digest)
    if raw is not None:
        registry.store.blobs.mark_used(digest)
        return raw
    try:
        raw = await registry.store.blobs.read_whole(digest)
    except NotFound:
        raise _manifest_unknown(digest) from None
    except IntegrityError as error:
        registry.report_damaged(digest, error)
        raise _manifest_unknown(digest) from None
    registry.small_blobs.put(digest, raw)
    return raw


async def _image_for_all(registry: Registry, digest: Digest, media_type: str) -> Digest:
    """The digest of the image that an index is to a client that accepts none. Raises Refusal."""
    try:
        image = default_image(
            parse_manifest(await _raw(registry, digest), media_type, digest=digest, let_in=True)
        )
    except UnsupportedContent:
        image = None
    if image is None:
        raise ApiError(
            "MANIFEST_UNKNOWN",
            f"this is an index without an image for linux/amd64; ask for it with Accept: {media_type}",
        )
    return image.digest


def held_blob(registry: Registry, repository: str, digest: Digest) -> int:
    """The size of a blob that is visible in the repository. Raises Refusal (BLOB_UNKNOWN)."""
    if registry.store.repositories.media_type_of(repository, digest) is None:
        raise _blob_unknown(digest)
    size = registry.store.blobs.size_of(digest)
    if size is None:
        raise _blob_unknown(digest)
    return size


def held_manifest(registry: Registry, route: Route) -> tuple[Digest, str]:
    """Digest and media type of the manifest that a reference names.

    Raises Refusal: MANIFEST_UNKNOWN; DIGEST_INVALID for a reference with a colon that is no digest.
    """
    found: tuple[Digest, str | None] | None = None
    if ":" in route.reference:
        digest = parse_digest_parameter(route.reference)
        found = digest, registry.store.repositories.media_type_of(route.repository, digest)
    elif is_tag(route.reference):
        found = registry.store.repositories.resolve_manifest(route.repository, route.reference)
    if found is None or not found[1]:
        raise _manifest_unknown(route.reference)
    return found[0], found[1]


def _names(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match lists this entity tag."""
    if header is None:
        return False
    return header.strip() == "*" or etag in {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _blob_unknown(digest: Digest) -> ApiError:
    return ApiError("BLOB_UNKNOWN", f"this repository has no blob {digest}", detail={"digest": digest})


def _manifest_unknown(reference: str) -> ApiError:
    return ApiError(
        "MANIFEST_UNKNOWN", "this repository has no such manifest", detail={"reference": reference[:300]}
    )
