"""The embedded registry's pure parts: paths, the two range grammars, error bodies, sessions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import InvalidConfig
from blobflow.oci import digest_of
from blobflow.oci.ip_address import is_loopback
from blobflow.server import Server, make_app
from blobflow.server.errors import STATUS_OF_CODE, ApiError, ErrorEntry
from blobflow.server.http.ranges import (
    ByteRange,
    RangeNotSatisfiable,
    parse_chunk_range,
    parse_range,
    upload_range,
)
from blobflow.server.routes import Route, is_tag, match_route
from blobflow.server.upload_sessions import EMPTY_SECONDS, UPLOAD_TTL, UploadSessions
from blobflow.transports.store import Store
from blobflow.transports.store.partial_sweep import remove_stale_partials


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/", Route("root")),
        ("/v2", Route("root")),
        ("/v2/_catalog", Route("catalog")),
        ("/v2/a/tags/list", Route("tags", "a")),
        ("/v2/a/b/manifests/1.0", Route("manifest", "a/b", "1.0")),
        ("/v2/a/blobs/sha256:x", Route("blob", "a", "sha256:x")),
        ("/v2/a/blobs/uploads/", Route("uploads", "a")),
        ("/v2/a/blobs/uploads", Route("uploads", "a")),
        ("/v2/a/blobs/uploads/t", Route("upload", "a", "t")),
        ("/v2/blobs/manifests/blobs/x", Route("blob", "blobs/manifests", "x")),
        ("/v2/tags/list/tags/list", Route("tags", "tags/list")),
        ("/v2/blobs/uploads/blobs/uploads/x", Route("upload", "blobs/uploads", "x")),
        ("/", Route("page")),
        ("/metrics", Route("metrics")),
        ("/healthz", Route("health")),
        ("/health", None),
        ("/v2/a", None),
        ("/v2/manifests/x", None),
        ("/v2/tags/list", None),
        ("/v2/a/manifests/", None),
        ("/v1/a/manifests/x", None),
    ],
)
def test_a_path_is_read_from_its_end(path: str, route: Route | None) -> None:
    assert match_route(path) == route


@given(st.text())
def test_no_path_gives_a_name_that_breaks_the_grammar(text: str) -> None:
    try:
        route = match_route(f"/v2/{text}/manifests/1")
    except ApiError as refusal:
        assert refusal.code == "NAME_INVALID"
    else:
        if route is not None:
            assert not {"", ".", ".."} & set(route.repository.split("/"))
            assert route.repository.isascii()
            assert route.repository == route.repository.lower()


@given(st.text(max_size=130))
def test_a_tag_is_never_a_path_nor_a_digest(text: str) -> None:
    if is_tag(text):
        assert text
        assert not set("/:\\ \n\0") & set(text)
        assert text[0] != "."


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        (None, 10, None),
        ("bytes=0-4", 10, ByteRange(0, 5)),
        ("bytes= 0-4 ", 10, ByteRange(0, 5)),
        ("bytes=3-", 10, ByteRange(3, 10)),
        ("bytes=-3", 10, ByteRange(7, 10)),
        ("bytes=-30", 10, ByteRange(0, 10)),
        ("bytes=9-99", 10, ByteRange(9, 10)),
        ("bytes=0-1,3-4", 10, None),
        ("bytes=4-1", 10, None),
        ("bytes=-", 10, None),
        ("bytes=" + "9" * 21 + "-", 10, None),
        ("items=0-1", 10, None),
        ("bytes=\u0663-", 10, None),
    ],
)
def test_the_span_of_a_range_header(header: str | None, size: int, span: ByteRange | None) -> None:
    assert parse_range(header, size) == span


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_a_range_without_a_byte_is_unsatisfiable(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, size)


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30) | st.text(max_size=10), st.integers(0, 2**64))
def test_any_range_header_gives_a_span_inside_the_blob_or_none(header: str, size: int) -> None:
    try:
        span = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert span is None or 0 <= span.start < span.end <= size


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("0-0", ByteRange(0, 1)),
        ("5-9", ByteRange(5, 10)),
        ("9-5", None),
        ("5-", None),
        ("-5", None),
        ("bytes 5-9/10", None),
        ("5-9/10", None),
        ("5-9\n", None),
        ("1" * 21 + "-" + "2" * 21, None),
    ],
)
def test_the_span_of_a_chunk(header: str, span: ByteRange | None) -> None:
    assert parse_chunk_range(header) == span


def test_an_uploads_progress_is_inclusive() -> None:
    assert [upload_range(offset) for offset in (0, 1, 2, 100)] == ["0-0", "0-0", "0-1", "0-99"]


def test_a_refusal_is_the_specs_error_body() -> None:
    refusal = ApiError(
        "MANIFEST_BLOB_UNKNOWN",
        "not here",
        detail="sha256:1",
        more=[ErrorEntry("MANIFEST_BLOB_UNKNOWN", "not here", "sha256:2")],
    )
    assert refusal.status == STATUS_OF_CODE["MANIFEST_BLOB_UNKNOWN"]
    assert json.loads(refusal.body) == {
        "errors": [
            {"code": "MANIFEST_BLOB_UNKNOWN", "message": "not here", "detail": "sha256:1"},
            {"code": "MANIFEST_BLOB_UNKNOWN", "message": "not here", "detail": "sha256:2"},
        ]
    }


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:0.0.0.0", False),
        ("64:ff9b::127.0.0.1", False),
        ("::127.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("registry.example", False),
        ("localhost.example", False),
        ("", False),
    ],
)
async def test_only_loopback_is_listened_on_unless_told(tmp_path: Path, host: str, inside: bool) -> None:
    assert is_loopback(host) == inside
    store = Store.open(tmp_path)
    app = make_app(store)
    Server(app, host=host, allow_remote=True)
    if inside:
        Server(app, host=host)
    else:
        with pytest.raises(InvalidConfig, match="allow remote access"):
            Server(app, host=host)
    store.close()


async def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    async with Server(make_app(store)) as first:
        with pytest.raises(InvalidConfig, match=f"can't listen on 127.0.0.1 port {first.port}"):
            await Server(make_app(store), port=first.port).start()
        assert first.url == f"http://{first.address}"
    store.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_idle_session_is_forgotten_with_its_bytes_and_an_empty_one_much_sooner(tmp_path: Path) -> None:
    store, clock = Store.open(tmp_path), Clock()
    sessions = UploadSessions(store, clock=clock)
    old, fresh, empty = (sessions.start("a") for _ in range(3))
    for session in (old, fresh):
        session.writer().write(b"some bytes")
        session.rest()
    assert len(list(store.paths.partials.iterdir())) == 2
    clock.now = EMPTY_SECONDS + 1
    sessions.forget_idle()
    with pytest.raises(ApiError, match="not known here"):
        sessions.find("a", empty.token)
    clock.now = UPLOAD_TTL - 1
    assert sessions.find("a", fresh.token) is fresh
    clock.now = UPLOAD_TTL + 1
    sessions.start("a")
    assert sessions.find("a", fresh.token) is fresh
    with pytest.raises(ApiError, match="not known here"):
        sessions.find("a", old.token)
    assert len(list(store.paths.partials.iterdir())) == 1
    sessions.close()
    assert not list(store.paths.partials.iterdir())
    store.close()


def test_a_session_that_is_being_fed_is_not_forgotten(tmp_path: Path) -> None:
    store, clock = Store.open(tmp_path), Clock()
    sessions = UploadSessions(store, clock=clock)
    session = sessions.start("a")
    turn = session.take_over()
    clock.now = UPLOAD_TTL * 2
    sessions.forget_idle()
    assert sessions.find("a", session.token) is session
    sessions.rest(session, turn)
    clock.now += UPLOAD_TTL * 2
    sessions.forget_idle()
    assert len(sessions) == 0
    store.close()


def test_the_owner_with_most_sessions_makes_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.server.upload_sessions.MAX_SESSIONS", 3)
    store = Store.open(tmp_path)
    sessions = UploadSessions(store)
    first, second = sessions.start("a", "many"), sessions.start("a", "many")
    one = sessions.start("a", "one")
    first.writer().write(b"more")
    second.writer().write(b"x")
    new = sessions.start("a", "new")
    assert [sessions.find("a", each.token) for each in (first, one, new)] == [first, one, new]
    with pytest.raises(ApiError, match="not known here"):
        sessions.find("a", second.token)
    for each in (first, one, new):
        each.take_over()
    with pytest.raises(ApiError) as caught:
        sessions.start("a", "newer")
    assert caught.value.status == 429
    sessions.close()
    store.close()


def test_what_dead_uploads_left_is_reaped_and_living_ones_are_not(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    sessions = UploadSessions(store, ttl=100.0)
    resting = sessions.start("a")
    resting.writer().write(b"rests")
    resting.rest()
    dead, fresh = (store.paths.partial(None, token) for token in ("feed" * 4, "f00d" * 4))
    condemned = store.paths.condemned("dead" * 4)
    for path in (dead, fresh, condemned):
        path.write_bytes(b"left")
    for path in (dead, *store.paths.partials.glob(f"*.{resting.partial}")):
        os.utime(path, (1, 1))
    remove_stale_partials(store.paths, 100.0, {resting.partial})
    left = {path.name.rpartition(".")[2] for path in store.paths.partials.iterdir()}
    assert left == {resting.partial, "f00d" * 4}
    sessions.close()
    store.close()


def test_a_session_says_where_it_is(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    session = UploadSessions(store).start("team/app")
    assert session.location == f"/v2/team/app/blobs/uploads/{session.token}"
    assert session.offset == 0
    session.writer(digest_of(b"x")).write(b"x")
    assert session.offset == 1
    session.abort()
    assert session.offset == 0
    store.close()
