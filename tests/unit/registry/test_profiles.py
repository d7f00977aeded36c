"""The ladder: which forms of upload are tried, and what is learnt of a host."""

from __future__ import annotations

import pytest

from blobflow.transports.registry.capabilities.profiles import (
    CHUNKED_FROM,
    DEFAULT,
    MIB,
    UNPROVEN_SINGLE_BYTES,
    LearnedLimits,
    Profile,
    UploadMethod,
    method_order,
    profile_of,
)
from tests.fakes.notes import Notes


def learnt(taken: tuple[UploadMethod, ...] = (), **refused: int) -> LearnedLimits:
    made = LearnedLimits(Notes(), "r")
    for rung in taken:
        made.taken(rung)
    for name, size in refused.items():
        rungs: dict[str, UploadMethod] = {"single": "single", "stream": "stream", "chunked": "chunked"}
        made.refused(rungs[name], size)
    return made


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("docker.io", "hub"),
        ("ghcr.io", "ghcr"),
        ("gcr.io", "gar"),
        ("eu.gcr.io", "gar"),
        ("europe-docker.pkg.dev", "gar"),
        ("1234.dkr.ecr.eu-west-1.amazonaws.com", "ecr"),
        ("1234.dkr.ecr.cn-north-1.amazonaws.com.cn", "ecr"),
        ("public.ecr.aws", "ecr"),
        ("team.azurecr.io", "acr"),
        ("team.azurecr.io:443", "acr"),
        ("quay.io", "quay"),
        ("team.jfrog.io", "artifactory"),
        ("127.0.0.1:5000", "default"),
        ("[::1]:5000", "default"),
        ("notgcr.io", "default"),
        ("ghcr.io.evil.example", "default"),
    ],
)
def test_known_hosts_have_their_profile(host: str, name: str) -> None:
    assert profile_of(host).name == name


@pytest.mark.parametrize(
    ("size", "known", "rungs"),
    [
        (0, learnt(), ["single", "stream"]),
        (1, learnt(), ["single", "stream", "chunked"]),
        (UNPROVEN_SINGLE_BYTES, learnt(), ["single", "stream", "chunked"]),
        (UNPROVEN_SINGLE_BYTES + 1, learnt(), ["stream", "chunked", "single"]),
        (UNPROVEN_SINGLE_BYTES + 1, learnt(("single",)), ["single", "stream", "chunked"]),
        (CHUNKED_FROM - 1, learnt(("single",)), ["single", "stream", "chunked"]),
        (CHUNKED_FROM, learnt(("single",)), ["chunked", "single", "stream"]),
        (10**12, learnt(("single",), chunked=100), ["single", "stream"]),
        (25 * MIB, learnt(("single",), single=20 * MIB), ["stream", "chunked"]),
        (19 * MIB, learnt(("single",), single=20 * MIB), ["single", "stream", "chunked"]),
        (5, learnt(single=1, stream=1), ["chunked"]),
        (5, learnt(single=1, stream=1, chunked=1), ["single", "stream", "chunked"]),
    ],
)
def test_the_default_ladder_by_size_and_by_what_is_known(
    size: int, known: LearnedLimits, rungs: list[UploadMethod]
) -> None:
    assert list(method_order(size, DEFAULT, known)) == rungs


def test_a_bounded_profile_stays_bounded_when_its_form_worked() -> None:
    profile = Profile("p", single_bytes=10, bounded=True)
    assert method_order(11, profile, learnt(("single",)))[0] == "stream"


def test_a_profile_s_forms_are_the_only_ones() -> None:
    assert method_order(5, Profile("p", ("stream",)), learnt(("single",))) == ("stream",)


def test_what_was_learnt_is_there_for_the_next_run_and_only_for_its_host() -> None:
    notes = Notes()
    first = LearnedLimits(notes, "a")
    first.taken("single")
    first.refused("stream", 70)
    first.refused("stream", 90)
    again, other = LearnedLimits(notes, "a"), LearnedLimits(notes, "b")
    assert again.has_taken("single") and again.refused_from("stream") == 70
    assert not other.has_taken("single") and other.refused_from("stream") > 10**15


def test_a_broken_connection_is_remembered_for_this_run_only_and_not_of_a_form_that_works() -> None:
    notes = Notes()
    first = LearnedLimits(notes, "a")
    first.broke("single", 50)
    assert first.refused_from("single") == 50
    assert notes.notes == {}
    proven = learnt(("single",))
    proven.broke("single", 50)
    assert proven.refused_from("single") > 10**15


def test_a_note_that_makes_no_sense_is_no_note() -> None:
    notes = Notes()
    notes.record_note("a", "upload.single.refused", "often")
    assert LearnedLimits(notes, "a").refused_from("single") > 10**15


@pytest.mark.parametrize(
    ("size", "costly", "first"),
    [
        (CHUNKED_FROM, None, "chunked"),
        (CHUNKED_FROM, False, "single"),
        (10**12, False, "single"),
        (40 * MIB, None, "single"),
        (40 * MIB, True, "chunked"),
    ],
)
def test_what_sending_it_again_would_cost_decides_on_chunks_where_the_line_is_known(
    size: int, costly: bool | None, first: UploadMethod
) -> None:
    assert method_order(size, DEFAULT, learnt(("single",)), costly=costly)[0] == first
