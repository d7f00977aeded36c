"""Pushing a blob: the ladder of upload forms, and sessions that are gone on with.

A push begins with POST ([end-4a]), or with the session that a refused mount opened ([end-11]), and goes on by
one of three forms, its rungs (`profiles.ladder` chooses). A rung that the registry refuses falls to the next,
which opens the body again from its start, and what was refused and what worked is learnt for the host.

Where the repository has opened a session before, the body is opened beside the POST: one round trip less. A
small blob is read whole and then takes its turn among the small requests, not among the streams.

A push that breaks leaves its session open (`tickets`), unless nothing would come of it. The next push of the
blob, which the engine or the next process makes, asks the registry how much arrived ([end-13]) and goes on
from there by ranged chunks; if the registry has forgotten, it starts afresh. Registries differ: the embedded
one and distribution 3 keep what came before a break, distribution 2.8.2 keeps a session only if it stopped
between two chunks.

What is too large for a request on the way (`requestsize`) goes by smaller chunks. A request whose end speaks
of its size (413; 502, 504 or no answer after its bytes) is followed by a smaller one at once. So it is once
two broke at about the same byte, or two uploads of a blob were lost at a registry that forgets them.

Connections that break are not mended here: the engine opens the body again and pushes anew. Where only the
answer got lost, the blob may be there by then: so the registry is asked before it is sent a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

from yarl import URL

from blobflow.content import BlobReader, BlobStream, Journal, Notice, is_small, tapped
from blobflow.errors import (
    BlobflowError,
    ConnectionLost,
    NotFound,
    ProtocolViolation,
    RegistryError,
    Rejected,
    SizeMismatch,
    Unauthorized,
)
from blobflow.oci import Descriptor, Digest
from blobflow.oci.digest import algorithm_of
from blobflow.permits import Permit, PermitKind
from blobflow.transports.registry.capabilities.profiles import (
    LearnedLimits,
    Profile,
    UploadMethod,
    method_order,
)
from blobflow.transports.registry.http.digest_headers import check_digest_header, contradicting_digest
from blobflow.transports.registry.http.host_client import (
    MAX_REDIRECTS,
    HostClient,
    Request,
    RequestRedirected,
    Response,
)
from blobflow.transports.registry.http.upload_body import ChunkSplitter, UploadBody
from blobflow.transports.registry.uploads.failures import (
    AT_ANY_SIZE,
    STALE_SESSION,
    explain,
    is_interruption,
    may_have_arrived,
    refuses_method,
)
from blobflow.transports.registry.uploads.request_size import RequestSize
from blobflow.transports.registry.uploads.sessions import (
    JOURNALED_FROM,
    RESUMED_FROM,
    UploadSession,
    UploadSessions,
    parse_progress,
    push_scopes,
)
from blobflow.transports.registry.uploads.size_learner import SizeLearner

_COMMITTED = (200, 201, 204)  # the spec says 201
# A round trip is no matter to a blob above so many bytes; what came of it in the meantime might be lost.
OPEN_BESIDE_UP_TO = 128 * 1024 * 1024
# A push starts over by itself so often: once each for a token that ended, an offset that was doubted, and a
# session that had ended.
MAX_RESTARTS = 3


class _Attempt:
    """One try of a push: its session, once there is one, its form, and the permit that the push came with."""

    def __init__(self, session: UploadSession | None, method: UploadMethod, permit: Permit | None) -> None:
        self.session = session
        self.permit = permit
        self.method: UploadMethod = method


class BlobPusher:
    """All upload sessions at one host. `close` it before the session that it talks through."""

    def __init__(self, client: HostClient, profile: Profile, limits: LearnedLimits, journal: Journal) -> None:
        self.profile = profile
        self.limits = limits
        self._client = client
        self._sessions = UploadSessions(client, journal)
        self._size = RequestSize(profile, limits)
        self._learner = SizeLearner(self._size, client)
        self._forgetful = profile.keeps_broken_sessions is False
        self._opens: set[str] = set()
        self._broken: set[tuple[str, Digest]] = set()
        self._unanswered: set[tuple[str, Digest]] = set()

    async def mount(self, request: Request, repository: str, digest: Digest) -> bool:
        """Ask for a mount; a session that a refusal opens is kept for the next push of that blob."""
        response = await self._sessions.opened(repository, digest, request)
        self._size.passed_by(response.headers.get("Via"))
        if response.status == 201:
            return (
                contradicting_digest(digest, response.headers) is None
            )  # something else was mounted: it is pushed
        try:
            self._sessions.keep(self._sessions.made(repository, digest, response, "mount"))
        except ProtocolViolation:
            pass  # a refusal without a usable session is a refusal all the same
        return False

    async def push(
        self, repository: str, blob: Descriptor, reader: BlobReader, permit: Permit | None = None
    ) -> None:
        """See `Sink.push`. `permit`: what it is sent under; None: each try gets its own.

        Raises the last rung's error, and the reader's own errors as they are.
        """
        if await self._has_arrived(repository, blob, permit):
            return
        methods = list(method_order(blob.size, self.profile, self.limits))
        repeated = hops = reached = 0
        while True:
            attempt = _Attempt(await self._idle(repository, blob, permit), methods[0], permit)
            try:
                await self._attempt(attempt, methods, repository, blob, reader)
            except BlobflowError as error:
                session = attempt.session
                if session is None or error is session.body_error:
                    raise
                if isinstance(error, RequestRedirected) and hops < MAX_REDIRECTS:
                    hops, reached = (hops + 1 if session.offset == reached else 1), session.offset
                    continue
                if await self._ended_well(error, session, blob, permit):
                    return
                if "chunked" in methods and self._learner.ended(error, session, blob):
                    if await self._has_arrived(repository, blob, permit):
                        return
                    methods = [
                        method for method in methods if method == "chunked" or method != attempt.method
                    ]
                    continue
                match self._verdict(error, attempt.method, blob, session, last=len(methods) == 1):
                    case "next" if len(methods) > 1:
                        methods.remove(attempt.method if attempt.method in methods else methods[0])
                    case "again" if repeated < MAX_RESTARTS:
                        repeated += 1
                    case _:
                        explain(error, f"{self._client.host}/{repository}", session.odd)
                        raise
            else:
                self.limits.taken(attempt.method)
                self._learner.arrived(repository, blob.digest)
                self._sessions.arrived()
                return

    def _verdict(
        self,
        error: BlobflowError,
        method: UploadMethod,
        blob: Descriptor,
        session: UploadSession,
        *,
        last: bool,
    ) -> Literal["next", "again", "end"]:
        """What a failed try means: the next rung, unless this is the `last`, this one again with a fresh
        session, or the end."""
        match error:
            case Unauthorized():
                return "again"  # the token ended under the bytes; the next POST shows whether that was it
            case ConnectionLost() if method == "single":
                # A 413 can get lost in the reset that follows it, when the body is still on its way.
                self.limits.broke(method, blob.size)
            case Rejected() | NotFound() if session.origin != "fresh":
                return (
                    "again"  # the session of the mount, or of an earlier push, is gone; a fresh one decides
                )
            case Rejected() | NotFound() if error.status in (404, 405) and self._sessions.read_otherwise(
                session
            ):
                return "again"
            case Rejected() | NotFound() if refuses_method(error):
                if error.code == "DIGEST_INVALID":
                    # What left had the right digest: the way changed it, or the form is not understood.
                    self.limits.broke(method, blob.size)
                    return "again" if self.limits.has_taken(method) else "next"
                if error.code in STALE_SESSION:
                    works = session.offset or self.limits.has_taken(method)
                    return "again" if works or last else "next"
                if error.status in AT_ANY_SIZE and not self.limits.has_taken(method):
                    self.limits.refused(method, 0)
                else:
                    # Half of it is not tried either: so a limit is found in a few steps, not blob by blob.
                    self.limits.refused(method, blob.size // 2)
                return "next"
        return "end"

    async def close(self) -> None:
        """Delete the sessions that nobody will go on with, and wait for those on their way out."""
        await self._sessions.close()

    async def _ended_well(
        self, error: BlobflowError, session: UploadSession, blob: Descriptor, permit: Permit | None
    ) -> bool:
        """Whether a push of which everything had left did its work in spite of the error.

        A session that is unknown may have become the blob: the HTTP library sends the PUT again by itself
        when it lost a kept connection. Where the line broke, the next push asks.
        """
        if session.sent == blob.size >= RESUMED_FROM and may_have_arrived(error):
            self._unanswered.add((session.repository, session.digest))
        return isinstance(error, NotFound) and await self._has_arrived(session.repository, blob, permit)

    async def _has_arrived(self, repository: str, blob: Descriptor, permit: Permit | None) -> bool:
        """Whether an earlier push of this blob came to its end, and only its answer got lost [end-2]."""
        if (repository, blob.digest) not in self._unanswered:
            return False
        self._unanswered.discard((repository, blob.digest))
        request = Request(
            "HEAD",
            URL(f"/v2/{repository}/blobs/{blob.digest}", encoded=True),
            f"blob {blob.digest} of {repository}",
            scopes=push_scopes(repository),
            permit=permit,
        )
        try:
            response = await self._client.send(request)
        except RegistryError:
            return False
        if contradicting_digest(blob.digest, response.headers) is not None:
            return False
        if (session := self._sessions.take(repository, blob.digest)) is not None:
            self._sessions.forget(session)
        return True

    async def _begin(self, repository: str, blob: Descriptor, permit: Permit | None) -> UploadSession:
        """Open a session [end-4a]; what is not to be hashed by sha256 is announced [end-4c]."""
        algorithm = algorithm_of(blob.digest)
        query = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
        request = Request(
            "POST",
            URL(f"/v2/{repository}/blobs/uploads/{query}", encoded=True),
            f"upload of blob {blob.digest} to {repository}",
            scopes=push_scopes(repository),
            body=b"",
            ok=(202,),
            permit=permit,
        )
        response = await self._sessions.opened(repository, blob.digest, request)
        session = self._sessions.made(repository, blob.digest, response, "fresh")
        self._size.passed_by(response.headers.get("Via"))
        self._opens.add(repository)
        return session

    async def _idle(self, repository: str, blob: Descriptor, permit: Permit | None) -> UploadSession | None:
        """The session to go on with, at the offset that the registry confirms [end-13]; None: a fresh one."""
        session = self._sessions.take(repository, blob.digest)
        if session is None or session.origin in ("mount", "moved"):
            return session
        session.permit = permit
        request = self._request("GET", session, blob, ok=(200, 204))
        try:
            response = await self._client.send(request)
        except (NotFound, Rejected, ProtocolViolation):
            self._sessions.forget(session)
            if session.broken:
                self._forgetful = self._forgetful or self.profile.keeps_broken_sessions is None
                self._learner.lost(session, blob)
            return None
        except BaseException:
            self._sessions.park(session)
            raise
        confirmed = parse_progress(response.headers.get("Range"))
        if not confirmed or confirmed > blob.size:
            self._sessions.leave(session)
            return None
        if session.broken and confirmed <= session.offset:  # nothing of a whole chunk counts
            self._learner.nothing_counted(session)
        session.broken = False
        if "Location" in response.headers:
            session.location = self._sessions.location(repository, response)
        session.offset = session.sent = confirmed
        return session

    async def _attempt(
        self,
        attempt: _Attempt,
        methods: list[UploadMethod],
        repository: str,
        blob: Descriptor,
        reader: BlobReader,
    ) -> None:
        """One try of one form. On any failure the session is parked or deleted."""
        offset = attempt.session.offset if attempt.session else 0
        small = is_small(blob) and methods[0] == "single" and not offset
        try:
            async with AsyncExitStack() as stack:
                if not small:
                    writing = self._client.limiter.permit(PermitKind.WRITE, attempt.permit)
                    permit = await stack.enter_async_context(writing)
                content = b""
                async with self._beside(attempt, repository, blob):
                    stream = await stack.enter_async_context(reader.open(offset))
                    if small:
                        content = b"".join([bytes(chunk) async for chunk in stream])
                assert attempt.session is not None
                if small:
                    attempt.session.permit = attempt.permit
                    await self._whole(attempt.session, blob, content)
                else:
                    attempt.session.permit = permit
                    await self._send(attempt, methods, blob, tapped(stream, Notice(permit.downgrade)))
        except BaseException as error:
            if attempt.session is not None:
                attempt.session.permit = None
                self._put_aside(attempt.session, blob, error)
            raise

    @asynccontextmanager
    async def _beside(self, attempt: _Attempt, repository: str, blob: Descriptor) -> AsyncIterator[None]:
        """While inside, where the body is opened, a session is opened too; on leaving it is there.

        A repository that has not opened one yet may refuse to: it is asked first, and nothing is read in
        vain. So it is for a body that broke while it waited for its session, and with it what had come of it.
        """
        key = (repository, blob.digest)
        first = blob.size > OPEN_BESIDE_UP_TO or repository not in self._opens or key in self._broken
        if attempt.session is None and first:
            attempt.session = await self._begin(repository, blob, attempt.permit)
        if attempt.session is not None:
            with attempt.session.reading():
                yield
            return
        beginning = asyncio.create_task(self._begin(repository, blob, attempt.permit))
        try:
            yield
            await asyncio.wait((beginning,))  # and not the task itself: cancelled then, its session were lost
        except BaseException as error:
            self._broken.add(key)
            beginning.cancel()
            await asyncio.wait((beginning,))
            if not beginning.cancelled() and beginning.exception() is None:
                attempt.session = beginning.result()
                attempt.session.body_error = error if isinstance(error, BlobflowError) else None
            raise
        attempt.session = beginning.result()

    async def _send(
        self, attempt: _Attempt, methods: list[UploadMethod], blob: Descriptor, stream: BlobStream
    ) -> None:
        """Send what is left of the blob, in the form that is its session's."""
        session = attempt.session
        assert session is not None
        attempt.method = session.form = _method_for(session, blob, methods, self._size.limit)
        session.began = session.offset
        noted = self._resumes and blob.size >= JOURNALED_FROM and self._sessions.note(session)
        if session.offset == blob.size:
            await _read_out(session, stream)
            await self._finish(session, blob)
        else:
            await _METHODS[attempt.method](self, session, blob, stream)
        if noted or session.origin == "left":
            self._sessions.forget(session)

    async def _whole(self, session: UploadSession, blob: Descriptor, content: bytes) -> None:
        """PUT with a whole small body [end-6], in the turn of small requests."""
        if len(content) != blob.size:
            raise SizeMismatch(f"blob {blob.digest}", expected=blob.size, actual=len(content))
        url = _with_digest(session, blob)
        async with self._client.limiter.permit(PermitKind.REQUEST, session.permit) as session.permit:
            request = self._request("PUT", session, blob, ok=_COMMITTED, url=url, body=content)
            self._client.meter.bytes_written += blob.size
            session.sent = blob.size
            self._check(await self._client.commit(request, blob.size), blob)
        if session.origin == "left":
            self._sessions.forget(session)

    @property
    def _resumes(self) -> bool:
        """Whether this host may be expected to go on with a session that broke."""
        return "chunked" in self.profile.rungs and not self._forgetful

    def _put_aside(self, session: UploadSession, blob: Descriptor, error: BaseException) -> None:
        """Leave the session open if a later push can go on with it, else delete it."""
        if isinstance(error, RequestRedirected):
            self._sessions.moved(session, URL(error.url, encoded=True))
        elif isinstance(error, Rejected) and error.status == 416 and session.offset and not session.doubted:
            session.doubted = True
            self._sessions.park(session)
        elif self._resumes and session.sent >= RESUMED_FROM and is_interruption(error):
            session.broken = self._learner.broke(session, error)
            self._sessions.park(session)
        else:
            if self._learner.broke(session, error):
                self._learner.lost(session, blob)
            self._sessions.leave(session)

    async def _single(self, session: UploadSession, blob: Descriptor, stream: BlobStream) -> None:
        """PUT with the whole body [end-6]."""
        request = self._request("PUT", session, blob, ok=_COMMITTED, url=_with_digest(session, blob))
        response, _ = await self._pour(session, stream, blob.size, request)
        self._check(response, blob)

    async def _stream(self, session: UploadSession, blob: Descriptor, stream: BlobStream) -> None:
        """One PATCH with the whole body and no Content-Range [end-5], then PUT [end-6]."""
        await self._patch(session, blob, stream, blob.size, {})
        await self._finish(session, blob)

    async def _chunked(self, session: UploadSession, blob: Descriptor, stream: BlobStream) -> None:
        """PATCH after PATCH with Content-Range [end-5], from the ticket's offset, then PUT [end-6]."""
        splitter = ChunkSplitter(stream)
        while (start := session.offset) < blob.size:
            chunk = max(self._size.chunk_bytes, session.chunk_floor)
            length = min(chunk, session.chunk_ceiling, blob.size - start)
            ranged = {"Content-Range": f"{start}-{start + length - 1}"}
            await self._patch(session, blob, splitter.take(length), length, ranged)
            session.offset = start + length
            self._learner.passed(session, length)
            if self._resumes and blob.size >= JOURNALED_FROM:
                self._sessions.note(session)
        await self._finish(session, blob)

    async def _patch(
        self, session: UploadSession, blob: Descriptor, stream: BlobStream, size: int, headers: dict[str, str]
    ) -> None:
        request = self._request("PATCH", session, blob, ok=(200, 202, 204), headers=headers)
        response, sent = await self._pour(session, stream, size, request)
        if sent != size:
            raise ConnectionLost(
                f"{self._client.host} ended {request.description} early", received=sent, expected=size
            )
        if "Location" in response.headers:
            session.location = self._sessions.location(session.repository, response)

    async def _finish(self, session: UploadSession, blob: Descriptor) -> None:
        """Commit what has been sent [end-6]."""
        url = _with_digest(session, blob)
        request = self._request("PUT", session, blob, ok=_COMMITTED, url=url, body=b"")
        self._check(await self._client.commit(request, blob.size), blob)

    def _request(
        self,
        method: str,
        session: UploadSession,
        blob: Descriptor,
        *,
        ok: tuple[int, ...],
        url: URL | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Request:
        return Request(
            method,
            url or session.location,
            f"upload of blob {blob.digest} to {session.repository}",
            scopes=push_scopes(session.repository),
            headers={"Content-Type": "application/octet-stream", **(headers or {})},
            body=body,
            ok=ok,
            permit=session.permit,
        )

    async def _pour(
        self, session: UploadSession, stream: BlobStream, size: int, request: Request
    ) -> tuple[Response, int]:
        """Send `size` bytes as the request's body; the answer, and how many were taken before it came."""
        feed = UploadBody(stream, size, request.description, self._client.meter)
        before, session.request, session.passed = session.sent, size, 0
        try:
            response = await self._client.send_body(request, feed)
            session.request = 0
            return response, feed.sent
        except ConnectionLost as error:
            if error is not feed.error:
                error.received = max(error.received, before + feed.sent - session.began)
            raise
        finally:
            session.body_error = feed.error
            session.passed = feed.sent
            session.sent = before + feed.sent

    def _check(self, response: Response, blob: Descriptor) -> None:
        """A registry may name the blob by another algorithm (distribution: sha256), not by another digest."""
        check_digest_header(response.headers, blob.digest, f"blob at {self._client.host}")


_METHODS: dict[
    UploadMethod, Callable[[BlobPusher, UploadSession, Descriptor, BlobStream], Awaitable[None]]
] = {
    "single": BlobPusher._single,
    "stream": BlobPusher._stream,
    "chunked": BlobPusher._chunked,
}


def mount_scopes(repository: str, origin: str) -> tuple[str, ...]:
    """What a mount needs; some registries read only the first scope, and the first is the rarer right."""
    return (f"repository:{repository}:pull,push", f"repository:{origin}:pull")


def _method_for(
    session: UploadSession, blob: Descriptor, methods: list[UploadMethod], limit: int | None
) -> UploadMethod:
    """The form for this session: chunks where it has a part already, or where the registry or the way to it
    takes no more than a part at once."""
    most = session.chunk_ceiling if limit is None else min(limit, session.chunk_ceiling)
    if session.offset or (blob.size > most and "chunked" in methods):
        return "chunked"
    return methods[0]


async def _read_out(session: UploadSession, stream: BlobStream) -> None:
    """Read a body that has no more bytes to its end, where its digest is checked."""
    with session.reading():
        async for _ in stream:
            pass


def _with_digest(session: UploadSession, blob: Descriptor) -> URL:
    """The Location with the digest added as text: it is opaque, and parsing would quote it anew."""
    text = str(session.location)
    if f"digest={blob.digest}" in text:  # it was redirected, with all that had been asked
        return session.location
    return URL(f"{text}{'&' if '?' in text else '?'}digest={blob.digest}", encoded=True)
