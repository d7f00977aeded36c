"""What a push does next: the table whole, what it costs, and what errors mean to it."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from blobflow.errors import (
    BlobflowError,
    ConnectionLost,
    NotFound,
    ProtocolViolation,
    Rejected,
    SizeMismatch,
    StorageError,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from blobflow.transports.registry.http.dispatch import RequestRedirected
from blobflow.transports.registry.uploads.failures import Attempt, classify
from blobflow.transports.registry.uploads.methods import choose_method, next_request
from blobflow.transports.registry.uploads.state import (
    MAX_REDIRECTS,
    MAX_RESTARTS,
    TRANSITIONS,
    Budget,
    Event,
    Fate,
    Impossible,
    Lesson,
    Method,
    PushState,
    State,
)

ALL: tuple[UploadMethod, ...] = ("single", "stream", "chunked")

# What may come of each question. All else is impossible: it is the answer to another question.
TRIES = {
    Event.BLOB_PRESENT,
    Event.REDIRECTED,
    Event.TOKEN_EXPIRED,
    Event.OFFSET_DISPUTED,
    Event.SESSION_STALE,
    Event.LOCATION_MISREAD,
    Event.REQUEST_TOO_LARGE,
    Event.REQUEST_CUT_OFF,
    Event.METHOD_UNSUPPORTED,
    Event.SIZE_UNSUPPORTED,
    Event.METHOD_GARBLES,
    Event.METHOD_DOUBTED,
    Event.METHOD_BREAKS,
    Event.INTERRUPTED,
    Event.REFUSED,
    Event.COMMITTED,
}
POSSIBLE = {
    State.CHECKING: {Event.BLOB_PRESENT, Event.BLOB_ABSENT, Event.UNANSWERED},
    State.RESUMING: {
        Event.NO_SESSION,
        Event.SESSION_READY,
        Event.SESSION_GONE,
        Event.SESSION_EMPTY,
        Event.UNANSWERED,
    },
    State.OPENING: {Event.SESSION_OPENED, Event.UNANSWERED},
    State.SENDING: {Event.PART_ACCEPTED, Event.ALL_ACCEPTED, *TRIES},
    State.COMMITTING: TRIES,
    State.DONE: set[Event](),
    State.FAILED: set[Event](),
}


def at(state: State, methods: tuple[UploadMethod, ...] = ALL) -> PushState:
    made = PushState(methods)
    made.state = state
    return made


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_event_has_a_row_in_every_state_or_is_impossible_there(state: State, event: Event) -> None:
    push = at(state)
    if event not in POSSIBLE[state]:
        with pytest.raises(Impossible, match=f"{event.name} can't come in {state.name}"):
            push.on(event)
        assert push.state is state
        return
    assert push.on(event, method="single").to is push.state is TRANSITIONS[state][event].to


def test_every_event_and_every_outcome_is_used() -> None:
    rows = [step for row in TRANSITIONS.values() for step in row.values()]
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)
    assert {step.session for step in rows} == set(Fate)
    assert {step.lesson for step in rows} == {None, *Lesson}
    assert {step.method for step in rows} == set(Method)
    assert {step.budget for step in rows} == {None, *Budget}


@pytest.mark.parametrize("state", [State.SENDING, State.COMMITTING])
def test_what_is_tried_again_begins_with_the_first_question(state: State) -> None:
    ends = {State.CHECKING, State.DONE, State.FAILED}
    for event, step in TRANSITIONS[state].items():
        goes_on = event in (Event.PART_ACCEPTED, Event.ALL_ACCEPTED)
        assert goes_on or step.to in ends
        assert goes_on == (step.session is Fate.KEEP), f"{event.name} leaves its session to nobody"


def test_a_push_that_nothing_holds_up_takes_its_questions_in_order() -> None:
    push = PushState(ALL)
    seen = [push.state]
    for event in (
        Event.BLOB_ABSENT,
        Event.NO_SESSION,
        Event.SESSION_OPENED,
        Event.PART_ACCEPTED,
        Event.ALL_ACCEPTED,
        Event.COMMITTED,
    ):
        seen.append(push.on(event).to)
    assert seen == [
        State.CHECKING,
        State.RESUMING,
        State.OPENING,
        State.SENDING,
        State.SENDING,
        State.COMMITTING,
        State.DONE,
    ]


@pytest.mark.parametrize(
    "event", [event for event, step in TRANSITIONS[State.SENDING].items() if step.budget is Budget.RESTARTS]
)
def test_a_push_starts_over_only_so_often(event: Event) -> None:
    push = PushState(ALL)
    for _ in range(MAX_RESTARTS):
        push.state = State.SENDING
        assert push.on(event).to is State.CHECKING
    push.state = State.SENDING
    step = push.on(event)
    assert (step.to, push.state) == (State.FAILED, State.FAILED)
    assert step.session is TRANSITIONS[State.SENDING][event].session


def test_redirects_are_followed_as_long_as_bytes_arrive_in_between() -> None:
    push = at(State.SENDING)

    def redirected(offset: int) -> State:
        push.state = State.SENDING
        return push.on(Event.REDIRECTED, offset=offset).to

    assert [redirected(offset) for offset in range(20)] == [State.CHECKING] * 20
    assert [redirected(19) for _ in range(MAX_REDIRECTS)] == [State.CHECKING] * 4 + [State.FAILED]


@pytest.mark.parametrize(
    "event", [event for event, step in TRANSITIONS[State.SENDING].items() if step.method is Method.NEXT]
)
def test_a_method_that_is_refused_is_not_tried_again_and_the_last_ends_the_push(event: Event) -> None:
    push = at(State.SENDING)
    assert push.on(event, method="stream").to is State.CHECKING
    assert push.methods == ["single", "chunked"]
    push.state = State.SENDING
    push.on(event, method="stream")  # it was chosen for its session, and is none of those in order
    assert push.methods == ["chunked"]
    push.state = State.SENDING
    assert push.on(event, method="chunked").to is State.FAILED


@pytest.mark.parametrize("event", [Event.REQUEST_TOO_LARGE, Event.REQUEST_CUT_OFF])
def test_smaller_requests_are_chunks(event: Event) -> None:
    push = at(State.SENDING)
    assert push.on(event, method="single").to is State.CHECKING
    assert push.methods == ["stream", "chunked"]
    for _ in range(100):
        push.state = State.SENDING
        assert push.on(event, method="chunked").to is State.CHECKING
    assert push.methods == ["stream", "chunked"]


@pytest.mark.parametrize(
    ("error", "attempt", "event"),
    [
        (RequestRedirected("", url="https://elsewhere.test/"), Attempt("stream"), Event.REDIRECTED),
        (Unauthorized("", status=401), Attempt("single"), Event.TOKEN_EXPIRED),
        (Rejected("", status=413), Attempt("stream", shrinkable=True), Event.REQUEST_TOO_LARGE),
        (Rejected("", status=413), Attempt("stream"), Event.SIZE_UNSUPPORTED),
        (Unavailable("", status=502), Attempt("stream", shrinkable=True), Event.REQUEST_CUT_OFF),
        (Unavailable("", status=502), Attempt("stream"), Event.INTERRUPTED),
        (TimedOut(""), Attempt("single", shrinkable=True), Event.REQUEST_CUT_OFF),
        (TimedOut(""), Attempt("single"), Event.INTERRUPTED),
        (ConnectionLost(""), Attempt("single"), Event.METHOD_BREAKS),
        (ConnectionLost(""), Attempt("stream"), Event.INTERRUPTED),
        (Rejected("", status=416), Attempt("chunked", offset=1), Event.OFFSET_DISPUTED),
        (Rejected("", status=416), Attempt("chunked", 1, reused=True), Event.OFFSET_DISPUTED),
        (Rejected("", status=416), Attempt("chunked", 1, reused=True, disputed=True), Event.SESSION_STALE),
        (Rejected("", status=416), Attempt("chunked"), Event.SIZE_UNSUPPORTED),
        (NotFound("", status=404), Attempt("stream", reused=True), Event.SESSION_STALE),
        (NotFound("", status=404), Attempt("stream", misreadable=True), Event.LOCATION_MISREAD),
        (Rejected("", status=405), Attempt("stream", misreadable=True), Event.LOCATION_MISREAD),
        (Rejected("", status=400), Attempt("stream", misreadable=True), Event.SIZE_UNSUPPORTED),
        (NotFound("", status=404), Attempt("single"), Event.METHOD_UNSUPPORTED),
        (NotFound("", status=404), Attempt("single", proven=True), Event.SIZE_UNSUPPORTED),
        (NotFound("", status=404, code="NAME_UNKNOWN"), Attempt("single"), Event.REFUSED),
        (NotFound("", status=404, code="BLOB_UPLOAD_UNKNOWN"), Attempt("single"), Event.METHOD_DOUBTED),
        (
            NotFound("", status=404, code="BLOB_UPLOAD_UNKNOWN"),
            Attempt("single", proven=True),
            Event.SESSION_STALE,
        ),
        (
            NotFound("", status=404, code="BLOB_UPLOAD_UNKNOWN"),
            Attempt("chunked", offset=1),
            Event.SESSION_STALE,
        ),
        (
            NotFound("", status=404, code="BLOB_UPLOAD_UNKNOWN"),
            Attempt("stream", last=True),
            Event.SESSION_STALE,
        ),
        (Rejected("", status=400, code="DIGEST_INVALID"), Attempt("stream"), Event.METHOD_GARBLES),
        (
            Rejected("", status=400, code="DIGEST_INVALID"),
            Attempt("stream", proven=True),
            Event.SESSION_STALE,
        ),
        (Rejected("", status=501), Attempt("stream"), Event.METHOD_UNSUPPORTED),
        (Rejected("", status=400), Attempt("stream"), Event.SIZE_UNSUPPORTED),
        (Rejected("", status=403), Attempt("stream"), Event.REFUSED),
        (Throttled(""), Attempt("single"), Event.INTERRUPTED),
        (ProtocolViolation(""), Attempt("single"), Event.REFUSED),
        (SizeMismatch("blob", expected=1, actual=2), Attempt("single"), Event.REFUSED),
        (StorageError(""), Attempt("single"), Event.INTERRUPTED),
        (asyncio.CancelledError(), Attempt("single"), Event.INTERRUPTED),
        (RuntimeError(), Attempt("single"), Event.REFUSED),
    ],
    ids=lambda value: value.name if isinstance(value, Event) else type(value).__name__,
)
def test_what_an_error_means_to_a_push(error: BaseException, attempt: Attempt, event: Event) -> None:
    assert classify(error, attempt) is event


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (NotFound("", status=404), Event.REFUSED),
        (Unauthorized("", status=401), Event.INTERRUPTED),
        (ConnectionLost(""), Event.INTERRUPTED),
        (Unavailable("", status=502), Event.INTERRUPTED),
        (SizeMismatch("blob", expected=1, actual=2), Event.REFUSED),
    ],
)
def test_what_the_source_says_is_nothing_of_the_registry(error: BlobflowError, event: Event) -> None:
    assert classify(error, Attempt("single", shrinkable=True, by_source=True)) is event


def test_each_method_has_its_requests() -> None:
    def requests(method: UploadMethod, size: int, chunk: int) -> list[tuple[str, int, int, bool]]:
        found: list[tuple[str, int, int, bool]] = []
        position = 0
        while (part := next_request(method, position, size, chunk)) is not None:
            found.append((part.verb, part.start, part.size, bool(part.headers)))
            position = part.start + part.size
        return found

    assert requests("single", 10, 4) == [("PUT", 0, 10, False)]
    assert requests("stream", 10, 4) == [("PATCH", 0, 10, False)]
    assert requests("chunked", 10, 4) == [("PATCH", 0, 4, True), ("PATCH", 4, 4, True), ("PATCH", 8, 2, True)]
    assert requests("single", 0, 4) == []
    part = next_request("chunked", 8, 10, 4)
    assert part is not None
    assert part.headers == {"Content-Range": "8-9"}


@pytest.mark.parametrize(
    ("methods", "offset", "size", "largest", "chosen"),
    [
        (ALL, 0, 10, 100, "single"),
        (ALL, 5, 10, 100, "chunked"),
        (ALL, 0, 101, 100, "chunked"),
        (("stream", "single"), 0, 101, 100, "stream"),
    ],
)
def test_a_session_gets_the_method_that_suits_it(
    methods: tuple[UploadMethod, ...], offset: int, size: int, largest: int, chosen: UploadMethod
) -> None:
    assert choose_method(methods, offset=offset, size=size, largest_request=largest) == chosen
