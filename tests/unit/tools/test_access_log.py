"""The end-to-end tests count what registries say they were asked; so their reader has to be right first."""

from __future__ import annotations

from collections import Counter

import pytest

from tools.access_log import parse_access_log

A, B = "sha256:" + "a" * 64, "sha512:" + "b" * 128

LOG = f"""\
127.0.0.1 - - [21/Nov/2026:12:05:50 +0000] "GET /v2/?probe=1 HTTP/1.1" 200 2 "" ""
127.0.0.1 - - [21/Nov/2026:12:05:50 +0000] "HEAD /v2/x/y/manifests/latest HTTP/1.1" 200 1234 "" "curl/7.88.1"
127.0.0.1 - - [21/Nov/2026:12:05:50 +0000] "GET /v2/x/y/blobs/{A} HTTP/1.1" 200 512 "" "curl/7.88.1"
127.0.0.1 - - [21/Nov/2026:12:05:50 +0000] "GET /v2/x/y/blobs/{A} HTTP/1.1" 206 12 "" "curl/7.88.1"
127.0.0.1 - - [21/Nov/2026:12:05:50 +0000] "GET /v2/x/y/blobs/{B} HTTP/1.1" 404 157 "" "curl/7.88.1"
127.0.0.1 - - [21/Nov/2026:12:05:51 +0000] "HEAD /v2/x/y/blobs/{B} HTTP/1.1" 404 157 "" "-"
127.0.0.1 - - [21/Nov/2026:12:05:51 +0000] "POST /v2/x/z/blobs/uploads/?mount={A}&from=x/y HTTP/1.1" 201 0 "" "-"
127.0.0.1 - - [21/Nov/2026:12:05:51 +0000] "POST /v2/x/z/blobs/uploads/?mount={B}&from=x%2Fy HTTP/1.1" 202 0 "" "-"
127.0.0.1 - - [21/Nov/2026:12:05:51 +0000] "PATCH /v2/x/z/blobs/uploads/5a-6?_state=8V%3D HTTP/1.1" 202 0 "" "-"
127.0.0.1 - - [21/Nov/2026:12:05:51 +0000] "PUT /v2/x/z/blobs/uploads/5a-6?_state=8V%3D&digest={B} HTTP/1.1" 201 0 "" "-"
127.0.0.1 - - [21/Nov/2026:12:05:52 +0000] "PUT /v2/x/z/blobs/uploads/5a-7?digest={A.replace(":", "%3A")} HTTP/1.1" 400 9 "" "-"
127.0.0.1 - - [21/Nov/2026:12:05:52 +0000] "PUT /v2/x/z/manifests/1.0 HTTP/1.1" 201 0 "" "an \\"agent\\""
"""  # noqa: E501


def test_reads_are_counted_by_digest_and_only_where_content_was_sent() -> None:
    assert parse_access_log(LOG).reads_of_blobs() == Counter({A: 2})


def test_uploads_are_counted_by_digest_and_only_where_they_were_taken() -> None:
    assert parse_access_log(LOG).uploads() == Counter({B: 1})


def test_a_refused_mount_is_an_opened_upload_and_no_mount() -> None:
    requests = parse_access_log(LOG)
    assert requests.mounts_201() == [("x/z", A)]
    assert requests.opened_uploads() == 1


def test_requests_are_counted_by_method_and_thing_without_our_probes() -> None:
    assert parse_access_log(LOG).counts() == {
        "HEAD manifests": 1,
        "GET blobs": 3,
        "HEAD blobs": 1,
        "POST blobs/uploads": 2,
        "PATCH blobs/uploads": 1,
        "PUT blobs/uploads": 2,
        "PUT manifests": 1,
    }


def test_a_line_that_is_no_request_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="not a line of an access log: 'panic"):
        parse_access_log("panic: runtime error\n")
