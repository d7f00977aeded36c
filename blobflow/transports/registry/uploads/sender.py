"""One attempt of a push: from opening a session to the commit.

Where the repository has opened a session before, the blob is opened beside the POST: one round trip less. A
small blob is read whole and then takes its turn among the small requests, not among the streams.

What is too large for a request on the way (`request_size`) goes by smaller chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from blobflow.content import BlobReader, BlobStream, LineRate, Notice, is_small, tapped
from blobflow.errors import BlobflowError, ConnectionLost, SizeMismatch
from blobflow.oci import Descriptor, Digest
from blobflow.permits import Permit, PermitKind
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from blobflow.transports.registry.http.digest_headers import check_digest_header
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.http.upload_body import ChunkSplitter, UploadBody
from blobflow.transports.registry.uploads import requests
from blobflow.transports.registry.uploads.methods import (
    BodyRequest,
    choose_method,
    next_request,
    whole_request,
)
from blobflow.transports.registry.uploads.sessions import JOURNALED_FROM, UploadSession, UploadSessions
from blobflow.transports.registry.uploads.size_learner import SizeLearner
from blobflow.transports.registry.uploads.state import Event, PushState, State

# A round trip is no matter to a blob above so many bytes; what came of it in the meantime might be lost.
OPEN_BESIDE_UP_TO = 128 * 1024 * 1024


class Push:
    """One push: what is sent to where, how far it is, and the session and method of its present try.

    `resumes`: whether the host may be expected to go on with a session that broke. `permit`: what the push
    came with; None: every exchange waits for its own.
    """

    def __init__(
        self,
        repository: str,
        blob: Descriptor,
        reader: BlobReader,
        methods: tuple[UploadMethod, ...],
        permit: Permit | None,
    ) -> None:
        self.repository = repository
        self.blob = blob
        self.reader = reader
        self.progress = PushState(methods)
        self.session: UploadSession | None = None
        self.method: UploadMethod = methods[0]
        self.resumes = False
        self.permit = permit

    @property
    def key(self) -> tuple[str, Digest]:
        """What it is about, at its host."""
        return self.repository, self.blob.digest

    def permitted(self, request: Request) -> Request:
        """A request of this push, to be sent under its permit."""
        return msgspec.structs.replace(request, permit=self.permit)

    @property
    def open_session(self) -> UploadSession:
        """The session, where there has to be one."""
        assert self.session is not None
        return self.session


class Sender:
    """The tries of all pushes to one host. `line` is told how fast bodies go, with their answers or
    to where they broke."""

    def __init__(
        self, client: HostClient, sessions: UploadSessions, learner: SizeLearner, line: LineRate
    ) -> None:
        self._client = client
        self._line = line
        self._sessions = sessions
        self._learner = learner
        self._size = learner.size
        self._opens: set[str] = set()  # repositories that have opened a session
        self._broken: set[tuple[str, Digest]] = set()

    async def send(self, push: Push) -> None:
        """OPENING, SENDING and COMMITTING: on return the registry has the blob."""
        offset = push.session.offset if push.session else 0
        small = is_small(push.blob) and not offset
        async with AsyncExitStack() as stack:
            if not small:
                writing = self._client.limiter.permit(PermitKind.WRITE, push.permit)
                permit = await stack.enter_async_context(writing)
            content = b""
            async with self._session_beside(push):
                stream = await stack.enter_async_context(push.reader.open(offset))
                if small:
                    content = b"".join([bytes(chunk) async for chunk in stream])
            if small:
                response = await self._send_small(push, content)
            else:
                response = await self._send_parts(push, tapped(stream, Notice(permit.downgrade)))
            # It may name the blob by another algorithm (distribution: sha256), not by another digest.
            check_digest_header(response.headers, push.blob.digest, f"blob at {self._client.host}")

    async def _open(self, push: Push) -> UploadSession:
        """OPENING: a new session."""
        request = push.permitted(requests.open_session(*push.key))
        response = await self._sessions.open(*push.key, request)
        session = self._sessions.from_response(*push.key, response, "fresh")
        self._size.passed_by(response.headers.get("Via"))
        self._opens.add(push.repository)
        return session

    @asynccontextmanager
    async def _session_beside(self, push: Push) -> AsyncIterator[None]:
        """While inside, where the blob is opened, a session is opened too; on leaving it is there.

        A repository that has not opened one yet may refuse to: it is asked first, and nothing is read in
        vain. So it is for a blob that broke while it waited for its session, and with it what had come of it.
        """
        first = (
            push.blob.size > OPEN_BESIDE_UP_TO
            or push.repository not in self._opens
            or push.key in self._broken
        )
        if push.session is None and first:
            push.session = await self._open(push)
            push.progress.on(Event.SESSION_OPENED)
        if push.session is not None:
            with push.session.reading():
                yield
            return
        opening = asyncio.create_task(self._open(push))
        try:
            yield
            await asyncio.wait((opening,))  # and not the task itself: cancelled then, its session were lost
        except BaseException as error:
            self._broken.add(push.key)
            opening.cancel()
            await asyncio.wait((opening,))
            if not opening.cancelled() and opening.exception() is None:
                push.session = opening.result()
                push.session.source_error = error if isinstance(error, BlobflowError) else None
                push.progress.on(Event.SESSION_OPENED)
            raise
        push.session = opening.result()
        push.progress.on(Event.SESSION_OPENED)

    async def _send_parts(self, push: Push, stream: BlobStream) -> Response:
        """SENDING and COMMITTING: what is left of the blob, by the method that suits its session."""
        session, blob = push.open_session, push.blob
        largest = min(self._size.limit or session.chunk_ceiling, session.chunk_ceiling)
        push.method = session.method = choose_method(
            push.progress.methods, offset=session.offset, size=blob.size, largest_request=largest
        )
        session.began = position = session.offset
        if push.resumes and blob.size >= JOURNALED_FROM:
            self._sessions.record(session)
        if position == blob.size:
            await _read_out(session, stream)
            push.progress.on(Event.ALL_ACCEPTED)
        splitter = ChunkSplitter(stream)
        while push.progress.state is State.SENDING:
            chunk = min(max(self._size.chunk_for(self._line), session.chunk_floor), session.chunk_ceiling)
            part = next_request(push.method, position, blob.size, chunk)
            assert part is not None
            response = await self._send_part(push, part, splitter.take(part.size) if part.ranged else stream)
            position = part.start + part.size
            if part.commits:
                return response
            if part.ranged:
                self._accept_chunk(push, part)
            push.progress.on(Event.ALL_ACCEPTED if position == blob.size else Event.PART_ACCEPTED)
        request = push.permitted(requests.commit(*push.key, session.location))
        return await self._client.commit(request, blob.size)

    async def _send_small(self, push: Push, content: bytes) -> Response:
        """SENDING and COMMITTING: a small blob, all of which is at hand. Whatever the method, it goes among
        the small requests: others are read under such permits, and must not wait for it to get a stream's."""
        if push.progress.methods[0] == "single":
            return await self._send_whole(push, content)
        async with self._client.limiter.permit(PermitKind.REQUEST, push.permit):
            return await self._send_parts(push, _stream_of(content))

    async def _send_whole(self, push: Push, content: bytes) -> Response:
        """SENDING: one request with a whole small blob, among the small requests."""
        session, blob = push.open_session, push.blob
        if len(content) != blob.size:
            raise SizeMismatch(f"blob {blob.digest}", expected=blob.size, actual=len(content))
        part = whole_request(push.method, blob.size)
        request = push.permitted(requests.body(push.repository, blob, session.location, part, content))
        async with self._client.limiter.permit(PermitKind.REQUEST, push.permit):
            self._client.meter.bytes_written += blob.size
            session.sent = blob.size
            return await self._client.commit(request, blob.size)

    async def _send_part(self, push: Push, part: BodyRequest, stream: BlobStream) -> Response:
        """One request with bytes of the blob; they have all left when it is answered."""
        session = push.open_session
        request = requests.body(push.repository, push.blob, session.location, part)
        body = UploadBody(stream, part.size, request.description, self._client.meter)
        before, session.request_size, session.request_sent = session.sent, part.size, 0
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            response = await self._client.send_body(request, body)
            session.request_size = 0
        except ConnectionLost as error:
            if error is not body.error:
                error.received = max(error.received, before + body.sent - session.began)
            raise
        finally:
            self._line.saw(body.sent, clock() - began)
            session.source_error = body.error
            session.request_sent = body.sent
            session.sent = before + body.sent
        if part.commits:
            return response
        if body.sent != part.size:
            raise ConnectionLost(
                f"{self._client.host} ended {request.description} early",
                received=body.sent,
                expected=part.size,
            )
        if "Location" in response.headers:
            session.location = self._sessions.next_location(push.repository, response)
        return response

    def _accept_chunk(self, push: Push, part: BodyRequest) -> None:
        session = push.open_session
        session.offset = part.start + part.size
        self._learner.passed(session, part.size)
        if push.resumes and push.blob.size >= JOURNALED_FROM:
            self._sessions.record(session)


async def _stream_of(content: bytes) -> AsyncGenerator[bytes, None]:
    if content:
        yield content


async def _read_out(session: UploadSession, stream: BlobStream) -> None:
    """Read a blob that has no more bytes to its end, where its digest is checked."""
    with session.reading():
        async for _ in stream:
            pass
