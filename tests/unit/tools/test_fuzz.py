"""What reads what others say: no exception outside the error tree, round trips, and bounded work."""

from __future__ import annotations

from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blobflow.errors import BlobflowError, InvalidDigest, InvalidReference
from blobflow.oci import Digest, Platform, digest_of, parse_digest, parse_platform, parse_reference
from blobflow.oci.reference import check_repository
from blobflow.printable import one_line
from blobflow.server.errors import ApiError
from blobflow.server.http.ranges import ByteRange, parse_chunk_range, parse_range, upload_range
from blobflow.server.routes import match_route, parse_digest_parameter
from blobflow.transports.registry.auth.challenges import Challenge, parse_challenges
from blobflow.transports.registry.http.errors import error_of
from blobflow.transports.registry.http.headers import parse_content_range, parse_retry_after, parse_warning
from blobflow.transports.registry.http.link_header import next_link
from blobflow.transports.store.paths import StorePaths
from tools import fuzz
from tools.fuzz import PARSERS, Finding, Parser

MANY = settings(max_examples=150)
BY_NAME = pytest.mark.parametrize("parser", PARSERS, ids=[parser.name for parser in PARSERS])
# What never fails has no other outcome to show.
LENIENT = {
    *("WWW-Authenticate", "Link", "Range", "Content-Range", "Retry-After", "Content-Length", "Warning"),
    "Authorization",
}

# The short form of tools/fuzz


@BY_NAME
def test_mutated_input_is_read_or_refused_in_a_sentence(parser: Parser) -> None:
    outcomes = fuzz.fuzz([parser], seed=1, rounds=500)[parser.name]
    assert sum(outcomes.values()) == 500
    assert outcomes["ok"] or parser.name == "error body", "some of it has to mean something"
    assert len(outcomes) > 1 or parser.name in LENIENT, "and some of it nothing"


@BY_NAME
@MANY
@given(data=st.data())
def test_any_input_is_read_or_refused_in_a_sentence(parser: Parser, data: st.DataObject) -> None:
    given = data.draw(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode()))
    fuzz.feed(parser, given)


LARGE = 1 << 20
PATTERNS = (
    *(
        b"a",
        b" ",
        b"=",
        b",",
        b";",
        b"\\",
        b'"',
        b"/",
        b":",
        b"@",
        b"-",
        b".",
        b"_",
        b"[",
        b"{",
        b"<",
        b"\xff",
    ),
    *(
        b"a,",
        b'a="',
        b'a="\\',
        b";a=b",
        b"a/",
        b"a-",
        b"__",
        b"//@",
        b"<>;",
        b"Basic a=,",
        b"1-",
        b'{"a":',
        b"[[",
    ),
    *(b'{"errors":[{"detail":"sha256:', b"299 - ", b"a:\n", b"%2e", b"../", b"\x1b[2J", b"Mon, "),
)


@BY_NAME
def test_a_mebibyte_of_anything_takes_no_more_than_a_pass(parser: Parser) -> None:
    """Some seconds for all patterns of all parsers; what is quadratic would take days."""
    for seed in (b"", *parser.seeds[:2]):
        for pattern in PATTERNS:
            fuzz.feed(parser, seed + pattern * (LARGE // len(pattern)))
            fuzz.feed(parser, pattern * (LARGE // len(pattern)) + seed)


def test_a_finding_names_its_input_and_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(given: bytes) -> None:
        if b"\xff" in given:
            raise KeyError("a bug")

    parser = Parser("broken", broken, (b"seed",))
    with pytest.raises(Finding, match=r"broken: KeyError: 'a bug'\n  input: b'.*\\xff"):
        fuzz.fuzz([parser], seed=1, rounds=100_000)
    monkeypatch.setattr(fuzz, "PARSERS", (parser,))
    assert fuzz.main(["--seconds", "60", "--seed", "1"]) == 1
    assert "KeyError" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        fuzz.fuzz([Parser("seen", seen.append, (b"one", b"another"))], seed, rounds=200)
        return seen

    assert inputs(1) == inputs(1) != inputs(2)


def test_a_run_of_seconds_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--seconds", "0.01", "--parser", "Range"]) == 0
    assert capsys.readouterr().out.startswith("Range ")


# Round trips

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
TOKEN = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)


@MANY
@given(
    host=st.sampled_from(["docker.io", "localhost", "127.0.0.1:5000", "[::1]:5000", "a-b.example.com:443"]),
    path=st.lists(NAME, min_size=1, max_size=4).map("/".join),
    tag=TAG | st.just(""),
    digest=HEX.map("sha256:{}".format) | st.just(""),
)
def test_a_reference_reads_as_it_is_written(host: str, path: str, tag: str, digest: str) -> None:
    text = f"{host}/{path}{tag and ':' + tag}{digest and '@' + digest}"
    reference = parse_reference(text)
    library = "library/" if host == "docker.io" and "/" not in path else ""
    assert (reference.host, reference.repository) == (host, library + path)
    assert (reference.tag, reference.digest) == (tag or ("" if digest else "latest"), digest)
    assert parse_reference(str(reference)) == reference


@given(st.text())
def test_only_digests_are_digests(text: str) -> None:
    try:
        assert str(parse_digest(text)) == text
    except InvalidDigest as error:
        assert len(str(error)) < 2000


WORD = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


@given(WORD, WORD, WORD | st.just(""))
def test_a_platform_reads_as_it_is_written(os: str, architecture: str, variant: str) -> None:
    platform = Platform(architecture=architecture, os=os, variant=variant)
    read = parse_platform(str(platform))
    if variant and architecture not in ("x86_64", "aarch64", "armhf", "armel", "i386", "i686"):
        assert read == platform
    assert parse_platform(str(read)) == read


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
PARAMS = st.dictionaries(TOKEN.map(str.lower), VALUE, min_size=1, max_size=4)


@MANY
@given(st.lists(st.tuples(TOKEN.map(str.lower), PARAMS), min_size=1, max_size=4), st.booleans())
def test_challenges_read_as_they_are_written(ways: list[tuple[str, dict[str, str]]], apart: bool) -> None:
    written = [
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in params.items())
        for scheme, params in ways
    ]
    read = parse_challenges(written if apart else [", ".join(written)])
    assert read == [Challenge(scheme, params) for scheme, params in ways]


TARGET = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="<>"), min_size=1)


@MANY
@given(
    target=TARGET,
    before=st.lists(st.tuples(TARGET, VALUE), max_size=3),
    params=st.dictionaries(TOKEN.filter(lambda name: name.lower() != "rel"), VALUE, max_size=3),
    apart=st.booleans(),
)
def test_the_next_link_is_found_among_others(
    target: str, before: list[tuple[str, str]], params: dict[str, str], apart: bool
) -> None:
    others = [f'<{other}>; rel="prev"; title={quoted(title)}' for other, title in before]
    wanted = f"<{target}>" + "".join(f"; {name}={quoted(value)}" for name, value in params.items())
    links = [*others, f'{wanted}; rel="next"']
    assert next_link(links if apart else [", ".join(links)]) == target
    assert next_link(others) is None


SIZES = st.integers(0, 2**62)


@MANY
@given(SIZES, SIZES, SIZES)
def test_ranges_read_as_they_are_written(start: int, length: int, size: int) -> None:
    end = start + length + 1
    assert parse_chunk_range(f"{start}-{end - 1}") == ByteRange(start, end)
    assert parse_chunk_range(upload_range(end)) == ByteRange(0, end)
    told = parse_content_range(f"bytes {start}-{end - 1}/{size}")
    assert told == (start, end - 1, size)
    assert parse_content_range(f"bytes */{size}") == (None, None, size)
    if start < size:
        assert parse_range(f"bytes={start}-{end - 1}", size) == ByteRange(start, min(end, size))
        assert (
            parse_range(f"bytes=-{size - start}", size)
            == parse_range(f"bytes={start}-", size)
            == ByteRange(start, size)
        )


@given(st.integers(0, 10**8), st.integers(0, 2**32))
def test_a_wait_is_the_same_in_seconds_and_as_a_date(seconds: int, now: int) -> None:
    assert parse_retry_after(str(seconds), now) == seconds
    assert parse_retry_after(formatdate(now + seconds, usegmt=True), now) == seconds
    assert parse_retry_after(formatdate(now - seconds, usegmt=True), now) == 0 or seconds == 0


# What a terminal may see


@given(st.text(), st.integers(1, 50))
def test_what_a_registry_says_holds_nothing_that_a_terminal_obeys(text: str, limit: int) -> None:
    shown = one_line(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


@MANY
@given(st.text(), st.binary(), st.sampled_from([400, 401, 403, 404, 413, 429, 500, 503, 507]))
def test_no_error_body_gets_escapes_into_an_error(text: str, raw: bytes, status: int) -> None:
    for body in (raw, f'{{"errors":[{{"code":"{text}","message":"{text}"}}]}}'.encode("utf-8", "ignore")):
        error = error_of("registry.example.com", "GET", "manifest app:1", status, {}, body)
        assert str(error).isprintable()
        assert (error.code + error.detail).isprintable()


@given(st.text())
def test_a_warning_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    assert parse_warning(f"299 - {quoted(text)}").isprintable()


def test_escapes_of_every_kind_are_gone() -> None:
    hostile = "a\x1b[2Jb\x9bc\u202ed\u2066e\u061cf\u00adg\ufff9h\U000e0001i\ud800j\r\n\tk\x7fl"
    assert one_line(hostile) == "a [2Jb c d e f g h i j k l"


# What may become a path


@MANY
@given(
    st.text()
    | st.lists(st.sampled_from(["..", ".", "", "a", "b", "tags", "list", "blobs", "%2e"])).map("/".join)
)
def test_no_path_leads_out_of_its_place(path: str) -> None:
    try:
        place = match_route(f"/v2/{path}")
    except ApiError as refusal:
        assert refusal.status == 400
        return
    if place is not None and place.repository:
        assert check_repository(place.repository) == place.repository
        assert not {"", ".", ".."} & set(place.repository.split("/"))


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "sha256:" + "../" * 21 + "x",
        "sha256:" + "0" * 63 + "/",
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "0" * 63 + "\0",
        "sha256:" + "\u0660" * 64,
        "../sha256:" + "0" * 64,
    ],
)
def test_no_digest_leads_out_of_the_store(digest: str) -> None:
    with pytest.raises(ApiError):
        parse_digest_parameter(digest)
    with pytest.raises(BlobflowError):
        parse_reference(f"a/b@{digest}")


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_is_a_file_in_its_algorithms_folder(content: bytes, algorithm: str) -> None:
    layout = StorePaths(Path("/store"))
    path = layout.blob(Digest(digest_of(content, algorithm)))
    assert path.parent == Path("/store/blobs") / algorithm


@given(st.text())
@example("/\x1f")
@example("./\u202e")
@example("user@/\x1f")
@example("https://user:password@\x1b[31mhost")
def test_a_bad_reference_is_refused_with_its_own_words(text: str) -> None:
    try:
        parse_reference(text)
    except InvalidReference as error:
        assert str(error).isprintable()
