"""Pushing blobs: distribution-spec, "Pushing blobs" ([end-4a] to [end-6], [end-11], [end-13], [end-14]), with
what its main branch has beyond 1.1: `digest-algorithm` ([end-4c]), and mounts that name no origin.

Clients push in three forms, and every mix of them, because each is only a way to feed one growing partial:
the whole in the POST; POST, then the whole in the PUT; POST, PATCHes (one stream, or chunks in order), PUT.
Nothing is visible in the repository before the bytes have hashed to the digest that the client named.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import parse_qs

from aiohttp import web

from blobflow.errors import IntegrityError, StorageError
from blobflow.oci import Digest
from blobflow.oci.digest import ALGORITHMS
from blobflow.server.context import RequestContext
from blobflow.server.errors import ApiError
from blobflow.server.held_elsewhere import find_repository
from blobflow.server.http.client_network import network_of
from blobflow.server.http.ranges import parse_chunk_range, upload_range
from blobflow.server.routes import is_repository, parse_digest_parameter
from blobflow.server.upload_sessions import UploadSession
from blobflow.transports.store import promises

# The query of an upload's Location. It says nothing, and may be left out; but there are clients that
# complete an upload by appending `&digest=`, as other registries' Locations have a query.
_QUERY = "state=open"


async def start_upload(context: RequestContext) -> web.StreamResponse:
    """POST: mount ([end-11]), upload in one request ([end-4b]), or open a session ([end-4a], [end-4c])."""
    query, sessions = context.request.query, context.registry.sessions
    algorithm = query.get("digest-algorithm", "sha256")
    if algorithm not in ALGORITHMS:
        raise ApiError("DIGEST_INVALID", f"this registry verifies {' and '.join(ALGORITHMS)}, nothing else")
    if "mount" in query:
        mounted = await _mount(context)
        if mounted is not None:
            return _created(context, mounted)
    elif "digest" in query:
        digest = parse_digest_parameter(query["digest"])
        session = sessions.start(context.repository, _owner(context))
        try:
            await _receive(context, session, digest)
            return await _commit(context, session, digest)
        finally:
            sessions.forget(session.token)
    return _accepted(context, sessions.start(context.repository, _owner(context), algorithm=algorithm))


async def append_chunk(context: RequestContext) -> web.StreamResponse:
    """[end-5], PATCH: the next bytes, as a stream or as a chunk with a Content-Range."""
    session = context.registry.sessions.find(context.repository, context.reference)
    _check_order(context, session)
    await _receive(context, session)
    context.registry.sessions.rest(session, session.turn)
    return _accepted(context, session)


async def complete_upload(context: RequestContext) -> web.StreamResponse:
    """[end-6], PUT: the last bytes, if any, and the digest of the whole."""
    session = context.registry.sessions.find(context.repository, context.reference)
    digest = _named_digest(context.request)
    _check_order(context, session)
    await _receive(context, session, digest)
    return await _commit(context, session, digest)


async def upload_status(context: RequestContext) -> web.StreamResponse:
    """[end-13], GET: how much has arrived."""
    session = context.registry.sessions.find(context.repository, context.reference)
    session.reported_offset = session.offset
    return web.Response(status=204, headers=_upload_headers(context, session))


async def cancel_upload(context: RequestContext) -> web.StreamResponse:
    """[end-14], DELETE: throw the session away, with what has arrived."""
    session = context.registry.sessions.find(context.repository, context.reference)
    context.registry.sessions.forget(session.token)
    return web.Response(status=204)


def _owner(context: RequestContext) -> str:
    """Who an upload counts for: the login that asks, or the address where there is none."""
    return context.user or network_of(context.client)


async def _mount(context: RequestContext) -> Digest | None:
    """Make a blob of another repository visible in this one; None where that can't be, and then the client
    gets a session. It gets one also for a malformed digest or name.

    Without `from` any repository will do that has the blob and may be pulled from: no client gets what it
    could not fetch.
    """
    query, store = context.request.query, context.registry.store
    try:
        digest = parse_digest_parameter(query["mount"])
    except ApiError:
        return None
    origin = query.get("from", "")
    if not origin and context.registry.options.unreleased:
        origin = await find_repository(
            context, digest, lambda name: is_repository(name) and _may_mount_from(context, name)
        )
    if not is_repository(origin) or not _may_mount_from(context, origin):
        return None
    return digest if await promises.mount_blob(store, context.repository, digest, origin) else None


def _may_mount_from(context: RequestContext, name: str) -> bool:
    return context.permissions.may_pull(name) and context.registry.shows(name)


def _named_digest(request: web.BaseRequest) -> Digest:
    """The digest that the client gives for the whole; also where it put `?digest=` behind a Location that has
    a query already, as the spec's own notation suggests. Raises ApiError."""
    named = request.query.get("digest")
    if named is None and "?" in request.query_string:
        named = parse_qs(request.query_string.replace("?", "&")).get("digest", [None])[0]
    if named is None:
        raise ApiError("DIGEST_INVALID", "a PUT that completes an upload needs ?digest=")
    return parse_digest_parameter(named)


def _check_order(context: RequestContext, session: UploadSession) -> None:
    """Refuse a chunk that does not go on exactly where the session stands (416 with Location and Range).

    A last byte that is one too high comes from a client that counts as slices do (dockertarpusher);
    distribution takes it, and so does this registry where the start is right and the length shows what the
    client means.
    """
    request = context.request
    header = request.headers.get("Content-Range")
    if header is None:
        if session.reported_offset not in (None, session.offset) and request.can_read_body:
            raise _out_of_order(
                context,
                session,
                f"more arrived after the upload's status was told: {session.offset} bytes are here",
            )
        return
    chunk = parse_chunk_range(header)
    if chunk is None or chunk.start != session.offset:
        raise _out_of_order(
            context, session, f"the chunk is not <start>-<end> with a start of {session.offset}"
        )
    if request.content_length not in (chunk.length, chunk.length - 1):
        raise ApiError(
            "SIZE_INVALID", f"Content-Range speaks of {chunk.length} bytes, Content-Length does not say so"
        )


def _out_of_order(context: RequestContext, session: UploadSession, message: str) -> ApiError:
    return ApiError("BLOB_UPLOAD_INVALID", message, status=416, headers=_upload_headers(context, session))


async def _receive(context: RequestContext, session: UploadSession, digest: Digest | None = None) -> None:
    """Write the body to the session's partial. What came before a broken connection stays ([end-13])."""
    registry, request = context.registry, context.request
    turn = session.take_over()
    try:
        _check_size(context, session, request.content_length or 0)
        async for chunk in registry.body_transport.receive(request):
            _check_turn(session, turn)
            _check_size(context, session, len(chunk))
            registry.sessions.write(session, chunk, digest)
        _check_turn(session, turn)
    except StorageError:
        registry.sessions.forget(session.token)
        raise
    except BaseException:
        with suppress(StorageError):  # then the session is gone, and its next request gets a 404
            registry.sessions.rest(session, turn)
        raise


def _check_size(context: RequestContext, session: UploadSession, more: int) -> None:
    """Refuse a blob that grows beyond the largest that this registry takes; its session ends, too."""
    most = context.registry.options.max_blob_size
    if most is not None and session.offset + more > most:
        context.registry.sessions.forget(session.token)
        raise ApiError("SIZE_INVALID", f"this registry takes blobs of up to {most} bytes", status=413)


def _check_turn(session: UploadSession, turn: int) -> None:
    if session.turn != turn:
        raise ApiError(
            "BLOB_UPLOAD_INVALID", "another request has taken this upload session over", status=409
        )


async def _commit(context: RequestContext, session: UploadSession, digest: Digest) -> web.StreamResponse:
    """End the session; answer when the blob is durable, and visible in the repository."""
    context.registry.sessions.end(session)
    try:
        await session.writer(digest).commit(digest, repository=session.repository)
    except IntegrityError as error:
        raise ApiError("DIGEST_INVALID", str(error), detail={"digest": digest}) from None
    return _created(context, digest)


def _created(context: RequestContext, digest: Digest) -> web.StreamResponse:
    location = context.url(f"/v2/{context.repository}/blobs/{digest}")
    return web.Response(status=201, headers={"Location": location, "Docker-Content-Digest": digest})


def _accepted(context: RequestContext, session: UploadSession) -> web.StreamResponse:
    return web.Response(status=202, headers=_upload_headers(context, session))


def _upload_headers(context: RequestContext, session: UploadSession) -> dict[str, str]:
    return {
        "Location": context.upload_url(f"{session.location}?{_QUERY}"),
        "Range": upload_range(session.offset),
        "Docker-Upload-UUID": session.token,
    }
