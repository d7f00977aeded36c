"""Waits: what a run waits for at this moment, as values that anybody may look at, at any time.

Whoever waits for something that others decide (an answer, the rest that a host asked for, another process's
lock) says so for as long as it lasts: `begin` when it begins, `end` when it is over. Nobody is called for
that, and most waits are over before anybody looks: a request costs a microsecond here. Displays look a few
times a second and put what they find into words, so that there is one place where a sentence is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, Self

import msgspec

# What is waited for:
#   retry     the next attempt at something that failed
#   rest      a host that wants no request for a while
#   quota     a source that lets no more manifests be read for now (--wait)
#   lock      another process that has a lock
#   connect   a connection to the host, and its address before that
#   tls       the handshake on a new connection
#   login     credentials: a helper program
#   answer    a request was sent: the host's answer, or the rest of it
#   send      the target, to take a blob's next bytes: no wait while they move
#   pull      the next bytes of a blob that is to be sent, from wherever it comes: the same
#   commit    the target has all bytes of a blob, and makes it content
#   stall     the next byte of a blob, for some seconds already; source-stall and target-stall where it is
#             known who of the two gives or takes none
#   read      a local archive or layout is read, and hashed
#   rate      a limit of ours on bytes or requests a second
#   permit    a limit of ours on requests in flight
#   work      something of ours that takes its time; `what` says what we are at: "tidying the store"
#   end       what is under way, of which the user wants an end
WaitKind = Literal[
    "retry",
    "rest",
    "quota",
    "lock",
    "connect",
    "tls",
    "login",
    "answer",
    "send",
    "pull",
    "commit",
    "stall",
    "source-stall",
    "target-stall",
    "read",
    "rate",
    "permit",
    "work",
    "end",
]


class Wait(msgspec.Struct, frozen=True):
    """One wait. `host`: whom it is for: a host, or a path; `what`: the thing in question, as in sentences:
    "manifest app:1".

    `since` and `until` (None: as long as it takes) are seconds of the clock of the `Waits`. `attempt` of
    `attempts` is what comes after it, from 1; 0: none is counted. `error`: what it is for, if something
    failed.
    """

    kind: WaitKind
    host: str
    what: str
    since: float
    until: float | None = None
    error: Exception | None = None
    attempt: int = 0
    attempts: int = 0


class OpenWait:
    """A wait that has begun. Used with `with`, or ended by `end`, once or more often."""

    __slots__ = ("_waits", "pulls", "wait")

    def __init__(self, waits: Waits, wait: Wait) -> None:
        self._waits = waits
        self.wait = wait
        # Whether what is to be sent has to come first; it changes with every chunk, and is only looked at.
        self.pulls: Callable[[], bool] | None = None

    def look(self) -> Wait:
        """What it is at this moment."""
        if self.pulls is not None and self.wait.kind == "send" and self.pulls():
            return msgspec.structs.replace(self.wait, kind="pull")
        return self.wait

    def become(self, kind: WaitKind) -> None:
        """From now on it is for something else, at the same host."""
        if kind != self.wait.kind:
            self.wait = msgspec.structs.replace(self.wait, kind=kind, since=self._waits.clock())

    def end(self) -> None:
        """It is over."""
        self._waits.ended(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waits.ended(self)


class Waits:
    """The waits of one run. `clock` in seconds. Used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._open: dict[OpenWait, None] = {}

    def begin(
        self,
        kind: WaitKind,
        host: str,
        what: str = "",
        *,
        seconds: float | None = None,
        error: Exception | None = None,
        attempt: int = 0,
        attempts: int = 0,
    ) -> OpenWait:
        """A wait begins. `seconds`: how long it will take, if that is known. The rest as in `Wait`."""
        now = self.clock()
        until = None if seconds is None else now + seconds
        return self.start(Wait(kind, host, what, now, until, error, attempt, attempts))

    def start(self, wait: Wait) -> OpenWait:
        """A wait begins, as it is said."""
        opened = OpenWait(self, wait)
        self._open[opened] = None
        return opened

    def ended(self, opened: OpenWait) -> None:
        """See `OpenWait.end`."""
        self._open.pop(opened, None)

    def now(self) -> list[Wait]:
        """The waits of this moment, the oldest first."""
        return [opened.look() for opened in tuple(self._open)]

    def at(self, host: str) -> HostWaits:
        """Waits for one host."""
        return HostWaits(self, host)


class HostWaits:
    """The waits for one host: see `Waits`."""

    __slots__ = ("_waits", "host")

    def __init__(self, waits: Waits | None = None, host: str = "") -> None:
        self._waits = waits or Waits()
        self.host = host

    def begin(
        self,
        kind: WaitKind,
        what: str = "",
        *,
        host: str = "",
        seconds: float | None = None,
        error: Exception | None = None,
        attempt: int = 0,
        attempts: int = 0,
    ) -> OpenWait:
        """See `Waits.begin`. `host`: another one, to which this one leads."""
        waits = self._waits
        now = waits.clock()
        until = None if seconds is None else now + seconds
        return waits.start(Wait(kind, host or self.host, what, now, until, error, attempt, attempts))


# The wait of the request that this task is about: a library in between knows nothing of it.
CURRENT_WAIT: ContextVar[OpenWait | None] = ContextVar("current_wait", default=None)
