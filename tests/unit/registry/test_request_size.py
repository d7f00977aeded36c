"""The size of requests, as refusals and breaks teach it. Nothing is sent here."""

from __future__ import annotations

import pytest

from blobflow.content import LineRate
from blobflow.transports.registry.capabilities.profiles import (
    BODY_LIMIT_SECONDS,
    CHUNK_BYTES,
    MIB,
    MIN_CHUNK_BYTES,
    LearnedLimits,
    Profile,
)
from blobflow.transports.registry.uploads.request_size import SQUID_BUFFER, TELLING, RequestSize, safe_through
from tests.fakes.notes import Notes

KIB = 1024


def size_of(
    notes: Notes | None = None, *, chunk_bytes: int = CHUNK_BYTES, least_chunk_bytes: int = MIN_CHUNK_BYTES
) -> RequestSize:
    profile = Profile("p", chunk_bytes=chunk_bytes, least_chunk_bytes=least_chunk_bytes)
    return RequestSize(profile, LearnedLimits(notes or Notes(), "r"))


def test_nothing_is_held_against_any_size_until_something_was_refused() -> None:
    size = size_of()
    assert (size.limit, size.chunk_bytes) == (None, 32 * MIB)


def test_refusals_halve_the_chunk_until_it_is_half_of_what_was_refused() -> None:
    size = size_of()
    seen = []
    refused = 65 * MIB
    while refused > 10 * MIB:
        size.refused(refused)
        seen.append(refused := size.chunk_bytes)
    assert seen == [32 * MIB, 16 * MIB, 8 * MIB]
    assert size.limit == 8 * MIB


@pytest.mark.parametrize("blob", [5 * MIB, 9 * MIB, 20 * MIB, 31 * MIB, 60 * MIB])
def test_a_limit_is_found_with_no_more_bytes_than_the_blob_has_twice(blob: int) -> None:
    size, sent, refused = size_of(), 0, blob
    while size.chunk_bytes > 512 * KIB:
        sent += refused
        size.refused(refused)
        refused = min(blob, size.chunk_bytes)
    assert sent < 2 * blob


def test_a_refusal_that_others_have_drawn_the_lesson_of_teaches_nothing_more() -> None:
    size = size_of()
    for refused in (16 * MIB, 32 * MIB, 60 * MIB, 16 * MIB):
        size.refused(refused)
    assert size.chunk_bytes == 8 * MIB


def test_half_a_mebibyte_is_the_end_unless_a_profile_says_otherwise() -> None:
    usual, ecr, tiny = size_of(), size_of(least_chunk_bytes=5 * MIB), size_of(chunk_bytes=64 * KIB)
    for size in (usual, ecr, tiny):
        for _ in range(20):
            size.refused(size.chunk_bytes)
    assert [size.chunk_bytes for size in (usual, ecr, tiny)] == [512 * KIB, 5 * MIB, 64 * KIB]


@pytest.mark.parametrize(
    ("request_size", "passed", "chunk"),
    [
        (60 * MIB, 40 * MIB, 16 * MIB),
        (60 * MIB, 12 * MIB, 4 * MIB),
        (8 * MIB, 8 * MIB, 4 * MIB),
        (60 * MIB, 600 * KIB, 512 * KIB),
    ],
)
def test_after_a_break_chunks_are_at_most_half_of_what_passed(
    request_size: int, passed: int, chunk: int
) -> None:
    size = size_of()
    size.broke(request_size, passed)
    assert size.chunk_bytes == chunk


def test_requests_that_end_at_about_the_same_byte_end_for_one_reason() -> None:
    size = size_of()
    assert [size.ended_alike(at * MIB) for at in (10, 20, 19, 3, 3)] == [False, False, True, False, True]
    assert [size.ended_alike(at) for at in (TELLING - 1, TELLING - 1)] == [False, False]


def test_what_passed_after_a_refusal_is_told_once_and_is_there_for_the_next_run() -> None:
    notes = Notes()
    size = size_of(notes)
    size.refused(4 * MIB)
    assert [size.passed(MIB), size.passed(2 * MIB), size.passed(2 * MIB)] == ["", "413", ""]
    later = size_of(notes)
    assert (later.limit, later.chunk_bytes, later.passed(2 * MIB)) == (2 * MIB, 2 * MIB, "")


def test_what_broke_at_random_is_not_held_against_the_next_run() -> None:
    notes = Notes()
    size = size_of(notes)
    size.broke(8 * MIB, 8 * MIB)
    size.shrink_most()
    assert size.passed(size.chunk_bytes) == ""
    assert (notes.notes, size.limit) == ({}, 512 * KIB)


def test_what_a_refusal_taught_is_forgotten_after_some_weeks(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1_800_000_000
    monkeypatch.setattr("blobflow.transports.registry.capabilities.profiles.time.time", lambda: at)
    notes = Notes()
    LearnedLimits(notes, "r").limit_bodies(MIB)
    at += BODY_LIMIT_SECONDS - 1
    assert size_of(notes).limit == MIB
    at += 1
    assert size_of(notes).limit is None
    LearnedLimits(notes, "r").limit_bodies(2 * MIB)
    assert size_of(notes).limit == 2 * MIB
    at -= 2 * BODY_LIMIT_SECONDS
    assert size_of(notes).limit is None, "a clock that went back"


def test_a_note_without_its_time_is_old_from_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1_800_000_000
    monkeypatch.setattr("blobflow.transports.registry.capabilities.profiles.time.time", lambda: at)
    notes = Notes()
    notes.record_note("r", "upload.body.limit", str(MIB))
    assert size_of(notes).limit == MIB
    at += BODY_LIMIT_SECONDS
    assert size_of(notes).limit is None


@pytest.mark.parametrize("note", ["", "much", "-5", "1" * 30])
def test_a_note_that_makes_no_sense_is_no_limit(note: str) -> None:
    notes = Notes()
    notes.record_note("r", "upload.body.limit", note)
    assert size_of(notes).limit is None


@pytest.mark.parametrize(
    ("via", "safe"),
    [
        (None, None),
        ("", None),
        ("1.1 varnish (Varnish/7.1)", None),
        ("1.1 squid.example.com (Apache)", None),
        ("1.1 vm (squid/5.7)", SQUID_BUFFER),
        ("1.1 a.example (squid), 1.1 Caddy", SQUID_BUFFER),
    ],
)
def test_squid_is_known_by_its_via(via: str | None, safe: int | None) -> None:
    assert safe_through(via) == safe
    size = size_of()
    size.passed_by(via)
    assert size.limit == safe


def line_of(bytes_per_second: int | None) -> LineRate:
    line = LineRate()
    if bytes_per_second is not None:
        line.saw(100 * bytes_per_second, 100.0)
    return line


@pytest.mark.parametrize(
    ("bytes_per_second", "chunk"),
    [(None, 32 * MIB), (MIB, 10 * MIB), (16 * MIB, 160 * MIB), (500 * MIB, 5000 * MIB), (100_000, 5 * MIB)],
)
def test_a_chunk_is_what_some_seconds_carry(bytes_per_second: int | None, chunk: int) -> None:
    assert size_of().chunk_for(line_of(bytes_per_second)) == chunk


def test_what_is_known_of_a_host_goes_before_the_line_s_rate() -> None:
    fast = line_of(500 * MIB)
    assert size_of(chunk_bytes=10 * MIB).chunk_for(fast) == 10 * MIB
    size = size_of()
    size.broke(5000 * MIB, 50 * MIB)
    assert size.chunk_for(fast) == size.chunk_bytes == 16 * MIB
    refused = size_of()
    refused.refused(5000 * MIB)
    assert refused.chunk_for(fast) == 32 * MIB
