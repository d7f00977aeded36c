"""What the embedded registry holds between requests: its store, its rules and its upload sessions.

A session is a growing partial of the store and a place in memory. It ends by being committed, cancelled,
forgotten for idleness, or with the process; in each case but the first nothing of it was ever visible.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Literal

import msgspec

from blobflow.oci import Digest
from blobflow.server.counts import Counts
from blobflow.server.logins import Logins
from blobflow.server.overview import Overview
from blobflow.server.recent import Recent
from blobflow.server.refusal import Refusal
from blobflow.server.subjects import Subjects
from blobflow.server.through import PullThrough
from blobflow.server.wire import Wire
from blobflow.transports.store import Store, Writer

Sparse = Literal["accept", "refuse"]

# Seconds without a byte after which a session may be forgotten. Longer than any client waits between two
# attempts; a client that comes later gets the 404 that tells it to start again.
IDLE_SECONDS = 3600.0
# Sessions at once. One that has no byte yet costs no file, so this bounds memory, not descriptors.
MAX_SESSIONS = 10_000


class Session:
    """One upload session ([end-4a] to [end-6]).

    `turn` counts the requests that have written to it: only the newest may. So a request whose connection is
    dead, but not yet known to be, can't write behind the back of the one that took over from it.

    `told` is the offset that the last status said, until a request goes on from there; None: no status is
    unanswered. What a dead request left in the socket's buffers may still arrive after a status, and a stream
    that names no range would be appended behind it: so a stream goes on only from where a status said.
    """

    __slots__ = ("_store", "_writer", "repository", "token", "told", "touched", "turn")

    def __init__(self, store: Store, repository: str, token: str, now: float) -> None:
        self._store = store
        self._writer: Writer | None = None
        self.repository = repository
        self.token = token
        self.touched = now
        self.turn = 0
        self.told: int | None = None

    @property
    def offset(self) -> int:
        """How many bytes have arrived."""
        return self._writer.offset if self._writer else 0

    @property
    def location(self) -> str:
        """Relative, so that it is right behind any proxy."""
        return f"/v2/{self.repository}/blobs/uploads/{self.token}"

    def writer(self, digest: Digest | None = None) -> Writer:
        """The partial, begun at the first byte; `digest` is what it will be, if that is known by then."""
        if self._writer is None:
            self._writer = self._store.begin(digest)
        return self._writer

    def take_over(self) -> int:
        """Begin to write, in place of whoever wrote until now. Returns the turn that may."""
        self.turn += 1
        self.told = None
        return self.turn

    def abort(self) -> None:
        """Throw away what has arrived."""
        self.turn += 1
        if self._writer is not None:
            self._writer.abort()
            self._writer = None


class Sessions:
    """The upload sessions that are open. Owned by one registry, used on its loop only."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self, repository: str) -> Session:
        """Open a session ([end-4a]). Raises Refusal (TOOMANYREQUESTS) when there are too many."""
        now = self._clock()
        self._forget_idle(now)
        if len(self._open) >= MAX_SESSIONS:
            raise Refusal("TOOMANYREQUESTS", "too many upload sessions are open; finish or cancel some")
        session = Session(self._store, repository, secrets.token_hex(16), now)
        self._open[session.token] = session
        return session

    def find(self, repository: str, token: str) -> Session:
        """The session of that name in that repository. Raises Refusal (BLOB_UPLOAD_UNKNOWN)."""
        session = self._open.get(token)
        if session is None or session.repository != repository:
            raise Refusal(
                "BLOB_UPLOAD_UNKNOWN", "this upload session is not known here; start the upload anew"
            )
        self.touch(session)
        return session

    def touch(self, session: Session) -> None:
        """Note that the session is in use: bytes came for it, or a request."""
        session.touched = self._clock()
        if session.token in self._open:
            self._open[session.token] = self._open.pop(session.token)  # the longest idle stays first

    def end(self, session: Session) -> None:
        """Forget a session whose partial has been committed."""
        self._open.pop(session.token, None)

    def forget(self, token: str) -> None:
        """Cancel the session of that name, if there is one."""
        session = self._open.pop(token, None)
        if session is not None:
            session.abort()

    def close(self) -> None:
        for token in tuple(self._open):
            self.forget(token)

    def _forget_idle(self, now: float) -> None:
        while self._open:
            first = next(iter(self._open.values()))
            if now - first.touched <= IDLE_SECONDS:
                return
            self.forget(first.token)


class Rules(msgspec.Struct, frozen=True):
    """What a registry lets others do.

    `sparse`: whether an index whose manifests are not all here is accepted. `read_only`: pull is all there
    is. `max_blob_size` in bytes; None: what the disk takes.
    """

    sparse: Sparse = "accept"
    read_only: bool = False
    max_blob_size: int | None = None


class Registry:
    """The rooms' common ground. `logins` None: anybody may come in. `through` None: nothing is pulled
    through."""

    __slots__ = (
        "counts",
        "ill",
        "logins",
        "overview",
        "recent",
        "rules",
        "sessions",
        "store",
        "subjects",
        "through",
        "wire",
    )

    def __init__(
        self,
        store: Store,
        *,
        rules: Rules,
        wire: Wire,
        logins: Logins | None = None,
        through: PullThrough | None = None,
    ) -> None:
        self.store = store
        self.rules = rules
        self.wire = wire
        self.logins = logins
        self.through = through
        self.counts = Counts()
        self.ill = False  # what /healthz said last
        self.recent = Recent()
        self.overview = Overview(store, through)
        self.sessions = Sessions(store)
        self.subjects = Subjects(store)
