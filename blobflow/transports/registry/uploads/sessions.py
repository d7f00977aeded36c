"""Upload sessions between requests: kept, parked, journaled, resumed, or cancelled.

A session ends in one of three ways: it becomes a blob; it is cancelled, because it is of no use; or it is
left open, because a push can resume from its bytes. An open one is parked here for the next push of the same
blob, and journaled for the next process. The journal is written also while the bytes are being sent, so that
a process that is killed leaves a session that can be found.

Tasks that are owned here cancel sessions: they go on for some seconds when the push itself has ended.
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
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from blobflow.transports.registry.http.headers import parse_length
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.origins import follow_location
from blobflow.transports.registry.uploads import requests
from blobflow.transports.registry.uploads.location import LocationReader, UploadLocation, resolve_location

# Seconds for cancelling an abandoned session. That is a courtesy, since registries purge them.
CANCEL_SECONDS = 5.0
# Sessions of killed processes that are cancelled at once.
MAX_ABANDONED = 100
# A chunk may be this large at most, whatever OCI-Chunk-Min-Length asks for.
MAX_CHUNK = 1024 * 1024 * 1024
# And as large as this in any case, whatever OCI-Chunk-Max-Length says: by less no blob ever gets through.
LEAST_CHUNK = 64 * 1024
# Fewer bytes at the registry are sent again sooner than asked about.
RESUMED_FROM = 1024 * 1024
# A blob from this size on has its session in the journal while it is sent: two short writes, against the
# seconds that a killed run would lose.
JOURNALED_FROM = 4 * 1024 * 1024
# What is deleted there is content of a repository [end-9], [end-10].
_CONTENT = re.compile(r"/(?:manifests|blobs)/(?!uploads(?:/|\Z))[^/]+/?\Z")
_PROGRESS = re.compile(r"(?:bytes[= ])?0-(\d{1,19})\Z", re.ASCII)

# Where a session came from: a POST of this push; a mount that was refused; or an earlier push left it.
SessionOrigin = Literal["fresh", "mount", "left", "moved"]


class UploadSession:
    """One upload session: the newest Location, what the registry has, and what was said of chunk sizes.

    `offset` is what the registry has confirmed, `sent` how far bytes have left us; both count from the blob's
    start. `source_error` is what the blob's source raised while it was being sent: its 404 must not pass for
    the registry's. `began`: the offset that this push went on from. `disputed`: the registry disagreed on the
    offset before. `broken`: a request of this process broke in it. `request_size`: the bytes of the body that
    was sent last, 0 once it was taken, and `request_sent`: how much of it left us. `method`: how.
    `journaled`: the journal knows it. `location_advice`: what is odd about the Location that opened it, and
    what to do; "" if nothing is. `second_meaning`: its Locations were read by their less likely meaning.
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
        self.source_error: BlobflowError | None = None
        self.began = offset
        self.disputed = False
        self.broken = False
        self.request_size = 0
        self.request_sent = 0
        self.method: UploadMethod | None = None
        self.journaled = False
        self.location_advice = ""
        self.second_meaning = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Note what the source raises: it is not the registry's word on anything."""
        try:
            yield
        except BlobflowError as error:
            self.source_error = error
            raise


class UploadSessions:
    """The upload sessions at one host that no push is using. `close` it before the host's client."""

    def __init__(self, client: HostClient, journal: Journal) -> None:
        self._client = client
        self._journal = journal
        self._idle: dict[tuple[str, Digest], UploadSession] = {}
        self._unjournaled: set[tuple[str, Digest]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self.locations = LocationReader()

    def from_response(
        self, repository: str, digest: Digest, response: Response, origin: SessionOrigin
    ) -> UploadSession:
        """The session that a response speaks of. Raises ProtocolViolation, UntrustedPeer."""
        floor = min(parse_length(response.headers.get("OCI-Chunk-Min-Length")) or 0, MAX_CHUNK)
        # A proposal to the spec, which Cloudflare's serverless registry follows.
        ceiling = min(parse_length(response.headers.get("OCI-Chunk-Max-Length")) or MAX_CHUNK, MAX_CHUNK)
        ceiling = max(ceiling, LEAST_CHUNK, floor)
        found = self._resolve(repository, response)
        session = UploadSession(
            repository,
            digest,
            self.locations.choose(found),
            origin=origin,
            chunk_floor=floor,
            chunk_ceiling=ceiling,
        )
        session.location_advice = found.advice
        session.second_meaning = self.locations.second_meaning
        return session

    def next_location(self, repository: str, response: Response) -> URL:
        """Where a response says that the session goes on. Raises ProtocolViolation, UntrustedPeer."""
        return self.locations.choose(self._resolve(repository, response))

    def _resolve(self, repository: str, response: Response) -> UploadLocation:
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
        left = UploadSession(repository, digest, location, origin="left", offset=upload.offset)
        left.journaled = True
        return left

    def keep(self, session: UploadSession) -> None:
        """Keep a session that nothing was sent to for the next push; unused at the end, it is deleted."""
        key = session.repository, session.digest
        if (before := self._idle.pop(key, None)) is not None:
            self.cancel(before)
        self._idle[key] = session
        self._unjournaled.add(key)

    def drop(self, repository: str, digest: Digest) -> None:
        """Cancel the session that was kept for that blob, if nothing was sent to one."""
        key = repository, digest
        if key in self._unjournaled:
            self._unjournaled.discard(key)
            self.cancel(self._idle.pop(key))

    def move(self, session: UploadSession, url: URL) -> None:
        """Keep a session whose last request was redirected, to send its bytes there."""
        session.opened = session.opened or session.location
        session.location, session.origin, session.sent = url, "moved", session.offset
        self.keep(session)

    def park(self, session: UploadSession) -> None:
        """Leave a session open for the next push, here or in another process."""
        session.origin = "left"
        self.keep(session)
        if self.record(session, held=False):
            self._unjournaled.discard((session.repository, session.digest))

    def record(self, session: UploadSession, *, held: bool = True) -> bool:
        """Write the session to the journal; whether it will be remembered. `held`: it is in use here."""
        upload = Upload(str(session.location), session.offset)
        where = self._client.host, session.repository, session.digest
        recorded = self._journal.record_upload(*where, upload, held=held)
        session.journaled = session.journaled or recorded
        return recorded

    def forget(self, session: UploadSession) -> None:
        """The session has become a blob, or the registry has forgotten it."""
        session.journaled = False
        self._journal.forget_upload(self._client.host, session.repository, session.digest)

    def cancel(self, session: UploadSession) -> None:
        """Cancel the session [end-14]."""
        self.forget(session)
        self._own(self._delete(session))

    def cancel_abandoned(self) -> None:
        """Cancel what killed processes left here, the first `MAX_ABANDONED` of it."""
        for repository, digest in self._journal.abandoned_uploads(self._client.host)[:MAX_ABANDONED]:
            if (session := self.take(repository, digest)) is not None:
                self.cancel(session)

    async def open(self, repository: str, digest: Digest, request: Request) -> Response:
        """Send a request that may open a session. If that is cancelled, a session that it opens all the
        same is cancelled in the background."""
        asking = asyncio.create_task(self._client.send(request))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._own(self._delete_late(repository, digest, asking))
            raise

    async def close(self) -> None:
        """Cancel the sessions that nobody will find again, and wait for cancellations under way."""
        for key in self._unjournaled:
            self.cancel(self._idle[key])
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
        with suppress(BlobflowError, TimeoutError):  # registries purge what we can't delete
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._client.send(requests.cancel(session.repository, where))

    async def _delete_late(self, repository: str, digest: Digest, asking: asyncio.Task[Response]) -> None:
        with suppress(BlobflowError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                response = await asking
            if response.status == 202:
                await self._delete(self.from_response(repository, digest, response, "fresh"))


def parse_progress(header: str | None) -> int | None:
    """The bytes that an upload's `Range: 0-<last>` [end-13] confirms; None where it does not tell.

    `0-0` stands for no byte as well as for one, and is taken for none.
    """
    found = _PROGRESS.match(header or "")
    if found is None:
        return None
    last = int(found[1])
    return last + 1 if last else 0
