"""Pushing manifests and taking things away: distribution-spec [end-7], [end-9], [end-10].

The registry is strict about what a manifest names, unless it was made otherwise: an image manifest is refused
while a blob of its own is missing, so that a tag never points at content that is not all there, and clients
learn what they have yet to send. An index may be sparse: what it lists may lack.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from blobflow.errors import UnsupportedContent
from blobflow.oci import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Digest,
    Manifest,
    digest_of,
    media,
    parse_manifest,
)
from blobflow.oci.digest import algorithm_of
from blobflow.oci.manifest import children
from blobflow.server.blobs import held_blob, held_manifest
from blobflow.server.errors import ApiError, ErrorEntry
from blobflow.server.registry import Registry
from blobflow.server.routes import Route, is_tag, parse_digest_parameter
from blobflow.transports.store import promises

# How many missing children an answer lists: enough to go on with, and no body of megabytes.
_LISTED = 100
# Bytes of a manifest that is parsed on the loop's thread, and how many children are looked for in one turn of
# the loop: a few milliseconds each. Others do not wait for the 20,000 children that there may be.
_AT_ONCE = 128 * 1024
_IN_A_TURN = 250


async def put_manifest(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-7a], [end-7b], PUT: by tag, or by digest with any number of tags; stored byte for byte.

    Whatever is wrong with one tag, nothing is stored.
    """
    named = parse_digest_parameter(route.reference) if ":" in route.reference else None
    tags = [route.reference] if named is None else _tags_with_digest(registry, request)
    for tag in tags:
        if not is_tag(tag):
            raise ApiError("MANIFEST_INVALID", f"{tag[:150]!r} is neither a tag nor a digest")
    raw = await _body(registry, request)
    digest = digest_of(raw, algorithm_of(named) if named else "sha256")
    if named not in (None, digest):
        raise ApiError("DIGEST_INVALID", f"the manifest has digest {digest}, it was pushed as {named}")
    manifest = await _parsed(raw, request.headers.get("Content-Type", ""), digest)
    _check_kind(manifest, request.headers.get("Content-Type", ""))
    may_lack = _may_lack(registry, manifest)
    await _check_children(registry, route.repository, children(manifest), may_lack=may_lack)
    missing = await promises.put_manifest(
        registry.store,
        route.repository,
        raw,
        digest,
        manifest.descriptor.media_type,
        tags=tags,
        needed=[] if may_lack else [child.digest for child in children(manifest)],
    )
    if missing:
        raise _unknown(missing)
    location = registry.addressing.url(request, f"/v2/{route.repository}/manifests/{digest}")
    headers = {"Location": location, "Docker-Content-Digest": digest}
    if named and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    if manifest.subject is not None:  # "Pushing Manifests with Subject": no client need keep a list of it
        headers["OCI-Subject"] = manifest.subject.digest
    return web.Response(status=201, headers=headers)


def _tags_with_digest(registry: Registry, request: web.BaseRequest) -> list[str]:
    return list(dict.fromkeys(request.query.getall("tag", ()))) if registry.rules.unreleased else []


async def delete_manifest(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-9], DELETE: by tag, the tag goes; by digest, the manifest goes with every tag that names it."""
    digest, _ = held_manifest(registry, route)
    store = registry.store
    if ":" in route.reference:
        await store.commit(lambda: store.repositories.remove(route.repository, digest))
    else:
        await store.commit(lambda: store.repositories.remove_tag(route.repository, route.reference))
    return web.Response(status=202)


async def delete_blob(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-10], DELETE: the blob is no longer visible here; its bytes are the store's affair."""
    digest = parse_digest_parameter(route.reference)
    held_blob(registry, route.repository, digest)
    if registry.store.repositories.media_type_of(route.repository, digest):
        raise ApiError("UNSUPPORTED", f"{digest} is a manifest here; delete it as one")
    store = registry.store
    await store.commit(lambda: store.repositories.remove(route.repository, digest))
    return web.Response(status=202)


async def _body(registry: Registry, request: web.BaseRequest) -> bytes:
    """The manifest's bytes; 413 as soon as it is known that they are too many ("Pushing Manifests")."""
    too_large = ApiError(
        "MANIFEST_INVALID", f"a manifest may have {MAX_MANIFEST_BYTES} bytes, this one has more", status=413
    )
    if (request.content_length or 0) > MAX_MANIFEST_BYTES:
        raise too_large
    raw = bytearray()
    async for chunk in registry.body_transport.receive(request):
        raw += chunk
        if len(raw) > MAX_MANIFEST_BYTES:
            raise too_large
    return bytes(raw)


async def _parsed(raw: bytes, kind: str, digest: Digest) -> Manifest:
    """Raises Refusal (MANIFEST_INVALID)."""
    try:
        if len(raw) <= _AT_ONCE:
            return parse_manifest(raw, kind, digest=digest)
        return await asyncio.to_thread(parse_manifest, raw, kind, digest=digest)
    except UnsupportedContent as error:
        raise ApiError("MANIFEST_INVALID", str(error)) from None


def _belies(called: str, kind: str) -> bool:
    """Whether a parent calls an image an index, or an index an image. Whether it is in OCI's words or in
    Docker's it says itself."""
    return called in media.MANIFESTS and not media.equivalent_types(called, kind)


def _check_kind(manifest: Manifest, content_type: str) -> None:
    """Raise Refusal (MANIFEST_INVALID) where the client calls the manifest what it does not call itself: who
    pulls it would be told the one or the other."""
    called, kind = media.without_parameters(content_type), manifest.descriptor.media_type
    if called in media.MANIFESTS and called != kind:
        raise ApiError("MANIFEST_INVALID", f"the manifest is {kind!r}, it was pushed as {called!r}")


def _may_lack(registry: Registry, manifest: Manifest) -> bool:
    """Whether the manifest may be here before what it names."""
    sparse = registry.rules.sparse
    return sparse == "accept" or (sparse == "indexes" and manifest.is_index)


async def _check_children(
    registry: Registry, repository: str, children: Sequence[Descriptor], *, may_lack: bool
) -> None:
    """Raises Refusal: MANIFEST_BLOB_UNKNOWN with the missing, unless they `may_lack`; SIZE_INVALID for a
    descriptor's wrong size, and MANIFEST_INVALID where it calls a manifest of ours what that is not.

    Whether all of it is still here is looked at again when the manifest is put.
    """
    missing: list[Digest] = []
    for number, child in enumerate(children, 1):
        if not number % _IN_A_TURN:
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
    if missing and not may_lack:
        raise _unknown(missing)


def _unknown(missing: Sequence[Digest]) -> ApiError:
    first, *rest = [
        ErrorEntry("MANIFEST_BLOB_UNKNOWN", "the manifest names content that is not here", digest)
        for digest in dict.fromkeys(missing[:_LISTED])
    ]
    return ApiError(first.code, first.message, detail=first.detail, more=rest)
