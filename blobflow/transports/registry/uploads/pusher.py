"""Pushes a blob: makes the requests that `state` decides on.

A push begins with POST ([end-4a]), or with a session that is kept: the one that a refused mount opened
([end-11]), or one that an earlier push left, in this process or another. It goes on by an upload method
(`methods`). The result of each request is an `Event`, and `state` says what is next: another attempt, another
method, a smaller request, or the end. What was refused and what worked is learned for the host.

A push that breaks leaves its session open (`sessions`), unless that is of no use. The next push of the blob
asks the registry how much arrived ([end-13]), and resumes there by ranged chunks; if the registry has
forgotten the session, it starts anew. Registries differ: the embedded one and distribution 3 keep what came
before a break, distribution 2.8.2 keeps a session only if it stopped between two chunks.

What is too large for a request on the way (`request_size`) goes by smaller chunks. A request whose end speaks
of its size (413; 502, 504 or no answer after its bytes) is followed by a smaller one at once. So it is once
two broke at about the same byte, or two uploads of a blob were lost at a registry that forgets them.

Broken connections are not retried here: the engine opens the blob again and pushes anew. Where only the
answer was lost, the blob may be there by then: so the registry is asked before the blob is sent a second
time.
"""

from __future__ import annotations

from yarl import URL

from blobflow.content import BlobReader, Journal, LineRate
from blobflow.errors import (
    BlobflowError,
    NotFound,
    ProtocolViolation,
    RegistryError,
    Rejected,
)
from blobflow.oci import Descriptor, Digest
from blobflow.permits import Permit
from blobflow.transports.registry.capabilities.profiles import (
    Profile,
    method_order,
)
from blobflow.transports.registry.http.digest_headers import contradicting_digest
from blobflow.transports.registry.http.dispatch import RequestRedirected
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request
from blobflow.transports.registry.uploads import requests
from blobflow.transports.registry.uploads.failures import Attempt, classify, explain, may_have_arrived
from blobflow.transports.registry.uploads.request_size import RequestSize
from blobflow.transports.registry.uploads.sender import Push, Sender
from blobflow.transports.registry.uploads.sessions import (
    RESUMED_FROM,
    UploadSessions,
    parse_progress,
)
from blobflow.transports.registry.uploads.size_learner import SizeLearner
from blobflow.transports.registry.uploads.state import Event, Fate, Lesson, State

# The journal's key for the bytes a second that one body was sent with.
SENT_RATE = "line.sent"


class BlobPusher:
    """All pushes to one host. `close` it before the client that it talks through."""

    def __init__(self, client: HostClient, profile: Profile, journal: Journal) -> None:
        self.profile = profile
        self.limits = client.capabilities.limits
        self._client = client
        self._sessions = UploadSessions(client, journal)
        self._size = RequestSize(profile, self.limits)
        self._learner = SizeLearner(self._size, client)
        self._line = LineRate(journal, client.host, SENT_RATE)
        self._sender = Sender(client, self._sessions, self._learner, self._line)
        self._forgetful = profile.keeps_broken_sessions is False
        self._unanswered: set[tuple[str, Digest]] = set()

    async def mount(self, request: Request, repository: str, digest: Digest) -> bool:
        """Ask for a mount; a session that a refusal opens is kept for the next push of that blob."""
        response = await self._sessions.open(repository, digest, request)
        self._size.passed_by(response.headers.get("Via"))
        if response.status == 201:
            # If something else was mounted, the blob is pushed.
            return contradicting_digest(digest, response.headers) is None
        try:
            self._sessions.keep(self._sessions.from_response(repository, digest, response, "mount"))
        except ProtocolViolation:
            pass  # a refusal without a usable session is a refusal all the same
        return False

    def drop(self, repository: str, digest: Digest) -> None:
        """Give up the session that a refused mount opened for a blob."""
        self._sessions.drop(repository, digest)

    def cancel_abandoned(self) -> None:
        """Cancel, in the background, the sessions that killed processes left."""
        self._sessions.cancel_abandoned()

    async def push(
        self, repository: str, blob: Descriptor, reader: BlobReader, permit: Permit | None = None
    ) -> None:
        """See `Sink.push`. `permit`: what all is sent under; None: each try waits for its own.

        Raises the last try's error, and the reader's own errors as they are.
        """
        costly = self._line.is_costly(blob.size)
        methods = method_order(blob.size, self.profile, self.limits, costly=costly)
        push = Push(repository, blob, reader, methods, permit)
        while push.progress.state is not State.DONE:
            await self._once(push)

    async def close(self) -> None:
        """Cancel the sessions that nobody will resume, and wait for cancellations under way."""
        await self._sessions.close()

    async def _once(self, push: Push) -> None:
        """One attempt, from CHECKING to DONE or to CHECKING again. Raises the error that leads to FAILED."""
        push.session, push.method = None, push.progress.methods[0]
        try:
            if push.progress.on(await self._check(push)).to is State.DONE:
                return
            self._take_up(push, await self._resume(push))
            await self._sender.send(push)
        except BaseException as error:
            await self._fail(push, error)
            if push.progress.state is State.FAILED:
                raise
        else:
            step = push.progress.on(Event.COMMITTED)
            self._dispose(push, step.session)
            self._learn(push, step.lesson)
            self._line.write_note()

    # The questions

    async def _check(self, push: Push) -> Event:
        """CHECKING: whether an earlier push of this blob arrived, and only its answer got lost [end-2]."""
        if push.key not in self._unanswered:
            return Event.BLOB_ABSENT
        self._unanswered.discard(push.key)
        try:
            response = await self._client.send(push.permitted(requests.exists(*push.key)))
        except RegistryError:
            return Event.BLOB_ABSENT
        if contradicting_digest(push.blob.digest, response.headers) is not None:
            return Event.BLOB_ABSENT
        if (session := self._sessions.take(*push.key)) is not None:
            self._sessions.forget(session)
        return Event.BLOB_PRESENT

    async def _resume(self, push: Push) -> Event:
        """RESUMING: the session to go on with, at the offset that the registry confirms [end-13]."""
        session = push.session = self._sessions.take(*push.key)
        if session is None:
            return Event.NO_SESSION
        if session.origin in ("mount", "moved"):
            return Event.SESSION_READY
        try:
            response = await self._client.send(push.permitted(requests.progress(*push.key, session.location)))
        except (NotFound, Rejected, ProtocolViolation):
            if session.broken:
                self._forgetful = self._forgetful or self.profile.keeps_broken_sessions is None
                self._learner.lost(session, push.blob)
            return Event.SESSION_GONE
        confirmed = parse_progress(response.headers.get("Range"))
        if not confirmed or confirmed > push.blob.size:
            return Event.SESSION_EMPTY
        if session.broken and confirmed <= session.offset:  # nothing of a whole chunk counts
            self._learner.nothing_counted(session)
        session.broken = False
        if "Location" in response.headers:
            session.location = self._sessions.next_location(push.repository, response)
        session.offset = session.sent = confirmed
        return Event.SESSION_READY

    # What came of it

    def _take_up(self, push: Push, event: Event) -> None:
        """Go on with the session that was found, or without one."""
        step = push.progress.on(event)
        if push.session is not None and step.to is State.OPENING:
            self._dispose(push, step.session)
            push.session = None
        push.resumes = self._resumes

    async def _fail(self, push: Push, error: BaseException) -> None:
        """Go on by an error, and do with the session, and learn of the host, what the table says."""
        session, progress = push.session, push.progress
        if progress.state not in (State.SENDING, State.COMMITTING):
            step = progress.on(Event.UNANSWERED)
            if session is not None:
                self._dispose(push, step.session, error)
            return
        assert session is not None
        by_source = error is session.source_error
        event = classify(error, self._attempt_of(push, error))
        session.disputed = session.disputed or event is Event.OFFSET_DISPUTED
        self._dispose(push, progress.row(event).session, error)
        if isinstance(error, BlobflowError) and not by_source:
            if session.sent == push.blob.size >= RESUMED_FROM and may_have_arrived(error):
                self._unanswered.add(push.key)
            if isinstance(error, NotFound) and await self._check(push) is Event.BLOB_PRESENT:
                event = Event.BLOB_PRESENT
        step = progress.on(event, method=push.method, offset=session.offset)
        self._learn(push, step.lesson)
        if step.to is State.FAILED and isinstance(error, BlobflowError) and not by_source:
            explain(error, f"{self._client.host}/{push.repository}", session.location_advice)

    def _attempt_of(self, push: Push, error: BaseException) -> Attempt:
        session, methods = push.open_session, push.progress.methods
        by_source = error is session.source_error
        return Attempt(
            push.method,
            offset=session.offset,
            reused=session.origin != "fresh",
            disputed=session.disputed,
            proven=self.limits.has_taken(push.method),
            last=len(methods) == 1,
            misreadable=self._sessions.locations.may_be_misread(second_meaning=session.second_meaning),
            shrinkable="chunked" in methods
            and isinstance(error, BlobflowError)
            and not by_source
            and self._learner.ended(error, session, push.blob),
            by_source=by_source,
        )

    def _dispose(self, push: Push, fate: Fate, error: BaseException | None = None) -> None:
        """Do with the session as is said; `error` ended its use, if one did."""
        session = push.open_session
        match fate:
            case Fate.KEEP:
                pass
            case Fate.MOVE:
                assert isinstance(error, RequestRedirected)
                self._sessions.move(session, URL(error.url, encoded=True))
            case Fate.PARK:
                self._sessions.park(session)
            case Fate.PARK_IF_WORTH if self._resumes and session.sent >= RESUMED_FROM:
                session.broken = self._learner.broke(session, error)
                self._sessions.park(session)
            case Fate.PARK_IF_WORTH | Fate.DELETE:
                if self._learner.broke(session, error):
                    self._learner.lost(session, push.blob)
                self._sessions.cancel(session)
            case Fate.FORGET:
                if session.journaled:
                    self._sessions.forget(session)

    def _learn(self, push: Push, lesson: Lesson | None) -> None:
        """Note for the host what a step says of it."""
        size = push.blob.size
        match lesson:
            case Lesson.METHOD_WORKS:
                self.limits.taken(push.method)
                self._learner.arrived(*push.key)
                self._sessions.locations.confirm()
            case Lesson.METHOD_BREAKS:
                self.limits.broke(push.method, size)
            case Lesson.METHOD_REFUSED:
                self.limits.refused(push.method, 0)
            case Lesson.SIZE_REFUSED:
                # Half of it is not tried either: so a limit is found in a few steps, not blob by blob.
                self.limits.refused(push.method, size // 2)
            case Lesson.LOCATION_MISREAD:
                self._sessions.locations.switch()
            case None:
                pass

    @property
    def _resumes(self) -> bool:
        """Whether this host may be expected to go on with a session that broke."""
        return "chunked" in self.profile.rungs and not self._forgetful
