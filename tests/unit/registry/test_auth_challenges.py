"""WWW-Authenticate, scopes and tokens: the pure part of getting in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import ProtocolViolation
from blobflow.transports.registry.auth.challenges import Challenge, parse_challenges
from blobflow.transports.registry.auth.tokens import DEFAULT_LIFETIME, RENEWAL_MARGIN, read_token, scopes_with

BEARER = 'Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push"'


def test_a_bearer_challenge_keeps_the_commas_in_its_quotes() -> None:
    assert parse_challenges([BEARER]) == [
        Challenge(
            "bearer",
            {
                "realm": "https://auth.example/token",
                "service": "r.example",
                "scope": "repository:a/b:pull,push",
            },
        )
    ]


@pytest.mark.parametrize(
    ("values", "schemes"),
    [
        (['Basic realm="x"'], ["basic"]),
        (["Basic"], ["basic"]),
        ([BEARER, 'Basic realm="x"'], ["bearer", "basic"]),
        ([f'Basic realm="x", {BEARER}'], ["basic", "bearer"]),
        (["Negotiate", BEARER], ["negotiate", "bearer"]),
        (["Negotiate oYGgMIGdoAMKAQA=, Basic realm=x"], ["negotiate", "basic"]),
        ([",, Basic realm=x ,,"], ["basic"]),
        (['bEaReR realm = "https://x"'], ["bearer"]),
        ([""], []),
        (["=", '"'], []),
        (['Bearer realm="unended'], ["bearer"]),
    ],
)
def test_challenges_in_one_header_or_several_are_told_apart(values: list[str], schemes: list[str]) -> None:
    assert [challenge.scheme for challenge in parse_challenges(values)] == schemes


def test_escapes_in_quotes_and_tokens_without_quotes_are_read() -> None:
    (challenge,) = parse_challenges([r'Bearer realm="a\"b\\c", service=r.example:5000'])
    assert challenge.params == {"realm": 'a"b\\c', "service": "r.example:5000"}


def test_the_first_of_a_repeated_parameter_counts() -> None:
    (challenge,) = parse_challenges(['Bearer realm="https://good", realm="https://evil"'])
    assert challenge.params["realm"] == "https://good"


def test_what_a_registry_can_make_us_read_is_bounded() -> None:
    assert len(parse_challenges(["Basic, " * 5000])) <= 8
    assert len(parse_challenges(["Basic"] * 100)) <= 8


@given(st.lists(st.text(max_size=80), max_size=3))
def test_no_header_upsets_the_parser(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()


@given(st.text(alphabet='Bearer basic="\\, \t:/', max_size=60))
def test_nothing_like_a_header_upsets_the_parser(value: str) -> None:
    parse_challenges([value])


@pytest.mark.parametrize(
    ("wanted", "challenged", "asked"),
    [
        (["repository:a:pull"], "", ["repository:a:pull"]),
        (["repository:a:pull"], "repository:a:pull", ["repository:a:pull"]),
        (["repository:a:pull,push"], "repository:a:pull", ["repository:a:pull,push"]),
        (["repository:a:pull"], "repository:x/a:pull", ["repository:a:pull", "repository:x/a:pull"]),
        (["repository:a:pull"], "repository:a:pull,push", ["repository:a:pull", "repository:a:pull,push"]),
        (
            ["repository:t:pull,push", "repository:o:pull"],
            "repository:o:pull",
            ["repository:t:pull,push", "repository:o:pull"],
        ),
    ],
)
def test_the_scopes_wanted_come_first_and_those_of_the_challenge_are_added(
    wanted: list[str], challenged: str, asked: list[str]
) -> None:
    assert list(scopes_with(wanted, challenged)) == asked


@pytest.mark.parametrize(
    ("body", "renew_in"),
    [
        (b'{"token": "t", "expires_in": 300}', 300 - RENEWAL_MARGIN),
        (b'{"token": "t"}', DEFAULT_LIFETIME - RENEWAL_MARGIN),
        (b'{"access_token": "t", "expires_in": 5}', 4.0),
        (b'{"token": "t", "expires_in": "120"}', 120 - RENEWAL_MARGIN),
        (b'{"token": "t", "expires_in": null}', DEFAULT_LIFETIME - RENEWAL_MARGIN),
        (b'{"token": "t", "expires_in": -3}', DEFAULT_LIFETIME - RENEWAL_MARGIN),
        (b'{"token": "t", "expires_in": 1e300}', DEFAULT_LIFETIME - RENEWAL_MARGIN),
        (b'{"token": "t", "expires_in": "soon"}', DEFAULT_LIFETIME - RENEWAL_MARGIN),
        (b'{"token": "t", "access_token": "u", "issued_at": "x"}', DEFAULT_LIFETIME - RENEWAL_MARGIN),
    ],
)
def test_a_token_is_renewed_before_it_ends(body: bytes, renew_in: float) -> None:
    token = read_token(body, 1000.0, "auth.example")
    assert token.header == "Bearer t"
    assert token.renew_at == pytest.approx(1000.0 + renew_in)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": ""}', b'{"token": "a\\r\\nX: y"}', b'{"token": 7}', b"<html>"]
)
def test_an_answer_without_a_usable_token_is_a_violation(body: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=r"auth\.example"):
        read_token(body, 0.0, "auth.example")


def test_a_token_does_not_show_itself() -> None:
    assert "secret" not in repr(read_token(b'{"token": "secret"}', 0.0, "a"))
