"""Pushing a blob: the ladder of upload forms, and sessions that are gone on with.

A push begins with POST ([end-4a]), or with the session that a refused mount opened ([end-11]), and goes on by
one of three forms, its rungs (`profiles.ladder` chooses). A rung that the registry refuses falls to the next,
which opens the body again from its start, and what was refused and what worked is learnt for the host.

A push that breaks leaves its session open (`tickets`), unless nothing would come of it. The next push of the
blob, which the engine or the next process makes, asks the registry how much arrived ([end-13]) and goes on
from there by ranged chunks; if the registry has forgotten, it starts afresh. Registries differ: the embedded
one and distribution 3 keep what came before a break, distribution 2.8.2 keeps a session only if it stopped
between two chunks.

Connections that break are not mended here: the engine opens the body again and pushes anew. Where only the
answer got lost, the blob may be there by then: so the registry is asked before it is sent a second time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Literal

from yarl import URL

from blobflow.content import Body, Chunks, Journal
from blobflow.errors import (
    BlobflowError,
    ConnectionLost,
    DigestMismatch,
    IntegrityError,
    NetworkError,
    NotFound,
    ProtocolViolation,
    RegistryError,
    Rejected,
    StorageError,
    Unauthorized,
)
from blobflow.oci import Descriptor, Digest
from blobflow.transports.registry.feed import Cut, Feed
from blobflow.transports.registry.profiles import Learnt, Profile, Rung, ladder
from blobflow.transports.registry.session import Answer, Request, Session
from blobflow.transports.registry.tickets import (
    JOURNALED_FROM,
    KEPT_FROM,
    Ticket,
    Tickets,
    progress_of,
    push_scopes,
)

# Statuses by which a registry says that it does not take a body in this form: 400 and 404 are Artifactory's
# and Docker Hub's for single PUTs, 413 ACR's, 416 GHCR's and ECR's for ranges.
_FORM_REFUSED = frozenset({400, 404, 405, 411, 413, 415, 416, 501})
# Of these, the ones that have never been about a size.
_AT_ANY_SIZE = frozenset({404, 405, 411, 415, 501})
# Codes that speak of the name or of the session, so another form would fare no better, or no form was
# refused.
_NOT_THE_FORM = frozenset({"NAME_UNKNOWN", "NAME_INVALID", "DENIED", "UNAUTHORIZED", "TOOMANYREQUESTS"})
_STALE = frozenset({"BLOB_UPLOAD_UNKNOWN"})
_COMMITTED = (200, 201, 204)  # the spec says 201
# A push starts over by itself so often: once each for a token that ended, an offset that was doubted, and a
# session that had ended.
_AGAIN = 3


class Uploads:
    """All upload sessions at one host. `close` it before the session that it talks through."""

    def __init__(self, session: Session, profile: Profile, learnt: Learnt, journal: Journal) -> None:
        self.profile = profile
        self._session = session
        self._learnt = learnt
        self._tickets = Tickets(session, journal)
        self._chunk_bytes = profile.chunk_bytes
        self._forgetful = profile.keeps_broken_sessions is False
        self._unanswered: set[tuple[str, Digest]] = set()

    async def mount(self, request: Request, repository: str, digest: Digest) -> bool:
        """Ask for a mount; a session that a refusal opens is kept for the next push of that blob."""
        answer = await self._tickets.opened(repository, digest, request)
        if answer.status == 201:
            return True
        try:
            self._tickets.keep(self._tickets.made(repository, digest, answer, "mount"))
        except ProtocolViolation:
            pass  # a refusal without a usable session is a refusal all the same
        return False

    async def push(self, repository: str, blob: Descriptor, body: Body) -> None:
        """See `Sink.push`. Raises the last rung's error, and the body's own errors as they are."""
        if await self._has_arrived(repository, blob):
            return
        rungs = list(ladder(blob.size, self.profile, self._learnt))
        repeated = 0
        while True:
            ticket = await self._idle(repository, blob) or await self._begin(repository, blob)
            rung = _rung(ticket, blob, rungs)
            try:
                await self._climb(rung, ticket, blob, body)
            except BlobflowError as error:
                if error is ticket.body_error:
                    raise
                if await self._ended_well(error, ticket, blob):
                    return
                match self._verdict(error, rung, blob, ticket, last=len(rungs) == 1):
                    case "next" if len(rungs) > 1:
                        rungs.remove(rung if rung in rungs else rungs[0])
                    case "again" if repeated < _AGAIN:
                        repeated += 1
                    case _:
                        raise
            else:
                self._learnt.taken(rung)
                return

    def _verdict(
        self, error: BlobflowError, rung: Rung, blob: Descriptor, ticket: Ticket, *, last: bool
    ) -> Literal["next", "again", "end"]:
        """What a failed try means: the next rung, unless this is the `last`, this one again with a fresh
        session, or the end."""
        match error:
            case Unauthorized():
                return "again"  # the token ended under the bytes; the next POST shows whether that was it
            case ConnectionLost() if rung == "single":
                # A 413 can get lost in the reset that follows it, when the body is still on its way.
                self._learnt.broke(rung, blob.size)
            case Rejected() | NotFound() if ticket.origin != "fresh":
                return (
                    "again"  # the session of the mount, or of an earlier push, is gone; a fresh one decides
                )
            case Rejected() | NotFound() if _refuses_form(error):
                if error.code == "DIGEST_INVALID":
                    # What left had the right digest: the way changed it, or the form is not understood.
                    self._learnt.broke(rung, blob.size)
                    return "again" if self._learnt.has_taken(rung) else "next"
                if error.code in _STALE:
                    works = ticket.offset or self._learnt.has_taken(rung)
                    return "again" if works or last else "next"
                if error.status in _AT_ANY_SIZE and not self._learnt.has_taken(rung):
                    self._learnt.refused(rung, 0)
                else:
                    # Half of it is not tried either: so a limit is found in a few steps, not blob by blob.
                    self._learnt.refused(rung, blob.size // 2)
                return "next"
        return "end"

    async def close(self) -> None:
        """Delete the sessions that nobody will go on with, and wait for those on their way out."""
        await self._tickets.close()

    async def _ended_well(self, error: BlobflowError, ticket: Ticket, blob: Descriptor) -> bool:
        """Whether a push of which everything had left did its work in spite of the error.

        A session that is unknown may have become the blob: the HTTP library sends the PUT again by itself
        when it lost a kept connection. Where the line broke, the next push asks.
        """
        if ticket.sent == blob.size >= KEPT_FROM and isinstance(error, (NetworkError, NotFound)):
            self._unanswered.add((ticket.repository, ticket.digest))
        return isinstance(error, NotFound) and await self._has_arrived(ticket.repository, blob)

    async def _has_arrived(self, repository: str, blob: Descriptor) -> bool:
        """Whether an earlier push of this blob came to its end, and only its answer got lost [end-2]."""
        if (repository, blob.digest) not in self._unanswered:
            return False
        self._unanswered.discard((repository, blob.digest))
        request = Request(
            "HEAD",
            URL(f"/v2/{repository}/blobs/{blob.digest}", encoded=True),
            f"blob {blob.digest} of {repository}",
            scopes=push_scopes(repository),
        )
        try:
            await self._session.ask(request)
        except RegistryError:
            return False
        if (ticket := self._tickets.take(repository, blob.digest)) is not None:
            self._tickets.forget(ticket)
        return True

    async def _begin(self, repository: str, blob: Descriptor) -> Ticket:
        """Open a session [end-4a]."""
        request = Request(
            "POST",
            URL(f"/v2/{repository}/blobs/uploads/", encoded=True),
            f"upload of blob {blob.digest} to {repository}",
            scopes=push_scopes(repository),
            body=b"",
            ok=(202,),
        )
        answer = await self._tickets.opened(repository, blob.digest, request)
        return self._tickets.made(repository, blob.digest, answer, "fresh")

    async def _idle(self, repository: str, blob: Descriptor) -> Ticket | None:
        """The session to go on with, at the offset that the registry confirms [end-13]; None: a fresh one."""
        ticket = self._tickets.take(repository, blob.digest)
        if ticket is None or ticket.origin == "mount":
            return ticket
        request = self._request("GET", ticket, blob, ok=(200, 204))
        try:
            answer = await self._session.ask(request)
        except (NotFound, Rejected, ProtocolViolation):
            self._tickets.forget(ticket)
            if ticket.broken and self.profile.keeps_broken_sessions is None:
                self._forgetful = True
            return None
        except BaseException:
            self._tickets.park(ticket)
            raise
        confirmed = progress_of(answer.headers.get("Range"))
        if not confirmed or confirmed > blob.size:
            self._tickets.leave(ticket)
            return None
        if ticket.broken and confirmed <= ticket.offset:
            self._shorten_chunks(ticket)
        ticket.broken = False
        if "Location" in answer.headers:
            ticket.location = self._tickets.location(repository, answer)
        ticket.offset = ticket.sent = confirmed
        return ticket

    def _shorten_chunks(self, ticket: Ticket) -> None:
        """A chunk broke and nothing of it counts: the line is too bad for chunks of this size."""
        self._chunk_bytes = max(self._chunk_bytes // 2, self.profile.least_chunk_bytes, ticket.chunk_floor)

    async def _climb(self, rung: Rung, ticket: Ticket, blob: Descriptor, body: Body) -> None:
        """One try of one form. On any failure the session is parked or deleted."""
        noted = self._resumes and blob.size >= JOURNALED_FROM and self._tickets.note(ticket)
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._session.writes)
                with ticket.reading():
                    chunks = await stack.enter_async_context(body(ticket.offset))
                if ticket.offset == blob.size:
                    await _read_out(ticket, chunks)
                    await self._finish(ticket, blob)
                else:
                    await _FORMS[rung](self, ticket, blob, chunks)
        except BaseException as error:
            self._put_aside(ticket, error)
            raise
        if noted or ticket.origin == "left":
            self._tickets.forget(ticket)

    @property
    def _resumes(self) -> bool:
        """Whether this host may be expected to go on with a session that broke."""
        return "chunked" in self.profile.rungs and not self._forgetful

    def _put_aside(self, ticket: Ticket, error: BaseException) -> None:
        """Leave the session open if a later push can go on with it, else delete it."""
        if isinstance(error, Rejected) and error.status == 416 and ticket.offset and not ticket.doubted:
            ticket.doubted = True
            self._tickets.park(ticket)
        elif self._resumes and ticket.sent >= KEPT_FROM and _is_interruption(error):
            ticket.broken = error is not ticket.body_error and isinstance(error, ConnectionLost)
            self._tickets.park(ticket)
        else:
            self._tickets.leave(ticket)

    async def _single(self, ticket: Ticket, blob: Descriptor, chunks: Chunks) -> None:
        """PUT with the whole body [end-6]."""
        request = self._request("PUT", ticket, blob, ok=_COMMITTED, url=_with_digest(ticket, blob))
        answer, _ = await self._pour(ticket, chunks, blob.size, request)
        self._check(answer, blob)

    async def _stream(self, ticket: Ticket, blob: Descriptor, chunks: Chunks) -> None:
        """One PATCH with the whole body and no Content-Range [end-5], then PUT [end-6]."""
        await self._patch(ticket, blob, chunks, blob.size, {})
        await self._finish(ticket, blob)

    async def _chunked(self, ticket: Ticket, blob: Descriptor, chunks: Chunks) -> None:
        """PATCH after PATCH with Content-Range [end-5], from the ticket's offset, then PUT [end-6]."""
        cut = Cut(chunks)
        while (start := ticket.offset) < blob.size:
            length = min(max(self._chunk_bytes, ticket.chunk_floor), ticket.chunk_ceiling, blob.size - start)
            ranged = {"Content-Range": f"{start}-{start + length - 1}"}
            await self._patch(ticket, blob, cut.take(length), length, ranged)
            ticket.offset = start + length
            if self._resumes and blob.size >= JOURNALED_FROM:
                self._tickets.note(ticket)
        await self._finish(ticket, blob)

    async def _patch(
        self, ticket: Ticket, blob: Descriptor, chunks: Chunks, size: int, headers: dict[str, str]
    ) -> None:
        request = self._request("PATCH", ticket, blob, ok=(200, 202, 204), headers=headers)
        answer, sent = await self._pour(ticket, chunks, size, request)
        if sent != size:
            raise ConnectionLost(
                f"{self._session.host} ended {request.asked} early", received=sent, expected=size
            )
        if "Location" in answer.headers:
            ticket.location = self._tickets.location(ticket.repository, answer)

    async def _finish(self, ticket: Ticket, blob: Descriptor) -> None:
        """Commit what has been sent [end-6]."""
        url = _with_digest(ticket, blob)
        request = self._request("PUT", ticket, blob, ok=_COMMITTED, url=url, body=b"")
        self._check(await self._session.commit(request, blob.size), blob)

    def _request(
        self,
        method: str,
        ticket: Ticket,
        blob: Descriptor,
        *,
        ok: tuple[int, ...],
        url: URL | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Request:
        return Request(
            method,
            url or ticket.location,
            f"upload of blob {blob.digest} to {ticket.repository}",
            scopes=push_scopes(ticket.repository),
            headers={"Content-Type": "application/octet-stream", **(headers or {})},
            body=body,
            ok=ok,
        )

    async def _pour(self, ticket: Ticket, chunks: Chunks, size: int, request: Request) -> tuple[Answer, int]:
        """Send `size` bytes as the request's body; the answer, and how many were taken before it came."""
        feed = Feed(chunks, size, request.asked, self._session.meter)
        before = ticket.sent
        try:
            return await self._session.send(request, feed), feed.sent
        except ConnectionLost as error:
            if error is not feed.error:
                error.received = max(error.received, feed.sent)
            raise
        finally:
            ticket.body_error = feed.error
            ticket.sent = before + feed.sent

    def _check(self, answer: Answer, blob: Descriptor) -> None:
        """A registry may name the blob by another algorithm (distribution: sha256), not by another digest."""
        check_digest(answer, blob.digest, f"blob at {self._session.host}")


_FORMS: dict[Rung, Callable[[Uploads, Ticket, Descriptor, Chunks], Awaitable[None]]] = {
    "single": Uploads._single,
    "stream": Uploads._stream,
    "chunked": Uploads._chunked,
}


def mount_scopes(repository: str, origin: str) -> tuple[str, ...]:
    """What a mount needs; some registries read only the first scope, and the first is the rarer right."""
    return (f"repository:{repository}:pull,push", f"repository:{origin}:pull")


def check_digest(answer: Answer, digest: Digest, what: str) -> None:
    """Raises DigestMismatch if the answer's Docker-Content-Digest, of the same algorithm, is another."""
    said = answer.headers.get("Docker-Content-Digest", "")
    if said[:7] == digest[:7] and said != digest:
        raise DigestMismatch(what, expected=digest, actual=said[:150])


def _rung(ticket: Ticket, blob: Descriptor, rungs: list[Rung]) -> Rung:
    """The form for this session: chunks where it has a part already, or takes no more than a part at once."""
    if ticket.offset or (blob.size > ticket.chunk_ceiling and "chunked" in rungs):
        return "chunked"
    return rungs[0]


async def _read_out(ticket: Ticket, chunks: Chunks) -> None:
    """Read a body that has no more bytes to its end, where its digest is checked."""
    with ticket.reading():
        async for _ in chunks:
            pass


def _with_digest(ticket: Ticket, blob: Descriptor) -> URL:
    """The Location with the digest added as text: it is opaque, and parsing would quote it anew."""
    text = str(ticket.location)
    return URL(f"{text}{'&' if '?' in text else '?'}digest={blob.digest}", encoded=True)


def _is_interruption(error: BaseException) -> bool:
    """Whether what was sent before this is still good: the bytes are right, only their way broke."""
    if isinstance(error, IntegrityError):
        return False
    if isinstance(error, (asyncio.CancelledError, Unauthorized, StorageError)):
        return True
    return isinstance(error, BlobflowError) and error.retryable


def _refuses_form(error: RegistryError) -> bool:
    return error.status in _FORM_REFUSED and error.code not in _NOT_THE_FORM
