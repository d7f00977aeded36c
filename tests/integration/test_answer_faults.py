"""What registries say that is not so, or not to be expected, and what comes of it. See `test_faults`.

Tokens that end, headers that lie or lack, statuses with another meaning, redirects.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

import pytest

from blobflow.transports.registry import Profile
from tests.fakes.registry import Bytes, blob_of, world
from tests.scenarios.fault_rows import (
    BLOB,
    CHILD,
    CHUNKED,
    COMMIT,
    OWN,
    QUIET_BEARER,
    QUIET_STREAM,
    STREAM,
    TAG,
    Failure,
    Row,
    expected,
    filled,
    play,
)
from tools.registry.faulty import (
    Bearer,
    Busy,
    DropHeader,
    Fault,
    Hangup,
    PlainErrors,
    RedirectTo,
    SetHeader,
    Status,
    Truncate,
    journalling,
)

__all__ = ["filled"]


LET_IN = Fault("*", "", times=0, act=Bearer())
TOKENS = [
    Row("tokens", (LET_IN,), (LET_IN,), quiet=QUIET_BEARER, more="HEAD+2 token+2 |"),
    Row(
        "reset asking for a token",
        target=(
            Fault("GET", "/token", act=Hangup()),
            LET_IN,
        ),
        quiet=QUIET_BEARER,
        more="| token+1",
    ),
    Row(
        "500 for a token",
        target=(
            Fault("GET", "/token", act=Status(500)),
            LET_IN,
        ),
        quiet=QUIET_BEARER,
        more="| token+1",
    ),
    Row(
        "429 for a token",
        target=(
            Fault("GET", "/token", act=Busy(30)),
            LET_IN,
        ),
        quiet=QUIET_BEARER,
        waits=30,
        more="| token+1",
    ),
    Row(
        "a token that is cut short",
        target=(
            Fault("GET", "/token", act=Truncate(after=5)),
            LET_IN,
        ),
        quiet=QUIET_BEARER,
        more="| token+1",
    ),
    Row(
        "no tokens",
        target=(
            Fault("GET", "/token", times=0, act=Status(401)),
            LET_IN,
        ),
        quiet=QUIET_BEARER,
        fails=Failure("Unauthorized", "target", 5, 2),
        heals=False,
        more="GET-4 HEAD-2 blob-8 | HEAD-4 POST-8 PUT-8 manifest-4 mount-2 tags-2 token-1",
    ),
    Row(
        "tokens that end within an upload",
        target=(Fault("*", "", times=0, act=Bearer(seconds=6)),),
        profile=CHUNKED,
        more=None,
    ),
    Row(
        "a token that ends under the PATCH",
        target=(Fault("PATCH", "", act=Status(401)),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="| PATCH+1 POST+1 cancel+1 status+1",
    ),
    Row(
        "a token that ends at the commit",
        target=(Fault("PUT", COMMIT, act=Status(401)),),
        profile=STREAM,
        quiet=QUIET_STREAM,
        more="blob+1 | PUT+1 status+1",
    ),
    Row(
        "a login that may not push",
        target=(Fault("POST", "", times=0, act=Status(403)),),
        fails=Failure("Denied", "target", 5, 2),
        heals=False,
        more="HEAD-2 blob-6 | HEAD-2 POST+2 PUT-8 manifest-4 mount-2",
    ),
]
LIES = [
    Row(
        "HEAD with another Content-Length",
        (Fault("HEAD", TAG, times=0, act=SetHeader("Content-Length", "7")),),
        fails=Failure("SizeMismatch", "source", 6, 1),
        heals=False,
        more="GET+1 HEAD-1 blob-3 | HEAD-1 POST-3 PUT-3 manifest-2 mount-2",
    ),
    Row(
        "a manifest with a longer Content-Length",
        (Fault("GET", CHILD, act=SetHeader("Content-Length", "9999")),),
        more="GET+1 |",
    ),
    Row(
        "a manifest with a shorter Content-Length",
        (Fault("GET", CHILD, times=0, act=SetHeader("Content-Length", "9")),),
        fails=Failure("ProtocolViolation", "source", 5, 1),
        heals=False,
        more="HEAD-1 blob-3 | HEAD-1 POST-3 PUT-3 manifest-2 mount-2",
    ),
    Row(
        "a blob with a longer Content-Length",
        (Fault("GET", BLOB, times=0, act=SetHeader("Content-Length", "999999")),),
        fails=Failure("SizeMismatch", "source", 6, 1),
        heals=False,
        more="HEAD-1 | HEAD-1 PUT-1 cancel+1 manifest-2",
    ),
    Row(
        "a blob with a shorter Content-Length",
        (Fault("GET", BLOB, times=0, act=SetHeader("Content-Length", "99")),),
        fails=Failure("ProtocolViolation", "source", 5, 1),
        heals=False,
        more="HEAD-1 | HEAD-1 PUT-1 cancel+1 manifest-2",
    ),
    Row(
        "no Docker-Content-Digest at the source",
        (Fault("*", "", times=0, act=DropHeader("Docker-Content-Digest")),),
        more="GET+4 |",
    ),
    Row(
        "no Docker-Content-Digest at the target",
        target=(Fault("*", "", times=0, act=DropHeader("Docker-Content-Digest")),),
        more="| GET+2",
    ),
    Row(
        "a tag with the digest of something else",
        (Fault("HEAD", TAG, times=0, act=SetHeader("Docker-Content-Digest", OWN)),),
        fails=Failure("NotFound", "source", 5, 1),
        heals=False,
        more="GET-1 HEAD-1 blob-3 | HEAD-1 POST-3 PUT-3 manifest-2 mount-2",
    ),
    Row(
        "a tag with the digest of something else where HEAD is not allowed",
        (
            Fault("HEAD", "", times=0, act=Status(405)),
            Fault("GET", TAG, times=0, act=SetHeader("Docker-Content-Digest", OWN)),
        ),
        fails=Failure("DigestMismatch", "source", 6, 1),
        heals=False,
        more=None,
    ),
    Row(
        "a manifest by digest with the digest of something else",
        (Fault("GET", f"/manifests/{CHILD}", times=0, act=SetHeader("Docker-Content-Digest", OWN)),),
        fails=Failure("DigestMismatch", "source", 6, 1),
        heals=False,
        more=None,
    ),
    Row(
        "a blob with the digest of something else",
        (Fault("GET", BLOB, times=0, act=SetHeader("Docker-Content-Digest", CHILD)),),
        fails=Failure("DigestMismatch", "source", 6, 1),
        heals=False,
        more=None,
    ),
    Row(
        "a Content-Type that says nothing",
        (Fault("*", "/manifests/", times=0, act=SetHeader("Content-Type", "text/plain")),),
        more="GET+4 |",
    ),
    Row(
        "a blob that is named otherwise once it is there",
        target=(Fault("PUT", COMMIT, times=0, act=SetHeader("Docker-Content-Digest", CHILD)),),
        fails=Failure("DigestMismatch", "target", 6, 1),
        more="HEAD-1 blob+1 | HEAD-1 POST+1 PUT+1 cancel+2 manifest-2",
    ),
    Row(
        "404 in plain text",
        (Fault("*", "", times=0, act=PlainErrors()),),
        (Fault("*", "", times=0, act=PlainErrors()),),
        more="| HEAD+4 has+10",
    ),
    Row(
        "403 for what is missing",
        target=(Fault("*", "/(manifests|blobs)/", times=0, act=PlainErrors(403)),),
        more="| tags+2",
    ),
    Row("HEAD is not allowed", (Fault("HEAD", "", times=0, act=Status(405)),), more="GET+4 HEAD-2 |"),
    Row(
        "HEAD is not allowed at the target",
        target=(Fault("HEAD", "", times=0, act=Status(405)),),
        more="| GET+4 HEAD-2",
    ),
    Row(
        "tags are not told",
        target=(Fault("GET", "/tags/list", times=0, act=Status(405)),),
        more="| HEAD+4 has+10",
    ),
    Row(
        "an HTML page from a proxy",
        (Fault("GET", BLOB, act=Status(502, headers={"Content-Type": "text/html"}, body="<html>")),),
        more="blob+1 |",
    ),
]
ELSEWHERE = RedirectTo("{elsewhere}{path}")
REDIRECTS = [
    Row("blobs are elsewhere", (Fault("GET", "/blobs/", times=0, act=ELSEWHERE),)),
    Row(
        "blobs are elsewhere, and a token is wanted",
        (
            LET_IN,
            Fault("GET", "/blobs/", times=0, act=ELSEWHERE),
        ),
        more="HEAD+2 token+2 |",
    ),
    Row("manifests are elsewhere", (Fault("GET", "/manifests/", times=0, act=ELSEWHERE),)),
    Row(
        "a redirect in a circle",
        (Fault("GET", BLOB, times=0, act=RedirectTo("{path}")),),
        fails=Failure("ProtocolViolation", "source", 5, 1),
        heals=False,
        more="HEAD-1 blob+5 | HEAD-1 PUT-1 cancel+1 manifest-2",
    ),
    Row(
        "a redirect to a metadata address",
        (Fault("GET", BLOB, times=0, act=RedirectTo("http://169.254.169.254/")),),
        fails=Failure("ProtocolViolation", "source", 5, 1),
        heals=False,
        more="HEAD-1 | HEAD-1 PUT-1 cancel+1 manifest-2",
    ),
]
ROWS = [*TOKENS, *LIES, *REDIRECTS]


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_comes_of(row: Row, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await play(row, filled, tmp_path, monkeypatch) == expected(row)


async def test_a_token_that_ends_within_an_upload_is_renewed_and_the_upload_goes_on(tmp_path: Path) -> None:
    mib = 1024 * 1024
    content = bytes(range(256)) * (2 * mib // 256)
    profile = Profile("p", ("chunked",), chunk_bytes=mib // 4)
    lasts = Fault("*", "", times=0, act=Bearer(seconds=8))  # by a clock that each request looks at once
    async with (
        journalling(tmp_path, [lasts], clock=partial(next, map(float, count()))) as registry,
        world(profile=profile) as w,
    ):
        body = Bytes(content)
        await w.sink(registry.host).push(blob_of(content), body)
        chunks = registry.journal.select("PATCH")
        assert [each.status for each in chunks].count(401) == 1
        assert registry.journal.count("GET", "/token") == 2
        assert registry.journal.count("POST", "/uploads/", 202) == 1
        assert registry.journal.uploads_of(blob_of(content).digest) == 1
        assert sum(each.received for each in chunks if each.status == 202) == len(content)
