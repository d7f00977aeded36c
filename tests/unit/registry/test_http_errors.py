"""Statuses, error bodies and headers, read into errors of the tree."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import (
    Denied,
    NotFound,
    RegistryError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from blobflow.printable import one_line
from blobflow.transports.registry.http.error_body import parse_error_body
from blobflow.transports.registry.http.errors import error_of
from blobflow.transports.registry.http.headers import parse_length, parse_retry_after, parse_warning

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def errors(*entries: dict[str, object]) -> bytes:
    return json.dumps({"errors": entries}).encode()


def answer(status: int, body: bytes = b"", method: str = "GET", wish: str = "") -> RegistryError:
    return error_of("r.example", method, "manifest app:1", status, {"Retry-After": wish}, body)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, Unauthorized),
        (403, Denied),
        (404, NotFound),
        (405, Rejected),
        (408, Unavailable),
        (413, Rejected),
        (416, Rejected),
        (418, Rejected),
        (429, Throttled),
        (500, Unavailable),
        (501, Rejected),
        (502, Unavailable),
        (503, Unavailable),
        (507, Rejected),
        (599, Unavailable),
        (204, Rejected),
        (302, Rejected),
    ],
)
def test_each_status_is_one_class(status: int, kind: type[RegistryError]) -> None:
    error = answer(status)
    assert type(error) is kind
    assert error.status == status
    assert "r.example" in error.message and "manifest app:1" in error.message


def test_the_registry_s_own_words_and_code_are_told() -> None:
    error = answer(
        404, errors({"code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": {"Tag": "1"}})
    )
    assert error.code == "MANIFEST_UNKNOWN"
    assert error.detail == "manifest unknown"
    assert error.message == "r.example has no manifest app:1 (MANIFEST_UNKNOWN: manifest unknown)"


def test_a_full_registry_and_a_manifest_that_is_too_large_are_said_in_so_many_words() -> None:
    full = answer(507, errors({"code": "UNKNOWN", "message": "no space left"}), method="PUT")
    assert full.message == (
        "r.example refused manifest app:1: its storage is full (UNKNOWN: no space left); "
        "free some space there"
    )
    assert not full.retryable
    large = answer(413, method="PUT")
    assert large.message == "r.example refused manifest app:1 with 413: it is larger than r.example takes"
    assert not large.retryable


def test_a_plain_text_404_is_told_and_html_is_not() -> None:
    assert answer(404, b"404 page not found\n").message.endswith("(404 page not found)")
    assert answer(502, b"<html>proxy</html>").message == "r.example failed with 502 on manifest app:1"


@pytest.mark.parametrize("status", [400, 404, 422])
@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"])
def test_a_refused_manifest_names_the_children_that_are_missing(status: int, code: str) -> None:
    body = errors(
        {"code": code, "message": "blob unknown to registry", "detail": {"digest": DIGEST}},
        {"code": code, "message": "blob unknown to registry", "detail": OTHER},
        {"code": code, "message": "blob unknown to registry", "detail": OTHER},
    )
    error = answer(status, body, method="PUT")
    assert isinstance(error, Rejected)
    assert error.missing == (DIGEST, OTHER)
    assert DIGEST in error.message


HEX = DIGEST.partition(":")[2]
LONG = "sha512:" + "c" * 128


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (errors({"code": "MANIFEST_BLOB_UNKNOWN", "detail": [DIGEST, {"digest": OTHER}]}), (DIGEST, OTHER)),
        (errors({"code": "MANIFEST_BLOB_UNKNOWN", "detail": {"Digest": {"hex": HEX}}}), (DIGEST,)),
        (errors({"code": "BLOB_UNKNOWN", "message": f"blob {LONG} unknown"}), (LONG,)),
        (errors({"code": "MANIFEST_INVALID", "message": f"layer {DIGEST} does not exist"}), (DIGEST,)),
        (errors({"code": "X"}, {"code": "MANIFEST_BLOB_UNKNOWN", "detail": DIGEST}), (DIGEST,)),
        (errors({"code": "NAME", "detail": {"missing": {OTHER: {}}}}), (OTHER,)),
        (json.dumps({"message": f"no such blob: {DIGEST}"}).encode(), (DIGEST,)),
        (f"manifest blob unknown: {DIGEST}\n".encode(), (DIGEST,)),
    ],
)
def test_what_is_missing_is_read_in_whatever_form_it_is_told(body: bytes, missing: tuple[str, ...]) -> None:
    error = answer(400, body, method="PUT")
    assert isinstance(error, Rejected)
    assert error.missing == missing


@pytest.mark.parametrize(
    "body",
    [
        errors({"code": "DIGEST_INVALID", "message": "provided digest did not match", "detail": DIGEST}),
        errors({"code": "MANIFEST_INVALID", "message": f"the size of {DIGEST} is another"}),
        errors({"code": "MANIFEST_INVALID", "message": "something is missing"}),
        errors({"code": "UNKNOWN", "detail": HEX + "0"}),
        b"",
    ],
)
def test_a_refusal_for_another_reason_names_nothing_that_is_missing(body: bytes) -> None:
    error = answer(400, body, method="PUT")
    assert isinstance(error, Rejected)
    assert error.missing == ()


def test_only_a_manifest_lacks_something_by_words_alone() -> None:
    body = errors({"code": "BLOB_UPLOAD_UNKNOWN", "message": f"blob upload unknown, for {DIGEST}"})
    error = error_of("r.example", "PUT", f"upload of blob {DIGEST} to app", 404, {}, body)
    assert isinstance(error, NotFound)


def test_a_manifest_that_is_not_there_to_be_read_is_not_found_whatever_its_code() -> None:
    assert isinstance(answer(404, errors({"code": "MANIFEST_UNKNOWN"})), NotFound)


def test_control_characters_and_length_never_reach_the_message() -> None:
    body = errors({"code": "X\x1b[31m", "message": "\x1b]0;owned\x07" + "\u202e" + "y" * 5000})
    error = answer(400, body)
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 or each == "\u202e" for each in error.message)
    assert len(error.message) < 500


def test_both_forms_of_retry_after_are_read() -> None:
    assert parse_retry_after("120", NOW) == 120.0
    assert parse_retry_after(" 0 ", NOW) == 0.0
    assert parse_retry_after("Tue, 14 Nov 2023 22:14:20 GMT", NOW) == 60.0
    assert parse_retry_after("Tue, 14 Nov 2023 22:13:00 GMT", NOW) == 0.0


@pytest.mark.parametrize("value", [None, "", "soon", "-5", "1e9", "٣", "9" * 40, "Tue, 99 Nov 2023", "\x00"])
def test_a_retry_after_of_neither_form_is_none(value: str | None) -> None:
    assert parse_retry_after(value, NOW) is None


def test_the_wish_is_carried_by_the_error() -> None:
    throttled, unavailable = answer(429, wish="7"), answer(503, wish="9")
    assert isinstance(throttled, Throttled) and throttled.retry_after == 7.0
    assert isinstance(unavailable, Unavailable) and unavailable.retry_after == 9.0


def test_only_warnings_of_code_299_are_told_and_cleaned() -> None:
    assert parse_warning('299 - "going \\"away\\" \x1b[0m soon"') == 'going "away"  [0m soon'
    assert parse_warning('199 - "x"') == ""
    assert parse_warning("299") == ""


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("0", 0),
        ("17", 17),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
)
def test_a_count_of_bytes_is_a_count_or_nothing(value: str | None, number: int | None) -> None:
    assert parse_length(value) == number


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"details": "incorrect username or password"}, "incorrect username or password"),
        ({"error": "invalid_scope", "error_description": "no such\nproject"}, "no such project"),
        ({"error": "Invalid username"}, "Invalid username"),
        ({"timestamp": 1, "status": 404, "error": "Not Found", "message": "no repository"}, "no repository"),
        ({"message": "403 Forbidden", "errors": []}, "403 Forbidden"),
        ({"errors": None, "detail": "Too many requests"}, "Too many requests"),
        ({"message": None, "error": {"code": 403, "message": "Permission denied"}}, "Permission denied"),
        ({"errors": [{"code": "DENIED", "message": "mine"}], "message": "other"}, "mine"),
        ({"message": {"a": 1}, "detail": ["b"], "token": "secret"}, ""),
    ],
)
def test_the_words_of_error_bodies_of_other_forms_are_told(body: dict[str, object], words: str) -> None:
    assert parse_error_body(json.dumps(body).encode()).text == words


@given(st.binary(max_size=300), st.text(max_size=30))
def test_no_error_body_upsets_the_reader(body: bytes, content_type: str) -> None:
    words = parse_error_body(body, content_type)
    assert len(words.text) <= 300


@given(st.text(max_size=60))
def test_no_header_upsets_its_reader(value: str) -> None:
    wish = parse_retry_after(value, NOW)
    assert wish is None or wish >= 0
    assert one_line(parse_warning(value)) == parse_warning(value)


@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"])
def test_a_list_of_lacks_that_is_longer_than_is_read_names_what_was_read(code: str) -> None:
    lacked = [f"sha256:{number:064x}" for number in range(1000)]
    entries: list[dict[str, object]] = [
        {"code": code, "message": "send it", "detail": each} for each in lacked
    ]
    whole = errors(*entries)
    error = answer(400, whole[: 64 * 1024], "PUT")
    assert isinstance(error, Rejected)
    assert (error.code, error.detail) == (code, "send it")
    assert 300 < len(error.missing) < 1000
    assert set(error.missing) <= set(lacked)
