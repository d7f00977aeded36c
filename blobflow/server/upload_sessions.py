"""The upload sessions of a registry, limited in number and age.

A session is a growing partial of the store and some memory. It ends when it is committed, cancelled or
forgotten, or with the process; in each case but the first nothing of it was ever visible. Between two
requests it has no open file, so that thousands of sessions cost no descriptor.

Anybody who may push can open sessions and leave them, so each owner (a login, or an address without one) may
have a limited number: an owner who opens more loses the one that costs least to lose. That is an empty one,
the longest unused first, else the one with the fewest bytes, and never one that a request is writing to.
Empty ones are forgotten after minutes, others after the time to live.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from uuid import uuid4

from blobflow.errors import StorageError
from blobflow.oci import Digest
from blobflow.server.errors import ApiError
from blobflow.transports.store import Store, Writer

# Seconds without a byte after which a session may be forgotten. Longer than any client waits between two
# attempts; a client that comes later gets the 404 that tells it to start again.
UPLOAD_TTL = 3600.0
# The same for a session that has no byte yet: clients send the first within seconds.
EMPTY_SECONDS = 300.0
# Sessions at once, in all and of one owner. Each costs about two kilobytes of memory.
MAX_SESSIONS = 10_000
MAX_SESSIONS_OF_OWNER = 1_000
# Bytes that the sessions together have taken and not written yet, and of each at least.
_GATHERED_BYTES = 64 * 1024 * 1024
_LEAST_GATHERED = 64 * 1024


class UploadSession:
    """One upload session ([end-4a] to [end-6]).

    `turn` counts the requests that have written to it: only the newest may. So a request whose connection is
    dead, but not yet known to be, can't write behind the back of the one that took over from it. `busy`: a
    request is writing.

    `reported_offset` is the offset that the last status said, until a request goes on from there; None: no
    status is unanswered. What a dead request left in the socket's buffers may still arrive after a status,
    and a stream that names no range would be appended behind it: so a stream goes on only from where a status
    said.
    """

    __slots__ = (
        "_store",
        "_writer",
        "algorithm",
        "busy",
        "owner",
        "reported_offset",
        "repository",
        "token",
        "touched",
        "turn",
    )

    def __init__(
        self, store: Store, repository: str, owner: str, token: str, now: float, *, algorithm: str
    ) -> None:
        self._store = store
        self.algorithm = algorithm
        self._writer: Writer | None = None
        self.repository = repository
        self.owner = owner
        self.token = token
        self.touched = now
        self.turn = 0
        self.busy = False
        self.reported_offset: int | None = None

    @property
    def offset(self) -> int:
        """How many bytes have arrived."""
        return self._writer.offset if self._writer else 0

    @property
    def partial(self) -> str:
        """The token of the session's partial; "" if it has none."""
        return self._writer.token if self._writer else ""

    @property
    def location(self) -> str:
        """The path at which it goes on."""
        return f"/v2/{self.repository}/blobs/uploads/{self.token}"

    def writer(self, digest: Digest | None = None) -> Writer:
        """The partial, begun at the first byte; `digest` is what it will be, if that is known by then."""
        if self._writer is None:
            self._writer = self._store.partials.begin_upload(digest, algorithm=self.algorithm)
        return self._writer

    def take_over(self) -> int:
        """Begin to write, in place of the request that wrote until now. Returns the turn that may write."""
        self.turn += 1
        self.reported_offset = None
        self.busy = True
        return self.turn

    def rest(self) -> None:
        """No request writes for now: close the file. Raises StorageError."""
        self.busy = False
        if self._writer is not None and not self._writer.ended:
            self._writer.rest()

    def abort(self) -> None:
        """Throw away what has arrived."""
        self.turn += 1
        if self._writer is not None:
            self._writer.abort()
            self._writer = None


class UploadSessions:
    """The upload sessions that are open. Owned by one registry, used on its loop only."""

    def __init__(
        self, store: Store | None, *, ttl: float = UPLOAD_TTL, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`store`: where partials are; None where no session is ever started."""
        self._store = store
        self._ttl = ttl
        self._clock = clock
        self._looked = clock()
        # Both: the longest unused first.
        self._open: dict[str, UploadSession] = {}
        self._owned: dict[str, dict[str, UploadSession]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self, repository: str, owner: str = "", *, algorithm: str = "sha256") -> UploadSession:
        """Open a session ([end-4a], [end-4c]). `algorithm`: what the digest is likely to be of; another costs
        the commit a second pass. Raises ApiError (TOOMANYREQUESTS) when there are too many, and all of
        them are being written to."""
        now = self._clock()
        if now - self._looked >= 1.0:
            self.forget_idle()
        if len(self._owned.get(owner, ())) >= MAX_SESSIONS_OF_OWNER:
            self._cancel_cheapest(self._owned[owner].values())
        elif len(self._open) >= MAX_SESSIONS:
            self._cancel_cheapest(max(self._owned.values(), key=len).values())
        assert self._store is not None, "what is only read takes no uploads"
        session = UploadSession(self._store, repository, owner, str(uuid4()), now, algorithm=algorithm)
        self._open[session.token] = session
        self._owned.setdefault(owner, {})[session.token] = session
        return session

    def find(self, repository: str, token: str) -> UploadSession:
        """The session of that name in that repository. Raises ApiError (BLOB_UPLOAD_UNKNOWN)."""
        session = self._open.get(token)
        if session is None or session.repository != repository:
            raise ApiError(
                "BLOB_UPLOAD_UNKNOWN", "this upload session is not known here; start the upload anew"
            )
        self.touch(session)
        return session

    def touch(self, session: UploadSession) -> None:
        """Note that the session is in use: bytes came for it, or a request."""
        session.touched = self._clock()
        if session.token in self._open:
            self._open[session.token] = self._open.pop(session.token)
            owned = self._owned[session.owner]
            owned[session.token] = owned.pop(session.token)

    def write(self, session: UploadSession, chunk: bytes, digest: Digest | None) -> None:
        """Append bytes to a session's partial; `digest` as in `UploadSession.writer`. Of many sessions each
        gathers less before it goes to the disk. Raises StorageError."""
        self.touch(session)
        writer = session.writer(digest)
        writer.write(chunk)
        if writer.offset - writer.flushed > max(_LEAST_GATHERED, _GATHERED_BYTES // len(self._open)):
            writer.flush()

    def rest(self, session: UploadSession, turn: int) -> None:
        """The request that had this turn writes no more, for now. Raises StorageError, and then the session
        is forgotten."""
        if session.turn != turn or session.token not in self._open:
            return
        try:
            session.rest()
        except StorageError:
            self.forget(session.token)
            raise

    def end(self, session: UploadSession) -> None:
        """Forget a session whose partial has been committed."""
        if self._open.pop(session.token, None) is None:
            return
        owned = self._owned[session.owner]
        del owned[session.token]
        if not owned:
            del self._owned[session.owner]

    def forget(self, token: str) -> None:
        """Cancel the session of that name, if there is one."""
        session = self._open.get(token)
        if session is not None:
            self.end(session)
            session.abort()

    def forget_idle(self) -> None:
        """Cancel the sessions that nobody goes on with."""
        now = self._looked = self._clock()
        idle: list[str] = []
        for session in self._open.values():
            unused = now - session.touched
            if unused <= min(EMPTY_SECONDS, self._ttl):
                break
            if not session.busy and (not session.offset or unused > self._ttl):
                idle.append(session.token)
        for token in idle:
            self.forget(token)

    def close(self) -> None:
        for token in tuple(self._open):
            self.forget(token)

    def partials(self) -> set[str]:
        """The partials that sessions are writing."""
        return {session.partial for session in self._open.values()}

    def _cancel_cheapest(self, sessions: Iterable[UploadSession]) -> None:
        """Cancel the session of these that costs least to lose. Raises ApiError if all are being written
        to."""
        cheapest: UploadSession | None = None
        for session in sessions:
            if session.busy:
                continue
            if not session.offset:
                cheapest = session
                break
            if cheapest is None or session.offset < cheapest.offset:
                cheapest = session
        if cheapest is None:
            raise ApiError("TOOMANYREQUESTS", "too many uploads at once; finish some before you start more")
        self.forget(cheapest.token)
