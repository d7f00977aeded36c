"""Manifests: distribution-spec, pulling ([end-3]), pushing ([end-7a], [end-7b]) and deleting them ([end-9]).

The registry is strict about what a manifest names, unless its options say otherwise: it refuses an image
manifest while a blob of that image is missing, so that a tag never points at content that is not all there,
and clients learn what they have yet to send. An index may be sparse: what it lists may be missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from blobflow.errors import IntegrityError, NotFound, UnsupportedContent
from blobflow.oci import (
    Descriptor,
    Digest,
    Manifest,
    digest_of,
    media,
    parse_manifest,
)
from blobflow.oci.digest import algorithm_of
from blobflow.oci.manifest import children
from blobflow.server.content_negotiation import accepts, default_image
from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError, ErrorEntry
from blobflow.server.http.conditional import matches_etag
from blobflow.server.manifest_body import received_manifest
from blobflow.server.manifest_index import INLINE_BYTES
from blobflow.server.pullthrough.eviction import retry_if_evicted
from blobflow.server.registry import Registry
from blobflow.server.routes import Route, is_tag, parse_digest_parameter
from blobflow.transports.store import promises

# How many missing children an answer lists: enough to go on with, and no body of megabytes.
_MAX_LISTED = 100
# Children that are looked for in one turn of the loop: a few milliseconds. Others do not wait for the 20,000
# that there may be.
_CHILDREN_BATCH = 250


# Pulling


async def read_manifest(context: RequestContext) -> web.StreamResponse:
    """[end-3], GET and HEAD: the manifest by tag or digest, byte for byte as it was pushed.

    Who asks for a tag and accepts no index gets the linux/amd64 image of one.
    """
    if context.route.upstream is None:
        return await _read_manifest(context)
    return await retry_if_evicted(lambda: _read_manifest(context))


async def _read_manifest(context: RequestContext) -> web.StreamResponse:
    registry, request, route = context.registry, context.request, context.route
    digest, media_type = await _find_manifest(registry, route)
    is_index_by_tag = media_type in media.INDEXES and ":" not in route.reference
    if is_index_by_tag and not accepts(request.headers.getall("Accept", ()), media_type):
        image = await _default_image(registry, digest, media_type)
        digest, media_type = await _find_manifest(registry, route._replace(reference=image))
    if registry.pullthrough is not None and route.upstream is not None and request.method == "GET":
        await registry.pullthrough.note_served(
            route.repository, digest, media_type, lambda: _read_raw(registry, digest)
        )
    etag = f'"{digest}"'
    headers = {"Docker-Content-Digest": digest, "ETag": etag, "Content-Type": media_type}
    if matches_etag(request.headers.get("If-None-Match"), etag):
        return web.Response(status=304, headers=headers)
    if request.method == "HEAD":
        size = registry.content.blobs.size_of(digest)
        if size is None or not await registry.promise_existing(digest):
            registry.small_blobs.forget(digest)
            raise _manifest_unknown(route.reference)
        return web.Response(headers={**headers, "Content-Length": str(size)})
    return web.Response(headers=headers, body=await _read_raw(registry, digest))


async def _find_manifest(registry: Registry, route: Route) -> tuple[Digest, str]:
    """As `_find_held_manifest`, after it was fetched if it is pulled through."""
    if registry.pullthrough is not None and route.upstream is not None:
        await registry.pullthrough.fetch_manifest(route.repository, route.upstream, route.reference)
    return _find_held_manifest(registry, route)


def _find_held_manifest(registry: Registry, route: Route) -> tuple[Digest, str]:
    """Digest and media type of the manifest that a reference names.

    Raises ApiError: MANIFEST_UNKNOWN; DIGEST_INVALID for a reference with a colon that is no digest.
    """
    found: tuple[Digest, str | None] | None = None
    if ":" in route.reference:
        digest = parse_digest_parameter(route.reference)
        found = digest, registry.content.repositories.media_type_of(route.repository, digest)
    elif is_tag(route.reference):
        found = registry.content.repositories.resolve_manifest(route.repository, route.reference)
    if found is None or not found[1]:
        raise _manifest_unknown(route.reference)
    return found[0], found[1]


async def _read_raw(registry: Registry, digest: Digest) -> bytes:
    """The bytes of a manifest that is held. Raises ApiError (MANIFEST_UNKNOWN)."""
    raw = registry.small_blobs.get(digest)
    if raw is not None:
        registry.content.blobs.mark_used(digest)
        return raw
    try:
        raw = await registry.content.blobs.read_whole(digest)
    except NotFound:
        raise _manifest_unknown(digest) from None
    except IntegrityError as error:
        registry.report_damaged(digest, error)
        raise _manifest_unknown(digest) from None
    registry.small_blobs.put(digest, raw)
    return raw


async def _default_image(registry: Registry, digest: Digest, media_type: str) -> Digest:
    """The digest of the image that a client gets of an index if it accepts none. Raises ApiError."""
    raw = await _read_raw(registry, digest)
    try:
        image = default_image(parse_manifest(raw, media_type, digest=digest, let_in=True))
    except UnsupportedContent:
        image = None
    if image is None:
        raise ApiError(
            "MANIFEST_UNKNOWN",
            f"this is an index without an image for linux/amd64; ask for it with Accept: {media_type}",
        )
    return image.digest


# Pushing and deleting


async def put_manifest(context: RequestContext) -> web.StreamResponse:
    """[end-7a], [end-7b], PUT: by tag, or by digest with any number of tags; stored byte for byte.

    Whatever is wrong with one tag, nothing is stored.
    """
    reference = context.reference
    named = parse_digest_parameter(reference) if ":" in reference else None
    tags = [reference] if named is None else _tags_with_digest(context)
    for tag in tags:
        if not is_tag(tag):
            raise ApiError("MANIFEST_INVALID", f"{tag[:150]!r} is neither a tag nor a digest")
    async with received_manifest(context) as raw:
        return await _put_manifest(context, raw, named, tags)


async def _put_manifest(
    context: RequestContext, raw: bytes, named: Digest | None, tags: Sequence[str]
) -> web.StreamResponse:
    """`named`: the digest that it was pushed as, if it was."""
    registry, request = context.registry, context.request
    digest = digest_of(raw, algorithm_of(named) if named else "sha256")
    if named not in (None, digest):
        raise ApiError("DIGEST_INVALID", f"the manifest has digest {digest}, it was pushed as {named}")
    content_type = request.headers.get("Content-Type", "")
    manifest = await _parse(raw, content_type, digest)
    _check_media_type(manifest, content_type)
    is_sparse = _may_be_sparse(registry, manifest)
    await _check_children(registry, context.repository, children(manifest), may_be_missing=is_sparse)
    missing = await promises.put_manifest(
        registry.store,
        context.repository,
        raw,
        digest,
        manifest.descriptor.media_type,
        tags=tags,
        needed=[] if is_sparse else [child.digest for child in children(manifest)],
    )
    if missing:
        raise _children_unknown(missing)
    headers = {
        "Location": context.url(f"/v2/{context.repository}/manifests/{digest}"),
        "Docker-Content-Digest": digest,
    }
    if named and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    if manifest.subject is not None:  # "Pushing Manifests with Subject": no client need keep a list of it
        headers["OCI-Subject"] = manifest.subject.digest
    return web.Response(status=201, headers=headers)


def _tags_with_digest(context: RequestContext) -> list[str]:
    if not context.registry.options.unreleased:
        return []
    return list(dict.fromkeys(context.request.query.getall("tag", ())))


async def delete_manifest(context: RequestContext) -> web.StreamResponse:
    """[end-9], DELETE: by tag, the tag goes; by digest, the manifest goes with every tag that names it."""
    store, repository, reference = context.registry.store, context.repository, context.reference
    digest, _ = _find_held_manifest(context.registry, context.route)
    if ":" in reference:
        await store.commit(lambda: store.repositories.remove(repository, digest))
    else:
        await store.commit(lambda: store.repositories.remove_tag(repository, reference))
    return web.Response(status=202)


async def _parse(raw: bytes, media_type: str, digest: Digest) -> Manifest:
    """Raises ApiError (MANIFEST_INVALID)."""
    try:
        if len(raw) <= INLINE_BYTES:
            return parse_manifest(raw, media_type, digest=digest)
        return await asyncio.to_thread(parse_manifest, raw, media_type, digest=digest)
    except UnsupportedContent as error:
        raise ApiError("MANIFEST_INVALID", str(error)) from None


def _belies(called: str, kind: str) -> bool:
    """Whether a parent calls an image an index, or an index an image. Whether it is in OCI's words or in
    Docker's it says itself."""
    return called in media.MANIFESTS and not media.equivalent_types(called, kind)


def _check_media_type(manifest: Manifest, content_type: str) -> None:
    """Raise ApiError (MANIFEST_INVALID) where the client calls the manifest what it does not call itself: who
    pulls it would be told the one or the other."""
    called, kind = media.without_parameters(content_type), manifest.descriptor.media_type
    if called in media.MANIFESTS and called != kind:
        raise ApiError("MANIFEST_INVALID", f"the manifest is {kind!r}, it was pushed as {called!r}")


def _may_be_sparse(registry: Registry, manifest: Manifest) -> bool:
    """Whether the registry accepts the manifest before what it names."""
    sparse = registry.options.sparse
    return sparse == "accept" or (sparse == "indexes" and manifest.is_index)


async def _check_children(
    registry: Registry, repository: str, children: Sequence[Descriptor], *, may_be_missing: bool
) -> None:
    """Raises ApiError: MANIFEST_BLOB_UNKNOWN with the missing, unless they `may_be_missing`; SIZE_INVALID for
    a descriptor's wrong size, and MANIFEST_INVALID where it calls a manifest of ours what that is not.

    The store checks again that all of it is still here when it puts the manifest.
    """
    missing: list[Digest] = []
    for number, child in enumerate(children, 1):
        if not number % _CHILDREN_BATCH:
            await asyncio.sleep(0)
        kind = registry.store.repositories.media_type_of(repository, child.digest)
        size = None if kind is None else registry.store.blobs.size_of(child.digest)
        if size is None:
            missing.append(child.digest)
        elif kind in media.MANIFESTS and _belies(child.media_type, kind):
            raise ApiError(
                "MANIFEST_INVALID",
                f"the manifest calls {child.digest} {child.media_type!r}, it is {kind!r}",
                detail=child.digest,
            )
        elif size != child.size:
            raise ApiError(
                "SIZE_INVALID",
                f"the manifest says that {child.digest} has {child.size} bytes, it has {size}",
                detail=child.digest,
            )
    if missing and not may_be_missing:
        raise _children_unknown(missing)


def _children_unknown(missing: Sequence[Digest]) -> ApiError:
    first, *rest = [
        ErrorEntry("MANIFEST_BLOB_UNKNOWN", "the manifest names content that is not here", digest)
        for digest in dict.fromkeys(missing[:_MAX_LISTED])
    ]
    return ApiError(first.code, first.message, detail=first.detail, more=rest)


def _manifest_unknown(reference: str) -> ApiError:
    return ApiError(
        "MANIFEST_UNKNOWN", "this repository has no such manifest", detail={"reference": reference[:300]}
    )
