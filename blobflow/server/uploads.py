"""Pushing blobs: distribution-spec, "Pushing blobs" ([end-4a] to [end-6], [end-11], [end-13], [end-14]), with
what its main branch has beyond 1.1: `digest-algorithm` ([end-4c]), and mounts that name no origin.

Three forms, and every mix of them, because each is only a way to feed one growing partial: the whole in the
POST; POST and then the whole in the PUT; POST, PATCHes (one stream, or chunks in order), PUT. Nothing is
visible in the repository before the bytes have hashed to the digest that the client named.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs

from aiohttp import web

from blobflow.errors import IntegrityError, StorageError
from blobflow.oci import Digest
from blobflow.oci.digest import ALGORITHMS
from blobflow.server.auth.access_rules import Permissions, permissions_of, user_of
from blobflow.server.auth.logins import network_of
from blobflow.server.errors import ApiError
from blobflow.server.http.ranges import parse_chunk_range, upload_range
from blobflow.server.registry import Registry
from blobflow.server.routes import Route, is_repository, parse_digest_parameter
from blobflow.server.upload_sessions import UploadSession
from blobflow.transports.store import Store, promises

# The query of an upload's Location. It tells nothing, and may be left out; but there are clients that
# complete an upload by appending `&digest=`, as other registries' Locations have a query.
_QUERY = "state=open"
# Repositories that are looked at in one go for one that a blob may be mounted from.
_REPOSITORIES_BATCH = 500


async def start_upload(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """POST: mount ([end-11]), upload in one request ([end-4b]), or open a session ([end-4a], [end-4c])."""
    query = request.query
    algorithm = query.get("digest-algorithm", "sha256")
    if algorithm not in ALGORITHMS:
        raise ApiError("DIGEST_INVALID", f"this registry verifies {' and '.join(ALGORITHMS)}, nothing else")
    if "mount" in query:
        mounted = await _mount(registry, request, route.repository)
        if mounted is not None:
            return _created(registry, request, route.repository, mounted)
    elif "digest" in query:
        digest = parse_digest_parameter(query["digest"])
        session = registry.sessions.start(route.repository, _owner(registry, request))
        try:
            await _receive(registry, request, session, digest)
            return await _commit(registry, request, session, digest)
        finally:
            registry.sessions.forget(session.token)
    session = registry.sessions.start(route.repository, _owner(registry, request), algorithm=algorithm)
    return _accepted(registry, request, session)


def _owner(registry: Registry, request: web.BaseRequest) -> str:
    """Who an upload counts for: the login that asks, or the address where there is none."""
    return user_of(request) or network_of(registry.addressing.client(request))


async def append_chunk(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-5], PATCH: the next bytes, as a stream or as a chunk with a Content-Range."""
    session = registry.sessions.find(route.repository, route.reference)
    _check_order(registry, request, session)
    await _receive(registry, request, session)
    registry.sessions.rest(session, session.turn)
    return _accepted(registry, request, session)


async def complete_upload(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-6], PUT: the last bytes, if any, and the digest of the whole."""
    session = registry.sessions.find(route.repository, route.reference)
    digest = _digest_named(request)
    _check_order(registry, request, session)
    await _receive(registry, request, session, digest)
    return await _commit(registry, request, session, digest)


async def upload_status(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-13], GET: how much has arrived."""
    session = registry.sessions.find(route.repository, route.reference)
    session.reported_offset = session.offset
    return web.Response(status=204, headers=_upload_headers(registry, request, session))


async def cancel_upload(registry: Registry, request: web.BaseRequest, route: Route) -> web.StreamResponse:
    """[end-14], DELETE: throw the session away, with what has arrived."""
    session = registry.sessions.find(route.repository, route.reference)
    registry.sessions.forget(session.token)
    return web.Response(status=204)


async def _mount(registry: Registry, request: web.BaseRequest, repository: str) -> Digest | None:
    """Make a blob of another repository visible in this one; None if that can't be, so that a session is
    opened.

    That holds for a digest or a name that is no such, too. Without `from` it is whatever repository has the
    blob and may be pulled from: nobody is given what they could not fetch.
    """
    try:
        digest = parse_digest_parameter(request.query["mount"])
    except ApiError:
        return None
    store, permissions = registry.store, permissions_of(request)
    origin = request.query.get("from", "")
    if not origin and registry.rules.unreleased:
        origin = await _find_repository_with(store, permissions, digest)
    if not is_repository(origin) or not permissions.may_pull(origin):
        return None
    return digest if await promises.mount_blob(store, repository, digest, origin) else None


async def _find_repository_with(store: Store, permissions: Permissions, digest: Digest) -> str:
    """The first repository that holds the blob and may be pulled from; "" if there is none."""
    after = ""
    while names := store.repositories.repositories_with(digest, after, _REPOSITORIES_BATCH):
        for name in names:
            if permissions.may_pull(name):
                return name
        after = names[-1]
        await asyncio.sleep(0)
    return ""


def _digest_named(request: web.BaseRequest) -> Digest:
    """What the client says that the whole has; also where it put `?digest=` behind a Location that has a
    query already, as the spec's own notation suggests. Raises Refusal."""
    named = request.query.get("digest")
    if named is None and "?" in request.query_string:
        named = parse_qs(request.query_string.replace("?", "&")).get("digest", [None])[0]
    if named is None:
        raise ApiError("DIGEST_INVALID", "a PUT that completes an upload needs ?digest=")
    return parse_digest_parameter(named)


def _check_order(registry: Registry, request: web.BaseRequest, session: UploadSession) -> None:
    """Refuse a chunk that does not go on exactly where the session stands (416 with Location and Range).

    A last byte that is one too high is a client's that counts as slices do (dockertarpusher); distribution
    takes it, and so do we where the start is right and the length shows what was meant.
    """
    header = request.headers.get("Content-Range")
    if header is None:
        if session.reported_offset not in (None, session.offset) and request.can_read_body:
            raise ApiError(
                "BLOB_UPLOAD_INVALID",
                f"more arrived after the upload's status was told: {session.offset} bytes are here",
                status=416,
                headers=_upload_headers(registry, request, session),
            )
        return
    chunk = parse_chunk_range(header)
    if chunk is None or chunk.start != session.offset:
        raise ApiError(
            "BLOB_UPLOAD_INVALID",
            f"the chunk is not <start>-<end> with a start of {session.offset}",
            status=416,
            headers=_upload_headers(registry, request, session),
        )
    if request.content_length not in (chunk.length, chunk.length - 1):
        raise ApiError(
            "SIZE_INVALID", f"Content-Range speaks of {chunk.length} bytes, Content-Length does not say so"
        )


async def _receive(
    registry: Registry, request: web.BaseRequest, session: UploadSession, digest: Digest | None = None
) -> None:
    """Feed the body to the session's partial. What came before a broken connection stays ([end-13])."""
    turn = session.take_over()
    try:
        _check_size(registry, session, request.content_length or 0)
        async for chunk in registry.body_transport.receive(request):
            _check_turn(session, turn)
            _check_size(registry, session, len(chunk))
            registry.sessions.touch(session)
            session.writer(digest).write(chunk)
        _check_turn(session, turn)
    except StorageError:
        registry.sessions.forget(session.token)
        raise
    except BaseException:
        with suppress(StorageError):  # then the session is gone, which its next request is told
            registry.sessions.rest(session, turn)
        raise


def _check_size(registry: Registry, session: UploadSession, more: int) -> None:
    """Refuse a blob that grows beyond what this registry takes; so its session ends, too."""
    most = registry.rules.max_blob_size
    if most is not None and session.offset + more > most:
        registry.sessions.forget(session.token)
        raise ApiError("SIZE_INVALID", f"this registry takes blobs of up to {most} bytes", status=413)


def _check_turn(session: UploadSession, turn: int) -> None:
    if session.turn != turn:
        raise ApiError(
            "BLOB_UPLOAD_INVALID", "another request has taken this upload session over", status=409
        )


async def _commit(
    registry: Registry, request: web.BaseRequest, session: UploadSession, digest: Digest
) -> web.StreamResponse:
    registry.sessions.end(session)
    try:
        await promises.commit_upload(session.repository, session.writer(digest), digest)
    except IntegrityError as error:
        raise ApiError("DIGEST_INVALID", str(error), detail={"digest": digest}) from None
    return _created(registry, request, session.repository, digest)


def _created(
    registry: Registry, request: web.BaseRequest, repository: str, digest: Digest
) -> web.StreamResponse:
    location = registry.addressing.url(request, f"/v2/{repository}/blobs/{digest}")
    return web.Response(status=201, headers={"Location": location, "Docker-Content-Digest": digest})


def _accepted(registry: Registry, request: web.BaseRequest, session: UploadSession) -> web.StreamResponse:
    return web.Response(status=202, headers=_upload_headers(registry, request, session))


def _upload_headers(registry: Registry, request: web.BaseRequest, session: UploadSession) -> dict[str, str]:
    return {
        "Location": registry.addressing.upload_url(request, f"{session.location}?{_QUERY}"),
        "Range": upload_range(session.offset),
        "Docker-Upload-UUID": session.token,
    }
