"""What a push does next, after each answer, refusal and break: one table. Pure, without I/O or a clock.

Theory
======

A push asks the registry up to five questions, and each is a state: is the blob there already (CHECKING), does
a kept session go on and from where (RESUMING), may a session be opened (OPENING), are these bytes taken
(SENDING), is that a blob now (COMMITTING). DONE and FAILED are its ends. The driver (`pusher`) puts the
question of the state that it is in, makes an `Event` of whatever came of that (`failures.classify`), and does
what the row of `TRANSITIONS` says:

    to        the next state. What is to be tried again begins at CHECKING.
    session   what becomes of the upload session that was in use
    lesson    what this says of the host
    method    with which upload method the push goes on
    budget    what the step costs; a push that has spent it ends, and the error that led here is its error

A step ends the push also where the row asks for another upload method and there is none. Of all else the
table is the whole truth: what has no row can't happen, since nobody asked, and is a bug (`Impossible`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from blobflow.transports.registry.capabilities.profiles import UploadMethod

# A push starts over by itself so often: once each for a token that ended, an offset that the registry
# disputed, and a session that had ended.
MAX_RESTARTS = 3
# Redirects that are followed while none of the bytes arrives.
MAX_REDIRECTS = 5


class State(enum.Enum):
    """The question that a push is at."""

    CHECKING = "an earlier push may have arrived, and only its answer got lost: is the blob there?"
    RESUMING = "a session was left open: does it go on, and from which offset?"
    OPENING = "may a session be opened?"
    SENDING = "are these bytes taken?"
    COMMITTING = "all bytes are there: is that the blob?"
    DONE = "the registry has the blob"
    FAILED = "the push is over, by an error"


class Event(enum.Enum):
    """What came of the question."""

    # CHECKING, RESUMING, OPENING
    UNANSWERED = "the question was refused, or got no answer"
    # CHECKING
    BLOB_PRESENT = "the registry has the blob"
    BLOB_ABSENT = "it has not, or nobody had to ask"
    # RESUMING
    NO_SESSION = "none was left"
    SESSION_READY = "a session goes on at the offset that it is known to have"
    SESSION_GONE = "the registry knows the session no more"
    SESSION_EMPTY = "the registry confirms nothing of it"
    # OPENING
    SESSION_OPENED = "a session is open"
    # SENDING, COMMITTING
    PART_ACCEPTED = "the bytes were taken, and more are to follow"
    ALL_ACCEPTED = "all bytes were taken"
    COMMITTED = "the registry has made a blob of them"
    # What goes wrong there, and is mended by another try
    REDIRECTED = "the request is to be sent elsewhere"
    TOKEN_EXPIRED = "the token ended under the bytes"
    OFFSET_DISPUTED = "the registry has another offset than it confirmed (416)"
    SESSION_STALE = "the session of a mount or of an earlier push had ended"
    LOCATION_MISREAD = "no session is where its Location was taken to lead, and it has another meaning"
    REQUEST_TOO_LARGE = "a proxy takes no request as large (413)"
    REQUEST_CUT_OFF = "a request ended in a way that a smaller one may not (502, 504, no answer)"
    METHOD_UNSUPPORTED = "the upload method is refused at any size"
    SIZE_UNSUPPORTED = "the upload method is refused, maybe for the size"
    METHOD_GARBLES = "what arrived has another digest, by a method that never worked here"
    METHOD_DOUBTED = "the session is unknown, under a method that never worked here"
    # What ends the push
    METHOD_BREAKS = "the connection broke under a body whose refusal may have got lost"
    INTERRUPTED = "the way broke; the bytes are right"
    REFUSED = "anything else"


class Fate(enum.Enum):
    """What becomes of the session that a push used."""

    KEEP = "it goes on"
    FORGET = "it is no more: it became the blob, or the registry forgot it"
    DELETE = "it is given up, and the registry is told so"
    PARK = "it is left open for the next push"
    PARK_IF_WORTH = "so it is where a registry goes on with broken sessions and much was sent; else deleted"
    MOVE = "it goes on where the redirect leads"


class Lesson(enum.Enum):
    """What a push has found out of its host."""

    METHOD_WORKS = "the upload method is taken"
    METHOD_BREAKS = "a body of this size breaks or is garbled, as long as the method never worked"
    METHOD_REFUSED = "the upload method is refused at any size"
    SIZE_REFUSED = "the upload method is refused for bodies as large"
    LOCATION_MISREAD = "Locations of this host have their other meaning"


class Method(enum.Enum):
    """With which upload method a push goes on."""

    SAME = "the one that it has"
    NEXT = "the next one, and never this one again"
    CHUNKED = "chunks"


class Budget(enum.Enum):
    """What a push may do only so often."""

    RESTARTS = MAX_RESTARTS
    REDIRECTS = MAX_REDIRECTS


class Step(NamedTuple):
    """A row of the table."""

    to: State
    session: Fate = Fate.KEEP
    lesson: Lesson | None = None
    method: Method = Method.SAME
    budget: Budget | None = None


_AGAIN, _FAILED = State.CHECKING, State.FAILED

# While a session is in use, bytes and commit may end in the same ways.
_FAILURES = {
    # A session that is unknown may have become the blob: its last answer got lost.
    Event.BLOB_PRESENT: Step(State.DONE, Fate.DELETE),
    Event.REDIRECTED: Step(_AGAIN, Fate.MOVE, budget=Budget.REDIRECTS),
    Event.TOKEN_EXPIRED: Step(_AGAIN, Fate.PARK_IF_WORTH, budget=Budget.RESTARTS),
    Event.OFFSET_DISPUTED: Step(_AGAIN, Fate.PARK, budget=Budget.RESTARTS),
    Event.SESSION_STALE: Step(_AGAIN, Fate.DELETE, budget=Budget.RESTARTS),
    Event.LOCATION_MISREAD: Step(_AGAIN, Fate.DELETE, Lesson.LOCATION_MISREAD, budget=Budget.RESTARTS),
    # No budget: each request is smaller than the one before, down to the least.
    Event.REQUEST_TOO_LARGE: Step(_AGAIN, Fate.DELETE, method=Method.CHUNKED),
    Event.REQUEST_CUT_OFF: Step(_AGAIN, Fate.PARK_IF_WORTH, method=Method.CHUNKED),
    Event.METHOD_UNSUPPORTED: Step(_AGAIN, Fate.DELETE, Lesson.METHOD_REFUSED, Method.NEXT),
    Event.SIZE_UNSUPPORTED: Step(_AGAIN, Fate.DELETE, Lesson.SIZE_REFUSED, Method.NEXT),
    Event.METHOD_GARBLES: Step(_AGAIN, Fate.DELETE, Lesson.METHOD_BREAKS, Method.NEXT),
    Event.METHOD_DOUBTED: Step(_AGAIN, Fate.DELETE, method=Method.NEXT),
    Event.METHOD_BREAKS: Step(_FAILED, Fate.PARK_IF_WORTH, Lesson.METHOD_BREAKS),
    Event.INTERRUPTED: Step(_FAILED, Fate.PARK_IF_WORTH),
    Event.REFUSED: Step(_FAILED, Fate.DELETE),
}
_COMMITTED = Step(State.DONE, Fate.FORGET, Lesson.METHOD_WORKS)

TRANSITIONS: dict[State, dict[Event, Step]] = {
    State.CHECKING: {
        Event.BLOB_PRESENT: Step(State.DONE, Fate.FORGET),
        Event.BLOB_ABSENT: Step(State.RESUMING),
        Event.UNANSWERED: Step(_FAILED),
    },
    State.RESUMING: {
        Event.NO_SESSION: Step(State.OPENING),
        Event.SESSION_READY: Step(State.SENDING),
        Event.SESSION_GONE: Step(State.OPENING, Fate.FORGET),
        Event.SESSION_EMPTY: Step(State.OPENING, Fate.DELETE),
        Event.UNANSWERED: Step(_FAILED, Fate.PARK),
    },
    State.OPENING: {
        Event.SESSION_OPENED: Step(State.SENDING),
        Event.UNANSWERED: Step(_FAILED),
    },
    State.SENDING: {
        Event.PART_ACCEPTED: Step(State.SENDING),
        Event.ALL_ACCEPTED: Step(State.COMMITTING),
        Event.COMMITTED: _COMMITTED,
        **_FAILURES,
    },
    State.COMMITTING: {Event.COMMITTED: _COMMITTED, **_FAILURES},
    State.DONE: {},
    State.FAILED: {},
}


class Impossible(AssertionError):
    """An event that nothing can have brought about in the state that the push is in."""


class PushState:
    """Where one push is, which upload methods it has left, and what it has spent."""

    def __init__(self, methods: Sequence[UploadMethod]) -> None:
        """`methods`: those to be tried, in order; at least one."""
        self.state = State.CHECKING
        self.methods = list(methods)
        self._spent = dict.fromkeys(Budget, 0)
        self._redirected_at = 0

    def row(self, event: Event) -> Step:
        """What the table says of an event, now. Raises Impossible."""
        step = TRANSITIONS[self.state].get(event)
        if step is None:
            raise Impossible(f"{event.name} can't come in {self.state.name}")
        return step

    def on(self, event: Event, *, method: UploadMethod | None = None, offset: int = 0) -> Step:
        """Go on by an event. `method`: the upload method that was in use; `offset`: bytes that the registry
        has confirmed. Returns the step that is taken: the row, or its end in FAILED."""
        step = self.row(event)
        if not (self._pay(step.budget, offset) and self._change_method(step.method, method)):
            step = step._replace(to=State.FAILED)
        self.state = step.to
        return step

    def _pay(self, budget: Budget | None, offset: int) -> bool:
        if budget is None:
            return True
        if budget is Budget.REDIRECTS and offset != self._redirected_at:
            self._spent[budget], self._redirected_at = 0, offset
        self._spent[budget] += 1
        return self._spent[budget] <= budget.value

    def _change_method(self, change: Method, used: UploadMethod | None) -> bool:
        match change:
            case Method.NEXT if len(self.methods) == 1:
                return False
            case Method.NEXT:
                self.methods.remove(used if used in self.methods else self.methods[0])
            case Method.CHUNKED:
                self.methods = [each for each in self.methods if each == "chunked" or each != used]
            case Method.SAME:
                pass
        return True
