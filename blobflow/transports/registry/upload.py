"""Pushing a blob: the ladder of upload forms, and sessions that are never left half-done.

A push begins with POST ([end-4a]), or with the session that a refused mount opened ([end-11]), and goes on by
one of three forms, its rungs (`profiles.ladder` chooses). A rung that the registry refuses falls to the next,
which opens the body again from its start, and what was refused and what worked is learnt for the host.

A session that does not end in a blob is deleted, on errors and on cancellation alike; that is done by a task
that `Uploads` owns, so it goes on when the push itself is gone, for some seconds at most.

Connections that break are not mended here: the engine opens the body again and pushes anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Literal

from yarl import URL

from blobflow.content import Body, Chunks
from blobflow.errors import (
    BlobflowError,
    ConnectionLost,
    DigestMismatch,
    NotFound,
    ProtocolViolation,
    RegistryError,
    Rejected,
    Unauthorized,
)
from blobflow.oci import Descriptor, Digest
from blobflow.transports.registry.answers import number_of
from blobflow.transports.registry.feed import Cut, Feed
from blobflow.transports.registry.origins import follow
from blobflow.transports.registry.profiles import Learnt, Profile, Rung, ladder
from blobflow.transports.registry.session import Answer, Request, Session

# Deleting an abandoned session is a courtesy; registries purge them. So long (seconds), not longer.
TAKE_BACK_SECONDS = 5.0
# Statuses by which a registry says that it does not take a body in this form: 400 and 404 are Artifactory's
# and Docker Hub's for single PUTs, 413 ACR's, 416 GHCR's and ECR's for ranges.
_FORM_REFUSED = frozenset({400, 404, 405, 411, 413, 415, 416, 501})
# Codes that speak of the name or of the session, so another form would fare no better, or no form was
# refused.
_NOT_THE_FORM = frozenset({"NAME_UNKNOWN", "NAME_INVALID", "DENIED", "UNAUTHORIZED", "TOOMANYREQUESTS"})
_STALE = frozenset({"BLOB_UPLOAD_UNKNOWN"})
_COMMITTED = (200, 201, 204)  # the spec says 201
# A chunk may be this large at most, whatever OCI-Chunk-Min-Length asks for.
MAX_CHUNK = 1024 * 1024 * 1024


class Ticket:
    """One upload session at the registry: the newest Location, and what was said of chunk sizes.

    `kept` is True for the session of a refused mount: it may have ended since. `body_error` is what the body
    raised while it was being sent: a source's 404 must not pass for the registry's.
    """

    def __init__(self, repository: str, location: URL, chunk_floor: int = 0, *, kept: bool = False) -> None:
        self.repository = repository
        self.location = location
        self.chunk_floor = chunk_floor
        self.kept = kept
        self.body_error: BlobflowError | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Note what the body raises: it is not the registry's word on anything."""
        try:
            yield
        except BlobflowError as error:
            self.body_error = error
            raise


class Uploads:
    """All upload sessions at one host. `close` it before the session that it talks through."""

    def __init__(self, session: Session, profile: Profile, learnt: Learnt) -> None:
        self._session = session
        self._profile = profile
        self._learnt = learnt
        self._kept: dict[tuple[str, Digest], Ticket] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def keep(self, repository: str, digest: Digest, answer: Answer) -> None:
        """Keep the session that a refused mount opened, for the next push of that blob."""
        try:
            ticket = self._ticket(repository, answer, kept=True)
        except ProtocolViolation:
            return  # a refusal without a usable session is a refusal all the same
        if (before := self._kept.pop((repository, digest), None)) is not None:
            self._leave(before)
        self._kept[(repository, digest)] = ticket

    async def push(self, repository: str, blob: Descriptor, body: Body) -> None:
        """See `Sink.push`. Raises the last rung's error, and the body's own errors as they are."""
        rungs = list(ladder(blob.size, self._profile, self._learnt))
        repeated = False
        while True:
            rung = rungs[0]
            ticket = self._kept.pop((repository, blob.digest), None)
            ticket = ticket or await self._begin(repository, blob)
            try:
                await self._climb(rung, ticket, blob, body)
            except BlobflowError as error:
                if error is ticket.body_error:
                    raise
                match self._verdict(error, rung, blob, ticket):
                    case "next" if len(rungs) > 1:
                        rungs.pop(0)
                    case "again" if not repeated:
                        repeated = True
                    case _:
                        raise
            else:
                self._learnt.taken(rung)
                return

    def _verdict(
        self, error: BlobflowError, rung: Rung, blob: Descriptor, ticket: Ticket
    ) -> Literal["next", "again", "end"]:
        """What a failed try means: the next rung, this one again with a fresh session, or the end."""
        match error:
            case Unauthorized():
                return "again"  # the token ended under the bytes; the next POST shows whether that was it
            case ConnectionLost() if rung == "single":
                # A 413 can get lost in the reset that follows it, when the body is still on its way.
                self._learnt.broke(rung, blob.size)
            case Rejected() | NotFound() if ticket.kept:
                return "again"  # the session of the mount is gone; a fresh one decides
            case Rejected() | NotFound() if _refuses_form(error):
                if error.code == "DIGEST_INVALID":
                    # What left had the right digest: the way changed it, or the form is not understood.
                    self._learnt.broke(rung, blob.size)
                    return "again" if self._learnt.has_taken(rung) else "next"
                if error.code not in _STALE:
                    self._learnt.refused(rung, blob.size)
                return "next"
        return "end"

    async def close(self) -> None:
        """Delete the sessions that no push has used, and wait for those on their way out."""
        for ticket in self._kept.values():
            self._leave(ticket)
        self._kept.clear()
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _begin(self, repository: str, blob: Descriptor) -> Ticket:
        """Open a session [end-4a]."""
        answer = await self._session.ask(
            Request(
                "POST",
                URL(f"/v2/{repository}/blobs/uploads/", encoded=True),
                f"upload of blob {blob.digest} to {repository}",
                scopes=push_scopes(repository),
                body=b"",
                ok=(202,),
            )
        )
        return self._ticket(repository, answer)

    def _ticket(self, repository: str, answer: Answer, *, kept: bool = False) -> Ticket:
        floor = min(number_of(answer.headers.get("OCI-Chunk-Min-Length")) or 0, MAX_CHUNK)
        return Ticket(repository, self._location(answer, repository), floor, kept=kept)

    def _location(self, answer: Answer, repository: str) -> URL:
        location = answer.headers.get("Location")
        if not location:
            raise ProtocolViolation(
                f"{self._session.host} opened an upload to {repository} without saying where"
            )
        return follow(self._session.home, answer.url, location, f"upload to {repository}")

    async def _climb(self, rung: Rung, ticket: Ticket, blob: Descriptor, body: Body) -> None:
        """One try of one form. On any failure the session is deleted."""
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self._session.writes)
                with ticket.reading():
                    chunks = await stack.enter_async_context(body(0))
                await _FORMS[rung](self, ticket, blob, chunks)
        except BaseException:
            self._leave(ticket)
            raise

    async def _single(self, ticket: Ticket, blob: Descriptor, chunks: Chunks) -> None:
        """PUT with the whole body [end-6]."""
        if not blob.size:
            await _read_empty(ticket, chunks)
            await self._finish(ticket, blob)
            return
        request = self._request("PUT", ticket, blob, ok=_COMMITTED, url=_with_digest(ticket, blob))
        answer, _ = await self._pour(ticket, chunks, blob.size, request)
        self._check(answer, blob)

    async def _stream(self, ticket: Ticket, blob: Descriptor, chunks: Chunks) -> None:
        """One PATCH with the whole body and no Content-Range [end-5], then PUT [end-6]."""
        if blob.size:
            await self._patch(ticket, blob, chunks, blob.size, {})
        else:
            await _read_empty(ticket, chunks)
        await self._finish(ticket, blob)

    async def _chunked(self, ticket: Ticket, blob: Descriptor, chunks: Chunks) -> None:
        """PATCH after PATCH with Content-Range [end-5], then PUT [end-6]."""
        cut = Cut(chunks)
        size = max(self._profile.chunk_bytes, ticket.chunk_floor)
        for start in range(0, blob.size, size):
            length = min(size, blob.size - start)
            ranged = {"Content-Range": f"{start}-{start + length - 1}"}
            await self._patch(ticket, blob, cut.take(length), length, ranged)
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
            ticket.location = self._location(answer, ticket.repository)

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
        try:
            return await self._session.send(request, feed), feed.sent
        finally:
            ticket.body_error = feed.error

    def _check(self, answer: Answer, blob: Descriptor) -> None:
        """A registry may name the blob by another algorithm (distribution: sha256), not by another digest."""
        check_digest(answer, blob.digest, f"blob at {self._session.host}")

    def _leave(self, ticket: Ticket) -> None:
        task = asyncio.create_task(self._delete(ticket))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _delete(self, ticket: Ticket) -> None:
        request = Request(
            "DELETE",
            ticket.location,
            f"end of an upload to {ticket.repository}",
            scopes=push_scopes(ticket.repository),
            ok=(200, 202, 204),
        )
        with suppress(BlobflowError, TimeoutError):  # registries purge what we can't delete
            async with asyncio.timeout(TAKE_BACK_SECONDS):
                await self._session.ask(request)


_FORMS: dict[Rung, Callable[[Uploads, Ticket, Descriptor, Chunks], Awaitable[None]]] = {
    "single": Uploads._single,
    "stream": Uploads._stream,
    "chunked": Uploads._chunked,
}


def push_scopes(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


def mount_scopes(repository: str, origin: str) -> tuple[str, ...]:
    """What a mount needs; some registries read only the first scope, and the first is the rarer right."""
    return (f"repository:{repository}:pull,push", f"repository:{origin}:pull")


def check_digest(answer: Answer, digest: Digest, what: str) -> None:
    """Raises DigestMismatch if the answer's Docker-Content-Digest, of the same algorithm, is another."""
    said = answer.headers.get("Docker-Content-Digest", "")
    if said[:7] == digest[:7] and said != digest:
        raise DigestMismatch(what, expected=digest, actual=said[:150])


async def _read_empty(ticket: Ticket, chunks: Chunks) -> None:
    """Read a body of no bytes to its end, where its digest is checked."""
    with ticket.reading():
        async for _ in chunks:
            pass


def _with_digest(ticket: Ticket, blob: Descriptor) -> URL:
    """The Location with the digest added as text: it is opaque, and parsing would quote it anew."""
    text = str(ticket.location)
    return URL(f"{text}{'&' if '?' in text else '?'}digest={blob.digest}", encoded=True)


def _refuses_form(error: RegistryError) -> bool:
    return error.status in _FORM_REFUSED and error.code not in _NOT_THE_FORM
