"""Errors that come from a worker's process are what they were there."""

from __future__ import annotations

from inspect import signature
from typing import Any

import msgspec
import pytest

from blobflow import errors
from blobflow.content import Site
from blobflow.engine.transfer.arrival_codec import (
    MAX_ITEMS,
    MAX_TEXT,
    PackedError,
    pack_arrivals,
    pack_carriage,
    pack_error,
    unpack_arrivals,
    unpack_carriage,
    unpack_error,
)
from blobflow.engine.transfer.carrying import Arrival, Carriage
from blobflow.errors import BlobflowError, NotFound, Rejected, StorageFull
from blobflow.oci import Descriptor, digest_of

SITE = Site("registry.example.com", "app/web")
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
    "errors": ("line 1: no such key", "line 3: no image"),
}
KINDS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BlobflowError)]


def example(kind: Any) -> BlobflowError:
    error: BlobflowError = kind(**{name: EXAMPLES[name] for name in signature(kind).parameters})
    error.side, error.attempts = "target", 4  # as the engine writes them
    error.add_note("seen on the way")
    return error


def there_and_back(error: BlobflowError) -> BlobflowError:
    [arrival] = unpack_arrivals(pack_arrivals([Arrival(SITE, error, "w1")]))
    assert (arrival.target, arrival.worker) == (SITE, "w1")
    assert arrival.error is not None
    return arrival.error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_whole(kind: type[BlobflowError]) -> None:
    error = example(kind)
    back = there_and_back(error)
    assert type(back) is kind
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))
    assert back.exit_code == error.exit_code and back.retryable == error.retryable
    assert vars(there_and_back(back)) == vars(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_packed_error_can_be_json_too(kind: type[BlobflowError]) -> None:
    packed = pack_error(example(kind))
    assert msgspec.json.decode(msgspec.json.encode(packed), type=PackedError) == packed


def test_what_the_engine_wrote_on_an_error_goes_along() -> None:
    error = Rejected("refused", missing=["sha256:a"], status=404)
    error.message += "; given up"
    error.cached = "a cache, 3 s old"
    back = there_and_back(error)
    assert isinstance(back, Rejected)
    assert (back.message, back.cached, back.missing) == (
        "refused; given up",
        "a cache, 3 s old",
        ("sha256:a",),
    )


def test_an_arrival_without_an_error_is_there() -> None:
    arrivals = (Arrival(SITE, None, "w1"), Arrival(Site("two", "app"), None))
    assert unpack_arrivals(pack_arrivals(arrivals)) == arrivals


def test_a_carriage_is_whole() -> None:
    blob = Descriptor("application/octet-stream", digest_of(b"x"), 1, urls=("https://a/b",))
    carriage = Carriage(blob, SITE, (SITE, Site("two", "")))
    assert unpack_carriage(pack_carriage(carriage)) == carriage


def test_a_class_of_a_newer_worker_becomes_the_nearest_that_is_known() -> None:
    packed = pack_error(example(StorageFull))
    newer = msgspec.structs.replace(packed, kinds=("blobflow.errors.NoInodes", *packed.kinds))
    assert type(unpack_error(newer)) is StorageFull
    unknown = unpack_error(PackedError(("elsewhere.Odd",), "what it says"))
    assert type(unknown) is BlobflowError
    assert (str(unknown), unknown.side, unknown.attempts) == ("what it says", None, 1)


def test_no_class_is_taken_that_is_no_error_of_ours() -> None:
    for name in ("builtins.SystemExit", "subprocess.Popen", "blobflow.events.Meter"):
        assert type(unpack_error(PackedError((name,), "no"))) is BlobflowError


def test_attributes_that_are_no_plain_values_stay_behind() -> None:
    error = NotFound("gone", status=404)
    error.response = object()  # type: ignore[attr-defined]
    error.headers = {"Authorization": "secret"}  # type: ignore[attr-defined]
    assert not {"response", "headers"} & vars(there_and_back(error)).keys()
    assert b"secret" not in pack_arrivals([Arrival(SITE, error)])


def test_a_long_error_is_cut() -> None:
    error = Rejected("x" * 2 * MAX_TEXT, missing=["sha256:a"] * 2 * MAX_ITEMS)
    back = there_and_back(error)
    assert isinstance(back, Rejected)
    assert (len(back.message), len(back.missing)) == (MAX_TEXT, MAX_ITEMS)


def test_half_a_surrogate_pair_is_no_obstacle() -> None:
    assert there_and_back(StorageFull("no room for a\udcff")).message == "no room for a?"


@pytest.mark.parametrize("packed", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1a\x01"])
def test_bytes_that_are_none_of_ours_are_an_error_of_ours(packed: bytes) -> None:
    with pytest.raises(BlobflowError, match="do not understand each other"):
        unpack_arrivals(packed)
    with pytest.raises(BlobflowError, match="do not understand each other"):
        unpack_carriage(packed)
