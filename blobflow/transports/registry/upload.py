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

from blobflow.content import Body, Chunks, Journal, is_small
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
from blobflow.transports.registry.digests import check_told, other_than
from blobflow.transports.registry.feed import Cut, Feed
from blobflow.transports.registry.lessons import Lessons
from blobflow.transports.registry.profiles import Learnt, Profile, Rung, ladder
from blobflow.transports.registry.refusals import (
    AT_ANY_SIZE,
    STALE,
    explain,
    is_interruption,
    may_have_arrived,
    refuses_form,
)
from blobflow.transports.registry.requestsize import RequestSize
from blobflow.transports.registry.session import MAX_REDIRECTS, Answer, Redirected, Request, Session
from blobflow.transports.registry.tickets import (
    JOURNALED_FROM,
    KEPT_FROM,
    Ticket,
    Tickets,
    progress_of,
    push_scopes,
)

_COMMITTED = (200, 201, 204)  # the spec says 201
# A round trip is no matter to a blob above so many bytes; what came of it in the meantime might be lost.
BESIDE_UP_TO = 128 * 1024 * 1024
# A push starts over by itself so often: once each for a token that ended, an offset that was doubted, and a
# session that had ended.
_AGAIN = 3


class _Going:
    """One try of a push: its session, once there is one, and the form that it takes."""

    def __init__(self, ticket: Ticket | None, rung: Rung) -> None:
        self.ticket = ticket
        self.rung: Rung = rung


class Uploads:
    """All upload sessions at one host. `close` it before the session that it talks through."""

    def __init__(self, session: Session, profile: Profile, learnt: Learnt, journal: Journal) -> None:
        self.profile = profile
        self.learnt = learnt
        self._session = session
        self._tickets = Tickets(session, journal)
        self._size = RequestSize(profile, learnt)
        self._lessons = Lessons(self._size, session)
        self._forgetful = profile.keeps_broken_sessions is False
        self._opens: set[str] = set()
        self._broken: set[tuple[str, Digest]] = set()
        self._unanswered: set[tuple[str, Digest]] = set()

    async def mount(self, request: Request, repository: str, digest: Digest) -> bool:
        """Ask for a mount; a session that a refusal opens is kept for the next push of that blob."""
        answer = await self._tickets.opened(repository, digest, request)
        self._size.passed_by(answer.headers.get("Via"))
        if answer.status == 201:
            return other_than(digest, answer.headers) is None  # something else was mounted: it is pushed
        try:
            self._tickets.keep(self._tickets.made(repository, digest, answer, "mount"))
        except ProtocolViolation:
            pass  # a refusal without a usable session is a refusal all the same
        return False

    async def push(self, repository: str, blob: Descriptor, body: Body) -> None:
        """See `Sink.push`. Raises the last rung's error, and the body's own errors as they are."""
        if await self._has_arrived(repository, blob):
            return
        rungs = list(ladder(blob.size, self.profile, self.learnt))
        repeated = hops = reached = 0
        while True:
            going = _Going(await self._idle(repository, blob), rungs[0])
            try:
                await self._climb(going, rungs, repository, blob, body)
            except BlobflowError as error:
                ticket = going.ticket
                if ticket is None or error is ticket.body_error:
                    raise
                if isinstance(error, Redirected) and hops < MAX_REDIRECTS:
                    hops, reached = (hops + 1 if ticket.offset == reached else 1), ticket.offset
                    continue
                if await self._ended_well(error, ticket, blob):
                    return
                if "chunked" in rungs and self._lessons.ended(error, ticket, blob):
                    if await self._has_arrived(repository, blob):
                        return
                    rungs = [rung for rung in rungs if rung == "chunked" or rung != going.rung]
                    continue
                match self._verdict(error, going.rung, blob, ticket, last=len(rungs) == 1):
                    case "next" if len(rungs) > 1:
                        rungs.remove(going.rung if going.rung in rungs else rungs[0])
                    case "again" if repeated < _AGAIN:
                        repeated += 1
                    case _:
                        explain(error, f"{self._session.host}/{repository}", ticket.odd)
                        raise
            else:
                self.learnt.taken(going.rung)
                self._lessons.arrived(repository, blob.digest)
                self._tickets.arrived()
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
                self.learnt.broke(rung, blob.size)
            case Rejected() | NotFound() if ticket.origin != "fresh":
                return (
                    "again"  # the session of the mount, or of an earlier push, is gone; a fresh one decides
                )
            case Rejected() | NotFound() if error.status in (404, 405) and self._tickets.read_otherwise(ticket):
                return "again"
            case Rejected() | NotFound() if refuses_form(error):
                if error.code == "DIGEST_INVALID":
                    # What left had the right digest: the way changed it, or the form is not understood.
                    self.learnt.broke(rung, blob.size)
                    return "again" if self.learnt.has_taken(rung) else "next"
                if error.code in STALE:
                    works = ticket.offset or self.learnt.has_taken(rung)
                    return "again" if works or last else "next"
                if error.status in AT_ANY_SIZE and not self.learnt.has_taken(rung):
                    self.learnt.refused(rung, 0)
                else:
                    # Half of it is not tried either: so a limit is found in a few steps, not blob by blob.
                    self.learnt.refused(rung, blob.size // 2)
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
        if ticket.sent == blob.size >= KEPT_FROM and may_have_arrived(error):
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
            answer = await self._session.ask(request)
        except RegistryError:
            return False
        if other_than(blob.digest, answer.headers) is not None:
            return False
        if (ticket := self._tickets.take(repository, blob.digest)) is not None:
            self._tickets.forget(ticket)
        return True

    async def _begin(self, repository: str, blob: Descriptor) -> Ticket:
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
        )
        answer = await self._tickets.opened(repository, blob.digest, request)
        ticket = self._tickets.made(repository, blob.digest, answer, "fresh")
        self._size.passed_by(answer.headers.get("Via"))
        self._opens.add(repository)
        return ticket

    async def _idle(self, repository: str, blob: Descriptor) -> Ticket | None:
        """The session to go on with, at the offset that the registry confirms [end-13]; None: a fresh one."""
        ticket = self._tickets.take(repository, blob.digest)
        if ticket is None or ticket.origin in ("mount", "moved"):
            return ticket
        request = self._request("GET", ticket, blob, ok=(200, 204))
        try:
            answer = await self._session.ask(request)
        except (NotFound, Rejected, ProtocolViolation):
            self._tickets.forget(ticket)
            if ticket.broken:
                self._forgetful = self._forgetful or self.profile.keeps_broken_sessions is None
                self._lessons.lost(ticket, blob)
            return None
        except BaseException:
            self._tickets.park(ticket)
            raise
        confirmed = progress_of(answer.headers.get("Range"))
        if not confirmed or confirmed > blob.size:
            self._tickets.leave(ticket)
            return None
        if ticket.broken and confirmed <= ticket.offset:  # nothing of a whole chunk counts
            self._lessons.nothing_counted(ticket)
        ticket.broken = False
        if "Location" in answer.headers:
            ticket.location = self._tickets.location(repository, answer)
        ticket.offset = ticket.sent = confirmed
        return ticket

    async def _climb(
        self, going: _Going, rungs: list[Rung], repository: str, blob: Descriptor, body: Body
    ) -> None:
        """One try of one form. On any failure the session is parked or deleted."""
        offset = going.ticket.offset if going.ticket else 0
        small = is_small(blob) and rungs[0] == "single" and not offset
        try:
            async with AsyncExitStack() as stack:
                if not small:
                    turn = await stack.enter_async_context(self._session.writes.turn())
                content = b""
                async with self._beside(going, repository, blob):
                    chunks = await stack.enter_async_context(body(offset))
                    if small:
                        content = b"".join([bytes(chunk) async for chunk in chunks])
                assert going.ticket is not None
                if small:
                    await self._whole(going.ticket, blob, content)
                else:
                    await self._send(going, rungs, blob, _then(chunks, turn.only_answer))
        except BaseException as error:
            if going.ticket is not None:
                self._put_aside(going.ticket, blob, error)
            raise

    @asynccontextmanager
    async def _beside(self, going: _Going, repository: str, blob: Descriptor) -> AsyncIterator[None]:
        """While inside, where the body is opened, a session is opened too; on leaving it is there.

        A repository that has not opened one yet may refuse to: it is asked first, and nothing is read in
        vain. So it is for a body that broke while it waited for its session, and with it what had come of it.
        """
        key = (repository, blob.digest)
        first = blob.size > BESIDE_UP_TO or repository not in self._opens or key in self._broken
        if going.ticket is None and first:
            going.ticket = await self._begin(repository, blob)
        if going.ticket is not None:
            with going.ticket.reading():
                yield
            return
        beginning = asyncio.create_task(self._begin(repository, blob))
        try:
            yield
            await asyncio.wait((beginning,))  # and not the task itself: cancelled then, its session were lost
        except BaseException as error:
            self._broken.add(key)
            beginning.cancel()
            await asyncio.wait((beginning,))
            if not beginning.cancelled() and beginning.exception() is None:
                going.ticket = beginning.result()
                going.ticket.body_error = error if isinstance(error, BlobflowError) else None
            raise
        going.ticket = beginning.result()

    async def _send(self, going: _Going, rungs: list[Rung], blob: Descriptor, chunks: Chunks) -> None:
        """Send what is left of the blob, in the form that is its session's."""
        ticket = going.ticket
        assert ticket is not None
        going.rung = ticket.form = _rung(ticket, blob, rungs, self._size.limit)
        ticket.began = ticket.offset
        noted = self._resumes and blob.size >= JOURNALED_FROM and self._tickets.note(ticket)
        if ticket.offset == blob.size:
            await _read_out(ticket, chunks)
            await self._finish(ticket, blob)
        else:
            await _FORMS[going.rung](self, ticket, blob, chunks)
        if noted or ticket.origin == "left":
            self._tickets.forget(ticket)

    async def _whole(self, ticket: Ticket, blob: Descriptor, content: bytes) -> None:
        """PUT with a whole small body [end-6], in the turn of small requests."""
        if len(content) != blob.size:
            raise SizeMismatch(f"blob {blob.digest}", expected=blob.size, actual=len(content))
        url = _with_digest(ticket, blob)
        request = self._request("PUT", ticket, blob, ok=_COMMITTED, url=url, body=content)
        async with self._session.small:
            self._session.meter.bytes_written += blob.size
            ticket.sent = blob.size
            self._check(await self._session.commit(request, blob.size), blob)
        if ticket.origin == "left":
            self._tickets.forget(ticket)

    @property
    def _resumes(self) -> bool:
        """Whether this host may be expected to go on with a session that broke."""
        return "chunked" in self.profile.rungs and not self._forgetful

    def _put_aside(self, ticket: Ticket, blob: Descriptor, error: BaseException) -> None:
        """Leave the session open if a later push can go on with it, else delete it."""
        if isinstance(error, Redirected):
            self._tickets.moved(ticket, URL(error.url, encoded=True))
        elif isinstance(error, Rejected) and error.status == 416 and ticket.offset and not ticket.doubted:
            ticket.doubted = True
            self._tickets.park(ticket)
        elif self._resumes and ticket.sent >= KEPT_FROM and is_interruption(error):
            ticket.broken = self._lessons.broke(ticket, error)
            self._tickets.park(ticket)
        else:
            if self._lessons.broke(ticket, error):
                self._lessons.lost(ticket, blob)
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
            chunk = max(self._size.chunk_bytes, ticket.chunk_floor)
            length = min(chunk, ticket.chunk_ceiling, blob.size - start)
            ranged = {"Content-Range": f"{start}-{start + length - 1}"}
            await self._patch(ticket, blob, cut.take(length), length, ranged)
            ticket.offset = start + length
            self._lessons.passed(ticket, length)
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
        before, ticket.request, ticket.passed = ticket.sent, size, 0
        try:
            answer = await self._session.send(request, feed)
            ticket.request = 0
            return answer, feed.sent
        except ConnectionLost as error:
            if error is not feed.error:
                error.received = max(error.received, before + feed.sent - ticket.began)
            raise
        finally:
            ticket.body_error = feed.error
            ticket.passed = feed.sent
            ticket.sent = before + feed.sent

    def _check(self, answer: Answer, blob: Descriptor) -> None:
        """A registry may name the blob by another algorithm (distribution: sha256), not by another digest."""
        check_told(answer.headers, blob.digest, f"blob at {self._session.host}")


_FORMS: dict[Rung, Callable[[Uploads, Ticket, Descriptor, Chunks], Awaitable[None]]] = {
    "single": Uploads._single,
    "stream": Uploads._stream,
    "chunked": Uploads._chunked,
}


async def _then(chunks: Chunks, over: Callable[[], None]) -> Chunks:
    """The chunks; `over` is called when the last of them was asked past."""
    async for chunk in chunks:
        yield chunk
    over()


def mount_scopes(repository: str, origin: str) -> tuple[str, ...]:
    """What a mount needs; some registries read only the first scope, and the first is the rarer right."""
    return (f"repository:{repository}:pull,push", f"repository:{origin}:pull")


def _rung(ticket: Ticket, blob: Descriptor, rungs: list[Rung], limit: int | None) -> Rung:
    """The form for this session: chunks where it has a part already, or where the registry or the way to it
    takes no more than a part at once."""
    most = ticket.chunk_ceiling if limit is None else min(limit, ticket.chunk_ceiling)
    if ticket.offset or (blob.size > most and "chunked" in rungs):
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
    if f"digest={blob.digest}" in text:  # it was redirected, with all that had been asked
        return ticket.location
    return URL(f"{text}{'&' if '?' in text else '?'}digest={blob.digest}", encoded=True)
