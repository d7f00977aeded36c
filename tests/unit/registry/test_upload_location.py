"""Where an upload goes on, when a proxy before the registry has bent the Location."""

from __future__ import annotations

import pytest
from yarl import URL

from blobflow.errors import ProtocolViolation
from blobflow.transports.registry.origins import origin_of
from blobflow.transports.registry.uploads.location import UploadLocation, resolve_location

OPENED = "/v2/team/app/blobs/uploads/"


def found(home: str, location: str, opened: str = OPENED) -> UploadLocation:
    scheme, _, host = home.partition("://")
    origin = origin_of(host, scheme)
    return resolve_location(origin, URL(f"{origin}{opened}", encoded=True), location, "an upload")


@pytest.mark.parametrize(
    ("home", "location", "header"),
    [
        ("http://r.example:8080", "http://r.example/v2/team/app/blobs/uploads/1?s=%3D", "Host"),
        ("https://r.example:8443", "https://r.example/v2/team/app/blobs/uploads/1?s=%3D", "Host"),
        ("http://r.example:8080", "http://r.example:5000/v2/team/app/blobs/uploads/1?s=%3D", "Host"),
        ("https://r.example", "http://registry:5000/v2/team/app/blobs/uploads/1?s=%3D", "X-Forwarded-Proto"),
        ("https://r.example", "https://10.0.0.7/v2/team/app/blobs/uploads/1?s=%3D", "Host"),
        ("http://r.example", "https://r.example/v2/team/app/blobs/uploads/1?s=%3D", "X-Forwarded-Proto"),
        ("https://r.example", "http://r.example:8080/v2/team/app/blobs/uploads/1?s=%3D", "X-Forwarded-Proto"),
        ("https://r.example", "//registry:5000/v2/team/app/blobs/uploads/1?s=%3D", "Host"),
        ("https://r.example", "http://registry:5000/v2/app/blobs/uploads/1?s=%3D", "Host"),
        ("https://r.example", "http://registry:5000/x/v2/team/app/blobs/uploads/1?s=%3D", "Host"),
    ],
)
def test_a_session_under_another_name_of_the_registry_is_gone_on_with_where_it_was_opened(
    home: str, location: str, header: str
) -> None:
    where = found(home, location)
    assert str(where.urls[0]) == f"{home}{OPENED}1?s=%3D"
    assert header in where.advice
    assert "%3D" not in where.advice


def test_what_no_address_can_have_is_escaped_whichever_meaning_a_location_has() -> None:
    where = found("https://r.example", "http://registry:5000/v2/team/app/blobs/uploads/1?s=a b\udce9")
    assert [str(url) for url in where.urls] == [f"https://r.example{OPENED}1?s=a%20b%E9"]
    where = found("https://r.example", "1?s=a b\udce9")
    assert [str(url) for url in where.urls] == [f"https://r.example{OPENED}1?s=a%20b%E9"]


@pytest.mark.parametrize(
    "location",
    [
        "/v2/team/app/blobs/uploads/1?s=a%3D%3D+b&x=%2f",
        "https://r.example/v2/team/app/blobs/uploads/1?s=a%3D%3D+b&x=%2f",
        "http://r.example/v2/team/app/blobs/uploads/1?s=a%3D%3D+b&x=%2f",
        "1?s=a%3D%3D+b&x=%2f",
    ],
)
def test_a_location_at_the_registry_itself_has_one_meaning(location: str) -> None:
    assert found("https://r.example", location) == UploadLocation(
        (URL(f"https://r.example{OPENED}1?s=a%3D%3D+b&x=%2f", encoded=True),)
    )


def test_what_no_request_line_can_hold_gives_a_location_no_second_meaning() -> None:
    where = found("https://r.example", f"{OPENED}1?name=a b")
    assert [str(url) for url in where.urls] == [f"https://r.example{OPENED}1?name=a%20b"]


@pytest.mark.parametrize(
    "location",
    [
        "https://uploads.example/blob/17?X-Amz-Signature=secret",
        "https://uploads.example/v2/team/app/blobs/upload/17",
        "https://uploads.example/v2/other/blobs/uploads/17",
        "https://uploads.example/v2/team/app/blobs/uploads/..",
    ],
)
def test_an_upload_that_is_sent_elsewhere_on_purpose_goes_there_and_nowhere_else(location: str) -> None:
    where = found("https://r.example", location)
    assert [str(url) for url in where.urls] == [location]
    assert "secret" not in where.advice


@pytest.mark.parametrize("name", ["X-Amz-Signature", "x-goog-signature", "sig", "Signature"])
def test_a_signed_address_is_followed_first_whatever_it_looks_like(name: str) -> None:
    signed = f"https://uploads.example{OPENED}17?a=b&{name}=secret"
    where = found("https://r.example", signed)
    assert [str(url) for url in where.urls] == [signed, f"https://r.example{OPENED}17?a=b&{name}=secret"]


@pytest.mark.parametrize(
    ("opened", "location"),
    [
        ("/v2/mirror/app/blobs/uploads/", "/v2/app/blobs/uploads/1?s=1"),
        ("/v2/app/blobs/uploads/", "/v2/library/app/blobs/uploads/1?s=1"),
        ("/v2/app/blobs/uploads/", "/registry/v2/app/blobs/uploads/1?s=1"),
    ],
    ids=["prefix lost", "prefix added", "below a path"],
)
def test_another_path_of_the_same_origin_is_tried_before_our_own(opened: str, location: str) -> None:
    where = found("https://r.example", location, opened)
    assert [str(url) for url in where.urls] == [
        f"https://r.example{location}",
        f"https://r.example{opened}1?s=1",
    ]
    assert "not below where it was opened" in where.advice


def test_an_upload_that_was_redirected_goes_on_where_it_was_opened() -> None:
    front, back = origin_of("front.example", "https"), "https://back.example/v2/app/blobs/uploads/"
    for location in (
        f"{back}7?s=1",
        "/v2/app/blobs/uploads/7?s=1",
        "http://inside/v2/app/blobs/uploads/7?s=1",
    ):
        where = resolve_location(front, URL(back, encoded=True), location, "an upload")
        assert str(where.urls[0]) == f"{back}7?s=1"


@pytest.mark.parametrize(
    "location", ["http://cdn.example/x?sig=secret", "http://r.example:8080/x?sig=secret"]
)
def test_down_from_https_where_no_session_can_be_seen_is_refused_and_the_header_is_named(
    location: str,
) -> None:
    with pytest.raises(
        ProtocolViolation, match=r"from https down to .*; a proxy before it has to pass on"
    ) as e:
        found("https://r.example", location)
    assert "X-Forwarded-Proto" in e.value.message
    assert "secret" not in e.value.message


@pytest.mark.parametrize(
    "location", ["ftp://r.example/x", "https://u:secret@r.example/x", "http://u:secret@x/y"]
)
def test_what_is_no_address_of_a_registry_stays_refused(location: str) -> None:
    with pytest.raises(ProtocolViolation, match="unusable address") as raised:
        found("https://r.example", location)
    assert "secret" not in raised.value.message
