"""Upload sessions between requests: kept, parked, journaled, gone on with, or given back.

A session ends in one of three ways: as a blob; deleted, because nothing will come of it; or left open,
because its bytes are worth going on from. What is left open is parked here for the next push of the same
blob, and written to the journal for the next process. The journal is written also while the bytes are on
their way, so that a process that is killed leaves a session that can be found.

Deleting is done by tasks that are owned here: they go on when the push itself is gone, for some seconds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from yarl import URL

from blobflow.content import Journal, Upload
from blobflow.errors import BlobflowError, ProtocolViolation
from blobflow.oci import Digest
from blobflow.permits import Permit
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from blobflow.transports.registry.http.errors import parse_length
from blobflow.transports.registry.http.host_client import HostClient, Request, Response
from blobflow.transports.registry.origins import follow_location
from blobflow.transports.registry.uploads.location import UploadLocation, resolve_location

# Deleting an abandoned session is a courtesy; registries purge them. So long (seconds), not longer.
CANCEL_SECONDS = 5.0
# A chunk may be this large at most, whatever OCI-Chunk-Min-Length asks for.
MAX_CHUNK = 1024 * 1024 * 1024
# Fewer bytes at the registry are sent again sooner than asked about.
RESUMED_FROM = 1024 * 1024
# A blob from this size on has its session in the journal while it is sent: two short writes, against the
# seconds that a killed run would lose.
JOURNALED_FROM = 4 * 1024 * 1024
_PROGRESS = re.compile(r"(?:bytes[= ])?0-(\d{1,19})\Z", re.ASCII)

# Where a session came from: a POST of this push; a mount that was refused; or an earlier push left it.
SessionOrigin = Literal["fresh", "mount", "left", "moved"]


class UploadSession:
    """One upload session: the newest Location, what the registry has, and what was said of chunk sizes.

    `offset` is what the registry has confirmed, `sent` how far bytes have left us; both count from the blob's
    start. `body_error` is what the body raised while it was being sent: a source's 404 must not pass for the
    registry's. `began`: the offset that this push went on from. `doubted`: the registry disagreed on the
    offset before. `broken`: a request of this process broke in it. `request`: the size of the body that was
    sent last, and `passed`: how much of it left us; 0 once it was taken. `form`: how. `odd`: what is odd
    about the Location that opened it, "" if nothing is. `unlikely`: its Locations were taken by their less
    likely meaning. `permit`: what the push that uses it sends under.
    """

    def __init__(
        self,
        repository: str,
        digest: Digest,
        location: URL,
        *,
        origin: SessionOrigin = "fresh",
        offset: int = 0,
        chunk_floor: int = 0,
        chunk_ceiling: int = MAX_CHUNK,
    ) -> None:
        self.repository = repository
        self.digest = digest
        self.location = location
        self.opened: URL | None = None  # where it was before a request of it was redirected
        self.origin: SessionOrigin = origin
        self.offset = offset
        self.sent = offset
        self.chunk_floor = chunk_floor
        self.chunk_ceiling = chunk_ceiling
        self.body_error: BlobflowError | None = None
        self.began = offset
        self.doubted = False
        self.broken = False
        self.request = 0
        self.passed = 0
        self.odd = ""
        self.unlikely = False
        self.form: UploadMethod | None = None
        self.permit: Permit | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Note what the body raises: it is not the registry's word on anything."""
        try:
            yield
        except BlobflowError as error:
            self.body_error = error
            raise


# What is deleted there is content of a repository [end-9], [end-10].
_CONTENT = re.compile(r"/(?:manifests|blobs)/(?!uploads(?:/|\Z))[^/]+/?\Z")


class UploadSessions:
    """The upload sessions at one host that no push is using. `close` it before the host's session."""

    def __init__(self, client: HostClient, journal: Journal) -> None:
        self._client = client
        self._journal = journal
        self._idle: dict[tuple[str, Digest], UploadSession] = {}
        self._unjournaled: set[tuple[str, Digest]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._unlikely = False
        self._choices = False
        self._proven = False

    def made(
        self, repository: str, digest: Digest, response: Response, origin: SessionOrigin
    ) -> UploadSession:
        """The ticket of the session that an answer speaks of. Raises ProtocolViolation, UntrustedPeer."""
        floor = min(parse_length(response.headers.get("OCI-Chunk-Min-Length")) or 0, MAX_CHUNK)
        # A proposal to the spec, which Cloudflare's serverless registry follows.
        ceiling = min(parse_length(response.headers.get("OCI-Chunk-Max-Length")) or MAX_CHUNK, MAX_CHUNK)
        found = self._whereabouts(repository, response)
        session = UploadSession(
            repository,
            digest,
            self._chosen(found),
            origin=origin,
            chunk_floor=floor,
            chunk_ceiling=max(ceiling, floor),
        )
        session.odd, session.unlikely = found.told, self._unlikely
        return session

    def location(self, repository: str, response: Response) -> URL:
        """Where an answer says that the session goes on."""
        return self._chosen(self._whereabouts(repository, response))

    def read_otherwise(self, session: UploadSession) -> bool:
        """A session was not found where its Location was taken to lead. Take Locations of this host the other
        way from now on; False if this session's were taken so, if they have led to a blob, or if they had no
        other meaning. Pushes run beside each other: what another has found out holds for this one too."""
        if self._choices and not self._proven:
            self._unlikely = True
        return self._unlikely and not session.unlikely

    def arrived(self) -> None:
        """A session became a blob: Locations are read rightly."""
        self._proven = True

    def _chosen(self, found: UploadLocation) -> URL:
        self._choices = self._choices or len(found.urls) > 1
        return found.urls[-1 if self._unlikely else 0]

    def _whereabouts(self, repository: str, response: Response) -> UploadLocation:
        text = response.headers.get("Location")
        if not text:
            raise ProtocolViolation(
                f"{self._client.host} opened an upload to {repository} without saying where"
            )
        return resolve_location(self._client.home, response.url, text, f"upload to {repository}")

    def take(self, repository: str, digest: Digest) -> UploadSession | None:
        """The idle session for that blob: parked or kept here, or left by a process that is gone."""
        session = self._idle.pop((repository, digest), None)
        if session is not None and (repository, digest) in self._unjournaled:
            self._unjournaled.discard((repository, digest))
            return session
        upload = self._journal.take_upload(self._client.host, repository, digest)
        if upload is None or session is not None:
            return session if upload else None  # another process may have gone on with it
        try:
            home = self._client.home
            location = follow_location(home, home, upload.url, f"upload to {repository}")
        except BlobflowError:  # the host's address is another now
            self._journal.forget_upload(self._client.host, repository, digest)
            return None
        return UploadSession(repository, digest, location, origin="left", offset=upload.offset)

    def keep(self, session: UploadSession) -> None:
        """Keep a session that nothing was sent to for the next push; unused at the end, it is deleted."""
        key = session.repository, session.digest
        if (before := self._idle.pop(key, None)) is not None:
            self.leave(before)
        self._idle[key] = session
        self._unjournaled.add(key)

    def moved(self, session: UploadSession, url: URL) -> None:
        """Keep a session whose last request was redirected, to send its bytes there."""
        session.opened = session.opened or session.location
        session.location, session.origin, session.sent = url, "moved", session.offset
        self.keep(session)

    def park(self, session: UploadSession) -> None:
        """Leave a session open for the next push, here or in another process."""
        session.origin = "left"
        self.keep(session)
        if self.note(session, held=False):
            self._unjournaled.discard((session.repository, session.digest))

    def note(self, session: UploadSession, *, held: bool = True) -> bool:
        """Write the session to the journal; whether it will be remembered. `held`: it is in use here."""
        upload = Upload(str(session.location), session.offset)
        where = self._client.host, session.repository, session.digest
        return self._journal.record_upload(*where, upload, held=held)

    def forget(self, session: UploadSession) -> None:
        """The session has become a blob, or the registry has forgotten it."""
        self._journal.forget_upload(self._client.host, session.repository, session.digest)

    def leave(self, session: UploadSession) -> None:
        """Delete the session [end-14]."""
        self.forget(session)
        self._own(self._delete(session))

    async def opened(self, repository: str, digest: Digest, request: Request) -> Response:
        """Ask what may open a session; if that is cancelled, what it opens is deleted once it is told."""
        asking = asyncio.create_task(self._client.send(request))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._own(self._delete_late(repository, digest, asking))
            raise

    async def close(self) -> None:
        """Delete the sessions that nobody will find again, and wait for those on their way out."""
        for key in self._unjournaled:
            self.leave(self._idle[key])
        self._unjournaled.clear()
        self._idle.clear()
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _own(self, ending: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(ending)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _delete(self, session: UploadSession) -> None:
        where = session.opened or session.location
        if _CONTENT.search(where.path):
            return  # whatever sent us there: that is no session, and would be gone
        request = Request(
            "DELETE",
            where,
            f"end of an upload to {session.repository}",
            scopes=push_scopes(session.repository),
            ok=(200, 202, 204),
        )
        with suppress(BlobflowError, TimeoutError):  # registries purge what we can't delete
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._client.send(request)

    async def _delete_late(self, repository: str, digest: Digest, asking: asyncio.Task[Response]) -> None:
        with suppress(BlobflowError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                response = await asking
            if response.status == 202:
                await self._delete(self.made(repository, digest, response, "fresh"))


def push_scopes(repository: str) -> tuple[str, ...]:
    return (f"repository:{repository}:pull,push",)


def parse_progress(header: str | None) -> int | None:
    """The bytes that an upload's `Range: 0-<last>` [end-13] confirms; None where it does not tell.

    `0-0` stands for no byte as well as for one, and is taken for none.
    """
    found = _PROGRESS.match(header or "")
    if found is None:
        return None
    last = int(found[1])
    return last + 1 if last else 0
