"""Errors travel: by pickle, by copy, between processes, and to many readers of one that is kept."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import sqlite3
import traceback
import weakref
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from inspect import signature
from multiprocessing import get_context
from pkgutil import walk_packages
from typing import Any

import pytest

import blobflow
from blobflow.errors import BlobflowError, DigestMismatch, NotFound, Throttled, own_copy, without_frames
from blobflow.server.errors import ApiError, ErrorEntry

# A value, other than the default, for each parameter of any error's `__init__`. A class that has one more
# fails until there is an example of it here.
EXAMPLES: dict[str, Any] = {
    "message": "it went wrong",
    "what": "blob 1",
    "side": "source",
    "attempts": 3,
    "received": 5,
    "expected": 8,
    "actual": 7,
    "status": 418,
    "code": "DENIED",
    "detail": "in its own words",
    "retry_after": 2.5,
    "missing": ("sha256:a", "sha256:b"),
    "url": "http://127.0.0.1:5000/v2/",
    "window": "2 GiB",
    "reason": "the whole blob",
    "errors": ("spec.yaml line 1: no such key", "spec.yaml line 3: no image"),
    "headers": {"Retry-After": "3"},
    "more": (ErrorEntry("UNKNOWN", "and this"),),
}


# The trees of errors: the client's, and the server's answers.
ROOTS = (BlobflowError, ApiError)


def kinds(*roots: type[Exception]) -> Iterator[type[Any]]:
    """Every error class of the package, wherever it is defined."""
    for module in walk_packages(blobflow.__path__, "blobflow."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found = set(roots)
    rest = list(roots)
    while rest:
        fresh = {kind for kind in rest.pop().__subclasses__() if kind.__module__.startswith("blobflow.")}
        rest += fresh - found
        found |= fresh
    yield from sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


def example(kind: type[Any]) -> Any:
    """An error of the class, with everything on it that may be."""
    error = kind(**{name: EXAMPLES[name] for name in signature(kind).parameters})
    error.side, error.attempts = "target", 4  # as the engine writes them
    error.add_note("seen while testing")
    return error


def facts(error: BaseException) -> tuple[Any, ...]:
    return type(error), str(error), error.args, vars(error)


def test_the_walk_finds_the_classes_outside_of_errors_too() -> None:
    found = set(kinds(*ROOTS))
    assert {BlobflowError, DigestMismatch, ApiError} <= found
    assert len(found) > 25


@pytest.mark.parametrize("kind", list(kinds(*ROOTS)), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_is_whole_after_pickling(kind: type[Any], protocol: int) -> None:
    error = example(kind)
    back = pickle.loads(pickle.dumps(error, protocol))
    assert facts(back) == facts(error)
    assert facts(pickle.loads(pickle.dumps(back, protocol))) == facts(error)


@pytest.mark.parametrize("kind", list(kinds(*ROOTS)), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, own_copy])
def test_every_error_is_whole_after_copying(kind: type[Any], copied: Any) -> None:
    error = example(kind)
    before = facts(error)[1:3]
    own = copied(error)
    assert own is not error
    assert facts(own) == facts(error)
    own.side, own.attempts = "source", 9
    assert facts(error)[1:3] == before


def test_an_attribute_that_only_an_instance_has_goes_along() -> None:
    error = NotFound("gone", status=404)
    error.elsewhere = True  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(error)).elsewhere is True


def fail(kind: type[Any]) -> None:
    raise example(kind)


def test_errors_come_out_of_another_process() -> None:
    """Without the attributes, or with another type, a pool of processes would break, or lie."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for kind in (DigestMismatch, Throttled, ApiError):
            with pytest.raises(kind) as raised:
                pool.submit(fail, kind).result()
            assert str(raised.value) == str(example(kind))
            assert {**vars(raised.value), "__notes__": 0} == {**vars(example(kind)), "__notes__": 0}


def length(error: BaseException) -> int:
    return sum(1 for _ in traceback.walk_tb(error.__traceback__))


def kept() -> DigestMismatch:
    try:
        try:
            raise OSError("underneath")
        except OSError as error:
            raise DigestMismatch("blob", expected="a", actual="b") from error
    except DigestMismatch as error:
        return error


async def test_many_readers_leave_no_trace_on_a_kept_error() -> None:
    error = kept()
    before = length(error)

    async def read(side: Any) -> BlobflowError:
        try:
            try:
                raise KeyError("of this reader")
            except KeyError:
                raise own_copy(error)  # noqa: B904
        except DigestMismatch as own:
            own.side, own.attempts = side, own.attempts + 1
            return own

    seen = await asyncio.gather(*(read(side) for side in ["source", "target"] * 50))
    assert len({id(one) for one in seen}) == 100
    assert [one.side for one in seen] == ["source", "target"] * 50
    assert {one.attempts for one in seen} == {2}
    assert (error.side, error.attempts) == (None, 1)
    assert length(error) == before
    assert error.__context__ is error.__cause__
    assert {length(one) for one in seen} == {before + 1}


def test_a_copy_tells_where_it_was_read_and_where_it_happened() -> None:
    try:
        raise own_copy(kept())
    except DigestMismatch as error:
        told = "".join(traceback.format_exception(error))
    assert "in test_a_copy_tells_where" in told
    assert "in kept" in told
    assert "OSError: underneath" in told


def own_of(error: BaseException) -> BaseException:
    with contextlib.suppress(type(error)):
        raise error
    return own_copy(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "/x"),
        sqlite3.OperationalError("database is locked"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        asyncio.CancelledError(),
        TimeoutError(),
        KeyError("k"),
        ExceptionGroup("two", [ValueError(1), KeyError(2)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_foreign_errors_are_copied_too(error: BaseException) -> None:
    own = own_of(error)
    assert own is not error
    assert facts(own) == facts(error)


class Stubborn(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_what_cannot_be_copied_is_itself() -> None:
    error = Stubborn(1, 2)
    assert own_of(error) is error


def test_an_error_without_frames_lets_go_of_what_they_worked_on() -> None:
    class Large:
        pass

    def decode(large: Large) -> None:
        raise ValueError("large")

    def fail() -> tuple[BlobflowError, weakref.ref[Large]]:
        large = Large()
        try:
            try:
                decode(large)
            except ValueError:
                raise NotFound("nothing") from None
        except NotFound as error:
            kept = without_frames(error)
        return kept, weakref.ref(large)

    error, large = fail()
    gc.collect()
    assert large() is None
    assert isinstance(error, NotFound) and error.message == "nothing"
    circle = BlobflowError("a")
    circle.__context__ = other = BlobflowError("b")
    other.__context__ = circle
    assert without_frames(circle) is circle
